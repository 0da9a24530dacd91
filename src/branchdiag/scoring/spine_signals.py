"""Registered signals at some positions of a spine, from one pass of teacher and student over it.

Reads two models (or one, twice), two prompts, the spine's token ids and the positions asked for;
writes one array a signal. Knows no problem, no table and no signal by name. Uses the passes of
Phase B: the body runs once a side, the vocabulary projection a chunk of positions at a time.

Full distributions are made at the positions asked for alone, a block of rows at a time; over the
rest of the spine only the log-probabilities of its own and the teacher's first tokens are kept, and
only where a signal looks along the spine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchdiag.scoring.distributions import BLOCK_ELEMENTS, log_softmax
from branchdiag.scoring.forward import spine_states
from branchdiag.scoring.model_parts import BodyOutput, project
from branchdiag.signals import Signal, SpineLogprobs, View

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def spine_signals(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prompt_ids: Sequence[int],
    teacher_prompt_ids: Sequence[int],
    spine_ids: Sequence[int],
    positions: Sequence[int],
    signals: Sequence[Signal],
    *,
    temperature: float,
    chunk_positions: int,
) -> dict[str, NDArray[np.float64]]:
    """Each signal [C] at the C positions, in their order; NaN where it is undefined.

    Args:
        student: a causal model in evaluation mode; `teacher` may be the same object.
        student_prompt_ids: rendered prompt, at least one token; likewise the teacher's.
        spine_ids: the spine's tokens.
        positions: indices into the spine; position t is where `spine_ids[t]` is predicted.
        signals: which to compute.
        temperature: softmax temperature of both sides.
        chunk_positions: positions whose logits are held at once.

    Raises:
        UsageError: an architecture that cannot be scored in chunks; logits that are no numbers.
        ValueError: an empty prompt, a position outside the spine, a token outside the common
            vocabulary, a model in training mode.
    """
    if not all(0 <= position < len(spine_ids) for position in positions):
        raise ValueError("positions must lie inside the spine")
    with torch.inference_mode():
        student_states = spine_states(student, student_prompt_ids, spine_ids)
        if teacher is student and list(teacher_prompt_ids) == list(student_prompt_ids):
            teacher_states = student_states
        else:
            teacher_states = spine_states(teacher, teacher_prompt_ids, spine_ids)
        sides = (teacher, teacher_states), (student, student_states)

        def blocks(wanted: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            return _log_probs(sides, wanted, temperature, chunk_positions)

        tokens_L = torch.as_tensor(list(spine_ids)).to(teacher_states.states_Td.device)
        whole = None
        if any(signal.whole_spine for signal in signals):
            every = torch.arange(len(spine_ids))
            whole = _whole_spine(blocks(every), tokens_L)
        parts: dict[str, list[Tensor]] = {signal.name: [] for signal in signals}
        for rows, log_q_TV, log_p_TV in blocks(torch.as_tensor(list(positions))):
            _check_tokens(tokens_L[rows], log_q_TV.shape[1])
            view = View(log_q_TV, log_p_TV, tokens_L[rows], rows.to(tokens_L.device), whole)
            for signal in signals:
                parts[signal.name].append(signal.measure(view).cpu())
    return {
        name: finite_or_nan(torch.cat(values).to(torch.float64).numpy()) if values else np.empty(0)
        for name, values in parts.items()
    }


def finite_or_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, NaN where one is infinite: a side that excludes a token outright."""
    return np.where(np.isfinite(values), values, np.nan)


def _log_probs(
    sides: tuple[tuple[PreTrainedModel, BodyOutput], tuple[PreTrainedModel, BodyOutput]],
    wanted: Tensor,
    temperature: float,
    chunk_positions: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Positions [t] with the teacher's and the student's log-probabilities [t, V] there.

    Logits are cut to the narrower vocabulary, as in Phase B. At most `chunk_positions` rows of
    logits a side and one block of float64 rows are held.
    """
    for start in range(0, len(wanted), chunk_positions):
        chunk = wanted[start : start + chunk_positions]
        logits = [
            project(model, states.rows(chunk.to(states.states_Td.device)))
            for model, states in sides
        ]
        width, device = min(side.shape[1] for side in logits), logits[0].device
        step = max(1, BLOCK_ELEMENTS.get(device.type, 2**18) // width)
        for first in range(0, len(chunk), step):
            block = slice(first, first + step)
            teacher, student = (side[block, :width].to(device) for side in logits)
            yield (
                chunk[block],
                log_softmax(teacher, temperature, "teacher"),
                log_softmax(student, temperature, "student"),
            )


def _whole_spine(
    blocks: Iterator[tuple[Tensor, Tensor, Tensor]], tokens_L: Tensor
) -> SpineLogprobs:
    teacher, student, top = [], [], []
    for rows, log_q_TV, log_p_TV in blocks:
        own_T = tokens_L[rows]
        _check_tokens(own_T, log_q_TV.shape[1])
        teacher.append(log_q_TV.gather(1, own_T[:, None])[:, 0])
        student.append(log_p_TV.gather(1, own_T[:, None])[:, 0])
        top.append(log_q_TV.amax(-1))
    return SpineLogprobs(torch.cat(teacher), torch.cat(student), torch.cat(top))


def _check_tokens(tokens_T: Tensor, width: int) -> None:
    if not (int(tokens_T.min()) >= 0 and int(tokens_T.max()) < width):
        raise ValueError(f"a spine token lies outside the common vocabulary of {width} ids")
