"""Which files of a data repository hold a split: pure, on relative paths.

Knows the layouts that the hub's own tools write: SPLIT.jsonl, SPLIT-00000-of-00001[-HASH].parquet,
at the root, in data/ or in CONFIG/, and, in converted copies, CONFIG/SPLIT/0000.parquet. It does
not read the `data_files` of a data card: where a repository is laid out otherwise, name the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from branchdiag.errors import UsageError

DEFAULT_FOLDERS = ("", "data", "default")
FORMATS = ("parquet", "jsonl", "json")  # the first one that is there is taken
NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_NAME = re.compile(
    r"(?P<split>.+?)(?:-(?P<shard>\d{5})-of-(?P<shards>\d{5})(?:-[0-9a-f]{16})?)?"
    r"\.(?P<format>parquet|jsonl|json)"
)


@dataclass(frozen=True)
class _Entry:
    path: str
    folder: str
    split: str
    format: str
    shards: int | None


def choose_files(
    paths: Iterable[str], *, config: str | None, part: str | None, where: str
) -> tuple[str, ...]:
    """The files of one split, sorted (so in the order of their shards).

    Args:
        paths: all files of the repository, relative, with `/`.
        config: folder of the wanted configuration; None: the root, data/ or default/, else the only
            folder that holds data.
        part: a split or a file's path; None: the only split.
        where: what to call the repository in an error.

    Raises:
        UsageError: nothing fits, more than one split or configuration does, or shards are missing.
    """
    paths = sorted(paths)
    if part in paths:
        return (part,)
    entries = [entry for path in paths if (entry := _read(path)) is not None]
    if not entries:
        raise UsageError(
            "there is no JSONL, JSON or Parquet file here", where=where, fix=_listing(paths)
        )
    entries = _of_config(entries, config, where)
    splits = sorted({entry.split for entry in entries})
    if part is None and len(splits) > 1:
        raise UsageError(
            f"there are several splits: {', '.join(splits)}",
            where=where,
            fix=f"name one: {where}#{splits[0]}",
        )
    if part is not None and part not in splits:
        raise UsageError(
            f"there is no split or file {part!r}",
            where=where,
            fix=f"splits: {', '.join(splits)}; " + _listing(paths),
        )
    entries = [entry for entry in entries if entry.split == (part or splits[0])]
    first = next(name for name in FORMATS if any(entry.format == name for entry in entries))
    entries = [entry for entry in entries if entry.format == first]
    for count in {entry.shards for entry in entries} - {None}:
        there = sum(entry.shards == count for entry in entries)
        if there != count:
            raise UsageError(
                f"{there} of {count} shards of {entries[0].split} are here", where=where
            )
    return tuple(entry.path for entry in entries)


def _read(path: str) -> _Entry | None:
    pure = PurePosixPath(path)
    if pure.name in NO_DATA or any(piece.startswith(".") for piece in pure.parts):
        return None
    match = _NAME.fullmatch(pure.name)
    if match is None:
        return None
    folder, split = str(pure.parent), match["split"]
    if split.isdigit() and folder != ".":  # CONFIG/SPLIT/0000.parquet
        folder, split = str(pure.parent.parent), pure.parent.name
    shards = int(match["shards"]) if match["shards"] else None
    return _Entry(path, "" if folder == "." else folder, split, match["format"], shards)


def _of_config(entries: list[_Entry], config: str | None, where: str) -> list[_Entry]:
    folders = sorted({entry.folder for entry in entries})
    if config is not None:
        wanted = [name for name in (config, f"data/{config}") if name in folders]
    else:
        wanted = [name for name in DEFAULT_FOLDERS if name in folders]
        wanted = wanted or (folders if len(folders) == 1 else [])
    if not wanted:
        raise UsageError(
            "there are several configurations"
            if config is None
            else f"no configuration {config!r}",
            where=where,
            fix="one of " + ", ".join(name or "(root)" for name in folders),
        )
    return [entry for entry in entries if entry.folder == wanted[0]]


def _listing(paths: list[str]) -> str:
    shown = ", ".join(paths[:12]) or "none"
    return f"files: {shown}" + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
