"""Signals that measure how far teacher and student are apart over the whole vocabulary.

Each is the divergence, weight or score of a distillation method, evaluated at a position and used
as a signal. Knows the view alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from branchdiag.signals.base import View, expectation, signal

if TYPE_CHECKING:
    from torch import Tensor

SKEW = 0.1
"""DistiLLM's mixture weight (arXiv 2402.03898)."""
OPSD_CLIP = 0.05
"""OPSD's bound on one vocabulary entry of the divergence, nats (its released code)."""
HEAD_MASS = 0.5
"""AKL's share of the teacher's mass that is the head (arXiv 2404.02657)."""


@signal(sign=1, paper="OPSD, arXiv 2601.18734, without its clip")
def forward_kl(at: View) -> Tensor:
    """KL(q || p), nats."""
    return at.forward_kl


@signal(sign=1, paper="MiniLLM, arXiv 2306.08543")
def reverse_kl(at: View) -> Tensor:
    """KL(p || q), nats."""
    return at.reverse_kl


@signal(sign=1, paper="GKD, arXiv 2306.13649")
def gkd_jsd(at: View) -> Tensor:
    """Jensen-Shannon divergence at beta 0.5, nats."""
    mixture_log_TV = ((at.q + at.p) / 2).log()
    teacher = expectation(at.q, at.log_q_TV - mixture_log_TV)
    return (teacher + expectation(at.p, at.log_p_TV - mixture_log_TV)) / 2


@signal(sign=1, paper="DistiLLM, arXiv 2402.03898")
def distillm_skew_kl(at: View) -> Tensor:
    """KL(q || 0.1 q + 0.9 p), nats."""
    mixture_log_TV = (SKEW * at.q + (1 - SKEW) * at.p).log()
    return expectation(at.q, at.log_q_TV - mixture_log_TV)


@signal(sign=1, paper="DistiLLM, arXiv 2402.03898")
def distillm_skew_reverse_kl(at: View) -> Tensor:
    """KL(p || 0.1 p + 0.9 q), nats."""
    mixture_log_TV = (SKEW * at.p + (1 - SKEW) * at.q).log()
    return expectation(at.p, at.log_p_TV - mixture_log_TV)


@signal(sign=1, paper="OPSD, arXiv 2601.18734")
def opsd_clipped_kl(at: View) -> Tensor:
    """Sum over the vocabulary of min(q ln(q / p), 0.05), nats; below 0 where a few entries hold
    most of the divergence.
    """
    terms_TV = at.q * (at.log_q_TV - at.log_p_TV)
    return terms_TV.clamp(max=OPSD_CLIP).nansum(-1)


@signal(sign=1, paper="AdaKD, arXiv 2510.11615")
def adakd_hellinger(at: View) -> Tensor:
    """Hellinger distance |sqrt q - sqrt p| / sqrt 2, from 0 to 1."""
    gaps_TV = at.q.sqrt() - at.p.sqrt()
    return ((gaps_TV**2).sum(-1) / 2).sqrt()


@signal(sign=1, paper="ours, beside AdaKD")
def total_variation(at: View) -> Tensor:
    """Half the sum of |q - p|, from 0 to 1."""
    return (at.q - at.p).abs().sum(-1) / 2


@signal(sign=1, paper="AKL, arXiv 2404.02657")
def akl_head_share(at: View) -> Tensor:
    """Share of sum |q - p| that lies on the teacher's head: its first tokens up to half its mass,
    the very first always; undefined where the two are equal.
    """
    sorted_q_TV, order_TV = at.q.sort(stable=True, dim=-1, descending=True)
    head_TV = sorted_q_TV.cumsum(-1) <= HEAD_MASS
    head_TV[:, 0] = True
    gaps_TV = (sorted_q_TV - at.p.gather(1, order_TV)).abs()
    share_T: Tensor = (gaps_TV * head_TV).sum(-1) / gaps_TV.sum(-1)
    return share_T


@signal(sign=1, paper="ToDi, arXiv 2505.16297")
def todi_mean_weight(at: View) -> Tensor:
    """Mean over the vocabulary of the weight q / (q + p) that the forward divergence gets; high
    where the teacher is the flatter of the two.
    """
    return (at.log_q_TV - at.log_p_TV).sigmoid().nanmean(-1)


@signal(sign=1, paper="TIP, arXiv 2604.14084, which combines them; the scales are ours")
def tip_soft_or(at: View) -> Tensor:
    """1 - (1 - h) (1 - d): student entropy or disagreement, with h = H(p) / ln V and
    d = 1 - exp(-KL(p || q)).
    """
    entropy_T = at.entropy_p / math.log(at.log_p_TV.shape[-1])
    return 1 - (1 - entropy_T) * (-at.reverse_kl).exp()
