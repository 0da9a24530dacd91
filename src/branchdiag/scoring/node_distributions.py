"""The student and several teachers at a few positions of a spine, on a few tokens and over all.

Reads two models (or one, twice), the student's prompt and one prompt a teacher context, the spine's
token ids, and the positions with the tokens that belong to their supports; writes arrays a
position. Knows no problem, no table and no rollout. The passes are those of Phase B: the body runs
once a prompt, and the vocabulary projection takes the same chunks of positions at a time, those
without a node left out. So what both measure is the same number: a projection of other rows would
round otherwise, by up to 1e-5 in a logit. Sums over the vocabulary are float64.

A support is the tokens given (the forced children first, in their order), then the student's own
likeliest valid tokens, likeliest first, then the spine's token; each once. No teacher context adds
tokens, so that all are measured on the same; what a context holds outside them is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchdiag.scoring.distributions import BLOCK_ELEMENTS, log_softmax, top_valid
from branchdiag.scoring.forward import chunks_of, spine_states
from branchdiag.scoring.model_parts import BodyOutput, project
from branchdiag.signals import View
from branchdiag.signals.divergences import gkd_jsd, opsd_clipped_kl

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHILD, STUDENT, SPINE = "child", "student", "spine"


@dataclass(frozen=True)
class Support:
    """The tokens of a node: ids, why each is there, the student's probability of each, and the
    student's mass outside and entropy (nats).
    """

    token_ids: tuple[int, ...]
    sources: tuple[str, ...]
    student: tuple[float, ...]
    excluded: float
    entropy: float


@dataclass(frozen=True)
class TeacherView:
    """A teacher at a node: its probability of each token of the support, its mass outside, its
    entropy and its divergences from the student over the whole vocabulary, nats; None: infinite.
    """

    teacher: tuple[float, ...]
    excluded: float
    entropy: float
    forward_kl: float | None
    reverse_kl: float | None
    jsd: float | None
    clipped_forward_kl: float | None


def node_distributions(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prompt_ids: Sequence[int],
    teacher_prompt_ids: Mapping[str, Sequence[int]],
    spine_ids: Sequence[int],
    children: Mapping[int, Sequence[int]],
    valid_mask: NDArray[np.bool_],
    *,
    student_tokens: int,
    min_probability: float,
    temperature: float,
    chunk_positions: int,
) -> list[tuple[Support, dict[str, TeacherView]]]:
    """Supports and distributions at the positions of `children`, in their order.

    Args:
        student: a causal model in evaluation mode; `teacher` may be the same object.
        student_prompt_ids: rendered prompt, at least one token.
        teacher_prompt_ids: context -> the same of the teacher under it.
        spine_ids: the spine's tokens.
        children: position -> the forced tokens there; position t predicts `spine_ids[t]`.
        valid_mask: [V] (`valid_tokens.valid_token_mask`).
        student_tokens: how many of the student's likeliest valid tokens join a support.
        min_probability: less likely ones of them do not.
        temperature: softmax temperature of all.
        chunk_positions: positions whose logits are held at once.

    Raises:
        UsageError: an architecture that cannot be scored in chunks; logits that are no numbers.
        ValueError: an empty prompt, a position outside the spine, a token outside the common
            vocabulary, a model in training mode.
    """
    positions = list(children)
    if not all(0 <= position < len(spine_ids) for position in positions):
        raise ValueError("positions must lie inside the spine")
    with torch.inference_mode():
        own = spine_states(student, student_prompt_ids, spine_ids)
        passes = {
            context: own
            if teacher is student and list(prompt) == list(student_prompt_ids)
            else spine_states(teacher, prompt, spine_ids)
            for context, prompt in teacher_prompt_ids.items()
        }
        nodes: dict[int, tuple[Support, dict[str, TeacherView]]] = {}
        for chunk in chunks_of(len(spine_ids), chunk_positions):
            here = [position for position in positions if chunk.start <= position < chunk.stop]
            if not here:
                continue
            # Whole chunks are projected, as in Phase B, and rows taken then: the same numbers.
            rows = [position - chunk.start for position in here]
            logits_TV = project(student, own.rows(chunk))[rows]
            width = min([logits_TV.shape[1], *_width_of(teacher, passes)])
            supports = _supports(
                logits_TV[:, :width],
                [children[position] for position in here],
                [spine_ids[position] for position in here],
                valid_mask[:width],
                student_tokens,
                min_probability,
                temperature,
            )
            views: list[dict[str, TeacherView]] = [{} for _ in supports]
            for context, states in passes.items():
                theirs_TV = project(teacher, states.rows(chunk))[rows, :width].to(logits_TV.device)
                seen = _views(theirs_TV, logits_TV[:, :width], supports, temperature)
                for view, found in zip(views, seen, strict=True):
                    view[context] = found
            nodes |= zip(here, zip(supports, views, strict=True), strict=True)
    return [nodes[position] for position in positions]


def _width_of(teacher: PreTrainedModel, passes: Mapping[str, BodyOutput]) -> list[int]:
    """The width of the teacher's logits, where there is a teacher to ask."""
    return [
        project(teacher, states.rows(slice(0, 1))).shape[1] for states in [*passes.values()][:1]
    ]


