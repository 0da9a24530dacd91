"""Position bias along a trace: what continuing from a prefix reaches, and how far two models drift.

Three measurements of IW-OPD (arXiv 2606.22600), on arrays of problems, prefixes and tokens:

- the chance of a correct answer from a prefix, for the student and for the teacher (its figure 1b),
  and the teacher's gain, paired in each problem;
- the discrepancy |ln(q / p)| of the spine's own tokens by position (its figure 3);
- what has accumulated before a token, F, and the weight 1 + gamma (1 - F) (its equations 14 to 17).

How the gain changes is said by two contrasts of its curve. The first is the least-squares slope. It
is no evidence by itself: at the end of a trace nothing is left to write, so any gain ends at 0. The
second divides that out: gain(f) = (1 - f) (a + b f), with b the change of the gain for each share
of the trace still to be written. It is 0 where the gain shrinks in step with what is left, below 0
where late prefixes are worth less than that. Both are fixed sums over the curve, so each problem
has a value of its own and problems are resampled whole.

Reads arrays; knows no tables, models or wording. Arrays: P problems, F fractions, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.signals.accumulated import EPSILON, GAMMA
from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.bootstrap import cluster_mean_interval, interval, replicate
from branchdiag.stats.estimate import Estimate, FloatArray, IntArray, Resampling, missing
from branchdiag.stats.horizon import Slope, within_problem_slope
from branchdiag.stats.schedule_band import expanded_level
from branchdiag.stats.weighted import weighted_ratio

SAME = 1e-12
"""Fractions closer than this are one."""


class PrefixPoint(TypedDict):
    """One point of a curve over prefixes: a mean over n problems, with its interval."""

    fraction: float
    y: float | None
    lo: float | None
    hi: float | None
    n: int
    reason: str | None


def prefix_curve(
    fractions_F: npt.ArrayLike, share_PF: npt.ArrayLike, **resampling: Unpack[Resampling]
) -> list[PrefixPoint]:
    """Mean over problems at each fraction, every problem weighing the same, with an interval.

    Args:
        fractions_F: (F,) of the spine that is kept.
        share_PF: (P, F) share of a problem's samples that succeed, or a difference of shares; NaN
            where there are none.
    """
    shares = np.asarray(share_PF, dtype=np.float64)
    present = np.isfinite(shares)
    n_problems = shares.shape[0]
    drawn = np.empty((0, shares.shape[1]))
    if present.any():
        (drawn,) = replicate(
            [weighted_ratio(np.where(present, shares, 0.0), present.astype(np.float64))],
            n_problems,
            resamples=resampling["resamples"],
            seed=resampling["seed"],
        )
    points = []
    for column, fraction in enumerate(np.asarray(fractions_F, dtype=np.float64)):
        n = int(present[:, column].sum())
        if n == 0:
            found = missing("no problem has samples here")
        else:
            mean = float(shares[present[:, column], column].mean())
            found = interval(mean, drawn[:, column], n, **resampling)
        points.append(
            PrefixPoint(
                fraction=float(fraction),
                y=found.value,
                lo=found.ci_low,
                hi=found.ci_high,
                n=n,
                reason=found.reason,
            )
        )
    return points


@dataclass(frozen=True)
class GainChange:
    """How the teacher's gain over the student changes along the trace.

    mean: over all prefixes. slope: least-squares change from fraction 0 to 1. per_remaining: the
    same of the gain for each share of the trace still to be written (this module's docstring).
    n_problems: those with samples at every fraction.
    """

    mean: Estimate
    slope: Estimate
    per_remaining: Estimate
    n_problems: int


def gain_change(
    fractions_F: npt.ArrayLike, gain_PF: npt.ArrayLike, **resampling: Unpack[Resampling]
) -> GainChange:
    """Mean and change of a paired difference of shares along prefixes.

    Intervals are percentiles moved outwards for few problems (`schedule_band.expanded_level`).

    Args:
        fractions_F: (F,) rising, each below 1.
        gain_PF: (P, F) teacher less student; problems with a NaN are left out.
    """
    fractions = np.asarray(fractions_F, dtype=np.float64)
    gains = np.asarray(gain_PF, dtype=np.float64)
    whole = gains[np.isfinite(gains).all(axis=1)]
    n_problems = whole.shape[0]
    if n_problems == 0:
        nothing = missing("no problem has samples of both writers at every fraction")
        return GainChange(nothing, nothing, nothing, 0)

    def mean_of(coefficients_F: FloatArray | None) -> Estimate:
        if coefficients_F is None:
            return missing("a change needs two fractions")
        return expanded_mean(whole @ coefficients_F, np.arange(n_problems), **resampling)

    level_F = np.full(fractions.size, 1.0 / fractions.size)
    slope_F, per_remaining_F = contrasts(fractions)
    return GainChange(mean_of(level_F), mean_of(slope_F), mean_of(per_remaining_F), n_problems)


def contrasts(fractions_F: FloatArray) -> tuple[FloatArray | None, FloatArray | None]:
    """The two sums over a curve that are its slope and its change per remaining share, (F,) each.

    The slope: the least-squares slope on f. Per remaining share: b of the least-squares fit of
    (1 - f) (a + b f). None with fewer than two fractions.
    """
    if np.ptp(fractions_F) < SAME:
        return None, None
    centred = fractions_F - fractions_F.mean()
    left = 1.0 - fractions_F
    design = np.stack([left, left * fractions_F], axis=1)
    return centred / (centred @ centred), np.linalg.pinv(design)[1]


def expanded_mean(
    values: npt.ArrayLike, clusters: npt.ArrayLike, **resampling: Unpack[Resampling]
) -> Estimate:
    """`cluster_mean_interval` with the ends moved out for few clusters."""
    return cluster_mean_interval(values, clusters, **_expanded(resampling, clusters))


def step_slope(
    step_T: npt.ArrayLike,
    r_T: npt.ArrayLike,
    spine_T: npt.ArrayLike,
    **resampling: Unpack[Resampling],
) -> Slope:
    """Change of the discrepancy from the start of a spine to its end, nats a token.

    The slope on relative position with an intercept for each spine, so that a spine on which the
    two models differ throughout makes no slope.

    Args:
        step_T: (T,) |ln(q / p)| of each token; NaN is left out.
        r_T: (T,) relative position.
        spine_T: (T,) which spine.
    """
    return within_problem_slope(step_T, r_T, spine_T, **_expanded(resampling, spine_T))


def _expanded(resampling: Resampling, clusters: npt.ArrayLike) -> Resampling:
    n_clusters = int(np.unique(np.asarray(clusters)).size)
    if n_clusters < 2:
        return resampling
    return {**resampling, "level": expanded_level(resampling["level"], n_clusters)}


@dataclass(frozen=True)
class Accumulated:
    """IW-OPD's quantities at every token, in the order of the tokens given.

    before_T: sum of |ln(q / p)| over the spine's earlier tokens, nats. share_T: F, that sum over
    the sum of the whole spine. weight_T: 1 + gamma (1 - F). NaN throughout a spine of which a token
    is missing, since no sum over it is known. n_left_out: such spines.
    """

    before_T: FloatArray
    share_T: FloatArray
    weight_T: FloatArray
    n_left_out: int


def accumulate(
    step_T: npt.ArrayLike,
    position_T: npt.ArrayLike,
    spine_T: npt.ArrayLike,
    *,
    gamma: float = GAMMA,
) -> Accumulated:
    """What has accumulated before each token, and the weight that it implies.

    F at the first token is 0 and the weight there 1 + gamma, whatever the data; the weight never
    rises along a spine and ends at 1 or just above.

    Args:
        step_T: (T,) |ln(q / p)| of each token, NaN where a side excludes it.
        position_T: (T,) index in its spine, from 0.
        spine_T: (T,) which spine.
        gamma: what the first token weighs above 1.
    """
    steps = np.asarray(step_T, dtype=np.float64)
    positions = np.asarray(position_T, dtype=np.int64)
    codes, n_spines = cluster_codes(spine_T)
    order: IntArray = np.lexsort((positions, codes))
    sorted_codes = codes[order]
    sizes = np.bincount(codes, minlength=n_spines)
    starts = np.cumsum(sizes) - sizes
    expected = np.arange(steps.size) - np.repeat(starts, sizes)
    broken = ~np.isfinite(steps[order]) | (positions[order] != expected)
    left_out = np.bincount(sorted_codes, broken, n_spines) > 0
    filled = np.where(left_out[sorted_codes], 0.0, steps[order])
    earlier = np.cumsum(filled) - filled
    before = np.maximum(earlier - np.repeat(earlier[starts], sizes), 0.0)
    totals = np.bincount(sorted_codes, filled, n_spines)
    before[left_out[sorted_codes]] = np.nan
    before_T = np.empty_like(steps)
    before_T[order] = before
    share_T = before_T / (totals[codes] + EPSILON)
    return Accumulated(before_T, share_T, 1.0 + gamma * (1.0 - share_T), int(left_out.sum()))


def relative_position(position_T: npt.ArrayLike, spine_T: npt.ArrayLike) -> FloatArray:
    """r = (position + 0.5) / L of each token, L the tokens of its spine that are given, (T,)."""
    codes, n_spines = cluster_codes(spine_T)
    lengths = np.bincount(codes, minlength=n_spines)
    r: FloatArray = (np.asarray(position_T, dtype=np.float64) + 0.5) / lengths[codes]
    return r
