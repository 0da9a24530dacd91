"""The measured nodes of a group as arrays, and every figure at each of them.

Reads arrays; knows no table, no position in a report and no bootstrap. Dimensions: N nodes, K
tokens of the support.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from branchdiag.stats.alignment import (
    LOSSES,
    advantage,
    has_length,
    ideal_gradient,
    renormalised,
)
from branchdiag.stats.estimate import FloatArray, IntArray

ADVANTAGE = "advantage"
FIGURES = (ADVANTAGE, *(f"cosine_{loss}" for loss in LOSSES))
COMPARED = (ADVANTAGE, "cosine_forward_kl")
"""Figures whose differences between contexts are estimated."""

Key: TypeAlias = tuple[str, str, str]
"""Figure, context, and the context it is compared with or nothing."""


@dataclass(frozen=True)
class Nodes:
    """N nodes with a support of up to K tokens; NaN and 0 samples where there is no token.

    student_NK: the student's probabilities. teacher: context -> the teacher's; a row of NaN where a
    problem has not what the context shows. successes_NK, samples_NK: graded rollouts of each token;
    first_*: of the first half of them. r: relative position. problem_id: the clusters.
    """

    student_NK: FloatArray
    teacher: Mapping[str, FloatArray]
    successes_NK: IntArray
    samples_NK: IntArray
    first_successes_NK: IntArray
    first_samples_NK: IntArray
    r: FloatArray
    problem_id: npt.NDArray[np.str_]

    def success(self) -> FloatArray:
        """V (N, K): successes / samples, 0 where there is no token."""
        return share(self.successes_NK, self.samples_NK)

    def halves(self) -> tuple[FloatArray, FloatArray]:
        """V by the first half of the rollouts, and by the second."""
        return (
            share(self.first_successes_NK, self.first_samples_NK),
            share(
                self.successes_NK - self.first_successes_NK,
                self.samples_NK - self.first_samples_NK,
            ),
        )


def share(successes: IntArray, samples: IntArray) -> FloatArray:
    """successes (..., N, K) / samples (N, K), 0 where there are no samples."""
    graded = np.broadcast_to(samples > 0, successes.shape)
    return np.divide(successes, samples, out=np.zeros(successes.shape), where=graded)


def node_values(nodes: Nodes, success: FloatArray) -> dict[Key, FloatArray]:
    """Each figure under each context (..., N) at given success rates (..., N, K); NaN where
    undefined, or where the node lacks the context.
    """
    p = renormalised(nodes.student_NK)
    ideal = ideal_gradient(p, success)
    unit = _unit(ideal)
    values: dict[Key, FloatArray] = {}
    for context, raw in nodes.teacher.items():
        q = renormalised(raw)
        values[ADVANTAGE, context, ""] = advantage(p, q, success)
        for loss, gradient in LOSSES.items():
            values[f"cosine_{loss}", context, ""] = np.clip(
                (unit * _unit(gradient(p, q))).sum(axis=-1), -1.0, 1.0
            )
    return values


def _unit(gradient: FloatArray) -> FloatArray:
    """Gradients (..., K) of length 1; NaN where they have none."""
    long = has_length(gradient)[..., np.newaxis]
    safe = np.where(long, gradient, 1.0)
    return np.where(long, safe / np.sqrt((safe**2).sum(axis=-1, keepdims=True)), np.nan)


def with_differences(values: Mapping[Key, FloatArray]) -> dict[Key, FloatArray]:
    """The values, and those of the compared figures less another context's at the same node."""
    contexts = list(dict.fromkeys(context for _, context, _ in values))
    return dict(values) | {
        (figure, first, second): values[figure, first, ""] - values[figure, second, ""]
        for figure in COMPARED
        for first, second in combinations(contexts, 2)
    }
