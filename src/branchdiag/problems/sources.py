"""The grammar of problem sources, and the facts about the named sets.

Parses text into `Source` values; touches no file and no network (but asks whether a path exists, to
tell a local directory from OWNER/NAME). Knows nothing of rows.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from branchdiag.errors import UsageError

FIELDS = ("id", "problem", "answer", "solution")
SUFFIXES = (".jsonl", ".json", ".parquet")
BUNDLED_SETS = ("diagnose", "evaluate", "distill")


@dataclass(frozen=True)
class KnownSet:
    """A published set: where it is, what it should be. `environment` names a local file instead."""

    repository: str
    revision: str
    file: str
    n_problems: int
    sha256: str | None
    columns: Mapping[str, str]
    environment: str | None = None


# Repositories and splits: those of the authors' evaluation code (SaFo-Lab/PW-OPSD). Commits, files
# and checksums: as pinned by public code that uses the same sets.
KNOWN_SETS: dict[str, KnownSet] = {
    # Columns: problem, solution, answer, subject, level (integer), unique_id (test/SUBJECT/N.json).
    "math500": KnownSet(
        "HuggingFaceH4/MATH-500",
        "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        "test.jsonl",
        500,
        "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        {"id": "unique_id"},
    ),
    # Columns: id (integer), problem, solution, answer, url, year (all strings).
    "aime2024": KnownSet(
        "HuggingFaceH4/aime_2024",
        "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "data/train-00000-of-00001.parquet",
        30,
        "26139847601a5037c237d5928b195e7260ca8074cf4f264b794af42847f79ccf",
        {"id": "id"},
    ),
    # Columns: id (integer, 0 to 29), problem, answer (string), and solution, url, year.
    "aime2025": KnownSet(
        "yentinglin/aime_2025",
        "6f71d77b0b89b9dabe07ab466c51df33f514df7f",
        "data/train-00000-of-00001-243207c6c994e1bd.parquet",
        30,
        None,
        {"id": "id"},
    ),
    # The authors read a local Parquet file (columns problem, answer) with this checksum. The hub
    # set is the same competition (also problem_idx); whether it is the same file is not known.
    "hmmt2025": KnownSet(
        "MathArena/hmmt_feb_2025",
        "6fdc4277120810ff75aa22d2d5489b91f7a262a1",
        "data/train-00000-of-00001.parquet",
        30,
        "87bfb23d2c887fab12b42fcc2b2dd8cb5a9d1070e591490dac8755bc366ea25e",
        {},
        environment="HMMT25_PARQUET_PATH",
    ),
}


@dataclass(frozen=True)
class Source:
    """A parsed source. `name`: the packaged or known set, OWNER/NAME, or a path as given."""

    text: str
    body: str
    kind: Literal["bundled", "known", "hub", "path"]
    name: str
    place: Path | None = None
    revision: str | None = None
    config: str | None = None
    part: str | None = None
    n: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The first part of the problem ids."""
        if self.kind == "bundled":
            return "bundled" if self.name == "diagnose" else f"bundled:{self.name}"
        if self.kind == "path":
            path = Path(self.name).resolve()
            return path.stem if path.suffix.lower() in SUFFIXES else path.name
        return self.name

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Equal for two spellings of the same data."""
        name = str(Path(self.name).resolve()) if self.kind == "path" else self.name
        place = str(self.place) if self.place else None
        return (self.kind, name, place, self.revision, self.config, self.part)


def parse_source(text: str) -> Source:
    """Parse `WHERE[:N][,FIELD=COLUMN]...`.

    Raises:
        UsageError: an unknown name (with the nearest known one), an unknown or repeated field, a
            count of 0, or an ending that is no supported format.
    """
    rest, columns = _split_columns(text.strip())
    body, n = _split_count(rest, text)
    if not body:
        raise UsageError("a problem source is empty", where=repr(text), fix=_FORMS)
    return _parse_where(body, text, n, columns)


def labels(sources: Sequence[Source]) -> list[str]:
    """One label a source: its short one, or the whole of what was given where two would be equal.

    Raises:
        UsageError: the same data is given twice.
    """
    for identity, count in Counter(source.identity for source in sources).items():
        if count > 1:
            twice = [source.text for source in sources if source.identity == identity]
            raise UsageError("the same problems are named twice", where=", ".join(twice))
    counts = Counter(source.label for source in sources)
    return [source.label if counts[source.label] == 1 else source.body for source in sources]


_FORMS = (
    f"a name ({', '.join(['bundled', *KNOWN_SETS])}), a .jsonl, .json or .parquet file, a "
    "directory or OWNER/NAME on the hub; then :N for so many problems and ,field=column for "
    "columns of other names"
)


def _split_columns(text: str) -> tuple[str, dict[str, str]]:
    pieces = text.split(",")
    columns: dict[str, str] = {}
    while len(pieces) > 1 and "=" in pieces[-1]:
        name, _, column = (piece.strip() for piece in pieces.pop().partition("="))
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            raise UsageError(
                f"{name!r} is no field of a problem"
                + (f"; did you mean {near[0]}?" if near else ""),
                where=text,
                fix="map as FIELD=COLUMN, FIELD one of " + ", ".join(FIELDS),
            )
        if name in columns:
            raise UsageError(f"the field {name} is mapped twice", where=text)
        if not column and name != "id":
            raise UsageError(f"the field {name} is mapped to no column", where=text)
        columns[name] = column
    return ",".join(pieces).strip(), columns


def _split_count(rest: str, text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+):(\d+)", rest, flags=re.DOTALL)
    if match is None:
        return rest, None
    if int(match[2]) < 1:
        raise UsageError("a count of 0 leaves no problem", where=text)
    return match[1], int(match[2])


def _parse_where(body: str, text: str, n: int | None, columns: dict[str, str]) -> Source:
    name, at, where = body.partition("@")
    if name in KNOWN_SETS and (at or name == body):
        if at and not where:
            raise UsageError("nothing follows the @", where=text)
        if re.match(r"(/|\.\.?(/|$)|~)", where):
            return Source(
                text, body, "known", name, place=Path(where).expanduser(), n=n, columns=columns
            )
        if at and KNOWN_SETS[name].environment:
            raise UsageError(
                f"{name} is read from a local file", where=text, fix=f"{name}@./FILE.parquet"
            )
        return Source(text, body, "known", name, revision=where or None, n=n, columns=columns)
    head, _, packaged = body.partition(":")
    if head == "bundled":
        packaged = packaged or BUNDLED_SETS[0]
        if packaged not in BUNDLED_SETS:
            raise UsageError(
                f"no packaged set {packaged!r}", where=text, fix="one of " + ", ".join(BUNDLED_SETS)
            )
        return Source(text, body, "bundled", packaged, n=n, columns=columns)
    if body.startswith("hub:"):
        return _parse_hub(body.removeprefix("hub:"), body, text, n, columns)
    return _parse_path_or_hub(body, text, n, columns)


def _parse_path_or_hub(body: str, text: str, n: int | None, columns: dict[str, str]) -> Source:
    path, _, part = body.partition("#")
    if Path(body).expanduser().exists():
        path, part = body, ""
    local = Path(path).expanduser()
    looks_local = path.lower().endswith(SUFFIXES) or re.match(r"(/|\.\.?(/|$)|~)", path)
    if local.exists() or looks_local:
        return Source(text, body, "path", str(local), part=part or None, n=n, columns=columns)
    if "/" in body:
        return _parse_hub(body, body, text, n, columns)
    near = difflib.get_close_matches(body, ["bundled", *KNOWN_SETS], n=1)
    raise UsageError(
        f"no such problems: {body}" + (f"; did you mean {near[0]}?" if near else ""),
        where=text,
        fix=_FORMS,
    )


def _parse_hub(where: str, body: str, text: str, n: int | None, columns: dict[str, str]) -> Source:
    match = re.fullmatch(
        r"(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[^@#]+))?(?:@(?P<revision>[^#]+))?"
        r"(?:#(?P<part>.+))?",
        where,
    )
    if match is None:
        raise UsageError(
            "a hub data set must read OWNER/NAME[/CONFIG][@REVISION][#SPLIT]",
            where=text,
            fix="for example openai/gsm8k/main#test,problem=question",
        )
    return Source(
        text,
        body,
        "hub",
        match["name"],
        revision=match["revision"],
        config=match["config"],
        part=match["part"],
        n=n,
        columns=columns,
    )
