"""REOPOLD: on-policy distillation with a floored reward and selected tokens (arXiv 2603.11137).

The form of the release that goes with arXiv 2605.21606. Reads distributions, sampled tokens and the
global batch's statistics; knows no micro-batch size: the quantile is the global batch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from branchdiag.training.objectives.base import (
    Distribution,
    MicroBatch,
    Objective,
    TokenTerms,
    forward_kl,
)


@dataclass(frozen=True)
class REOPOLD(Objective):
    """The log-ratio of teacher to student on the sampled token is a reward, bounded from below.

    Per token: l = -R^ ln p(y), R^ = max(R, floor) and R = ln q(y) - ln p(y) detached,
    floor = ln(mixture) / (1 - mixture): the infimum of a mixture's log-ratio of slope 1 at R = 0.
    Which tokens count changes once: before step `switch_step` those with R >= floor (so the bound
    does not act then), from it on those whose student entropy reaches the (1 - kept_share) quantile
    over the global batch's tokens. Weight 1; reduction: mean over the tokens that count.
    """

    name: ClassVar[str] = "reopold"
    statistics_of: ClassVar[Literal["nothing", "micro-batch", "global batch"]] = "global batch"

    mixture: float = 0.1
    """Share of the student in the mixture that bounds the reward (lambda)."""
    kept_share: float = 0.2
    """Share of tokens kept, by entropy, in the second phase (beta)."""
    switch_step: int = 50
    """First step, counted from 0, of the second phase."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 < self.mixture < 1, "mixture", "lie between 0 and 1")
        self.require(0 < self.kept_share <= 1, "kept_share", "lie in (0, 1]")
        self.require(self.switch_step >= 0, "switch_step", "not be negative")

    @property
    def floor(self) -> float:
        """Least reward, nats."""
        return math.log(self.mixture) / (1 - self.mixture)

    def token_terms(
        self, student: Distribution, teacher: Distribution, tokens_T: Tensor
    ) -> TokenTerms:
        """See `Objective.token_terms`. Gradient: R^ (p - e_y)."""
        divergences_T = forward_kl(student, teacher)
        log_p_T = student.log_probs_of(tokens_T)
        rewards_T = (teacher.log_probs_of(tokens_T) - log_p_T).clamp(min=self.floor)
        gradients_TV = student.probs_TV.mul_(rewards_T[:, None])
        gradients_TV.scatter_add_(-1, tokens_T[:, None], -rewards_T[:, None])
        return TokenTerms(-rewards_T * log_p_T, gradients_TV, divergences_T)

    def gate(self, batch: Sequence[MicroBatch], step: int) -> float | None:
        """The entropy that a token must reach in the second phase; None with no token at all."""
        if step < self.switch_step:
            return None
        entropies = [
            rows.needed_statistics().student_entropies_BT[rows.trained_BT].double().cpu().numpy()
            for rows in batch
        ]
        together = np.concatenate(entropies) if entropies else np.empty(0)
        return float(np.quantile(together, 1 - self.kept_share)) if together.size else None

    def counted(self, rows: MicroBatch, gate: float | None, step: int) -> Tensor:
        """The tokens of the phase."""
        statistics = rows.needed_statistics()
        if step < self.switch_step:
            rewards_BT = statistics.teacher_log_probs_BT - statistics.student_log_probs_BT
            return rows.trained_BT & (rewards_BT >= self.floor)
        if gate is None:
            return rows.trained_BT  # no row has a token
        return rows.trained_BT & (statistics.student_entropies_BT.double() >= gate)
