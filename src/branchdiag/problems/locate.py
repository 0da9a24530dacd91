"""From a parsed source to the files that hold it: packaged, local, or fetched from the hub.

Reads directories and, through `hub`, the Hugging Face hub; knows nothing of rows. A commit that is
known and cached is read without any request.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.problems.hub import Hub, HubUnreachableError, is_commit, relative_names
from branchdiag.problems.layout import choose_files
from branchdiag.problems.sources import KNOWN_SETS, SUFFIXES, Source


@dataclass(frozen=True)
class DataFile:
    """A file and what to call it in errors and in the provenance."""

    path: Path
    name: str

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of its bytes."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Located:
    """The files of one source. `revision_from`: branchdiag, source, run, hub, cache or download."""

    kind: str
    files: tuple[DataFile, ...]
    repository: str | None = None
    revision: str | None = None
    revision_from: str | None = None


def locate(sources: Sequence[Source], hub: Hub, recorded: Mapping[str, str]) -> list[Located]:
    """The files of every source, in order.

    Raises:
        UsageError: a path that is not there, or holds no data in a known layout.
        MissingRequirement: naming everything that is not on this machine, with the commands that
            fetch it elsewhere.
    """
    places: list[Located] = []
    missing: dict[str, str] = {}
    for source in sources:
        try:
            places.append(_locate(source, hub, recorded))
        except HubUnreachableError:
            missing[source.text] = _how_to_get(source)
        except _NotHereError as error:
            missing[source.text] = str(error)
    if missing:
        raise MissingRequirement(
            "these problems are not on this machine: " + ", ".join(missing),
            where=f"the hub cannot be reached ({hub.reason})" if hub.reason else None,
            fix="\n    ".join(
                [
                    "fetch them where the hub can be reached, copy them here and name the copy:",
                    *missing.values(),
                    "or use problems of your own: --problems FILE.jsonl",
                ]
            ),
        )
    return places


class _NotHereError(Exception):
    """A local file that a named set needs is not named; the message says what to do."""


def _locate(source: Source, hub: Hub, recorded: Mapping[str, str]) -> Located:
    if source.kind == "bundled":
        from branchdiag.bundled import problems_path

        path = Path(problems_path(source.name))
        return Located("bundled", (DataFile(path, path.name),))
    if source.kind == "known":
        return _locate_known(source, hub)
    if source.kind == "hub":
        return _locate_hub(source, hub, recorded)
    path = Path(source.name)
    if path.is_dir():
        return _in_directory(path, source, None)
    return _single_file(path, source.body)


def _locate_known(source: Source, hub: Hub) -> Located:
    known = KNOWN_SETS[source.name]
    place = source.place
    if place is None and known.environment:
        if not os.environ.get(known.environment):
            raise _NotHereError(
                f"{source.name}: set {known.environment}, or pass {source.name}@./FILE.parquet. "
                f"The same competition is on the hub:\n    {_how_to_get(source)}"
            )
        place = Path(os.environ[known.environment]).expanduser()
    if place is not None:
        return _in_directory(place, source, known.file) if place.is_dir() else _single_file(
            place, f"{source.name}@{place}"
        )  # fmt: skip
    revision = source.revision or known.revision
    if not is_commit(revision):
        revision = hub.commit(known.repository, revision)
    path = hub.file(known.repository, known.file, revision)
    return Located(
        "hub",
        (DataFile(path, f"{known.repository}/{known.file}"),),
        known.repository,
        _commit_of(path, known.file) or revision,
        "source" if source.revision else "branchdiag",
    )


def _locate_hub(source: Source, hub: Hub, recorded: Mapping[str, str]) -> Located:
    origin = "source" if source.revision else "run" if source.name in recorded else "hub"
    revision = source.revision or recorded.get(source.name) or "main"
    if not is_commit(revision):
        revision = hub.commit(source.name, revision)
    if source.part and source.part.lower().endswith(SUFFIXES):
        names: tuple[str, ...] = (source.part,)
    else:
        names = _hub_names(source, hub, revision, cache_first=origin == "run")
    paths = [hub.file(source.name, name, revision) for name in names]
    return Located(
        "hub",
        tuple(
            DataFile(path, f"{source.name}/{name}") for path, name in zip(paths, names, strict=True)
        ),
        source.name,
        _commit_of(paths[0], names[0]) or revision,
        origin if hub.reason is None or origin != "hub" else "cache",
    )


def _hub_names(source: Source, hub: Hub, revision: str, *, cache_first: bool) -> tuple[str, ...]:
    """The files of the wanted split. The cache may hold a part of a repository: it is asked first
    only for what this run loaded before."""

    def choose(ask_first: bool) -> tuple[str, ...]:
        names = hub.names(source.name, revision, ask_first=ask_first)
        return choose_files(names, config=source.config, part=source.part, where=source.body)

    if cache_first:
        try:
            return choose(ask_first=False)
        except UsageError:
            if hub.reason is not None:
                raise
    return choose(ask_first=True)


def _in_directory(root: Path, source: Source, file: str | None) -> Located:
    """A split in a local copy: a plain directory, or a repository's folder in a hub cache."""
    snapshots = root / "snapshots"
    revision, origin = None, None
    if snapshots.is_dir():
        root = _only_snapshot(snapshots, source)
        revision, origin = root.name, "cache"
    if file is not None and (root / file).is_file():
        names: tuple[str, ...] = (file,)
    else:
        names = choose_files(
            relative_names(root),
            config=None,
            part=source.part or (Path(file).name.split("-")[0].split(".")[0] if file else None),
            where=source.body,
        )
    if revision is None:
        revision = _downloaded_revision(root, names[0])
        origin = "download" if revision else None
    known = KNOWN_SETS.get(source.name) if source.kind == "known" else None
    files = tuple(DataFile(root / name, f"{root}/{name}") for name in names)
    return Located("directory", files, known.repository if known else None, revision, origin)


