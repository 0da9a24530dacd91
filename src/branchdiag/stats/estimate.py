"""A number with its interval, or the reason why there is none.

Reads and writes nothing; knows nothing of what is estimated. Inside `stats` a replicate that
cannot be computed is NaN; it never leaves: at this border NaN becomes a missing value with a
reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Resampling(TypedDict):
    """The keywords that every function with a bootstrap interval takes.

    resamples: how many. level: of the interval, such as 0.95. seed: of NumPy's `default_rng`.
    max_dropped_share: a larger share of resamples without a value leaves the interval missing.
    """

    resamples: int
    level: float
    seed: int
    max_dropped_share: float


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; whatever is missing has a reason.

    Raises:
        ValueError: something is missing without a reason, half an interval, or a number that is
            not finite.
    """

    value: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        numbers = (self.value, self.ci_low, self.ci_high)
        if any(number is not None and not np.isfinite(number) for number in numbers):
            raise ValueError(f"an estimate holds finite numbers or None, not {numbers}")
        if (self.ci_low is None) != (self.ci_high is None):
            raise ValueError("an interval has both ends or none")
        if None in numbers and not self.reason:
            raise ValueError("a missing value or interval needs a reason")

    @property
    def has_interval(self) -> bool:
        """Whether both ends are there."""
        return self.ci_low is not None

    def is_above(self, reference: float) -> bool:
        """Whether the whole interval lies above `reference` (False when it is missing)."""
        return self.ci_low is not None and self.ci_low > reference

    def is_below(self, reference: float) -> bool:
        """Whether the whole interval lies below `reference` (False when it is missing)."""
        return self.ci_high is not None and self.ci_high < reference

    def negated(self) -> Estimate:
        """The estimate of the negative quantity; the ends change places."""
        low = None if self.ci_high is None else -self.ci_high
        high = None if self.ci_low is None else -self.ci_low
        return replace(
            self,
            value=None if self.value is None else -self.value,
            ci_low=low,
            ci_high=high,
        )


def missing(reason: str) -> Estimate:
    """An estimate of which nothing could be computed."""
    return Estimate(None, None, None, reason)


def with_enough(estimate: Estimate, n_problems: int, least: int) -> Estimate:
    """The estimate, without its interval where fewer than `least` problems carry it.

    Percentile intervals from few problems are too narrow to decide anything (`bootstrap`).
    """
    if n_problems >= least or not estimate.has_interval:
        return estimate
    counted = "1 problem" if n_problems == 1 else f"{n_problems} problems"
    return Estimate(estimate.value, None, None, f"{counted}, where {least} are needed")


def percentile_estimate(
    value: float, replicates: FloatArray, *, level: float, max_dropped_share: float
) -> Estimate:
    """The percentile interval of bootstrap replicates around a value.

    Replicates that are NaN (one class only) are left out. Two cases give a value without an
    interval:

    - More than `max_dropped_share` of the replicates are NaN. What is left is then the
      distribution given that a class was drawn, which is too narrow by an unknown amount.
    - The interval has no width (perfect separation, a constant score, one problem): the bootstrap
      sees no variation there, and would claim a certainty that it cannot give.

    Args:
        value: the statistic on the data themselves.
        replicates: (B,), NaN where a resample has no value.
        level: such as 0.95; linear interpolation between order statistics.
        max_dropped_share: largest share of NaN that is accepted.

    Returns:
        `value` with its interval, or with the reason why there is none.
    """
    kept = replicates[np.isfinite(replicates)]
    n_dropped = replicates.size - kept.size
    if n_dropped > max_dropped_share * replicates.size:
        return Estimate(
            value,
            None,
            None,
            f"{n_dropped} of {replicates.size} resamples drew no problem that could carry it "
            f"(limit {max_dropped_share:.0%})",
        )
    tail = (1.0 - level) / 2.0
    low, high = (float(end) for end in np.quantile(kept, [tail, 1.0 - tail]))
    if high - low <= 1e-12 * max(1.0, abs(value)):
        return Estimate(
            value, None, None, "the resamples gave one value: the bootstrap sees no spread"
        )
    return Estimate(value, low, high)
