"""Distillation gradients against the ideal one at a node, on the logits of a few tokens.

After "Unmasking On-Policy Distillation" (arXiv 2605.10889). A node is a position of a trace; its
support is a few tokens whose chance of success V was measured by going on as the student. With the
student's p and the teacher's q renormalised on the support, the objective is sum p V, and the
gradient of ascent on the logits is p_j (V_j - sum p V): the ideal. A distillation loss has a
gradient of descent on the same logits, always of the form p_j (f_j - mean of f under p) where
nothing is clipped. How well a loss does at a node is the cosine of the two; what the teacher is
worth there, whatever the loss, is its advantage sum (q - p) V.

The support stands for the vocabulary: the paper's text gives these formulas, not its choice of
tokens, and ours is the forced tokens, the student's own likeliest and the spine's. The mass outside
it is reported.

The advantage is linear in V, whose weights were fixed before any rollout: it is unbiased, whatever
the number of rollouts, and defined at every node. The cosine is neither. V from a few rollouts is
noisy, noise turns the ideal gradient away and pulls the cosine to 0, and where every token succeeds
equally often it is undefined. Two tokens leave one direction, so that there it is 1 or -1.

Reads arrays; knows no table, no problem and no bootstrap. Dimensions: N nodes, K tokens of the
support. Tokens that are not there have probability NaN outside, 0 inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from branchdiag.stats.estimate import BoolArray, FloatArray

JSD_BETA = 0.5
"""Weight of the teacher in the mixture (arXiv 2306.13649)."""
CLIP = 0.05
"""Bound on one entry of the forward divergence, nats (OPSD, arXiv 2601.18734)."""
NO_LENGTH = 1e-12
"""A gradient shorter than this is rounding: V is constant, or teacher and student agree."""

Gradient = Callable[[FloatArray, FloatArray], FloatArray]
"""From shares p and q (..., K) to the gradient of descent (..., K) on the student's logits."""


def renormalised(probabilities: npt.ArrayLike) -> FloatArray:
    """Shares (..., K) of the support's mass: 0 where no token, all NaN where there is no mass."""
    values = np.asarray(probabilities, dtype=np.float64)
    mass = np.where(np.isfinite(values), values, 0.0)
    total = mass.sum(axis=-1, keepdims=True)
    shares = np.full(mass.shape, np.nan)
    np.divide(mass, total, out=shares, where=total > 0)
    return shares


def ideal_gradient(p: FloatArray, success: FloatArray) -> FloatArray:
    """p_j (V_j - sum p V): the gradient of sum p V on the logits (arXiv 2605.10889).

    Args:
        p: the student's shares (..., K).
        success: V (..., K); any finite value where p is 0.
    """
    gradient: FloatArray = p * (success - (p * success).sum(axis=-1, keepdims=True))
    return gradient


def forward_kl(p: FloatArray, q: FloatArray) -> FloatArray:
    """q - p: descent of KL(q || p)."""
    return q - p


def reverse_kl(p: FloatArray, q: FloatArray) -> FloatArray:
    """Descent of KL(p || q), f = ln(q / p); infinite where the teacher excludes a token."""
    return _centred(p, _log_ratio(q, p))


def jsd(p: FloatArray, q: FloatArray, beta: float = JSD_BETA) -> FloatArray:
    """Descent of beta KL(q || m) + (1 - beta) KL(p || m), m = beta q + (1 - beta) p.

    f = -(1 - beta) ln(p / m). At beta 0.5 the Jensen-Shannon divergence.
    """
    return _centred(p, (1.0 - beta) * _log_ratio(beta * q + (1.0 - beta) * p, p))


def clipped_forward_kl(p: FloatArray, q: FloatArray, clip: float = CLIP) -> FloatArray:
    """Descent of sum_j min(q_j ln(q_j / p_j), clip), as OPSD's released code has it.

    Entries at the bound pass no gradient: q_j a_j - p_j sum_i q_i a_i with a = [entry < clip].
    With every entry below it this is the forward KL's.
    """
    entries = np.where(q > 0, q * -_log_ratio(p, q), 0.0)
    open_q = q * (entries < clip)
    gradient: FloatArray = open_q - p * open_q.sum(axis=-1, keepdims=True)
    return gradient


LOSSES: Mapping[str, Gradient] = MappingProxyType(
    {
        "forward_kl": forward_kl,
        "reverse_kl": reverse_kl,
        "jsd": jsd,
        "clipped_forward_kl": clipped_forward_kl,
    }
)
"""The distillation losses whose gradients are compared, in the order of every table."""


def _log_ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """ln(above / below); 0 where `below` is 0, -inf where `above` alone is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(above) - np.log(below)
    return np.where(below > 0, ratio, 0.0)


def _centred(p: FloatArray, f: FloatArray) -> FloatArray:
    """p_j (f_j - sum p f), with 0 x infinity = 0; not finite where f is infinite under p."""
    with np.errstate(invalid="ignore"):
        weighted = np.where(p > 0, p * f, 0.0)
        gradient: FloatArray = weighted - p * weighted.sum(axis=-1, keepdims=True)
    return gradient


def has_length(gradient: FloatArray) -> BoolArray:
    """Whether a gradient (..., K) is finite and longer than rounding (...)."""
    with np.errstate(invalid="ignore"):
        length: BoolArray = np.sqrt((gradient**2).sum(axis=-1)) > NO_LENGTH
    return length & np.isfinite(gradient).all(axis=-1)


def cosine(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosine (...) of two gradients (..., K); NaN where either has no length."""
    defined = has_length(first) & has_length(second)
    a, b = (np.where(defined[..., np.newaxis], values, 1.0) for values in (first, second))
    dot = (a * b).sum(axis=-1)
    norms = np.sqrt((a**2).sum(axis=-1)) * np.sqrt((b**2).sum(axis=-1))
    return np.where(defined, np.clip(dot / norms, -1.0, 1.0), np.nan)


def advantage(p: FloatArray, q: FloatArray, success: FloatArray) -> FloatArray:
    """sum (q - p) V (...): what choosing here as the teacher does is worth, in success.

    Exactly 0 where the two agree but for rounding.
    """
    shift = q - p
    agree = np.sqrt((shift**2).sum(axis=-1, keepdims=True)) <= NO_LENGTH
    value: FloatArray = (np.where(agree, 0.0, shift) * success).sum(axis=-1)
    return value


def signal_square(p: FloatArray, success: FloatArray, samples: npt.ArrayLike) -> FloatArray:
    """An unbiased estimate (...) of the squared length of the ideal gradient of the true V.

    The ideal gradient is linear in V, so its squared length exceeds the true one by the sum over
    tokens of Var(V_k) times the squared length of V_k's part; Var(V_k) is estimated by
    V_k (1 - V_k) / (n_k - 1). Below 0 by chance where there is little signal.

    Args:
        samples: n (..., K), at least 2 where p is above 0.
    """
    counts = np.maximum(np.asarray(samples, dtype=np.float64), 2.0)
    variance = success * (1.0 - success) / (counts - 1.0)
    # d ideal_j / d V_k = p_j ([j = k] - p_k), whose squares sum over j to this.
    parts = p**2 * ((p**2).sum(axis=-1, keepdims=True) + 1.0 - 2.0 * p)
    square = (ideal_gradient(p, success) ** 2).sum(axis=-1)
    noise: FloatArray = (variance * parts).sum(axis=-1)
    return np.where(square > NO_LENGTH**2, square, 0.0) - noise
