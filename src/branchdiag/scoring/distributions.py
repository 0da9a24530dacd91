"""From two chunks of logits to the scores of their positions: entropies, divergences, top tokens.

Reads logits [T, V] of teacher and student over the same tokens; writes plain arrays. Knows no
model, no tokenizer and no phase. The scores are those of arXiv 2605.21606 (Phase B and appendix A):
the truncated entropy of the teacher's top valid tokens and, beside it, signals over the whole
vocabulary.

Numbers: softmax, logarithms and sums are float64, whatever the logits are: over 152k tokens float32
sums are off in the fifth digit. The float64 copies are made a block of rows at a time, which bounds
their memory and, on a CPU, keeps them in the cache (4 times faster at 152k tokens).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchdiag.errors import UsageError

SCALAR_COLUMNS = (
    "h_full",
    "h_student",
    "h_trunc",
    "h_trunc_partial",
    "h_trunc_tail",
    "covered_mass",
    "teacher_logprob",
    "student_logprob",
    "kl",
    "reverse_kl",
    "jsd",
    "p1",
    "p2",
)
"""The real columns, float64 [T]."""

ID_COLUMNS = ("teacher_top_id", "student_top_id")
"""The id columns, int32 [T]."""

BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**23}
"""Elements of a float64 temporary: 2 MiB fits a core's cache, 64 MiB keeps a GPU busy."""