def _only_snapshot(snapshots: Path, source: Source) -> Path:
    known = KNOWN_SETS.get(source.name) if source.kind == "known" else None
    there = sorted(path for path in snapshots.iterdir() if path.is_dir())
    pinned = [path for path in there if known and path.name == known.revision]
    if len(there) == 1 or pinned:
        return (pinned or there)[0]
    raise UsageError(
        f"{len(there)} snapshots are here; which one is meant is not clear",
        where=str(snapshots),
        fix=f"name one: {snapshots}/{there[0].name if there else 'COMMIT'}",
    )


def _single_file(path: Path, name: str) -> Located:
    if not path.is_file():
        raise UsageError("no such file", where=name, fix="give the path of a problem file")
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError("not a JSONL, JSON or Parquet file", where=name, fix=", ".join(SUFFIXES))
    return Located("file", (DataFile(path, str(path)),))


def _downloaded_revision(root: Path, name: str) -> str | None:
    """The commit that `hf download --local-dir` noted beside a file, if it did."""
    note = root / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    try:
        first = note.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return None
    return first if is_commit(first) else None


def _commit_of(path: Path, name: str) -> str | None:
    """The commit in a cache path, .../snapshots/COMMIT/NAME."""
    root = Path(str(path)[: -len(name)]) if str(path).endswith(name) else path.parent
    return root.name if is_commit(root.name) else None


def _how_to_get(source: Source) -> str:
    """The command that fetches a source elsewhere, and what to pass for it here."""
    known = KNOWN_SETS.get(source.name) if source.kind == "known" else None
    repository = known.repository if known else source.name
    revision = source.revision or (known.revision if known else None)
    folder = repository.rpartition("/")[2]
    what = f" {known.file}" if known else ""
    pin = f" --revision {revision}" if revision else ""
    use = f"{source.name}@./{folder}" if known else f"./{folder}"
    if source.config:
        use += f"/{source.config}"
    if source.part:
        use += f"#{source.part}"
    return (
        f"hf download {repository}{what} --repo-type dataset{pin} --local-dir {folder}"
        f"   (then --problems {use})"
    )
