"""A walk over the tokens of a micro-batch, a chunk of logits at a time.

Reads hidden states and output heads of student and teacher; gives distributions of blocks of
tokens, and lets a block's logits be overwritten by the gradient to them. Knows no objective, no
mask and no gradient of anything else.

A chunk is what is projected at once: two buffers [chunk, V] in the head's type, made once and used
again (fresh pages cost more than the sums done on them). A block is what is float32 at once: a few
rows, small enough for a core's cache on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from branchdiag.errors import UsageError
from branchdiag.training.objectives.base import Distribution
from branchdiag.training.output_head import OutputHead

_CHUNK_ELEMENTS = 2**25
"""Logits of one side held at once: 220 tokens of a 152k vocabulary, 64 MiB in bfloat16."""
_BLOCK_ELEMENTS = {"cpu": 2**18, "cuda": 2**24}
"""Elements of a float32 temporary: 1 MiB stays in a core's cache, 64 MiB keeps a GPU busy."""


@dataclass(frozen=True)
class Block:
    """A few tokens: their place among all walked, and their logits of both sides."""

    rows: slice
    tokens_T: Tensor
    student_TV: Tensor
    teacher_TV: Tensor
    walk: VocabularyWalk

    def distributions(self) -> tuple[Distribution, Distribution]:
        """Student's and teacher's, in the walk's float type."""
        walk = self.walk
        return (
            _distribution(self._scaled(self.student_TV, walk.student_head)),
            _distribution(self._scaled(self.teacher_TV, walk.teacher_head)),
        )

    def store_gradient(self, gradients_TV: Tensor, coefficients_T: Tensor) -> None:
        """Put c_t d l_t / d (student's projection) where the student's logits were.

        Args:
            gradients_TV: d l_t / d (logits / temperature); overwritten.
            coefficients_T: c_t.
        """
        gradients_TV.mul_((coefficients_T / self.walk.temperature)[:, None])
        if self.walk.student_head.softcap is not None:
            bent_TV = torch.tanh(
                self.student_TV.to(self.walk.dtype) / self.walk.student_head.softcap
            )
            gradients_TV.mul_(1 - bent_TV.square_())
        self.student_TV.copy_(gradients_TV)

    def _scaled(self, projection_TV: Tensor, head: OutputHead) -> Tensor:
        """Logits / temperature, a copy."""
        logits_TV = projection_TV.to(self.walk.dtype, copy=True)
        if head.softcap is not None:
            logits_TV.div_(head.softcap).tanh_().mul_(head.softcap)
        return logits_TV.div_(self.walk.temperature)


