"""IW-OPD: on-policy distillation, later tokens weighing less (arXiv 2606.22600, eq. 14 to 17).

Reads distributions, sampled tokens and the rows' statistics; knows no batch beyond its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from branchdiag.training.objectives.base import (
    Distribution,
    MicroBatch,
    Objective,
    TokenTerms,
    forward_kl,
)


@dataclass(frozen=True)
class IWOPD(Objective):
    """The advantage of the sampled token, weighed by how far the rollout has drifted before it.

    Per token, with A = ln q(y) - ln p(y) detached and r = p(y) / detached p(y) = 1 while rollouts
    are the current student's own (PPO's clips of r never act and are left out): l = -r A. Weight:
    w_t = 1 + gamma (1 - F), F = sum of |A| over the row's tokens before t / (sum over all of the
    row's + 1e-8). It falls from 1 + gamma towards 1, and is 1 + gamma throughout where teacher and
    student agree on every token. Only the weight sees other tokens: a discrepancy early in a
    rollout lowers all later ones. The sums run over the valid tokens, whichever are trained.
    Reduction: mean over the global batch's tokens.
    """

    name: ClassVar[str] = "iw-opd"
    statistics_of: ClassVar[Literal["nothing", "micro-batch", "global batch"]] = "micro-batch"

    temperature: float = 1.0
    gamma: float = 0.5
    """What the first token weighs above 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.gamma >= 0, "gamma", "not be negative")

    def token_terms(
        self, student: Distribution, teacher: Distribution, tokens_T: Tensor
    ) -> TokenTerms:
        """See `Objective.token_terms`. Gradient: A (p - e_y)."""
        divergences_T = forward_kl(student, teacher)
        advantages_T = teacher.log_probs_of(tokens_T) - student.log_probs_of(tokens_T)
        gradients_TV = student.probs_TV.mul_(advantages_T[:, None])
        gradients_TV.scatter_add_(-1, tokens_T[:, None], -advantages_T[:, None])
        return TokenTerms(-advantages_T, gradients_TV, divergences_T)

    def token_weights(self, rows: MicroBatch) -> Tensor:
        """1 + gamma (1 - F) from the rows' own statistics."""
        statistics = rows.needed_statistics()
        advantages_BT = statistics.teacher_log_probs_BT - statistics.student_log_probs_BT
        drift_BT = advantages_BT.double().abs().where(rows.valid_BT, 0.0)
        until_BT = drift_BT.cumsum(-1)
        before_BT = torch.cat([torch.zeros_like(until_BT[:, :1]), until_BT[:, :-1]], dim=1)
        share_BT = before_BT / (drift_BT.sum(-1, keepdim=True) + 1e-8)
        return 1 + self.gamma * (1 - share_BT)
