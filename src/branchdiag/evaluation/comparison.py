"""Whether two models differ: paired differences on the same problems, with intervals.

Pure functions of arrays. A problem's difference is the mean over repeats of one model's value minus
the other's, both on the same problem with the same prompt and seeds. Problems are drawn whole with
replacement within each benchmark, and benchmarks weigh the same, as in the mean that is reported;
the interval is the percentile one. It speaks of other problems of the same kind and of other
samples, not of another training run: a model trained again with another seed is another model.
Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from branchdiag.stats.bootstrap import MIN_CLUSTERS, draw_multiplicities
from branchdiag.stats.estimate import Estimate, percentile_estimate
from branchdiag.store.fingerprint import derive_seed

FloatArray = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "not told apart", "not compared"]

SCORES = ("avg", "pass", "maj")
"""Metrics of which more is better: those with a verdict and a sentence."""


@dataclass(frozen=True)
class Difference:
    """A difference with its interval, and the wider one that holds for all pairs together."""

    estimate: Estimate
    together: Estimate
    n_problems: int

    @property
    def verdict(self) -> Verdict:
        """What the interval of this pair alone says."""
        return _verdict(self.estimate)

    @property
    def verdict_together(self) -> Verdict:
        """What the interval that holds for all pairs together says."""
        return _verdict(self.together)


def differences(
    paired: Sequence[Mapping[str, FloatArray]],
    *,
    n_pairs: int,
    resamples: int,
    level: float,
    seed: int,
) -> list[Difference]:
    """Every difference on the same resamples of the problems.

    Args:
        paired: for each difference, benchmark -> (P,) differences of its problems, NaN where
            missing. One benchmark gives that benchmark's difference, several their mean with equal
            weights.
        n_pairs: pairs of models that are compared: the joint level is Bonferroni's,
            1 - (1 - level) / n_pairs.
        resamples, level, seed: of the bootstrap.
    """
    sizes = {name: values.size for entry in paired for name, values in entry.items()}
    replicates = [np.zeros(resamples) for _ in paired]
    for name, size in sizes.items():
        using = [i for i, entry in enumerate(paired) if name in entry]
        columns_PK = np.stack([np.nan_to_num(paired[i][name]) for i in using], axis=1)
        draws = draw_multiplicities(
            size, resamples=resamples, seed=derive_seed(seed, "comparison", name)
        )
        at = 0
        for weights_BP in draws:
            means_BK = weights_BP @ columns_PK / size
            for column, i in enumerate(using):
                replicates[i][at : at + len(means_BK)] += means_BK[:, column] / len(paired[i])
            at += len(means_BK)
    joint = 1.0 - (1.0 - level) / max(1, n_pairs)
    return [
        Difference(
            _estimate(entry, values, level),
            _estimate(entry, values, joint),
            sum(part.size for part in entry.values()),
        )
        for entry, values in zip(paired, replicates, strict=True)
    ]


def _estimate(entry: Mapping[str, FloatArray], replicates: FloatArray, level: float) -> Estimate:
    missing = {name: int((~np.isfinite(v)).sum()) for name, v in entry.items()}
    if not entry or any(missing.values()):
        lacking = ", ".join(f"{count} in {name}" for name, count in missing.items() if count)
        return Estimate(None, None, None, f"problems without a value: {lacking or 'all'}")
    value = float(np.mean([values.mean() for values in entry.values()]))
    few = [name for name, values in entry.items() if values.size < MIN_CLUSTERS]
    if few:
        problems = f"fewer than {MIN_CLUSTERS} problems in {', '.join(few)}"
        return Estimate(value, None, None, f"{problems}: too few to resample")
    if all((values == 0).all() for values in entry.values()):
        return Estimate(value, None, None, "no problem came out differently")
    return percentile_estimate(value, replicates, level=level, max_dropped_share=0.0)


def _verdict(estimate: Estimate) -> Verdict:
    if estimate.value is None:
        return "not compared"
    if estimate.is_above(0.0):
        return "better"
    if estimate.is_below(0.0):
        return "worse"
    return "not told apart"


def sentence(first: str, second: str, metric: str, difference: Difference, level: float) -> str:
    """What a difference (second minus first) says, in one sentence.

    Args:
        first, second: labels of the models.
        metric: as it is to be named, such as Avg@12; its unit is the share of problems.
        difference: with its interval.
        level: of the interval.
    """
    estimate, n = difference.estimate, difference.n_problems
    if estimate.value is None:
        return f"{second} and {first} are not compared on {metric}: {estimate.reason}."
    points = 100.0 * estimate.value
    if estimate.ci_low is None or estimate.ci_high is None:
        return (
            f"{second} and {first} are not told apart by these {n} problems: {metric} differs by "
            f"{points:+.1f} points, without an interval ({estimate.reason})."
        )
    spread = (
        f"{100 * level:g}% interval {100 * estimate.ci_low:+.1f} to {100 * estimate.ci_high:+.1f}"
    )
    if difference.verdict == "not told apart":
        return (
            f"{second} and {first} are not told apart by these {n} problems: {metric} differs by "
            f"{points:+.1f} points ({spread})."
        )
    higher = "higher" if difference.verdict == "better" else "lower"
    return (
        f"{second} is {difference.verdict} than {first}: {metric} is {abs(points):.1f} points "
        f"{higher} ({spread}, {n} problems)."
    )


def multiplicity_note(n_pairs: int, level: float, not_joint: Sequence[str]) -> str | None:
    """What to remember where several pairs are looked at; None for one.

    Args:
        n_pairs: pairs of models.
        level: of each interval.
        not_joint: "SECOND against FIRST" of pairs that are told apart alone, not all together.
    """
    if n_pairs < 2:
        return None
    percent, joint = f"{100 * level:g}%", f"{100 * (1.0 - (1.0 - level) / n_pairs):.4g}%"
    note = (
        f"{n_pairs} pairs of models are compared. Each interval holds at {percent} by itself; for "
        f"all to hold together at {percent}, each is also taken at {joint} (Bonferroni). "
    )
    if not_joint:
        return note + "Told apart alone but not so: " + ", ".join(not_joint) + "."
    return note + "No verdict on the main score changes by that."
