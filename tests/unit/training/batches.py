"""Global batches for the training tests, and the whole way from masks to a loss.

The head is the identity where logits are wanted to be hidden states, a random matrix elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from branchdiag.training.accumulation import MicroBatch, batch_totals, plan
from branchdiag.training.fused_loss import fused_loss, token_statistics
from branchdiag.training.output_head import OutputHead


@dataclass
class Batch:
    """Hidden states, tokens and masks of a global batch, and the heads."""

    student: Tensor
    teacher: Tensor
    tokens: Tensor
    valid: Tensor
    trained: Tensor
    weights: Tensor | None
    student_head: OutputHead
    teacher_head: OutputHead

    def rows(self, start, stop):
        weights = None if self.weights is None else self.weights[start:stop]
        return Batch(
            self.student[start:stop],
            self.teacher[start:stop],
            self.tokens[start:stop],
            self.valid[start:stop],
            self.trained[start:stop],
            weights,
            self.student_head,
            self.teacher_head,
        )

    def micro_batches(self, size):
        return [self.rows(start, start + size) for start in range(0, len(self.tokens), size)]

    def sides(self):
        return self.student, self.teacher, self.student_head, self.teacher_head, self.tokens


def identity_head(width):
    return OutputHead(torch.eye(width, dtype=torch.float64))


def logits_batch(rows=3, length=5, vocabulary=7, seed=0, valid=None, weights=None):
    """float64; hidden states are logits."""
    draw = torch.Generator().manual_seed(seed)
    student = 1.5 * torch.randn(rows, length, vocabulary, generator=draw, dtype=torch.float64)
    nudge = torch.randn(rows, length, vocabulary, generator=draw, dtype=torch.float64)
    tokens = torch.randint(0, vocabulary, (rows, length), generator=draw)
    if valid is None:
        valid = torch.ones(rows, length, dtype=torch.bool)
    head = identity_head(vocabulary)
    return Batch(student, student + nudge, tokens, valid, valid, weights, head, head)


def projected_batch(
    rows=3, length=6, vocabulary=50, hidden=8, dtype=torch.float32, seed=0, weights=None, bias=False
):
    """Hidden states and a random head; a few holes in the mask."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    student = normal(rows, length, hidden)
    teacher = student + 0.7 * normal(rows, length, hidden)
    weight = (1.5 * normal(vocabulary, hidden) / hidden**0.5).to(dtype)
    biases = (0.3 * normal(vocabulary)).to(dtype) if bias else None
    tokens = torch.randint(0, vocabulary, (rows, length), generator=draw)
    valid = torch.rand(rows, length, generator=draw) > 0.2
    head = OutputHead(weight, biases)
    return Batch(student.to(dtype), teacher.to(dtype), tokens, valid, valid, weights, head, head)


def through_package(
    objective,
    batch,
    *,
    step=0,
    reduction=None,
    size=None,
    accumulation="exact",
    chunk_tokens=None,
    backward=True,
):
    """As a trainer runs it: (summed loss, gradient to the hidden states, diagnostics)."""
    whole = batch.student.detach().clone().requires_grad_(backward)
    parts = batch.micro_batches(size or len(batch.tokens))
    starts = range(0, len(batch.tokens), size or len(batch.tokens))
    for part, start in zip(parts, starts, strict=True):
        part.student = whole[start : start + len(part.tokens)]
    micro = []
    for part in parts:
        statistics = None
        if objective.statistics_of != "nothing":
            statistics = token_statistics(
                objective, part.valid, *part.sides(), chunk_tokens=chunk_tokens
            )
        micro.append(MicroBatch(part.valid, part.trained, part.weights, statistics))
    totals = batch_totals(objective, micro, step=step, accumulation=accumulation)
    loss, diagnostics = 0.0, []
    for part, rows, total in zip(parts, micro, totals, strict=True):
        fused = fused_loss(
            objective,
            plan(objective, rows, total, reduction=reduction),
            *part.sides(),
            chunk_tokens=chunk_tokens,
        )
        if backward:
            fused.loss.backward()
        loss += float(fused.loss.detach())
        diagnostics.append(fused.diagnostics)
    return loss, whole.grad, sum(diagnostics[1:], start=diagnostics[0])
