"""Signals that look along the spine: what lies before a position, and what is still to come.

IW-OPD's accumulated discrepancy (arXiv 2606.22600, eq. 14 to 17) with the weight it implies,
MiniLLM's return, and the teacher's confidence one token on. They need both sides' log-probabilities
of every token of the spine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from branchdiag.signals.base import View, signal

if TYPE_CHECKING:
    from torch import Tensor

GAMMA = 0.5
"""What IW-OPD's first token weighs above 1."""
EPSILON = 1e-8
"""Keeps IW-OPD's share defined where teacher and student agree on every token."""


@signal(sign=1, paper="IW-OPD, arXiv 2606.22600", whole_spine=True)
def iw_opd_accumulated(at: View) -> Tensor:
    """Sum of |ln(q / p)| over the spine's tokens before this one, nats; the paper trusts a token
    less, the more has come before it.
    """
    steps_L = at.whole_spine.advantages.abs()
    return (steps_L.cumsum(0) - steps_L)[at.position_T]


@signal(sign=1, paper="IW-OPD, arXiv 2606.22600", whole_spine=True)
def iw_opd_share(at: View) -> Tensor:
    """F: that sum as a share of the sum over the whole spine."""
    return iw_opd_accumulated(at) / (at.whole_spine.advantages.abs().sum() + EPSILON)


@signal(sign=-1, paper="IW-OPD, arXiv 2606.22600", whole_spine=True)
def iw_opd_weight(at: View) -> Tensor:
    """1 + 0.5 (1 - F): what the token weighs in its loss."""
    return 1 + GAMMA * (1 - iw_opd_share(at))


@signal(sign=-1, paper="MiniLLM, arXiv 2306.08543", whole_spine=True)
def minillm_return(at: View) -> Tensor:
    """Sum of ln(q / p) over this token of the spine and all after it, nats."""
    advantages = at.whole_spine.advantages
    return (advantages.sum() - advantages.cumsum(0) + advantages)[at.position_T]


@signal(sign=-1, paper="MiniLLM, arXiv 2306.08543, normalised by length", whole_spine=True)
def minillm_mean_return(at: View) -> Tensor:
    """The same sum divided by how many tokens it is over, nats a token."""
    left_T = len(at.whole_spine.advantages) - at.position_T
    return minillm_return(at) / left_T


@signal(sign=-1, paper="SFD, arXiv 2605.30833, along the spine alone", whole_spine=True)
def sfd_next_confidence(at: View) -> Tensor:
    """Probability of the teacher's first token one position on, after the spine's own token;
    undefined at the last.
    """
    following_L = at.whole_spine.teacher_top_L.roll(-1)
    following_L[-1] = float("nan")
    return following_L.exp()[at.position_T]
