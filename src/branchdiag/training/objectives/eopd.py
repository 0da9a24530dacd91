"""EOPD: on-policy distillation that adds forward KL where the teacher is unsure (arXiv 2603.07079).

The form of the release that goes with arXiv 2605.21606, which cites eq. 7 to 10 of the paper. Reads
distributions and sampled tokens, writes losses and gradients; knows no weights and no reduction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from branchdiag.training.objectives.base import Distribution, Objective, TokenTerms, forward_kl


@dataclass(frozen=True)
class EOPD(Objective):
    """Follow the teacher on the sampled token; where it is unsure, cover its likely tokens too.

    Per token, with A = ln q(y) - ln p(y) detached and r = p(y) / detached p(y), which is 1 while
    rollouts are the current student's own (so a PPO clip of r never acts and is left out):
    l = -r A + 1[H(q) > entropy_threshold] sum over the teacher's top_k tokens of
    q~_j (ln q~_j - ln p_j), q~ renormalised on these tokens, p_j of the whole softmax.
    Weight 1; reduction: mean over the global batch's tokens; nothing is clipped.
    """

    name: ClassVar[str] = "eopd"

    entropy_threshold: float = 0.8
    """Nats at the temperature, over the whole vocabulary."""
    top_k: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.entropy_threshold >= 0, "entropy_threshold", "not be negative")
        self.require(self.top_k >= 1, "top_k", "be at least 1")

    def token_terms(
        self, student: Distribution, teacher: Distribution, tokens_T: Tensor
    ) -> TokenTerms:
        """See `Objective.token_terms`. Gradient: (A + gate) p - A e_y - gate q~."""
        divergences_T = forward_kl(student, teacher)
        advantages_T = teacher.log_probs_of(tokens_T) - student.log_probs_of(tokens_T)
        gates_T = (teacher.entropies_T > self.entropy_threshold).to(advantages_T.dtype)
        top_k = min(self.top_k, teacher.probs_TV.shape[-1])
        top_log_TK, ids_TK = teacher.log_probs_TV.topk(top_k, dim=-1)
        top_log_TK = top_log_TK.log_softmax(-1)
        top_TK = top_log_TK.exp()
        student_log_TK = student.log_probs_TV.gather(-1, ids_TK)
        covering_T = torch.linalg.vecdot(top_TK, top_log_TK - student_log_TK)
        gradients_TV = student.probs_TV.mul_((advantages_T + gates_T)[:, None])
        gradients_TV.scatter_add_(-1, tokens_T[:, None], -advantages_T[:, None])
        gradients_TV.scatter_add_(-1, ids_TK, -gates_T[:, None] * top_TK)
        return TokenTerms(gates_T * covering_T - advantages_T, gradients_TV, divergences_T)
