"""Signals of one side, of the spine's own token, and of whether a proposal would be accepted.

Entropies and confidences of teacher or student, log-ratios at the token that the spine has, and
the tests by which a teacher accepts what the student proposes. Knows the view alone. All at the
temperature of the diagnosis (1), also where a method trains at another.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from branchdiag.signals.base import View, at_token, expectation, signal

if TYPE_CHECKING:
    from torch import Tensor

EOPD_THRESHOLD = 0.8
"""Teacher entropy above which EOPD adds the forward divergence, nats (arXiv 2603.07079)."""
REOPOLD_FLOOR = math.log(0.1) / (1 - 0.1)
"""REOPOLD's bound on the reward from below, nats (arXiv 2603.11137; mixture 0.1)."""
SELECTKD_TOP_K = 5
"""Teacher's first tokens among which a proposal is accepted. The method's k was not to be had."""


@signal(sign=1, paper="EOPD, arXiv 2603.07079")
def eopd_entropy(at: View) -> Tensor:
    """H(q), the teacher's entropy over the whole vocabulary, nats."""
    return at.entropy_q


@signal(sign=1, paper="EOPD, arXiv 2603.07079")
def eopd_gate(at: View) -> Tensor:
    """1 where H(q) is above 0.8 nats, where the forward divergence is added; else 0."""
    return (at.entropy_q > EOPD_THRESHOLD).to(at.entropy_q.dtype)


@signal(sign=1, paper="REOPOLD, arXiv 2603.11137")
def reopold_student_entropy(at: View) -> Tensor:
    """H(p), the student's entropy over the whole vocabulary, nats."""
    return at.entropy_p


@signal(sign=-1, paper="REOPOLD, arXiv 2603.11137; also ToDi's and MiniLLM's at the token")
def reopold_log_ratio(at: View) -> Tensor:
    """ln(q / p) at the spine's own token, nats."""
    return at.advantage


@signal(sign=-1, paper="REOPOLD, arXiv 2603.11137")
def reopold_reward(at: View) -> Tensor:
    """max(ln(q / p), -2.56) at the spine's own token, nats."""
    return at.advantage.clamp(min=REOPOLD_FLOOR)


@signal(sign=-1, paper="ToDi, arXiv 2505.16297")
def todi_token_weight(at: View) -> Tensor:
    """q / (q + p) at the spine's own token."""
    return at.advantage.sigmoid()


@signal(sign=1, paper="IW-OPD, arXiv 2606.22600")
def iw_opd_step(at: View) -> Tensor:
    """|ln(q / p)| at the spine's own token, nats."""
    return at.advantage.abs()


@signal(sign=-1, paper="SelecTKD, arXiv 2510.24021; k is ours")
def selectkd_accepted(at: View) -> Tensor:
    """1 where the student's first token is among the teacher's first 5; else 0."""
    return (selectkd_rank(at) <= SELECTKD_TOP_K).to(at.q.dtype)


@signal(sign=1, paper="SelecTKD, arXiv 2510.24021")
def selectkd_rank(at: View) -> Tensor:
    """The teacher's rank of the student's first token, from 1."""
    own_T = at_token(at.log_q_TV, at.student_top)
    return 1.0 + (at.log_q_TV > own_T[:, None]).sum(-1).to(at.log_q_TV.dtype)


@signal(sign=-1, paper="SelecTKD, arXiv 2510.24021")
def selectkd_speculative(at: View) -> Tensor:
    """min(1, q / p) at the student's first token: the chance that a speculative test takes it."""
    ratio_T = at_token(at.log_q_TV, at.student_top) - at_token(at.log_p_TV, at.student_top)
    return ratio_T.clamp(max=0).exp()


@signal(sign=-1, paper="speculative sampling, arXiv 2302.01318")
def speculative_acceptance(at: View) -> Tensor:
    """Sum of min(q, p): the chance that a token drawn from the student is accepted."""
    return at.q.minimum(at.p).sum(-1)


@signal(sign=-1, paper="ours")
def same_first_token(at: View) -> Tensor:
    """1 where teacher and student have the same first token; else 0."""
    return (at.log_q_TV.argmax(-1) == at.student_top).to(at.q.dtype)


@signal(sign=-1, paper="ours")
def teacher_top1(at: View) -> Tensor:
    """Probability of the teacher's first token."""
    return at.q.amax(-1)


@signal(sign=-1, paper="ours")
def teacher_margin(at: View) -> Tensor:
    """Probability of the teacher's first token less that of its second, over all tokens."""
    first_T2 = at.q.topk(2, -1).values
    return first_T2[:, 0] - first_T2[:, 1]


@signal(sign=1, paper="PW-OPSD, arXiv 2605.21606, whose test of plausibility it is")
def teacher_ratio(at: View) -> Tensor:
    """p2 / p1: the teacher's second probability over its first, over all tokens."""
    first_T2 = at.q.topk(2, -1).values
    return first_T2[:, 1] / first_T2[:, 0]


@signal(sign=1, paper="ours")
def teacher_varentropy(at: View) -> Tensor:
    """Variance of -ln q under q, nats squared."""
    surprise_TV = at.log_q_TV + at.entropy_q[:, None]
    return expectation(at.q, surprise_TV**2)


@signal(sign=-1, paper="ours")
def student_top1(at: View) -> Tensor:
    """Probability of the student's first token."""
    return at.p.amax(-1)


@signal(sign=-1, paper="ours")
def student_margin(at: View) -> Tensor:
    """Probability of the student's first token less that of its second, over all tokens."""
    first_T2 = at.p.topk(2, -1).values
    return first_T2[:, 0] - first_T2[:, 1]


@signal(sign=1, paper="ours")
def entropy_gap(at: View) -> Tensor:
    """H(q) - H(p), nats."""
    return at.entropy_q - at.entropy_p


@signal(sign=-1, paper="ours")
def teacher_token_probability(at: View) -> Tensor:
    """The teacher's probability of the spine's own token."""
    return at_token(at.q, at.token_T)


@signal(sign=-1, paper="ours")
def student_token_probability(at: View) -> Tensor:
    """The student's probability of the spine's own token."""
    return at_token(at.p, at.token_T)