def position_scores(
    teacher_logits_TV: Tensor,
    student_logits_TV: Tensor,
    token_ids_T: Sequence[int] | NDArray[np.integer],
    valid_V: NDArray[np.bool_],
    *,
    temperature: float,
    top_k: int,
) -> dict[str, NDArray[np.generic]]:
    """Scores of T positions, each the distribution that predicts the spine token `token_ids_T[t]`.

    Widths: models pad their vocabularies differently. Logits are cut to the narrower of the two
    before the softmax, so that both distributions are conditioned on an id that both models have;
    where the widths are equal nothing is cut, and ids beyond the tokenizer keep the mass the model
    gives them. Ids beyond `valid_V` are not valid.

    Args:
        teacher_logits_TV: [T, V_teacher], any floating type and device.
        student_logits_TV: [T, V_student]; moved to the teacher's device if it is elsewhere.
        token_ids_T: the spine tokens.
        valid_V: the valid tokens (`valid_tokens.valid_token_mask`).
        temperature: softmax temperature of both sides.
        top_k: valid tokens kept a position, K = min(top_k, number of valid tokens).

    Returns:
        Float64 [T], in nats where they are entropies, log-probabilities or divergences:
        h_full, h_student (whole vocabulary); h_trunc, h_trunc_partial, h_trunc_tail (top-k valid
        tokens renormalised to 1, as they are, with the rest as one more outcome); covered_mass;
        teacher_logprob, student_logprob (of the spine token); kl = KL(teacher || student),
        reverse_kl = KL(student || teacher), jsd (beta 0.5, at most ln 2); p1, p2 (first two valid
        tokens, probabilities of the whole softmax; p2 is 0 where one token is valid).
        Int32 [T]: teacher_top_id, student_top_id (valid or not; of equals, the lower id).
        [T, K]: top_ids (int32, the teacher's top valid tokens, likeliest first, of equals the
        lower id first), top_teacher, top_student (float64, probabilities of the whole softmax).
        Nothing is NaN. A token excluded on one side alone (its logit there is -inf) has the
        log-probability -inf, and makes the divergence against that side inf. With no mass on valid
        tokens at all h_trunc is 0.

    Raises:
        UsageError: no valid token; logits that are NaN or +inf (overflow of float16, say).
        ValueError: shapes that do not fit, or a spine token beyond the common width.
    """
    width = min(teacher_logits_TV.shape[1], student_logits_TV.shape[1])
    tokens = torch.as_tensor(np.asarray(token_ids_T, dtype=np.int64))
    n_positions = len(tokens)
    if not teacher_logits_TV.shape[0] == student_logits_TV.shape[0] == n_positions:
        raise ValueError("teacher's logits, student's logits and tokens differ in length")
    if n_positions and not (int(tokens.min()) >= 0 and int(tokens.max()) < width):
        raise ValueError(f"a spine token lies outside the common vocabulary of {width} ids")
    device = teacher_logits_TV.device
    valid_ids = torch.as_tensor(np.flatnonzero(valid_V[:width])).to(device)
    if len(valid_ids) == 0:
        raise UsageError("the tokenizer has no valid token within the model's vocabulary")
    tokens = tokens.to(device)
    rows = max(1, BLOCK_ELEMENTS.get(device.type, 2**18) // width)
    blocks = [
        _score_block(
            teacher_logits_TV[start : start + rows, :width],
            student_logits_TV[start : start + rows, :width].to(device),
            tokens[start : start + rows],
            valid_ids,
            temperature,
            top_k,
        )
        for start in range(0, max(n_positions, 1), rows)
    ]
    return {name: torch.cat([b[name] for b in blocks]).cpu().numpy() for name in blocks[0]}


def log_softmax(logits_TV: Tensor, temperature: float, side: str) -> Tensor:
    """Float64 log-probabilities [T, V] of logits of any floating type.

    Raises:
        UsageError: NaN or +inf among the logits, or a row that excludes every token.
    """
    logits = logits_TV.to(torch.float64) / temperature
    normaliser = torch.logsumexp(logits, dim=-1, keepdim=True)
    if not bool(torch.isfinite(normaliser).all()):
        raise UsageError(
            f"the {side}'s logits are not finite numbers",
            where=f"{logits_TV.dtype} on {logits_TV.device}".replace("torch.", ""),
            fix="use another type (--set engine.dtype=float32), or check the model's weights",
        )
    return logits - normaliser


def _score_block(
    teacher_logits: Tensor,
    student_logits: Tensor,
    tokens: Tensor,
    valid_ids: Tensor,
    temperature: float,
    top_k: int,
) -> dict[str, Tensor]:
    """The scores of a few rows, as tensors. 0 * -inf, the only NaN that can arise, counts as 0."""
    teacher_log = log_softmax(teacher_logits, temperature, "teacher")
    student_log = log_softmax(student_logits, temperature, "student")
    teacher, student = teacher_log.exp(), student_log.exp()
    # The halves' mixture is at least half of each, so its logarithm is as exact as theirs.
    mixture_log = ((teacher + student) / 2).log()
    jsd = _expectation(teacher, teacher_log - mixture_log)
    jsd = (jsd + _expectation(student, student_log - mixture_log)) / 2

    top_ids = top_valid(teacher_logits, valid_ids, top_k)
    top_log = teacher_log.gather(1, top_ids)
    top_teacher = top_log.exp()
    covered = top_teacher.sum(-1).clamp(max=1)
    renormalised_log = top_log - torch.logsumexp(top_log, -1, keepdim=True)
    partial = -_expectation(top_teacher, top_log)
    p2 = top_teacher[:, 1] if top_ids.shape[1] > 1 else torch.zeros_like(covered)
    return {
        "h_full": _not_negative(-_expectation(teacher, teacher_log)),
        "h_student": _not_negative(-_expectation(student, student_log)),
        "h_trunc": _not_negative(-_expectation(renormalised_log.exp(), renormalised_log)),
        "h_trunc_partial": _not_negative(partial),
        "h_trunc_tail": _not_negative(partial + torch.special.entr(1 - covered)),
        "covered_mass": covered,
        "teacher_logprob": teacher_log.gather(1, tokens[:, None])[:, 0],
        "student_logprob": student_log.gather(1, tokens[:, None])[:, 0],
        "kl": _not_negative(_expectation(teacher, teacher_log - student_log)),
        "reverse_kl": _not_negative(_expectation(student, student_log - teacher_log)),
        "jsd": _not_negative(jsd).clamp(max=math.log(2)),
        "p1": top_teacher[:, 0],
        "p2": p2,
        "teacher_top_id": teacher_logits.argmax(-1).to(torch.int32),
        "student_top_id": student_logits.argmax(-1).to(torch.int32),
        "top_ids": top_ids.to(torch.int32),
        "top_teacher": top_teacher,
        "top_student": student_log.gather(1, top_ids).exp(),
    }


def _expectation(probabilities: Tensor, values: Tensor) -> Tensor:
    """Row sums of probabilities x values, with 0 x infinity = 0 (the rows hold no NaN)."""
    return (probabilities * values).nansum(-1)


def _not_negative(values: Tensor) -> Tensor:
    """Rounding below zero, and minus zero, are zero."""
    return values.clamp(min=0) + 0.0


def top_valid(logits: Tensor, valid_ids: Tensor, top_k: int) -> Tensor:
    """[rows, K] ids of the greatest logits among the valid ones; of equals the lower id first.

    Ranked on the logits as they are: bfloat16 logits tie often, and `topk` promises no order. Which
    of several tokens that tie at the last kept place is kept is left to it.
    """
    valid_logits = logits.index_select(1, valid_ids)
    places = valid_logits.topk(min(top_k, len(valid_ids)), dim=-1).indices.sort(-1).values
    order = valid_logits.gather(1, places).sort(stable=True, dim=-1, descending=True).indices
    return valid_ids[places.gather(1, order)]
