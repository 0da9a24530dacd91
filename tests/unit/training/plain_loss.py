"""The plain way: all logits at once, float32 softmaxes, autograd. An oracle for the fused loss.

Shares with the package the coefficients of the tokens, and nothing else.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

SCALE = {torch.bfloat16: torch.float32}


def log_probs(hidden, head, temperature):
    """Log-probabilities of every token, projected in the head's type."""
    logits = functional.linear(hidden, head.weight_Vd, head.bias_V)
    logits = logits.to(SCALE.get(logits.dtype, logits.dtype))
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return (logits / temperature).log_softmax(-1)


def divergence(log_p, log_q, beta, clip):
    p, q = log_p.exp(), log_q.exp()
    if beta == 0:
        terms = q * (log_q - log_p)
    elif beta == 1:
        terms = p * (log_p - log_q)
    else:
        log_m = ((1 - beta) * p + beta * q).log()
        terms = beta * q * (log_q - log_m) + (1 - beta) * p * (log_p - log_m)
    return terms.sum(-1) if clip is None else terms.clamp(max=clip).sum(-1)


def token_losses(objective, log_p, log_q, tokens):
    if objective.name in ("opsd", "pw-opsd"):
        return divergence(log_p, log_q, objective.beta, objective.clip)
    p_y = log_p.gather(-1, tokens[..., None])[..., 0]
    q_y = log_q.gather(-1, tokens[..., None])[..., 0]
    advantage = (q_y - p_y).detach()
    if objective.name == "reopold":
        floor = math.log(objective.mixture) / (1 - objective.mixture)
        return -advantage.clamp(min=floor) * p_y
    losses = -(p_y - p_y.detach()).exp() * advantage
    if objective.name == "iw-opd":
        return losses
    top, ids = log_q.topk(min(objective.top_k, log_q.shape[-1]), dim=-1)
    top = top.log_softmax(-1)
    covering = (top.exp() * (top - log_p.gather(-1, ids))).sum(-1)
    unsure = -(log_q.exp() * log_q).sum(-1) > objective.entropy_threshold
    return losses + unsure * covering


def plain_loss(objective, coefficients, mask, student, teacher, student_head, teacher_head, tokens):
    """sum c_t l_t over the mask's tokens, to be differentiated by autograd."""
    width = min(len(student_head.weight_Vd), len(teacher_head.weight_Vd))
    log_p = log_probs(student[mask], student_head.cut(width), objective.temperature)
    with torch.no_grad():
        log_q = log_probs(teacher[mask], teacher_head.cut(width), objective.temperature)
    losses = token_losses(objective, log_p, log_q, tokens[mask])
    return (coefficients[mask].to(losses.dtype) * losses).sum()
