"""The labelled candidates that a schedule is fitted to, read from a run's tables.

Reads `labels`, `candidates` and `spines`; candidates that the report tells apart from its own take
no part. Knows no fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from branchdiag.phases.groups import primary_ids

if TYPE_CHECKING:
    from branchdiag.protocol import CandidateSettings
    from branchdiag.stats.schedule_data import LabelledCandidates
    from branchdiag.store.run import RunDirectory

COLUMNS = {
    "labels": ("candidate_id", "problem_id", "r", "arms", "successes", "samples", "label"),
    "candidates": ("candidate_id", "child_ids", "child_teacher", "problem_id", "selected_by"),
    "spines": ("problem_id", "correct"),
}


Tables: TypeAlias = Mapping[str, dict[str, list[Any]]]


def read_tables(run: RunDirectory) -> Tables:
    """The columns of `COLUMNS`, by table."""
    return {name: run.table(name).read(list(keys)).to_pydict() for name, keys in COLUMNS.items()}


def labelled_candidates(tables: Tables, settings: CandidateSettings) -> LabelledCandidates:
    """What Phase F made of the primary group's candidates.

    Args:
        tables: of `read_tables`.
        settings: how the run chose its candidates.
    """
    from branchdiag.stats.schedule_data import LabelledCandidates

    return LabelledCandidates.from_tables(_primary(tables, settings), tables["candidates"])


def _primary(tables: Tables, settings: CandidateSettings) -> dict[str, list[Any]]:
    labels, candidates, spines = (tables[name] for name in COLUMNS)
    if settings.spines != "all" and not settings.random_per_problem:
        return labels
    rows = [
        dict(zip(candidates, values, strict=True))
        for values in zip(*candidates.values(), strict=True)
    ]
    correct = dict(zip(spines["problem_id"], spines["correct"], strict=True))
    kept = primary_ids(rows, correct, settings)
    places = [index for index, name in enumerate(labels["candidate_id"]) if name in kept]
    return {name: [column[index] for index in places] for name, column in labels.items()}
