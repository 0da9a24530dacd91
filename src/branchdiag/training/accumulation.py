"""From micro-batches to one loss: the coefficient of every token, so that parts add up exactly.

Reads the masks, weights and statistics of a global batch; writes coefficients. Knows no
distribution, no gradient and no process: who trains on several gathers their `MicroBatch`es first.

The contract. With c_t from `plan`, the loss of a micro-batch is `sum c_t l_t` over its tokens, and
the loss of the global batch is the **sum** (not the mean) of its micro-batches' losses, whatever
their number and size: denominators are counted over the global batch beforehand. So

    batch = [MicroBatch(...), ...]                  # all micro-batches of all processes
    totals = batch_totals(objective, batch, step=step)
    for rows, total in zip(batch, totals):          # each process its own
        fused_loss(..., plan=plan(objective, rows, total, reduction="token")).loss.backward()

Nothing is divided by the number of micro-batches. A trainer that averages gradients over processes
(DistributedDataParallel) multiplies by their number. Statistics: an objective with `statistics_of`
"micro-batch" wants those of the rows before `plan`, made from the same hidden states as the loss;
"global batch" wants those of all rows before `batch_totals`: a forward pass without gradient over
every micro-batch, unless there is one only.

`accumulation="release"` is what the released trainers do: every micro-batch has its own
denominators (and quantile), and the losses' mean is taken. A token's weight then depends on
which rows it is batched with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from branchdiag.training.objectives.base import MicroBatch, Objective, Reduction

Accumulation = Literal["exact", "release"]


@dataclass(frozen=True)
class Totals:
    """The denominators a micro-batch's coefficients are made with."""

    tokens: int
    """Tokens that count."""
    rows: int
    """Rows with at least one of them."""
    gate: float | None
    step: int
    share: float = 1.0
    """What the micro-batch's loss is multiplied by."""


@dataclass(frozen=True)
class Plan:
    """What `fused_loss` needs to know of a micro-batch's tokens."""

    trained_BT: Tensor
    """Tokens to walk: diagnostics are over all of them."""
    counted_BT: Tensor
    """Those in the loss."""
    weights_BT: Tensor
    """float64, before the reduction."""
    coefficients_BT: Tensor
    """float64; c_t, 0 where a token does not count."""


def batch_totals(
    objective: Objective,
    batch: Sequence[MicroBatch],
    *,
    step: int,
    accumulation: Accumulation = "exact",
) -> list[Totals]:
    """Totals of each micro-batch of a global batch (all the same under `exact`).

    Args:
        batch: every micro-batch of the optimizer step, of every process, in any order.
        step: optimizer steps done before, from 0.

    Raises:
        UsageError: a schedule for an objective that takes none, or none for one that does.
        ValueError: statistics that the objective needs are not there.
    """
    for rows in batch:
        objective.check_schedule(rows.weights_BT is not None)
    if accumulation == "release":
        share = 1 / max(len(batch), 1)
        return [_totals(objective, [rows], step, share) for rows in batch]
    return [_totals(objective, batch, step, 1.0)] * len(batch)


def plan(
    objective: Objective, rows: MicroBatch, totals: Totals, *, reduction: Reduction | None = None
) -> Plan:
    """The coefficients of one micro-batch.

    `token`: c = w / N, N tokens that count. `sequence`: c = w / (B L_i), L_i those of the row, B
    rows that have any (arXiv 2605.21606, eq. 6). Nothing counts: all 0, and the loss is 0 with a
    gradient of 0. None takes the objective's own reduction.

    Raises:
        UsageError: see `batch_totals`.
        ValueError: statistics that the objective needs are not there.
    """
    objective.check_schedule(rows.weights_BT is not None)
    counted_BT = objective.counted(rows, totals.gate, totals.step)
    weights_BT = objective.token_weights(rows)
    if (reduction or objective.default_reduction) == "token":
        denominators_B1 = torch.full_like(weights_BT[:, :1], max(totals.tokens, 1))
    else:
        lengths_B1 = counted_BT.sum(-1, keepdim=True).clamp(min=1)
        denominators_B1 = lengths_B1.to(torch.float64) * max(totals.rows, 1)
    coefficients_BT = (weights_BT * (totals.share / denominators_B1)).where(counted_BT, 0.0)
    return Plan(rows.trained_BT, counted_BT, weights_BT, coefficients_BT)


def _totals(objective: Objective, batch: Sequence[MicroBatch], step: int, share: float) -> Totals:
    gate = objective.gate(batch, step)
    counted = [objective.counted(rows, gate, step) for rows in batch]
    return Totals(
        tokens=sum(int(mask.sum()) for mask in counted),
        rows=sum(int(mask.any(-1).sum()) for mask in counted),
        gate=gate,
        step=step,
        share=share,
    )