@dataclass(frozen=True)
class Chunk:
    """Tokens that are projected together."""

    rows: slice
    student_TV: Tensor
    teacher_TV: Tensor
    walk: VocabularyWalk

    def blocks(self) -> Iterator[Block]:
        """The chunk's tokens, a block at a time."""
        walk = self.walk
        budget = _BLOCK_ELEMENTS.get(self.student_TV.device.type, _BLOCK_ELEMENTS["cpu"])
        size = max(1, budget // walk.width)
        for start in range(0, len(self.student_TV), size):
            here = slice(start, min(start + size, len(self.student_TV)))
            rows = slice(self.rows.start + here.start, self.rows.start + here.stop)
            yield Block(
                rows, walk.tokens_T[rows], self.student_TV[here], self.teacher_TV[here], walk
            )


@dataclass(frozen=True)
class VocabularyWalk:
    """What a walk needs apart from the student's hidden states."""

    temperature: float
    student_head: OutputHead
    teacher_head: OutputHead
    teacher_hidden_Td: Tensor
    tokens_T: Tensor
    chunk_tokens: int

    @property
    def width(self) -> int:
        """Ids of the common vocabulary."""
        return len(self.student_head.weight_Vd)

    @property
    def dtype(self) -> torch.dtype:
        """Of distributions and sums: float64 with a float64 head, else float32."""
        double = self.student_head.weight_Vd.dtype == torch.float64
        return torch.float64 if double else torch.float32

    def chunks(self, student_hidden_Td: Tensor) -> Iterator[Chunk]:
        """All tokens, a chunk at a time; a chunk's buffers are used again for the next."""
        n_tokens = len(self.tokens_T)
        # Of one size, so that no small chunk is left over.
        size = -(-n_tokens // -(-n_tokens // self.chunk_tokens)) if n_tokens else 0
        student_TV = _buffer(self.student_head, size)
        teacher_TV = _buffer(self.teacher_head, size)
        for start in range(0, n_tokens, size or 1):
            rows = slice(start, min(start + size, n_tokens))
            here = slice(0, rows.stop - rows.start)
            self.student_head.project(student_hidden_Td[rows], student_TV[here])
            self.teacher_head.project(self.teacher_hidden_Td[rows], teacher_TV[here])
            yield Chunk(rows, student_TV[here], teacher_TV[here], self)


def vocabulary_walk(
    temperature: float,
    mask_BT: Tensor,
    tokens_BT: Tensor,
    student_hidden_BTd: Tensor,
    teacher_hidden_BTd: Tensor,
    student_head: OutputHead,
    teacher_head: OutputHead,
    chunk_tokens: int | None,
) -> VocabularyWalk:
    """A walk over the tokens of a mask. Vocabularies of two widths are cut to the narrower.

    Raises:
        UsageError: a head in float16 or in a quantised type.
        ValueError: shapes that do not fit, or a sampled token beyond the common vocabulary.
    """
    for name, shape in (
        ("sampled tokens", tokens_BT.shape),
        ("student's hidden states", student_hidden_BTd.shape[:-1]),
        ("teacher's hidden states", teacher_hidden_BTd.shape[:-1]),
    ):
        if shape != mask_BT.shape:
            raise ValueError(f"{name} are {list(shape)}, the mask is {list(mask_BT.shape)}")
    types = {student_head.weight_Vd.dtype, teacher_head.weight_Vd.dtype}
    if not types <= {torch.bfloat16, torch.float32, torch.float64}:
        raise UsageError(
            "the fused loss wants output heads in bfloat16 or float32",
            where=", ".join(sorted(str(kind).removeprefix("torch.") for kind in types)),
            fix="load the models in bfloat16: a token's gradient is below float16's least number",
        )
    if chunk_tokens is not None and chunk_tokens < 1:
        raise ValueError("a chunk holds at least one token")
    width = min(len(student_head.weight_Vd), len(teacher_head.weight_Vd))
    device = student_hidden_BTd.device
    tokens_T = tokens_BT[mask_BT.to(tokens_BT.device)].to(device)
    if len(tokens_T) and not (int(tokens_T.min()) >= 0 and int(tokens_T.max()) < width):
        raise ValueError(f"a sampled token lies outside the common vocabulary of {width} ids")
    teacher_hidden_Td = teacher_hidden_BTd.detach()[mask_BT.to(teacher_hidden_BTd.device)]
    return VocabularyWalk(
        temperature,
        student_head.cut(width),
        teacher_head.cut(width),
        teacher_hidden_Td.to(device, teacher_head.weight_Vd.dtype),
        tokens_T,
        chunk_tokens or max(1, _CHUNK_ELEMENTS // width),
    )


def _buffer(head: OutputHead, size: int) -> Tensor:
    return head.weight_Vd.new_empty(size, len(head.weight_Vd))


def _distribution(scaled_TV: Tensor) -> Distribution:
    log_probs_TV = scaled_TV.log_softmax(-1)
    # The logits are of no more use, and their memory is warm. (On a CPU `exp` takes longer.)
    probs_TV = torch.softmax(log_probs_TV, -1, out=scaled_TV)
    return Distribution(log_probs_TV, probs_TV, -torch.linalg.vecdot(probs_TV, log_probs_TV))
