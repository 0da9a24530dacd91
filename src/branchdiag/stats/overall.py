"""On the whole, wherever they stand: do the teacher's tokens help or harm?

The finding compares early tokens with late ones and is silent about both being bad alike. Two means
over all candidates answer that: d, forced less free viability, in which each of the teacher's
likeliest tokens counts the same; and the teacher's advantage, in which each counts by how much more
the teacher likes it than the student does (arXiv 2605.10889's advantage, on the forced tokens).
Each has its interval from drawing whole problems, 10 of them at least, as the finding asks. Reads
arrays over candidates; knows no tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.bootstrap import cluster_mean_interval
from branchdiag.stats.estimate import Estimate, Resampling, with_enough
from branchdiag.stats.finding import MIN_PROBLEMS


@dataclass(frozen=True)
class Overall:
    """Means over all candidates: of d, and of the teacher's advantage; in shares of samples."""

    difference: Estimate
    advantage: Estimate


def overall(
    d: npt.ArrayLike,
    advantage: npt.ArrayLike,
    clusters: npt.ArrayLike,
    **resampling: Unpack[Resampling],
) -> Overall:
    """Both means, each candidate weighing the same.

    Args:
        d: (C,) mean child viability less the control's; NaN without a control.
        advantage: (C,) of `horizon.teacher_advantage`; NaN where undefined.
        clusters: (C,) the problem of each.
    """
    return Overall(_mean(d, clusters, resampling), _mean(advantage, clusters, resampling))


def _mean(values: npt.ArrayLike, clusters: npt.ArrayLike, resampling: Resampling) -> Estimate:
    present = np.isfinite(np.asarray(values, dtype=np.float64))
    n_problems = int(np.unique(np.asarray(clusters)[present]).size)
    estimate = cluster_mean_interval(values, clusters, **resampling)
    return with_enough(estimate, n_problems, MIN_PROBLEMS)


def sentence(means: Overall, level: float) -> str:
    """What the two means say, and no more than their intervals do."""
    parts = (_difference(means.difference, level), _advantage(means.advantage, level))
    return f"On the whole {'; '.join(parts)}."


def _difference(estimate: Estimate, level: float) -> str:
    if estimate.value is None:
        return f"forced and free viability cannot be compared ({estimate.reason})"
    if estimate.is_below(0.0) or estimate.is_above(0.0):
        way = "less" if estimate.value < 0 else "more"
        return (
            f"a forced token succeeds {way} often than going on freely, by "
            f"{abs(estimate.value):.2f} ({_interval(estimate, level)})"
        )
    return (
        "forced tokens are not told apart from going on freely, with a difference of "
        f"{_signed(estimate.value)} ({_interval(estimate, level)})"
    )


def _advantage(estimate: Estimate, level: float) -> str:
    what = "choosing among them as the teacher does, not as the student does,"
    if estimate.value is None:
        return f"what {what} is worth is not known ({estimate.reason})"
    if estimate.is_below(0.0) or estimate.is_above(0.0):
        way = "loses" if estimate.value < 0 else "gains"
        return f"{what} {way} {abs(estimate.value):.3f} ({_interval(estimate, level, 3)})"
    return (
        f"{what} shows neither gain nor loss, with a difference of {_signed(estimate.value, 3)} "
        f"({_interval(estimate, level, 3)})"
    )


def _interval(estimate: Estimate, level: float, digits: int = 2) -> str:
    if estimate.ci_low is None or estimate.ci_high is None:
        return f"no interval: {estimate.reason}"
    ends = (_signed(end, digits) for end in (estimate.ci_low, estimate.ci_high))
    return f"{100 * level:g}% interval {' to '.join(ends)}"


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text