def _blocks(logits_TV: Tensor) -> Iterator[slice]:
    """Rows of which a float64 copy fits the block."""
    step = max(1, BLOCK_ELEMENTS.get(logits_TV.device.type, 2**18) // logits_TV.shape[1])
    for start in range(0, logits_TV.shape[0], step):
        yield slice(start, start + step)


def _supports(
    logits_TV: Tensor,
    children: Sequence[Sequence[int]],
    spine_tokens: Sequence[int],
    valid_V: NDArray[np.bool_],
    student_tokens: int,
    min_probability: float,
    temperature: float,
) -> list[Support]:
    width = logits_TV.shape[1]
    if max([*spine_tokens, *(token for own in children for token in own)], default=0) >= width:
        raise ValueError(f"a token lies outside the common vocabulary of {width} ids")
    valid_ids = torch.as_tensor(np.flatnonzero(valid_V)).to(logits_TV.device)
    supports = []
    for block in _blocks(logits_TV):
        log_p_TV = log_softmax(logits_TV[block], temperature, "student")
        p_TV = log_p_TV.exp()
        entropy_T = -(p_TV * log_p_TV).nansum(-1)
        likeliest = (
            top_valid(logits_TV[block], valid_ids, student_tokens).tolist()
            if student_tokens
            else [[] for _ in range(p_TV.shape[0])]
        )
        for row, own in enumerate(likeliest):
            p_V = p_TV[row]
            place = block.start + row
            sources = dict.fromkeys(children[place], CHILD)
            for token in own:
                if float(p_V[token]) >= max(min_probability, 0.0) and float(p_V[token]) > 0:
                    sources.setdefault(token, STUDENT)
            sources.setdefault(spine_tokens[place], SPINE)
            mass = p_V[list(sources)]
            supports.append(
                Support(
                    token_ids=tuple(sources),
                    sources=tuple(sources.values()),
                    student=tuple(mass.tolist()),
                    excluded=_outside(mass),
                    entropy=max(0.0, float(entropy_T[row])),
                )
            )
    return supports


def _outside(mass: Tensor) -> float:
    return min(1.0, max(0.0, 1.0 - float(mass.sum())))


def _views(
    teacher_TV: Tensor, student_TV: Tensor, supports: Sequence[Support], temperature: float
) -> list[TeacherView]:
    """A teacher's view of each position."""
    views = []
    for block in _blocks(teacher_TV):
        own = supports[block]
        none = torch.zeros(len(own), dtype=torch.long, device=teacher_TV.device)
        view = View(
            log_softmax(teacher_TV[block], temperature, "teacher"),
            log_softmax(student_TV[block], temperature, "student"),
            none,  # the divergences look at no token and no place
            none,
        )
        columns = {
            "entropy": view.entropy_q,
            "forward_kl": view.forward_kl,
            "reverse_kl": view.reverse_kl,
            "jsd": gkd_jsd(view),
            "clipped_forward_kl": opsd_clipped_kl(view),
        }
        values = {name: column.tolist() for name, column in columns.items()}
        for row, support in enumerate(own):
            mass = view.q[row][list(support.token_ids)]
            views.append(
                TeacherView(
                    teacher=tuple(mass.tolist()),
                    excluded=_outside(mass),
                    entropy=max(0.0, values["entropy"][row]),
                    forward_kl=_not_negative(values["forward_kl"][row]),
                    reverse_kl=_not_negative(values["reverse_kl"][row]),
                    jsd=_not_negative(values["jsd"][row]),
                    clipped_forward_kl=_finite(values["clipped_forward_kl"][row]),
                )
            )
    return views


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _not_negative(value: float) -> float | None:
    """A divergence: rounding below 0 is 0, an infinite one is missing."""
    return max(0.0, value) if math.isfinite(value) else None
