"""The loss of a global batch from rollouts, its gradients added up over micro-batches.

Pure: reads rollouts and two functions that give hidden states, leaves gradients on the parameters
and returns sums. Knows no engine, no optimizer and no file; of other processes only a function that
gathers masks. (arXiv 2605.21606, eq. 1, 5 and 6, with what its released code gets wrong put right.)

Each row is [prompt | rollout | padding] with nothing between: a causal model then has every token
at its own position and sees no padding, whatever is put there, so neither a mask nor positions need
be passed. The hidden state that predicts token t is gathered a row: that of the prompt's last token
for the first, never that of a padding token. Which tokens count is known from the rollout's length,
never from comparing ids, so a tokenizer whose padding is its EOS is trained as any other.

Dimensions: B rows, S tokens of a sequence, T tokens of a rollout, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from branchdiag.schedule import Schedule
from branchdiag.scoring.model_parts import body_of
from branchdiag.training.accumulation import batch_totals, plan
from branchdiag.training.diagnostics import Diagnostics
from branchdiag.training.fused_loss import fused_loss, token_statistics
from branchdiag.training.objectives.base import MicroBatch, Objective
from branchdiag.training.output_head import OutputHead
from branchdiag.training.rollouts import Rollout
from branchdiag.training.settings import ObjectiveSettings
from branchdiag.training.token_masks import keep_fraction

States = Callable[["Rows"], Tensor]
"""From rows to hidden states [B, T, d], [:, t] the one that predicts token t."""

Gather = Callable[[list[MicroBatch]], list[MicroBatch]]
"""From this process's micro-batches to those of all, this one's first in their own order."""


@dataclass(frozen=True)
class Side:
    """One role's sequences."""

    ids_BS: Tensor
    at_BT: Tensor
    """Where in the sequence the state that predicts token t stands."""


@dataclass(frozen=True)
class Rows:
    """A micro-batch."""

    student: Side
    teacher: Side
    tokens_BT: Tensor
    valid_BT: Tensor
    number: int = 0
    """Of the micro-batch among the global batch's rows: that of its first row."""


@dataclass(frozen=True)
class BatchLoss:
    """This process's share of a global batch: sums, to be added over processes."""

    loss: float
    diagnostics: Diagnostics


def make_rows(rollouts: Sequence[Rollout], settings: ObjectiveSettings, number: int = 0) -> Rows:
    """Rollouts as padded tensors on the CPU. A rollout without a token is a row without valid ones.

    Args:
        rollouts: of one micro-batch, at least one.
        settings: whether EOS counts.
        number: of the first row in the global batch.
    """
    completions = [rollout.trained_ids(settings.eos) for rollout in rollouts]
    lengths_B = torch.tensor([len(ids) for ids in completions])
    width = max(1, int(lengths_B.max()))
    return Rows(
        student=_side([r.prompts.student_ids for r in rollouts], completions, width),
        teacher=_side([r.prompts.teacher_ids for r in rollouts], completions, width),
        tokens_BT=_padded(completions, width),
        valid_BT=torch.arange(width) < lengths_B[:, None],
        number=number,
    )


def states_of(model: Any, side: Side) -> Tensor:
    """Hidden states [B, T, d] that predict a rollout's tokens, by the model's own body."""
    device = model.device
    hidden_BSd: Tensor = body_of(model)(
        input_ids=side.ids_BS.to(device), use_cache=False, return_dict=True
    ).last_hidden_state
    at_BT1 = side.at_BT.to(device)[:, :, None]
    return hidden_BSd.gather(1, at_BT1.expand(-1, -1, hidden_BSd.shape[-1]))


def batch_loss(
    objective: Objective,
    batch: Sequence[Rows],
    student: States,
    teacher: States,
    head: OutputHead,
    *,
    settings: ObjectiveSettings,
    schedule: Schedule | None,
    step: int,
    teacher_head: OutputHead | None = None,
    gather: Gather = list,
    backward: bool = True,
) -> BatchLoss:
    """Loss and diagnostics of this process's micro-batches; gradients are added to the parameters'.

    The losses of micro-batches, and of processes, are added and never divided: see `accumulation`.
    A batch in which no token counts has loss 0 and gradients of 0.

    Args:
        student: with gradients; the same function of the rows whenever it is called in a step.
        teacher: without.
        head: the student's; where it requires gradients it gets them.
        step: optimizer steps done before.
        teacher_head: where the teacher has weights of its own; None: the student's.
        backward: False computes losses alone.
    """
    device = head.weight_Vd.device
    teacher_head = teacher_head or head
    known = [micro_batch(rows, settings, schedule, device) for rows in batch]
    if objective.statistics_of == "global batch":
        with torch.no_grad():
            known = [
                replace(
                    mine,
                    statistics=token_statistics(
                        objective,
                        mine.valid_BT,
                        student(rows),
                        teacher(rows),
                        head,
                        teacher_head,
                        rows.tokens_BT,
                    ),
                )
                for rows, mine in zip(batch, known, strict=True)
            ]
    totals = batch_totals(objective, gather(known), step=step, accumulation=settings.accumulation)
    loss, parts = 0.0, []
    for rows, mine, total in zip(batch, known, totals, strict=False):
        teacher_BTd = teacher(rows)
        with torch.set_grad_enabled(backward):
            student_BTd = student(rows)
            if objective.statistics_of == "micro-batch":
                statistics = token_statistics(
                    objective,
                    mine.valid_BT,
                    student_BTd,
                    teacher_BTd,
                    head,
                    teacher_head,
                    rows.tokens_BT,
                )
                mine = replace(mine, statistics=statistics)
            made = fused_loss(
                objective,
                plan(objective, mine, total, reduction=settings.reduction),
                student_BTd,
                teacher_BTd,
                head,
                teacher_head,
                rows.tokens_BT,
            )
        if backward:
            made.loss.backward()  # type: ignore[no-untyped-call]
        loss += float(made.loss.detach())
        parts.append(made.diagnostics)
    return BatchLoss(loss, Diagnostics.total(parts))


def micro_batch(
    rows: Rows, settings: ObjectiveSettings, schedule: Schedule | None, device: torch.device
) -> MicroBatch:
    """Masks and weights of a micro-batch; a schedule sees the whole rollout, trained or not."""
    valid_BT = rows.valid_BT.to(device)
    weights_BT = None
    if schedule is not None:
        weights_BT = schedule.weights(rows.valid_BT, dtype=torch.float64).to(device)
    trained_BT = keep_fraction(
        valid_BT,
        prefix_fraction=settings.prefix_fraction,
        suffix_fraction=settings.suffix_fraction,
    )
    return MicroBatch(valid_BT, trained_BT, weights_BT)


def _side(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], width: int
) -> Side:
    rows = [[*prompt, *ids] for prompt, ids in zip(prompts, completions, strict=True)]
    before_B1 = torch.tensor([[len(prompt) - 1] for prompt in prompts])
    longest = max(len(row) for row in rows)
    return Side(
        ids_BS=_padded(rows, longest),
        # Beyond a rollout's end any place will do: no such token is valid.
        at_BT=(before_B1 + torch.arange(width)).clamp(max=longest - 1),
    )


def _padded(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long)
