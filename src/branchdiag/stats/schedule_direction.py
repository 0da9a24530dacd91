"""Which way the outcome goes with position, by permuting outcomes within problems.

The statistic is the within-problem least-squares slope on r: problems differ in how hard they are
and in where their candidates lie, and only differences inside a problem are free of that. If
position makes no difference, the outcomes of a problem are as likely in any order, so (1 + hits) /
(1 + permutations) is a valid p-value at any number of problems. Knows nothing of curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from branchdiag.stats.auroc import centre_within
from branchdiag.stats.estimate import FloatArray, IntArray, Resampling
from branchdiag.stats.horizon import Slope, within_problem_slope
from branchdiag.stats.schedule_curve import Sign
from branchdiag.stats.schedule_data import Observations
from branchdiag.stats.weighted import CELLS


@dataclass(frozen=True)
class DirectionTest:
    """A slope with its interval and two-sided permutation p; `reason` where p is missing.

    sxy_P, sxx_P: (P,) each problem's part in the slope, sum of sxy over sum of sxx.
    """

    slope: Slope
    p: float | None
    reason: str | None
    sxy_P: FloatArray
    sxx_P: FloatArray

    @property
    def sign(self) -> Sign:
        """+1 where the slope is not negative."""
        return -1 if self.sxy_P.sum() < 0 else 1


def direction_test(
    observations: Observations, *, permutations: int, **resampling: Unpack[Resampling]
) -> DirectionTest:
    """The slope of the outcome on r, and how often outcomes in another order slope as much.

    Args:
        observations: of at least one candidate.
        permutations: 1,000 or more; drawn by `default_rng(seed)`.
    """
    y, codes = observations.outcome, observations.outcome_codes
    slope = within_problem_slope(y, observations.outcome_r, codes, **resampling)
    centred = centre_within(observations.outcome_r, codes)
    n_problems = observations.n_problems
    sxy_P = _sums(centred * centre_within(y, codes), codes, n_problems)
    sxx_P = _sums(centred**2, codes, n_problems)
    if slope.estimate.value is None:
        return DirectionTest(slope, None, slope.estimate.reason, 0.0 * sxy_P, sxx_P)
    observed = float(centred @ y)
    if float(np.abs(centre_within(y, codes)).max()) == 0.0:
        reason = "every problem has one outcome at all positions"
        return DirectionTest(slope, None, reason, 0.0 * sxy_P, sxx_P)
    # A sum in another order differs in its last digits: equal must count as a hit.
    needed = abs(observed) - 1e-12 * float(np.abs(centred) @ np.abs(y))
    hits = sum(
        int((np.abs(permuted @ centred) >= needed).sum())
        for permuted in _permuted(y, codes, permutations, resampling["seed"])
    )
    return DirectionTest(slope, (1 + hits) / (1 + permutations), None, sxy_P, sxx_P)


def _permuted(y: FloatArray, codes: IntArray, permutations: int, seed: int) -> Iterator[FloatArray]:
    """Chunks (b, C) of the outcomes, shuffled inside each problem; codes are sorted."""
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // max(1, y.size))
    for first in range(0, permutations, step):
        size = min(step, permutations - first)
        # Sorting code + uniform leaves every problem in its place and its rows in random order.
        yield y[np.argsort(codes + generator.random((size, y.size)), axis=1)]


def _sums(values: FloatArray, codes: IntArray, n_problems: int) -> FloatArray:
    return np.bincount(codes, values, n_problems).astype(np.float64)
