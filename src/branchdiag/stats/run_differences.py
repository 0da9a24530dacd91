"""Two runs on the same problems: paired differences, their intervals, and what may be said of them.

A run's candidates lie where its own spine and teacher put them, so candidates of two runs are not
pairs; problems are. A figure is a function of how often each problem of either run counts, and a
difference is taken inside each resample, in which both runs draw the same problems.

- A mean: the run's mean in each problem, then over problems, which weigh the same (a run with more
  candidates in a problem does not weigh more there).
- A slope: that within problems (`horizon`), over problems that carry one in both runs.
- An AUROC: of values centred inside the problem, over the candidates of the shared problems.

Beside the pointwise interval stands a simultaneous one over all figures of the pair (max-T, as in
`leaderboard`), at a level that allows for several pairs (Bonferroni), and the p of swapping the two
runs inside each problem by the toss of a coin: exact at any number of problems where the runs are
no different. "Differ" asks for the simultaneous interval and for that p; percentile intervals
from few problems alone are too narrow (`bootstrap`).

Reads arrays over candidates; knows no files, no names of runs and no wording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.bootstrap import draw_multiplicities, interval
from branchdiag.stats.estimate import (
    BoolArray,
    Estimate,
    FloatArray,
    IntArray,
    Resampling,
    missing,
)
from branchdiag.stats.finding import MIN_POSITIVES, MIN_PROBLEMS, MIN_PROBLEMS_POSITIVE
from branchdiag.stats.leaderboard import max_quantile
from branchdiag.stats.weighted import WeightedStatistic, weighted_auroc, weighted_ratio

EQUAL = "no problem came out differently"
ROUNDING = 1e-9
"""Differences within this are those of the order of additions: every figure is of order 1 or more,
and one sample more or less in one candidate changes it by far more."""

Verdict = Literal["higher", "lower", "alone", "not told apart", "equal", "too few", "not compared"]


@dataclass(frozen=True)
class PairedFigure:
    """A figure of two runs as a function of the weights (B, 2P) of each run's problems.

    Columns 0 ... P - 1 are the first run's problems, P ... 2P - 1 the second's, in one order.
    n_problems: those that inform it in both runs. reason: why it cannot be had, with no statistic.
    few: what there is too little of for a verdict, by the rule of a finding (`finding`).
    """

    name: str
    statistic: WeightedStatistic | None
    n_problems: int
    reason: str | None = None
    few: str | None = None


@dataclass(frozen=True)
class Difference:
    """Second less first, on the same problems.

    first, second: the figure of either run. low, high: simultaneous over the pair's figures and
    the pairs. p: two-sided, of swapping the runs inside problems.
    """

    name: str
    first: float | None
    second: float | None
    estimate: Estimate
    low: float | None
    high: float | None
    p: float | None
    n_problems: int
    verdict: Verdict
    few: str | None = None


def paired_mean(name: str, first_P: npt.ArrayLike, second_P: npt.ArrayLike) -> PairedFigure:
    """Mean over problems of a value that each run has one of in a problem.

    Args:
        first_P, second_P: (P,) by shared problem, NaN where a run has none; problems without both
            are left out.
    """
    first, second = np.asarray(first_P, np.float64), np.asarray(second_P, np.float64)
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return PairedFigure(name, None, 0, "no problem has a value in both runs")
    values = np.concatenate([np.where(both, first, 0.0), np.where(both, second, 0.0)])
    ones = np.tile(both.astype(np.float64), 2)
    n = int(both.sum())
    return PairedFigure(name, weighted_ratio(values, ones), n, few=_few(n))


def paired_slope(
    name: str,
    first: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    second: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    n_problems: int,
) -> PairedFigure:
    """Within-problem slope over the problems whose candidates differ in r in both runs.

    Args:
        first, second: outcome (C,), r (C,) and the place of the shared problem (C,) of each
            candidate of a run; rows whose outcome is NaN are left out.
        n_problems: P.
    """
    from branchdiag.stats.horizon import slope_sums

    sums = [slope_sums(*rows, n_problems) for rows in (first, second)]
    both = (sums[0][1] > 0) & (sums[1][1] > 0)
    if not both.any():
        return PairedFigure(
            name, None, 0, "no problem has candidates at two positions in both runs"
        )
    sxy, sxx = (np.concatenate([np.where(both, s[part], 0.0) for s in sums]) for part in (0, 1))
    n = int(both.sum())
    return PairedFigure(name, weighted_ratio(sxy, sxx), n, few=_few(n))


def paired_auroc(
    name: str,
    first: tuple[FloatArray, BoolArray, IntArray],
    second: tuple[FloatArray, BoolArray, IntArray],
    n_problems: int,
) -> PairedFigure:
    """AUROC of centred, oriented values of either run over the candidates of shared problems.

    Args:
        first, second: values (C,), whether positive (C,) and the place of the problem (C,).
        n_problems: P.
    """
    for which, (_, positive, _) in (("first", first), ("second", second)):
        if not positive.any() or positive.all():
            lacking = "real-uncertain" if not positive.any() else "diversity"
            what = f"the {which} run has no {lacking} candidate in the shared problems"
            return PairedFigure(name, None, 0, what)
    informed = np.zeros((2, n_problems), np.bool_)
    values, positive, codes = (
        np.concatenate([first[0], second[0]]),
        np.concatenate([first[1], second[1]]),
        np.concatenate([first[2], second[2] + n_problems]),
    )
    present, compact = np.unique(codes, return_inverse=True)
    of_present = weighted_auroc(values, positive, compact.reshape(-1).astype(np.int64))

    def statistic(weights: FloatArray) -> FloatArray:
        return of_present(weights[:, present])

    informed[0, first[2]] = informed[1, second[2]] = True
    n = int(informed.all(axis=0).sum())
    few = _few(n)
    for which, (_, is_positive, places) in (("first", first), ("second", second)):
        count, problems = int(is_positive.sum()), int(np.unique(places[is_positive]).size)
        if count < MIN_POSITIVES or problems < MIN_PROBLEMS_POSITIVE:
            few = few or (
                f"the {which} run has {count} real-uncertain in {problems} of the shared problems, "
                f"where {MIN_POSITIVES} in {MIN_PROBLEMS_POSITIVE} are needed"
            )
    return PairedFigure(name, statistic, n, few=few)


def _few(n_problems: int) -> str | None:
    """What is lacking where so many problems inform a figure in both runs."""
    if n_problems >= MIN_PROBLEMS:
        return None
    inform = "problem informs" if n_problems == 1 else "problems inform"
    return f"{n_problems} {inform} it in both runs, where {MIN_PROBLEMS} are needed"


def differences(
    figures: Sequence[PairedFigure],
    n_problems: int,
    *,
    n_pairs: int,
    permutations: int,
    **resampling: Unpack[Resampling],
) -> list[Difference]:
    """Every figure's difference, on one set of resamples of the P shared problems.

    Args:
        figures: of one pair of runs.
        n_problems: P.
        n_pairs: pairs of runs that are looked at: the simultaneous level is
            1 - (1 - level) / n_pairs.
        permutations: of swapping the runs inside problems.
    """
    usable = {f.name: f.statistic for f in figures if f.statistic is not None}
    points = {name: _of_both(s, np.ones((1, n_problems)))[:, 0] for name, s in usable.items()}
    drawn = _drawn(usable, n_problems, resampling)
    estimates = {
        name: _estimate(float(second - first), drawn[name], n_problems, resampling)
        for name, (first, second) in points.items()
    }
    joint = 1.0 - (1.0 - resampling["level"]) / max(1, n_pairs)
    ends = _together(estimates, drawn, joint)
    swapped = _swap_p(usable, points, n_problems, permutations, resampling["seed"])
    results = []
    for figure in figures:
        estimate = estimates.get(figure.name, missing(figure.reason or "not computed"))
        first, second = points.get(figure.name, (None, None))
        low, high = ends.get(figure.name, (None, None))
        p = swapped.get(figure.name)
        results.append(
            Difference(
                name=figure.name,
                first=None if first is None else float(first),
                second=None if second is None else float(second),
                estimate=estimate,
                low=low,
                high=high,
                p=p,
                n_problems=figure.n_problems,
                verdict=_verdict(estimate, (low, high), p, figure.few, resampling["level"]),
                few=figure.few,
            )
        )
    return results


def _estimate(
    value: float, drawn_B: FloatArray, n_problems: int, resampling: Resampling
) -> Estimate:
    finite = drawn_B[np.isfinite(drawn_B)]
    if abs(value) <= ROUNDING and finite.size and np.abs(finite).max() <= ROUNDING:
        return Estimate(0.0, None, None, EQUAL)
    return interval(value, drawn_B, n_problems, **resampling)


def _of_both(statistic: WeightedStatistic, weights_BP: FloatArray) -> FloatArray:
    """The figure of the first and of the second run (2, B), both on the same problems."""
    nothing = np.zeros_like(weights_BP)
    return np.stack(
        [
            statistic(np.hstack([weights_BP, nothing])),
            statistic(np.hstack([nothing, weights_BP])),
        ]
    )


def _drawn(
    statistics: Mapping[str, WeightedStatistic], n_problems: int, resampling: Resampling
) -> dict[str, FloatArray]:
    """Each figure's difference (B,) on the same draws of problems."""
    chunks: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    draws = draw_multiplicities(
        n_problems, resamples=resampling["resamples"], seed=resampling["seed"]
    )
    for weights in draws:
        for name, statistic in statistics.items():
            first, second = _of_both(statistic, weights)
            chunks[name].append(second - first)
    return {name: np.concatenate(values) for name, values in chunks.items()}


