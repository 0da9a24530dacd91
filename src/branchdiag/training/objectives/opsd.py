"""OPSD: on-policy self-distillation with a clipped divergence (arXiv 2601.18734).

The form of its released code and of arXiv 2605.21606, eq. 1. Reads distributions of a block of
tokens, writes losses and gradients; knows no weights and no reduction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from branchdiag.training.objectives.base import Distribution, Objective, TokenTerms


@dataclass(frozen=True)
class OPSD(Objective):
    """Every valid token pulls the student p towards the teacher q over the whole vocabulary.

    Per token: l = sum_j min(d_j, clip). At beta 0 (the default) d_j = q_j ln(q_j / p_j), forward
    KL; at beta 1 reverse KL, p_j ln(p_j / q_j); between, with m = (1 - beta) p + beta q,
    d_j = beta q_j ln(q_j / m_j) + (1 - beta) p_j ln(p_j / m_j), which tends to 0 at both ends.
    The clip acts on each vocabulary entry before the sum, and from above only: it keeps a few
    entries from ruling the step, and makes a token's loss negative where they hold most of its
    divergence. The descent direction is then that of the entries not clipped; the unclipped
    divergence is logged beside the loss. Weight 1; reduction: mean over the global batch's tokens.
    """

    name: ClassVar[str] = "opsd"

    beta: float = 0.0
    """0: KL(teacher || student), 1: KL(student || teacher), between: Jensen-Shannon."""
    clip: float | None = 0.05
    """Most that one vocabulary entry adds to a token's loss, nats; None: no clip."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.beta <= 1, "beta", "lie in [0, 1]")
        self.require(self.clip is None or self.clip > 0, "clip", "be above 0, or none")

    def token_terms(
        self, student: Distribution, teacher: Distribution, tokens_T: Tensor
    ) -> TokenTerms:
        """See `Objective.token_terms`. d l / d z_j = s_j p_j - p_j sum_i s_i p_i, s = d l / d p."""
        if self.beta == 0:
            return self._forward(student, teacher)
        log_p_TV, p_TV = student.log_probs_TV, student.probs_TV
        if self.beta == 1:
            slopes_TV = log_p_TV - teacher.log_probs_TV
            terms_TV = p_TV * slopes_TV
            slopes_TV += 1
        else:
            beta, rest = self.beta, 1 - self.beta
            log_m_TV = torch.logaddexp(
                log_p_TV + math.log(rest), teacher.log_probs_TV + math.log(beta)
            )
            slopes_TV = (log_p_TV - log_m_TV).mul_(rest)
            terms_TV = p_TV * slopes_TV
            # d m / d p adds 1 - (beta q + (1 - beta) p) / m = 0 to the slope.
            terms_TV += (teacher.log_probs_TV - log_m_TV).mul_(teacher.probs_TV).mul_(beta)
        divergences_T = terms_TV.sum(-1)
        losses_T, kept_TV = self._clip(terms_TV, divergences_T, torch.empty_like(terms_TV))
        if kept_TV is not None:
            slopes_TV.mul_(kept_TV)
        slopes_TV -= torch.linalg.vecdot(slopes_TV, p_TV)[:, None]
        return TokenTerms(losses_T, slopes_TV.mul_(p_TV), divergences_T, _clipped(kept_TV))

    def _forward(self, student: Distribution, teacher: Distribution) -> TokenTerms:
        """beta 0, where the slope -q / p needs no division: q_j of the entries not clipped."""
        terms_TV = torch.sub(teacher.log_probs_TV, student.log_probs_TV, out=student.log_probs_TV)
        terms_TV.mul_(teacher.probs_TV)
        divergences_T = terms_TV.sum(-1)
        losses_T, kept_TV = self._clip(terms_TV, divergences_T, teacher.log_probs_TV)
        pull_TV = teacher.probs_TV if kept_TV is None else teacher.probs_TV.mul_(kept_TV)
        gradients_TV = student.probs_TV.mul_(pull_TV.sum(-1, keepdim=True)).sub_(pull_TV)
        return TokenTerms(losses_T, gradients_TV, divergences_T, _clipped(kept_TV))

    def _clip(
        self, terms_TV: Tensor, sums_T: Tensor, scratch_TV: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Sums after the clip, and 1 for an entry that it leaves, 0 for one it meets.

        Overwrites both. Ones and zeros as numbers, because a product with them takes a thirtieth of
        the time that `masked_fill_` does on a CPU.
        """
        if self.clip is None:
            return sums_T, None
        kept_TV = torch.le(terms_TV, self.clip, out=scratch_TV)
        return terms_TV.clamp_(max=self.clip).sum(-1), kept_TV


def _clipped(kept_TV: Tensor | None) -> Tensor | None:
    """Number of clipped entries [T]."""
    return None if kept_TV is None else kept_TV.shape[-1] - kept_TV.sum(-1)
