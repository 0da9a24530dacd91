"""The fused loss: from hidden states to the loss and its gradient, a few tokens' logits at a time.

Reads final hidden states of student and teacher, their output heads, sampled tokens and a `Plan`;
writes the loss, attached to the graph, and diagnostics. Works for every objective (`token_terms`).
Knows no model, no prompt and no optimizer.

How. Walking the tokens (`vocabulary_walk`), a block's logits are overwritten by the gradient to
them; a finished chunk goes at once through the head to the hidden states and, where the head is
trained, into the head's gradient. So the gradients are ready when the forward pass ends, and the
backward pass only scales them. Two [chunk, V] buffers are all that is held of the vocabulary,
however many the tokens: never a tensor [tokens, V].

Precision: projections and the gradient to the logits have the head's type, as under autograd;
softmaxes, sums and the head's gradient are float32 (float64 where the head is).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from branchdiag.errors import UsageError
from branchdiag.training.accumulation import Plan
from branchdiag.training.diagnostics import Diagnostics
from branchdiag.training.objectives.base import Objective, TokenStatistics
from branchdiag.training.output_head import OutputHead
from branchdiag.training.vocabulary_walk import Chunk, VocabularyWalk, vocabulary_walk

_HEAD_BLOCK_ROWS = 4096
"""Vocabulary rows of the head's gradient made at once."""


@dataclass(frozen=True)
class FusedLoss:
    """A micro-batch's share of the global batch's loss."""

    loss: Tensor
    """0-dimensional, attached to the student's hidden states and head; call `backward` on it."""
    diagnostics: Diagnostics


def fused_loss(
    objective: Objective,
    plan: Plan,
    student_hidden_BTd: Tensor,
    teacher_hidden_BTd: Tensor,
    student_head: OutputHead,
    teacher_head: OutputHead,
    tokens_BT: Tensor,
    *,
    chunk_tokens: int | None = None,
) -> FusedLoss:
    """The loss `sum c_t l_t` of a micro-batch, with gradients for hidden states and head.

    Gradients go to `student_hidden_BTd`, and to the student head's weight and bias where they
    require one (full training); with adapters elsewhere (LoRA) the head is frozen and its product
    is left out. Under `torch.no_grad` only loss and diagnostics are computed. With no trained token
    the loss is 0 with gradients of 0, so that every process takes part in the backward pass.

    Args:
        objective: the method.
        plan: from `accumulation.plan`: masks and coefficients [B, T].
        student_hidden_BTd: final hidden states, [:, t] the one that predicts token t.
        teacher_hidden_BTd: the teacher's, of any width; gets no gradient.
        student_head, teacher_head: one object where the teacher is the student without adapter.
            Vocabularies of two widths are cut to the narrower.
        tokens_BT: sampled tokens; not read where no token is trained.
        chunk_tokens: tokens whose logits are held at once; None: so many that a side's have some
            2^25 entries.

    Raises:
        UsageError: logits that are no finite numbers.
        ValueError: shapes that do not fit, or a sampled token beyond the common vocabulary.
    """
    walk = vocabulary_walk(
        objective.temperature,
        plan.trained_BT,
        tokens_BT,
        student_hidden_BTd,
        teacher_hidden_BTd,
        student_head,
        teacher_head,
        chunk_tokens,
    )
    device = student_hidden_BTd.device
    coefficients_T = plan.coefficients_BT[plan.trained_BT].to(device, walk.dtype)
    with torch.autocast(device.type, enabled=False):  # the head's type decides, nothing else
        loss, sums = _Fused.apply(  # type: ignore[no-untyped-call]
            student_hidden_BTd[plan.trained_BT.to(device)],
            student_head.weight_Vd,
            student_head.bias_V,
            coefficients_T,
            objective,
            walk,
        )
    divergence, student_entropy, teacher_entropy, tokens, entries, clippable = sums.tolist()
    if not math.isfinite(divergence + student_entropy + teacher_entropy):
        raise UsageError(
            "the loss is not a finite number: the student's or the teacher's logits are not",
            where=str(student_head.weight_Vd.dtype).removeprefix("torch."),
            fix="use another type or a lower learning rate, or check the models' weights",
        )
    diagnostics = Diagnostics(
        tokens=len(walk.tokens_T),
        entries=clippable,
        divergence=divergence,
        student_entropy=student_entropy,
        teacher_entropy=teacher_entropy,
        clipped_tokens=tokens,
        clipped_entries=entries,
        counted_tokens=int(plan.counted_BT.sum()),
        weight=float(plan.weights_BT[plan.counted_BT].sum()),
    )
    return FusedLoss(loss, diagnostics)