def _together(
    estimates: Mapping[str, Estimate], drawn: Mapping[str, FloatArray], level: float
) -> dict[str, tuple[float, float]]:
    """Simultaneous ends: estimate -+ c x standard error, c over the figures with an interval."""
    names = [name for name, estimate in estimates.items() if estimate.has_interval]
    if not names:
        return {}
    values_SB = np.stack([drawn[name] for name in names])
    whole = np.isfinite(values_SB).all(axis=0)
    values_SB = values_SB[:, whole]
    point_S = np.array([estimates[name].value for name in names], np.float64)
    sd_S = values_SB.std(axis=1)
    c = max_quantile(values_SB - point_S[:, np.newaxis], sd_S, level)
    return {
        name: (float(point - c * sd), float(point + c * sd))
        for name, point, sd in zip(names, point_S, sd_S, strict=True)
    }


def _swap_p(
    statistics: Mapping[str, WeightedStatistic],
    points: Mapping[str, FloatArray],
    n_problems: int,
    permutations: int,
    seed: int,
) -> dict[str, float]:
    """Two-sided p of tossing a coin in each problem for which run its candidates are counted to."""
    generator = np.random.default_rng(seed)
    coins = generator.integers(2, size=(permutations, n_problems)).astype(np.float64)
    result = {}
    for name, statistic in statistics.items():
        first = statistic(np.hstack([1.0 - coins, coins]))
        second = statistic(np.hstack([coins, 1.0 - coins]))
        null = np.abs(second - first)
        seen = abs(float(points[name][1] - points[name][0])) * (1.0 - 1e-9)
        kept = null[np.isfinite(null)]
        result[name] = float((1 + int((kept >= seen).sum())) / (1 + kept.size))
    return result


def _verdict(
    estimate: Estimate,
    together: tuple[float | None, float | None],
    p: float | None,
    few: str | None,
    level: float,
) -> Verdict:
    if estimate.value is None:
        return "not compared"
    if estimate.reason == EQUAL:
        return "equal"
    if few is not None:
        return "too few"
    alone = estimate.is_above(0.0) or estimate.is_below(0.0)
    if not alone or p is None or p > 1.0 - level + 1e-12:
        return "not told apart"
    low, high = together
    if low is not None and low > 0:
        return "higher"
    if high is not None and high < 0:
        return "lower"
    return "alone"
