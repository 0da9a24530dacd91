"""Every score and signal against each other, for Phase G: the rows of `leaderboard`.

Reads the scored candidates and the table `signals` as frames; writes rows and what the report says
of them. Groups of candidates (the paper's, and those that a setting adds) are evaluated apart and
never pooled. Computes no signal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from branchdiag.phases.groups import PRIMARY
from branchdiag.protocol import ReportSettings
from branchdiag.signals import SIGNALS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from branchdiag.report.leaderboard import LeaderboardGroup
    from branchdiag.stats.estimate import Resampling
    from branchdiag.stats.horizon_null import RelativeScoreResult
    from branchdiag.stats.leaderboard import Compared, Leaderboard
    from branchdiag.stats.scores import Score, ScoreResult

REFERENCE = "one_minus_r"
"""What every other entry is compared with: the position that a schedule is made of."""
OF_ROLLOUTS = ("control_viability", "control_length")
"""Scores that are measured on continuations: ranked, but no control signal could use them."""


@dataclass(frozen=True)
class Group:
    """One group's rows, and what it stands on."""

    name: str
    description: str
    rows: list[dict[str, Any]]
    board: Leaderboard
    level: float
    h_trunc_sd: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entries:
    """Every score and signal of a group's candidates: raw (C,), and as each fares by itself."""

    frame: pd.DataFrame
    columns: dict[str, npt.NDArray[np.float64]]
    absolute: list[ScoreResult]
    relative: list[RelativeScoreResult]


def declared_entries() -> dict[str, Score]:
    """Every score and signal with its declared sign, in the order of every table."""
    from branchdiag.stats.scores import SCORES, Score

    signals = {s.name: Score(s.name, s.sign, s.meaning) for s in SIGNALS.values()}
    return {**SCORES, **signals}


def evaluate_entries(
    values: pd.DataFrame, signals: pd.DataFrame, settings: ReportSettings, resampling: Resampling
) -> Entries:
    """Every declared score and signal of one group's candidates, each by itself.

    Args:
        values: a row a candidate, of `g_report.score_values`.
        signals: the table; may lack candidates, whose signals are then missing.
    """
    from branchdiag.phases.g_report import arms_of_labels
    from branchdiag.stats.horizon_null import evaluate_relative_scores
    from branchdiag.stats.scores import evaluate_scores

    declared = declared_entries()
    measured = [column for column in SIGNALS if column in signals]
    frame = values.merge(signals[["candidate_id", *measured]], on="candidate_id", how="left")
    columns = {entry: frame[entry].to_numpy(float) for entry in declared if entry in frame}
    problems = frame["problem_id"].to_numpy(str)
    labels = frame["label"].to_numpy(object)
    return Entries(
        frame=frame,
        columns=columns,
        absolute=evaluate_scores(columns, labels, problems, declared=declared, **resampling),
        relative=evaluate_relative_scores(
            columns,
            arms_of_labels(frame),
            problems,
            permutations=settings.permutations,
            declared=declared,
            **resampling,
        ),
    )


def evaluate_group(
    name: str, description: str, entries: Entries, level: float, resampling: Resampling
) -> Group:
    """The leaderboard of one group of candidates: its entries against each other."""
    from branchdiag.stats.leaderboard import compare
    from branchdiag.stats.scores import binary_labels

    frame = entries.frame
    problems = frame["problem_id"].to_numpy(str)
    labels, used = binary_labels(frame["label"].to_numpy(object))
    board = compare(
        {entry: column[used] for entry, column in entries.columns.items()},
        declared_entries(),
        labels[used] == "real_uncertain",
        problems[used],
        reference=REFERENCE,
        never_best=OF_ROLLOUTS,
        **resampling,
    )
    rows = [
        _row(name, result, beside, board, place)
        for place, (result, beside) in enumerate(
            zip(entries.absolute, entries.relative, strict=True)
        )
    ]
    spread = _spread(frame["h_trunc"].to_numpy(float), problems)
    return Group(name, description, rows, board, level, spread)


def _spread(values: npt.NDArray[np.float64], problems: npt.NDArray[Any]) -> float | None:
    """Standard deviation of values centred in their problem; None where no problem has two."""
    from branchdiag.stats.auroc import centre_within, cluster_codes

    codes, n_problems = cluster_codes(problems)
    freedom = values.size - n_problems
    if freedom < 1:
        return None
    return math.sqrt(float((centre_within(values, codes) ** 2).sum()) / freedom)


def add_range_restriction(groups: Sequence[Group]) -> list[Group]:
    """The groups, each that was drawn at random with what choosing by entropy does to entropy.

    Candidates chosen for their entropy differ little in it, which lowers the AUROC of every score
    that goes with it; the same score at random positions shows by how much.
    """
    chosen = {group.name: group for group in groups}
    noted = []
    for group in groups:
        if group.name.endswith("random_positions"):
            name = group.name.removesuffix("random_positions").rstrip("_") or PRIMARY
            note = _range_restriction(chosen[name], group)
            group = replace(group, notes=() if note is None else (note,))
        noted.append(group)
    return noted


