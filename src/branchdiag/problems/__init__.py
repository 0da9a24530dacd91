"""Problems: where they come from, what a bad row is, and which of them a run uses.

Reads the packaged sets, JSONL, JSON and Parquet files, and data sets of the Hugging Face hub at a
fixed revision. Writes nothing. Knows no model, no prompt and no run directory. The sets of arXiv
2605.21606 (section 3.2, appendix A) have names; which 24 of MATH-500 it used is not stated, so
`:24` chooses by a fixed rule and the chosen ids are recorded.

A source reads

    SOURCE = WHERE[:N][,FIELD=COLUMN]...

    WHERE    bundled | bundled:evaluate | bundled:distill   packaged with branchdiag
             math500 | aime2024 | aime2025                  from the hub at a pinned commit
             hmmt2025                                       the file $HMMT25_PARQUET_PATH
             NAME@PLACE                                     one of these four from a local file or
                                                            directory (begins with / ./ ../ ~), or
                                                            at another revision (not hmmt2025)
             FILE.jsonl | FILE.json | FILE.parquet          a local file
             DIR[#SPLIT] | DIR[#FILE]                       a local copy of a hub data set
             [hub:]OWNER/NAME[/CONFIG][@REVISION][#SPLIT]   a hub data set; #FILE names one file
    N        that many problems: those whose SHA-256 of seed, set and id is smallest
    FIELD    id, problem, answer or solution; `id=` (empty) takes row numbers as ids

for example `math500:24`, `my.jsonl,problem=question,answer=final` or `openai/gsm8k/main#test`. A
plain OWNER/NAME that is a path here is read as that path; `hub:` says that the hub is meant.

A row has a problem and an answer, both not blank; without an answer, the last complete box of its
solution. Whole numbers are answers too and are rendered exactly (42, never 42.0); text is kept as
given ("042"). Rows are numbered from 1: the line of a JSONL file, else the record.

Never tried online: this was written without access to the hub. Repositories, commits and file names
of the named sets were taken from public code that pins them, columns from their data cards; the
loaders are tested on local files of that layout and on a hub cache of that layout. Not established:
the bytes of aime2025's file (no SHA-256 is known for it) and whether its solution column is filled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from branchdiag.errors import UsageError
from branchdiag.problems.faults import Fault, refuse
from branchdiag.problems.hub import Hub
from branchdiag.problems.locate import Located, locate
from branchdiag.problems.rows import Problem, read_problems
from branchdiag.problems.sources import KNOWN_SETS, Source, labels, parse_source

__all__ = ["Problem", "ProblemSet", "data_identity", "load_problems", "recorded_revisions"]

SELECTION_RULE = "the N smallest SHA-256 of 'SEED|LABEL|ID'"


@dataclass(frozen=True)
class ProblemSet:
    """The problems of a run, in order, and where each source's came from.

    `provenance` has a JSON-ready object a source: source (as given), label, kind, repository,
    revision, revision_from, files (name, sha256, expected_sha256), columns, n_rows, n (used),
    selected_ids and selection_rule (None without `:N`), n_answers_from_solution, notes (sentences
    for the report: a checksum or a size that is not the known one).
    """

    problems: tuple[Problem, ...]
    provenance: list[dict[str, Any]]


def load_problems(
    sources: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    recorded_revisions: Mapping[str, str] | None = None,
) -> ProblemSet:
    """Load every source, in order; `limit` then keeps the first so many of all.

    Args:
        sources: as the module's grammar says.
        limit: problems in all, from the front.
        seed: of the choice that `:N` makes.
        recorded_revisions: repository -> commit of an earlier load (`recorded_revisions` reads them
            off a provenance). Where a source names no revision this one is taken, and no hub is
            asked for what the cache holds.

    Raises:
        UsageError: a source that cannot be parsed or read, or bad rows: all of them at once, each
            with file, row and field.
        MissingRequirement: the hub (or the HMMT file) is needed and not there; says how to get the
            data elsewhere and what to pass instead.
    """
    if not sources:
        raise UsageError("no problems were named", fix="for example --problems math500:24")
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} leaves no problem", where="--limit")
    parsed = [parse_source(text) for text in sources]
    names = labels(parsed)
    places = locate(parsed, Hub(), recorded_revisions or {})
    faults: list[Fault] = []
    per_source = [
        _load(source, label, place, seed, faults)
        for source, label, place in zip(parsed, names, places, strict=True)
    ]
    refuse(faults)
    problems = [problem for chosen, _ in per_source for problem in chosen]
    refuse(_collisions(problems))
    problems = problems[:limit]
    provenance = [record for _, record in per_source]
    _count_used(problems, provenance)
    return ProblemSet(tuple(problems), provenance)


def data_identity(problem_set: ProblemSet) -> str:
    """SHA-256 over the problems' content in order: equal sets are equal wherever they came from."""
    digest = hashlib.sha256()
    for problem in problem_set.problems:
        fields = [problem.problem_id, problem.problem, problem.answer, problem.solution]
        digest.update(json.dumps(fields).encode("ascii") + b"\n")
    return digest.hexdigest()