@torch.no_grad()
def token_statistics(
    objective: Objective,
    valid_BT: Tensor,
    student_hidden_BTd: Tensor,
    teacher_hidden_BTd: Tensor,
    student_head: OutputHead,
    teacher_head: OutputHead,
    tokens_BT: Tensor,
    *,
    chunk_tokens: int | None = None,
) -> TokenStatistics:
    """The statistics that some objectives make weights or masks of; arguments as `fused_loss`.

    They lie on the mask's device, which may be the CPU's while the models are elsewhere.

    Raises:
        ValueError: shapes that do not fit, or a sampled token beyond the common vocabulary.
    """
    walk = vocabulary_walk(
        objective.temperature,
        valid_BT,
        tokens_BT,
        student_hidden_BTd,
        teacher_hidden_BTd,
        student_head,
        teacher_head,
        chunk_tokens,
    )
    mask_BT = valid_BT.to(student_hidden_BTd.device)
    hidden_Td = student_hidden_BTd[mask_BT]
    columns = hidden_Td.new_empty(3, len(hidden_Td), dtype=walk.dtype)
    for chunk in walk.chunks(hidden_Td.to(student_head.weight_Vd.dtype)):
        for block in chunk.blocks():
            student, teacher = block.distributions()
            columns[0, block.rows] = student.log_probs_of(block.tokens_T)
            columns[1, block.rows] = teacher.log_probs_of(block.tokens_T)
            columns[2, block.rows] = student.entropies_T
    spread = columns.new_zeros(3, *mask_BT.shape)
    spread[:, mask_BT] = columns
    return TokenStatistics(*spread.to(valid_BT.device).unbind())


class _Fused(torch.autograd.Function):
    """(loss, sums of diagnostics) of tokens [T]; the gradients are made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_Td: Tensor,
        weight_Vd: Tensor,
        bias_V: Tensor | None,
        coefficients_T: Tensor,
        objective: Objective,
        walk: VocabularyWalk,
    ) -> tuple[Tensor, Tensor]:
        hidden_needs, weight_needs, bias_needs = ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden_Td) if hidden_needs else None
        weight_grad = torch.zeros_like(weight_Vd, dtype=walk.dtype) if weight_needs else None
        bias_grad = torch.zeros_like(weight_Vd[:, 0], dtype=walk.dtype) if bias_needs else None
        projected_Td = hidden_Td.to(weight_Vd.dtype)
        losses_T = coefficients_T.new_zeros(len(hidden_Td))
        columns = coefficients_T.new_zeros(6, len(hidden_Td))
        for chunk in walk.chunks(projected_Td):
            _walk_chunk(
                objective,
                chunk,
                coefficients_T,
                losses_T,
                columns,
                with_gradient=hidden_needs or weight_needs or bias_needs,
            )
            logit_grad_TV = chunk.student_TV
            if hidden_grad is not None:
                hidden_grad[chunk.rows] = logit_grad_TV @ walk.student_head.weight_Vd
            if weight_grad is not None:
                _add_products(weight_grad, logit_grad_TV, projected_Td[chunk.rows])
            if bias_grad is not None:
                bias_grad[: walk.width] += logit_grad_TV.sum(0, dtype=walk.dtype)
        # Kept as an attribute, not saved for backward: the one backward pass may then scale the
        # gradients in place and hand them over, and the head's is not held twice.
        ctx.gradients = [
            hidden_grad,
            None if weight_grad is None else weight_grad.to(weight_Vd.dtype),
            None if bias_grad is None or bias_V is None else bias_grad.to(bias_V.dtype),
        ]
        sums = columns.sum(-1, dtype=torch.float64)
        ctx.mark_non_differentiable(sums)
        loss = torch.dot(coefficients_T.double(), losses_T.double()).to(walk.dtype)
        return loss, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the fused loss's backward pass can be run once")
        gradients, ctx.gradients = ctx.gradients, None
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(upstream[0])
        return (*gradients, None, None, None)


def _walk_chunk(
    objective: Objective,
    chunk: Chunk,
    coefficients_T: Tensor,
    losses_T: Tensor,
    columns: Tensor,
    *,
    with_gradient: bool,
) -> None:
    """Losses and diagnostics of a chunk's tokens into their places; its logits become gradients."""
    for block in chunk.blocks():
        rows = block.rows
        student, teacher = block.distributions()
        columns[1, rows], columns[2, rows] = student.entropies_T, teacher.entropies_T
        terms = objective.token_terms(student, teacher, block.tokens_T)
        losses_T[rows] = terms.losses_T
        columns[0, rows] = terms.divergences_T
        if terms.clipped_entries_T is not None:
            columns[3, rows] = (terms.clipped_entries_T > 0).to(columns.dtype)
            columns[4, rows] = terms.clipped_entries_T.to(columns.dtype)
            columns[5, rows] = chunk.walk.width
        if with_gradient:
            block.store_gradient(terms.gradients_TV, coefficients_T[rows])


def _add_products(weight_grad_Vd: Tensor, logit_grad_TV: Tensor, hidden_Td: Tensor) -> None:
    """weight_grad += logit_grad^T hidden, in the gradient's own type.

    A product of bfloat16 matrices is rounded to bfloat16: 0.2% a chunk, which would add up. So a
    block of the vocabulary at a time is widened first.
    """
    hidden_Td = hidden_Td.to(weight_grad_Vd.dtype)
    for start in range(0, logit_grad_TV.shape[1], _HEAD_BLOCK_ROWS):
        ids = slice(start, min(start + _HEAD_BLOCK_ROWS, logit_grad_TV.shape[1]))
        block_TV = logit_grad_TV[:, ids].to(weight_grad_Vd.dtype)
        weight_grad_Vd[ids].addmm_(block_TV.T, hidden_Td)