def _range_restriction(chosen: Group, drawn: Group) -> str | None:
    if chosen.h_trunc_sd is None or drawn.h_trunc_sd is None:
        return None
    sides = []
    for group, words in ((chosen, "chosen by it"), (drawn, "drawn at random")):
        entry = next(row for row in group.rows if row["name"] == "h_trunc")
        area = "no AUROC" if entry["auroc"] is None else f"AUROC {entry['auroc']:.2f}"
        if entry["ci_low"] is not None:
            area += f" [{entry['ci_low']:.2f}, {entry['ci_high']:.2f}]"
        sides.append(
            f"{group.h_trunc_sd:.3f} nats among candidates {words} ({area}, "
            f"{entry['n_positive']} positives)"
        )
    return (
        f"Range restriction: inside problems h_trunc has a standard deviation of {sides[0]} and "
        f"{sides[1]}. The two groups share candidates and are not compared by a test."
    )


def _row(
    group: str,
    result: ScoreResult,
    relative: RelativeScoreResult,
    board: Leaderboard,
    place: int,
) -> dict[str, Any]:
    standing = board.standings[place]
    signal = SIGNALS.get(result.name)
    return {
        "group": group,
        "name": result.name,
        "kind": "score" if signal is None else "signal",
        "paper": None if signal is None else signal.paper,
        "sign": result.sign,
        "rank": standing.rank,
        "alias_of": standing.alias_of,
        "alias_opposite": standing.opposite if standing.alias_of else None,
        **{
            name: getattr(result, name)
            for name in (
                *("auroc", "ci_low", "ci_high", "auprc", "auprc_ci_low", "auprc_ci_high"),
                *("stratified_auroc", "stratified_ci_low", "stratified_ci_high"),
                *("n_positive", "n_negative", "n_missing", "reason"),
            )
        },
        "simultaneous_low": standing.auroc.low if standing.auroc else None,
        "simultaneous_high": standing.auroc.high if standing.auroc else None,
        "p_half": standing.auroc.p if standing.auroc else None,
        "relative_auroc": relative.auroc,
        "relative_ci_low": relative.ci_low,
        "relative_ci_high": relative.ci_high,
        "relative_null_mean": relative.null_mean,
        "relative_p": relative.p,
        "relative_reason": relative.reason or relative.null_reason,
        **_difference("vs_reference", standing.against_reference),
        **_difference("vs_best", standing.against_best),
        "comparison_reason": standing.reason,
    }


def _difference(prefix: str, compared: Compared | None) -> dict[str, float | None]:
    if compared is None:
        return {}
    return {
        prefix: compared.estimate.value,
        f"{prefix}_ci_low": compared.estimate.ci_low,
        f"{prefix}_ci_high": compared.estimate.ci_high,
        f"{prefix}_low": compared.low,
        f"{prefix}_high": compared.high,
        f"{prefix}_p": compared.p,
    }


def group_document(group: Group) -> LeaderboardGroup:
    """What the report shows of a group."""
    from branchdiag.report.leaderboard import leaderboard_group

    board = group.board
    return leaderboard_group(
        group.name,
        group.description,
        group.rows,
        level=group.level,
        meanings={entry.name: entry.meaning for entry in declared_entries().values()},
        reference=board.reference,
        best=board.best,
        n_compared=board.n_compared,
        n_candidates=board.n_candidates,
        n_positive=board.n_positive,
        n_problems=board.n_problems,
        power=_power(board, group.level),
        reason=board.reason,
        notes=group.notes,
    )


def _power(board: Leaderboard, level: float) -> dict[str, float | None]:
    """The AUROCs below which nothing could have been told from 0.5, in several readings.

    With few problems that carry positives resampling sees too little spread, with candidates that
    rise and fall together the null of independent ones does: the larger of the two counts.
    """
    from branchdiag.stats.power import critical_auroc, detectable_auroc, null_sd

    negatives = board.n_candidates - board.n_positive
    if not board.n_positive or not negatives:
        return {}
    sd = null_sd(board.n_positive, negatives)
    return {
        "null_sd": sd,
        "critical": critical_auroc(sd, level),
        "detectable": detectable_auroc(board.n_positive, negatives, level),
        "critical_clustered": (
            None if board.median_sd is None else critical_auroc(board.median_sd, level)
        ),
        "critical_simultaneous": (
            None
            if board.c is None or board.median_sd is None
            else min(1.0, 0.5 + board.c * max(sd, board.median_sd))
        ),
    }
