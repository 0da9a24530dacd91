"""Scores and signals against each other: paired differences of AUROC, and how many were compared.

Which of forty signals is best is a question about differences, and whoever looks at forty finds one
that looks good. So every signal is evaluated on the same candidates and the same resamples of
problems, differences are taken inside each resample, and beside each pointwise interval stands a
simultaneous one: estimate -+ c x standard error, with c the quantile of the largest studentised
deviation over all that is compared (the bootstrap's single-step max-T; Westfall and Young 1993,
Romano and Wolf 2005). For differences from the best, which the data chose, the maximum runs over
all pairs. Signals that are the same once centred inside problems are one entry with aliases.

Reads arrays over candidates; knows no tables and no signal by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.auroc import auroc, cluster_codes, mid_ranks
from branchdiag.stats.bootstrap import MIN_CLUSTERS, interval, replicate
from branchdiag.stats.estimate import BoolArray, Estimate, FloatArray, Resampling
from branchdiag.stats.scores import Score, oriented_residuals
from branchdiag.stats.weighted import weighted_auroc

_Deviations: TypeAlias = tuple[FloatArray, FloatArray]

MAX_MISSING_SHARE = 0.10
"""A signal that lacks more candidates than this is left out of the comparison, or every other
would lose them too."""
ROUNDING = 1e-6
"""Centred values closer than this, relative to the largest, differ by the rounding of a pass."""


@dataclass(frozen=True)
class Compared:
    """An AUROC against 0.5, or an AUROC less another's on the same candidates against 0.

    estimate: with its pointwise interval. low, high: simultaneous over all comparisons of its
    kind. p: two-sided, adjusted for them (max-T).
    """

    estimate: Estimate
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Standing:
    """One score or signal among all.

    alias_of: an earlier one with the same centred values, `opposite` where the other way round;
    it then has no figure of its own. reason: why it was not compared.
    """

    name: str
    auroc: Compared | None
    against_reference: Compared | None
    against_best: Compared | None
    rank: int | None
    alias_of: str | None = None
    opposite: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Leaderboard:
    """All standings in the order of their declaration, and what they stand on.

    n_compared: entries that differ once centred. n_candidates: rows on which all are compared.
    median_sd: of the entries' AUROCs over resamples. c: how many standard deviations an AUROC must
    lie away from one half to be told from it with all entries taken together.
    """

    standings: list[Standing]
    reference: str | None
    best: str | None
    n_compared: int
    n_candidates: int
    n_positive: int
    n_problems: int
    median_sd: float | None
    c: float | None
    reason: str | None


def compare(
    columns: Mapping[str, npt.ArrayLike],
    declared: Mapping[str, Score],
    positive: npt.ArrayLike,
    problem_id: npt.ArrayLike,
    *,
    reference: str,
    never_best: Collection[str] = (),
    **resampling: Unpack[Resampling],
) -> Leaderboard:
    """Every declared score and signal that was measured, against 0.5, `reference` and the best.

    Args:
        columns: name -> (C,) raw values, not oriented; NaN where missing.
        declared: name -> its sign; the order of the result.
        positive: (C,) booleans.
        problem_id: (C,) the clusters.
        reference: with which each is compared, if it takes part; else the best alone.
        never_best: entries that are ranked, but not taken for the best (what is measured on
            outcomes is no rival of what is known before them).
    """
    is_positive, problems = np.asarray(positive, dtype=np.bool_), np.asarray(problem_id)
    values = {
        name: np.asarray(columns[name], dtype=np.float64) for name in declared if name in columns
    }
    reasons = {name: "this run did not measure it" for name in declared if name not in values}
    reasons |= _too_often_missing(values)
    taken = [name for name in values if name not in reasons]
    kept = np.ones(is_positive.size, dtype=np.bool_)
    for name in taken:
        kept &= np.isfinite(values[name])
    is_positive, problems = is_positive[kept], problems[kept]
    residuals = {
        name: oriented_residuals(declared[name], values[name][kept], problems) for name in taken
    }
    for name in list(residuals):
        if np.unique(residuals[name]).size < 2:
            reasons[name] = "inside each problem it is the same at every candidate"
            del residuals[name]
    aliases = find_aliases(residuals)
    distinct = [name for name in residuals if name not in aliases]
    lacking = None if is_positive.any() and not is_positive.all() else "one class is empty"
    if lacking or not distinct:
        figures = _Figures([], {}, {}, {}, None, None, None)
    else:
        figures = _figures(
            residuals, distinct, is_positive, problems, reference, never_best, resampling
        )
    ranks = {name: place for place, name in enumerate(figures.ordered, start=1)}
    standings = [
        Standing(
            name=name,
            auroc=figures.aurocs.get(name),
            against_reference=figures.against_reference.get(name),
            against_best=figures.against_best.get(name),
            rank=ranks.get(name),
            alias_of=aliases.get(name, (None, False))[0],
            opposite=aliases.get(name, (None, False))[1],
            reason=reasons.get(name, lacking),
        )
        for name in declared
    ]
    return Leaderboard(
        standings=standings,
        reference=reference if reference in distinct else None,
        best=next((name for name in figures.ordered if name not in never_best), None),
        n_compared=len(distinct),
        n_candidates=int(is_positive.size),
        n_positive=int(is_positive.sum()),
        n_problems=int(np.unique(problems).size),
        median_sd=figures.median_sd,
        c=figures.c,
        reason=lacking or figures.reason,
    )


def _too_often_missing(values: Mapping[str, FloatArray]) -> dict[str, str]:
    """Reasons of the columns that lack more than their share of candidates."""
    lacking = {name: int((~np.isfinite(column)).sum()) for name, column in values.items()}
    return {
        name: f"it is missing at {count} of {values[name].size} candidates"
        for name, count in lacking.items()
        if count > MAX_MISSING_SHARE * values[name].size
    }


def find_aliases(residuals: Mapping[str, FloatArray]) -> dict[str, tuple[str, bool]]:
    """Names that say what an earlier one says -> (that one, whether the other way round).

    The same is: all candidates in the same order with the same ties, or centred values that agree,
    each relative to its largest, within the rounding of a forward pass.
    """
    found: dict[str, tuple[str, bool]] = {}
    firsts: list[tuple[str, FloatArray, FloatArray]] = []
    for name, values in residuals.items():
        scaled, ranks = values / np.abs(values).max(), mid_ranks(values)
        for earlier, their_scaled, their_ranks in firsts:
            for turn in (1.0, -1.0):
                turned = ranks if turn > 0 else ranks.size + 1.0 - ranks
                if np.array_equal(turned, their_ranks) or (
                    np.abs(turn * scaled - their_scaled).max() < ROUNDING
                ):
                    found[name] = (earlier, turn < 0)
                    break
            if name in found:
                break
        else:
            firsts.append((name, scaled, ranks))
    return found


def max_quantile(deviations_SB: FloatArray, sd_S: FloatArray, level: float) -> float:
    """c: the `level` quantile over resamples of max over S of |deviation| / standard deviation."""
    return float(np.quantile(_largest(deviations_SB, sd_S), level))


def _largest(deviations_SB: FloatArray, sd_S: FloatArray) -> FloatArray:
    spread = sd_S > 0
    studentised = np.abs(deviations_SB[spread]) / sd_S[spread, np.newaxis]
    largest: FloatArray = studentised.max(axis=0, initial=0.0)
    return largest


@dataclass(frozen=True)
class _Figures:
    ordered: list[str]
    aurocs: dict[str, Compared]
    against_reference: dict[str, Compared]
    against_best: dict[str, Compared]
    median_sd: float | None
    c: float | None
    reason: str | None


def _figures(
    residuals: Mapping[str, FloatArray],
    distinct: Sequence[str],
    positive: BoolArray,
    problems: npt.NDArray[Any],
    reference: str,
    never_best: Collection[str],
    resampling: Resampling,
) -> _Figures:
    codes, n_problems = cluster_codes(problems)
    point_S = np.array([auroc(residuals[name], positive) for name in distinct], dtype=np.float64)
    replicates_SB = np.stack(
        replicate(
            [weighted_auroc(residuals[name], positive, codes) for name in distinct],
            n_problems,
            resamples=resampling["resamples"],
            seed=resampling["seed"],
        )
    )
    ordered = [distinct[i] for i in np.argsort(-point_S, kind="stable")]
    best = next((name for name in ordered if name not in never_best), None)
    whole = np.isfinite(replicates_SB).all(axis=0)
    n_dropped = int((~whole).sum())
    enough = n_problems >= MIN_CLUSTERS and (
        n_dropped <= resampling["max_dropped_share"] * whole.size
    )
    kept_SB = replicates_SB[:, whole]

    def family(
        values_S: FloatArray, values_SB: FloatArray, over: _Deviations, null: float
    ) -> list[Compared]:
        """Estimates with simultaneous ends and adjusted p; the maximum runs over `over`."""
        largest_B = _largest(*over)
        rows = []
        for value, values_B in zip(values_S.tolist(), values_SB, strict=True):
            pointwise = interval(value, values_B, n_problems, **resampling)
            sd = float(values_B[whole].std()) if enough else 0.0
            if sd == 0.0 or not pointwise.has_interval:
                rows.append(Compared(pointwise, None, None, None))
                continue
            c = float(np.quantile(largest_B, resampling["level"]))
            p = (1 + int((largest_B >= abs(value - null) / sd).sum())) / (1 + largest_B.size)
            rows.append(Compared(pointwise, value - c * sd, value + c * sd, p))
        return rows

    def differences(other: str, over: _Deviations) -> dict[str, Compared]:
        index = distinct.index(other)
        less = point_S - point_S[index], replicates_SB - replicates_SB[index]
        rows = family(*less, over, 0.0)
        return {name: r for name, r in zip(distinct, rows, strict=True) if name != other}

    own = _deviations(point_S, kept_SB)
    areas = family(point_S, replicates_SB, own, 0.5)
    against_reference = {}
    if reference in distinct:
        i = distinct.index(reference)
        against_reference = differences(
            reference, _deviations(point_S - point_S[i], kept_SB - kept_SB[i])
        )
    median_sd = float(np.median(own[1])) if enough else None
    return _Figures(
        ordered=ordered,
        aurocs=dict(zip(distinct, areas, strict=True)),
        against_reference=against_reference,
        against_best=({} if best is None else differences(best, _all_pairs(point_S, kept_SB))),
        median_sd=median_sd,
        c=max_quantile(*own, resampling["level"]) if enough else None,
        reason=None if enough else areas[0].estimate.reason,
    )


def _deviations(point_S: FloatArray, kept_SB: FloatArray) -> _Deviations:
    """Replicates less the estimate (S, B), and their standard deviations (S,).

    A difference that never varies (an entry from itself) has none and takes no part.
    """
    sd_S = kept_SB.std(axis=1) if kept_SB.size else np.zeros(point_S.size)
    return kept_SB - point_S[:, np.newaxis], np.where(sd_S > 1e-12, sd_S, 0.0)


def _all_pairs(point_S: FloatArray, kept_SB: FloatArray) -> _Deviations:
    """The same of every difference between two entries."""
    first, second = np.triu_indices(point_S.size, k=1)
    return _deviations(point_S[first] - point_S[second], kept_SB[first] - kept_SB[second])
