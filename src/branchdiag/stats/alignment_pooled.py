"""All nodes of a group as one long gradient: its cosine, and how much of the ideal is noise.

The concatenated gradients of all nodes have a cosine that needs no node to be left out, since a
node without an ideal gradient adds nothing to any of its sums. Its noise can be taken out: the
numerator is linear in V and unbiased, and the squared length of the true ideal has an unbiased
estimate (`alignment.signal_square`), so `corrected` does not tend to 0 with few rollouts. It may
exceed 1 by chance. `signal_share` is the share of the observed squared length that is not noise;
`split_half` is the cosine of the ideal gradients of two halves of the rollouts, and tends to the
same share at half the rollouts.

Ratios of sums over problems, resampled over problems alone. Reads arrays; knows no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, Unpack

import numpy as np

from branchdiag.stats.alignment import (
    LOSSES,
    has_length,
    ideal_gradient,
    renormalised,
    signal_square,
)
from branchdiag.stats.alignment_nodes import Nodes
from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.bootstrap import interval, replicate
from branchdiag.stats.estimate import (
    Estimate,
    FloatArray,
    Resampling,
    missing,
)
from branchdiag.stats.weighted import WeightedStatistic

NO_IDEAL = "every token succeeds equally often at every node"
NO_GRADIENT = "the loss has no gradient at any node"
ALL_NOISE = "the tokens' success differs by no more than noise"

OfLoss: TypeAlias = tuple[str, str]
"""Loss and context."""


@dataclass(frozen=True)
class Pooled:
    """Cosines of all nodes together by (loss, context), and what the ideal is worth."""

    cosines: Mapping[OfLoss, Estimate]
    corrected: Mapping[OfLoss, Estimate]
    split_half: Estimate
    signal_share: Estimate


def pool(nodes: Nodes, **resampling: Unpack[Resampling]) -> Pooled:
    """The cosines of all nodes together, under every context and loss."""
    codes, n_problems = cluster_codes(nodes.problem_id)
    p, success = renormalised(nodes.student_NK), nodes.success()
    ideal = _without_rounding(ideal_gradient(p, success))
    square = (ideal**2).sum(axis=-1)
    signal = signal_square(p, success, nodes.samples_NK)
    one, two = (_without_rounding(ideal_gradient(p, half)) for half in nodes.halves())

    def sums(values_N: FloatArray) -> FloatArray:
        return np.bincount(codes, values_N, n_problems).astype(np.float64)

    def estimate(statistic: WeightedStatistic, reason: str) -> Estimate:
        value = float(statistic(np.ones((1, n_problems)))[0])
        if not np.isfinite(value):
            return missing(reason)
        (replicates,) = replicate(
            [statistic], n_problems, resamples=resampling["resamples"], seed=resampling["seed"]
        )
        return interval(value, replicates, n_problems, **resampling)

    cosines, corrected = {}, {}
    for context, raw in nodes.teacher.items():
        q = renormalised(raw)
        for loss, gradient in LOSSES.items():
            step = gradient(p, q)
            usable = np.isfinite(step.sum(axis=-1))  # not where the teacher excludes a token
            step = _without_rounding(step)
            dot, length = sums((ideal * step).sum(axis=-1)), sums((step**2).sum(axis=-1))
            cosines[loss, context] = estimate(
                cosine_of_sums(dot, sums(square * usable), length),
                NO_IDEAL if (step != 0.0).any() else NO_GRADIENT,
            )
            corrected[loss, context] = estimate(
                cosine_of_sums(dot, sums(signal * usable), length),
                cosines[loss, context].reason or ALL_NOISE,
            )
    halves = [sums(values.sum(axis=-1)) for values in (one * two, one**2, two**2)]
    return Pooled(
        cosines=cosines,
        corrected=corrected,
        split_half=estimate(cosine_of_sums(*halves), NO_IDEAL),
        signal_share=estimate(share_of_sums(sums(signal), sums(square)), NO_IDEAL),
    )


def _without_rounding(gradient_NK: FloatArray) -> FloatArray:
    """Gradients, 0 where they have no length beyond rounding or are infinite."""
    return np.where(has_length(gradient_NK)[:, np.newaxis], gradient_NK, 0.0)


def cosine_of_sums(dot: FloatArray, first: FloatArray, second: FloatArray) -> WeightedStatistic:
    """sum dot / sqrt(sum first x sum second) of clusters (P,), as a function of multiplicities."""

    def statistic(weights: FloatArray) -> FloatArray:
        squares = np.maximum(weights @ first, 0.0) * np.maximum(weights @ second, 0.0)
        value = np.full(squares.shape, np.nan)
        lengths = np.sqrt(squares)
        np.divide(weights @ dot, lengths, out=value, where=lengths > 0)
        return value

    return statistic


def share_of_sums(part: FloatArray, whole: FloatArray) -> WeightedStatistic:
    """sum part / sum whole of clusters (P,), as a function of multiplicities."""

    def statistic(weights: FloatArray) -> FloatArray:
        below = weights @ whole
        value = np.full(below.shape, np.nan)
        np.divide(weights @ part, below, out=value, where=below > 0)
        return value

    return statistic