def recorded_revisions(provenance: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Repository -> commit of a provenance, for the next `load_problems` of the same run."""
    return {
        record["repository"]: record["revision"]
        for record in provenance
        if record["kind"] == "hub" and record["repository"] and record["revision"]
    }


def _load(
    source: Source, label: str, place: Located, seed: int, faults: list[Fault]
) -> tuple[list[Problem], dict[str, Any]]:
    """The problems of one source, chosen, and its provenance; what is wrong goes to `faults`."""
    known = KNOWN_SETS.get(source.name) if source.kind == "known" else None
    columns = {**(known.columns if known else {}), **source.columns}
    read = read_problems(
        [(file.path, file.name) for file in place.files], label, columns, source.body, faults
    )
    chosen = choose(read.problems, label, source.n, seed)
    if source.n is not None and not faults and len(chosen) < source.n:
        raise UsageError(
            f"{source.n} problems were asked for and there are {len(chosen)}", where=source.text
        )
    notes = []
    if known and known.n_problems != read.n_rows:
        notes.append(f"{label} has {read.n_rows} rows here, {known.n_problems} where published.")
    if known and known.sha256:
        notes.extend(
            f"{label}: SHA-256 {file.sha256}, not {known.sha256} as published."
            for file in place.files
            if file.sha256 != known.sha256
        )
    return chosen, {
        "source": source.text,
        "label": label,
        "kind": place.kind,
        "repository": place.repository,
        "revision": place.revision,
        "revision_from": place.revision_from,
        "files": [
            {
                "name": file.name,
                "sha256": file.sha256,
                "expected_sha256": known.sha256 if known else None,
            }
            for file in place.files
        ],
        "columns": read.columns,
        "n_rows": read.n_rows,
        "n": len(chosen),
        "selected_ids": None if source.n is None else [p.problem_id for p in chosen],
        "selection_rule": None if source.n is None else f"{SELECTION_RULE}, seed {seed}",
        "n_answers_from_solution": read.n_answers_from_solution,
        "notes": notes,
    }


def choose(problems: Sequence[Problem], label: str, n: int | None, seed: int) -> list[Problem]:
    """The n problems with the smallest hash, in their own order; None keeps all.

    The choice depends on the ids alone, not on the order of the rows, and a larger n keeps what a
    smaller one had.
    """
    if n is None:
        return list(problems)

    def rank(problem: Problem) -> str:
        identifier = problem.problem_id.removeprefix(f"{label}/")
        return hashlib.sha256(f"{seed}|{label}|{identifier}".encode()).hexdigest()

    kept = {problem.problem_id for problem in sorted(problems, key=rank)[:n]}
    return [problem for problem in problems if problem.problem_id in kept]


def _collisions(problems: Sequence[Problem]) -> list[Fault]:
    """Problem ids that two sources share, as `a` with id `b/c` and `a/b` with id `c` would."""
    first: dict[str, Problem] = {}
    return [
        Fault(problem.source, None, "id", f"{problem.problem_id} is also in {other.source}")
        for problem in problems
        if (other := first.setdefault(problem.problem_id, problem)) is not problem
    ]


def _count_used(problems: Sequence[Problem], provenance: list[dict[str, Any]]) -> None:
    """Set each source's n to what `limit` left of it."""
    used: dict[str, int] = {}
    for problem in problems:
        used[problem.source] = used.get(problem.source, 0) + 1
    for record in provenance:
        record["n"] = used.get(record["label"], 0)
