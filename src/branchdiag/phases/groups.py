"""Which candidates are told apart together: groups that are reported apart and never pooled.

The primary group is the paper's: chosen by entropy, on correct spines (or on incorrect ones, where
the setting asks for those alone). Settings add candidates drawn at random positions, and those of
incorrect spines. Reads rows; knows no statistic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from branchdiag.protocol import CandidateSettings

ENTROPY, RANDOM, BOTH = "entropy", "random", "both"
PRIMARY = "primary"


def selected_by(by_entropy: bool, by_random: bool) -> str:
    """How a candidate was chosen, as its column says it."""
    return BOTH if by_entropy and by_random else RANDOM if by_random else ENTROPY


def diagnosed(spines: str) -> tuple[bool, ...]:
    """The values of `spines.correct` that are diagnosed; a spine without a grade never is."""
    return {"correct": (True,), "incorrect": (False,), "all": (True, False)}[spines]


def groups_of(
    candidates: Iterable[Mapping[str, Any]],
    correct: Mapping[str, bool | None],
    settings: CandidateSettings,
) -> dict[str, tuple[str, set[str]]]:
    """Group name -> (what it is, its candidate ids); the primary group first.

    Args:
        candidates: rows with candidate_id, problem_id and selected_by (None: by entropy).
        correct: problem_id -> whether its spine is.
    """
    kinds = diagnosed(settings.spines)
    ids: dict[tuple[bool, bool], set[str]] = {}
    for row in candidates:
        kind = correct.get(row["problem_id"])
        how = row["selected_by"] if isinstance(row["selected_by"], str) else ENTROPY
        for is_random, names in ((False, (ENTROPY, BOTH)), (True, (RANDOM, BOTH))):
            if kind is not None and how in names:
                ids.setdefault((bool(kind), is_random), set()).add(row["candidate_id"])
    groups = {}
    for place, kind in enumerate(kinds):
        spine = "correct" if kind else "incorrect"
        for is_random in (False, True) if settings.random_per_problem else (False,):
            name = PRIMARY if not place else f"{spine}_spines"
            if is_random:
                name = "random_positions" if not place else f"{name}_random_positions"
            how = "drawn without a look at entropy" if is_random else "chosen by entropy"
            about = f"candidates {how} on {spine} spines"
            groups[name] = (about, ids.get((kind, is_random), set()))
    return groups


def primary_ids(
    candidates: Collection[Mapping[str, Any]],
    correct: Mapping[str, bool | None],
    settings: CandidateSettings,
) -> set[str]:
    """The candidates on which every primary statistic stands."""
    return groups_of(candidates, correct, settings)[PRIMARY][1]
