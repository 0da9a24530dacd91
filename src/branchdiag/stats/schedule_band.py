"""How sure a fitted weight is: problems drawn whole, everything fitted anew, the choice included.

Reads fits and draws; writes the pointwise band of w(r), which is the main output (arXiv 2605.21606
gives its weights none), and percentiles of the parameters, which come second: with 61 problems,
parameters far apart give nearly the same curve. Knows no statuses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from branchdiag.stats.bootstrap import MIN_CLUSTERS, draw_multiplicities
from branchdiag.stats.estimate import BoolArray, Estimate, FloatArray, percentile_estimate
from branchdiag.stats.schedule_curve import Parameters, Sign
from branchdiag.stats.schedule_data import Observations
from branchdiag.stats.schedule_direction import DirectionTest
from branchdiag.stats.schedule_refit import Fits, Refits, refit
from branchdiag.stats.schedule_status import MIN_RANGE

GRID = np.round(np.arange(0.05, 0.96, 0.05), 2)
"""Relative positions of the band."""


@dataclass(frozen=True)
class FitSettings:
    """How a schedule is fitted.

    resamples: refits of the bootstrap. permutations: of the test of direction. slope_resamples:
    for the slope's interval. level: of band, intervals and test. max_failed_share: of resamples
    that cannot be fitted before there is no band.
    """

    resamples: int = 500
    permutations: int = 2000
    slope_resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    max_failed_share: float = 0.10


@dataclass(frozen=True)
class Band:
    """The fitted weight w(r) with its pointwise band; `reason` where there is no band.

    r, w, low, high: (R,). n_failed: resamples that could not be fitted; n_constant: of the others,
    those that chose the constant.
    """

    r: FloatArray
    w: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    reason: str | None
    resamples: int
    n_failed: int
    n_constant: int


@dataclass(frozen=True)
class Replicates:
    """Every resample's refit, and which of them could not be made (B,)."""

    refits: Refits
    failed: BoolArray


def resample(fits: Fits, test: DirectionTest, settings: FitSettings) -> Replicates:
    """Refit `settings.resamples` draws of the problems."""
    rows = fits.observations
    chunks = list(
        draw_multiplicities(rows.n_problems, resamples=settings.resamples, seed=settings.seed)
    )
    drawn = np.concatenate(chunks)
    failed = _unfittable(rows, drawn)
    signs = np.where(drawn @ test.sxy_P < 0.0, -1, 1)
    made = refit(fits, drawn[~failed], signs[~failed])
    theta = np.full((drawn.shape[0], 4), np.nan)
    sigmoid = np.zeros(drawn.shape[0], dtype=np.bool_)
    theta[~failed], sigmoid[~failed] = made.theta, made.sigmoid
    failed |= sigmoid & ~np.isfinite(theta).all(axis=1)
    return Replicates(Refits(sigmoid & ~failed, signs, theta), failed)


def band_of(fits: Fits, w: FloatArray, replicates: Replicates, settings: FitSettings) -> Band:
    """Percentiles of w(r) over refits; where one chose the constant, its w is 1.

    Args:
        w: (R,) the estimated weight at `GRID`.
    """
    refits, failed = replicates.refits, replicates.failed
    curves = np.ones((refits.sigmoid.size, GRID.size))
    for sign, curve in fits.sigmoids.items():
        mine = refits.sigmoid & (refits.sign == sign)
        curves[mine] = curve.weight(refits.theta[mine], GRID)
    n_failed = int(failed.sum())
    constant = int((~refits.sigmoid & ~failed).sum())
    reason = _too_many_failed(failed, settings.max_failed_share)
    if reason:
        return Band(GRID, w, None, None, reason, failed.size, n_failed, constant)
    tail = (1.0 - expanded_level(settings.level, fits.observations.n_problems)) / 2.0
    low, high = np.quantile(curves[~failed], [tail, 1.0 - tail], axis=0)
    return Band(GRID, w, low, high, None, failed.size, n_failed, constant)


def parameter_intervals(
    found: Parameters,
    sign: Sign,
    replicates: Replicates,
    *,
    level: float,
    max_failed_share: float,
) -> dict[str, Estimate]:
    """Percentiles over the resamples that chose a sigmoid the same way: others have no such
    parameter. There is no interval where those are not more than half, or where a larger share than
    `max_failed_share` could not be fitted at all.
    """
    refits = replicates.refits
    mine = refits.sigmoid & (refits.sign == sign)
    values = {
        "w_min": (found.w_min, 0.5 * (1.0 + np.tanh(0.5 * refits.theta[:, 1]))),
        "tau": (found.tau, refits.theta[:, 2]),
        "s": (found.s, np.exp(refits.theta[:, 3])),
    }
    reason = _too_many_failed(replicates.failed, max_failed_share)
    if reason is None and 2 * mine.sum() <= mine.size:
        reason = f"{int(mine.sum())} of {mine.size} resamples chose a sigmoid of this direction"
    if reason:
        return {name: Estimate(value, None, None, reason) for name, (value, _) in values.items()}
    return {
        name: percentile_estimate(value, drawn[mine], level=level, max_dropped_share=0.0)
        for name, (value, drawn) in values.items()
    }


def _too_many_failed(failed: BoolArray, limit: float) -> str | None:
    n_failed = int(failed.sum())
    if n_failed <= limit * failed.size:
        return None
    return f"{n_failed} of {failed.size} resamples could not be fitted (limit {limit:.0%})"


def expanded_level(level: float, n_problems: int) -> float:
    """The share of refits between the ends of an interval of nominal `level`.

    Percentiles of a bootstrap are too narrow with few problems: resampling P problems understates
    their spread by (P - 1) / P, and knows no Student's t. The ends are moved out to where both are
    mended for a mean (Hesterberg, The American Statistician 69, 2015, "expanded percentile"): 0.956
    for 61 problems, 0.983 for 10.
    """
    from scipy.special import ndtr, stdtrit

    t = float(stdtrit(n_problems - 1, 0.5 + level / 2.0))
    return float(1.0 - 2.0 * ndtr(-t * np.sqrt(n_problems / (n_problems - 1.0))))


def _unfittable(rows: Observations, drawn: FloatArray) -> BoolArray:
    """Resamples (B,) of fewer than 3 different problems, one outcome, or hardly a range of r."""
    child = ~rows.is_control
    codes, y = rows.codes[child], rows.y[child]
    successes = np.bincount(codes, y, rows.n_problems)
    failures = np.bincount(codes, 1.0 - y, rows.n_problems)
    failed: BoolArray = (drawn > 0).sum(axis=1) < MIN_CLUSTERS
    failed |= (drawn @ successes <= 0.0) | (drawn @ failures <= 0.0)
    if rows.relative:
        control = np.bincount(rows.codes[rows.is_control], rows.y[rows.is_control], rows.n_problems)
        failed |= drawn @ control <= 0.0
    lowest, highest = np.full(rows.n_problems, np.inf), np.full(rows.n_problems, -np.inf)
    np.minimum.at(lowest, rows.codes, rows.r)
    np.maximum.at(highest, rows.codes, rows.r)
    first = np.where(drawn > 0, lowest, np.inf).min(axis=1)
    last = np.where(drawn > 0, highest, -np.inf).max(axis=1)
    failed |= last - first < MIN_RANGE
    return failed
