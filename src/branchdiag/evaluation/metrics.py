r"""The figures of an evaluation: Avg@N, Pass@N, unbiased pass@k, Maj@N, length and rates.

Pure functions of arrays; S is a repeat (seed set), P a problem of one benchmark, NaN a missing
value that leaves as None with a reason. Definitions of arXiv 2605.21606 (appendix J): Avg@N is the
mean correctness of N samples, Pass@N whether any is correct, Maj@N the grade of the majority's
answer. pass@k for k < N is the unbiased estimate 1 - C(N-c, k) / C(N, k) of Chen et al. (arXiv
2107.03374, section 2.1), c the correct samples of a problem. Deviations over repeats are
Bessel-corrected. Knows no files and no models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """What the samples of one model on one benchmark came to; (S, P), NaN where missing.

    Attributes:
        n: samples a problem and repeat.
        correct, formatted, truncated: how many of them are.
        tokens: their length together.
        majority: 1 where the majority's answer is correct, else 0.
    """

    n: int
    correct: FloatArray
    formatted: FloatArray
    truncated: FloatArray
    tokens: FloatArray
    majority: FloatArray


@dataclass(frozen=True)
class Figure:
    """A metric: its value in each repeat, their mean and Bessel-corrected deviation.

    Raises:
        ValueError: something is missing without a reason, or a number is not finite.
    """

    per_seed: tuple[float | None, ...]
    mean: float | None
    deviation: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        numbers = (*self.per_seed, self.mean, self.deviation)
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise ValueError(f"a figure holds finite numbers or None, not {numbers}")
        if None in numbers and not self.reason:
            raise ValueError("a missing number needs a reason")


def pass_at_k(n: int, correct: npt.ArrayLike, k: int) -> FloatArray:
    """The unbiased estimate of the chance that one of k samples is correct.

    Args:
        n: samples a problem.
        correct: correct ones among them, any shape; NaN stays NaN.
        k: 1 to n; k = n is whether any is correct.

    Raises:
        ValueError: k is not in 1 ... n, or a count is not in 0 ... n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} samples")
    counts = np.asarray(correct, dtype=np.float64)
    present = np.isfinite(counts)
    if ((counts[present] < 0) | (counts[present] > n)).any():
        raise ValueError(f"a count of correct samples is not in 0 ... {n}")
    table = np.array([1.0 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
    result = np.full(counts.shape, np.nan)
    result[present] = table[counts[present].astype(np.int64)]
    return result


def problem_values(counts: Counts) -> dict[str, FloatArray]:
    """Every metric of every problem, (S, P), by name: avg@N, pass@N, maj@N, pass@1 ...
    pass@(N-1), tokens, truncated, formatted.
    """
    n = counts.n
    return {
        f"avg@{n}": counts.correct / n,
        f"pass@{n}": pass_at_k(n, counts.correct, n),
        f"maj@{n}": counts.majority,
        **{f"pass@{k}": pass_at_k(n, counts.correct, k) for k in range(1, n)},
        "tokens": counts.tokens / n,
        "truncated": counts.truncated / n,
        "formatted": counts.formatted / n,
    }


def benchmark_figure(values_SP: FloatArray) -> Figure:
    """The mean over problems in each repeat, then over repeats.

    A repeat in which any problem's value is missing has none: a mean over the others would be
    another benchmark's.
    """
    missing = int((~np.isfinite(values_SP)).sum())
    per_seed = [float(row.mean()) if np.isfinite(row).all() else None for row in values_SP]
    reason = None
    if missing:
        reason = f"{missing} of {values_SP.size} problems x repeats have no value"
    return _figure(per_seed, reason)


def mean_figure(figures: Mapping[str, Figure]) -> Figure:
    """The mean over benchmarks with equal weights, in each repeat, then over repeats."""
    lacking = [name for name, figure in figures.items() if None in figure.per_seed]
    columns = zip(*(figure.per_seed for figure in figures.values()), strict=True)
    per_seed = [
        None if None in column else math.fsum(v for v in column if v is not None) / len(column)
        for column in columns
    ]
    reason = f"a value is missing in {', '.join(lacking)}" if lacking else None
    return _figure(per_seed, reason)


def _figure(per_seed: Sequence[float | None], reason: str | None) -> Figure:
    values = [value for value in per_seed if value is not None]
    if len(values) < len(per_seed):
        return Figure(tuple(per_seed), None, None, reason)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Figure(tuple(per_seed), mean, None, "one repeat has no deviation")
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return Figure(tuple(per_seed), mean, deviation)
