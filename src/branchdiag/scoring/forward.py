"""Teacher and student passes over a given spine: Phase B's scores at every position.

Reads two models (or one, twice), two prompts and the spine's token ids; writes arrays. Implements
the forward passes of arXiv 2605.21606 (Phase B): a teacher pass over its own prompt followed by the
student's spine, and the same for the student. Knows no problem, no table and no engine.

Memory: the body runs once a side and leaves hidden states [T, d]; the vocabulary projection is
applied to `chunk_positions` of them at a time, so that at most one chunk of logits a side is held,
whatever the length of the spine. One spine a call: nothing depends on what else is scored.

Quality check of the backends: on a greedy spine the share of positions with `student_top_id` equal
to `token_id` is the agreement between the engine that wrote the spine and this pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from branchdiag.scoring.distributions import position_scores
from branchdiag.scoring.model_parts import BodyOutput, check_head, project, run_body

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def score_spine(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prompt_ids: Sequence[int],
    teacher_prompt_ids: Sequence[int],
    spine_ids: Sequence[int],
    valid_mask: NDArray[np.bool_],
    *,
    temperature: float,
    top_k: int,
    chunk_positions: int,
) -> dict[str, NDArray[np.generic]]:
    """Scores of all T positions of a spine; position t predicts `spine_ids[t]`.

    Args:
        student: a causal model in evaluation mode; `teacher` may be the same object.
        student_prompt_ids: rendered prompt, at least one token; likewise the teacher's.
        spine_ids: the T tokens of the spine.
        valid_mask: [V] (`valid_tokens.valid_token_mask`).
        temperature, top_k: see `distributions.position_scores`.
        chunk_positions: positions whose logits are held at once.

    Returns:
        The arrays of `distributions.position_scores`, with `position` and `token_id` (int32 [T]).

    Raises:
        UsageError: an architecture that cannot be scored in chunks; logits that are no numbers.
        ValueError: an empty prompt or spine, a token outside a vocabulary, a model in training
            mode.
    """
    n_positions = len(spine_ids)
    if not n_positions:
        raise ValueError("an empty spine has no positions to score")
    with torch.inference_mode():
        student_states = spine_states(student, student_prompt_ids, spine_ids)
        if teacher is student and list(teacher_prompt_ids) == list(student_prompt_ids):
            teacher_states = student_states
        else:
            teacher_states = spine_states(teacher, teacher_prompt_ids, spine_ids)
        # A function call a chunk: its logits are gone before the next chunk's are made.
        chunks = [
            position_scores(
                project(teacher, teacher_states.rows(rows)),
                project(student, student_states.rows(rows)),
                spine_ids[rows],
                valid_mask,
                temperature=temperature,
                top_k=top_k,
            )
            for rows in chunks_of(n_positions, chunk_positions)
        ]
    scores = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    scores["position"] = np.arange(n_positions, dtype=np.int32)
    scores["token_id"] = np.asarray(spine_ids, dtype=np.int32)
    return scores


def spine_states(
    model: PreTrainedModel, prompt_ids: Sequence[int], spine_ids: Sequence[int]
) -> BodyOutput:
    """Final hidden states [T, d], row t the one that predicts `spine_ids[t]`.

    Raises:
        UsageError: an architecture that cannot be scored in chunks.
        ValueError: an empty prompt (nothing predicts the first token), a model in training mode.
    """
    if not len(prompt_ids):
        raise ValueError("an empty prompt: nothing predicts the spine's first token")
    # The last token predicts nothing that is asked for.
    token_ids = [*prompt_ids, *spine_ids[:-1]]
    output = run_body(model, token_ids)
    check_head(model, token_ids)
    return output.rows(slice(len(prompt_ids) - 1, None))


def chunks_of(n_positions: int, chunk_positions: int) -> list[slice]:
    """Which positions are projected together; other shapes would round otherwise."""
    return [
        slice(start, start + chunk_positions) for start in range(0, n_positions, chunk_positions)
    ]
