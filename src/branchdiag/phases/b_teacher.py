"""Phase B: what teacher and student think at every position of a correct spine (or, by a setting,
of incorrect ones).

Reads `spines`; writes `positions`. One forward pass under the teacher's prompt and one under the
student's, over the same spine tokens (arXiv 2605.21606, appendix A: the whole softmax once a
position, entropy over the top 16 valid tokens). Writes nothing that later needs a model again:
Phase C chooses from these rows alone. The logits are taken a chunk of positions at a time.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.groups import diagnosed
from branchdiag.phases.side_by_side import in_order
from branchdiag.prompts import render_student, render_teacher

_Texts: TypeAlias = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Of a spine: the student's prompt, the teacher's, and the spine itself."""

TOP_COLUMNS = ("top_ids", "top_teacher", "top_student")


def plausible(
    p1: NDArray[np.float64], p2: NDArray[np.float64], *, min_p2: float, min_ratio: float
) -> NDArray[np.bool_]:
    """Where the second valid token is a real alternative: p2 >= min_p2 and p2 / p1 >= min_ratio.

    Args:
        p1, p2: probabilities of the teacher's first two valid tokens, shape (positions,).
    """
    return (p2 >= min_p2) & (p2 >= min_ratio * p1)


def rows_of_spine(
    problem_id: str,
    spine_ids: Sequence[int],
    scores: Mapping[str, NDArray[Any]],
    *,
    min_p2: float,
    min_ratio: float,
) -> list[dict[str, Any]]:
    """One row a position; the top tokens only where the position is plausible.

    Args:
        scores: the scalar columns of the table, shape (positions,), and `TOP_COLUMNS`, shape
            (positions, top_k).
    """
    keep = plausible(scores["p1"], scores["p2"], min_p2=min_p2, min_ratio=min_ratio)
    rows = []
    for position, token_id in enumerate(spine_ids):
        row: dict[str, Any] = {
            name: finite(values[position].item())
            for name, values in scores.items()
            if name not in TOP_COLUMNS
        }
        row |= {
            "problem_id": problem_id,
            "position": position,
            "token_id": int(token_id),
            "plausible": bool(keep[position]),
        }
        row |= {
            name: scores[name][position].tolist() if keep[position] else None
            for name in TOP_COLUMNS
        }
        rows.append(row)
    return rows


def finite(value: float) -> float | None:
    """The value, or None: a side that excludes a token outright makes a divergence infinite."""
    return value if math.isfinite(value) else None


def units(context: Context) -> list[Unit]:
    """One unit a spine of the kind that is diagnosed (the paper: correct)."""
    wanted = diagnosed(context.protocol.candidates.spines)
    return [
        (row["problem_id"],)
        for row in context.run.table("spines")
        .read(["problem_id", "correct", "n_spine_tokens"])
        .to_pylist()
        if row["correct"] in wanted and row["n_spine_tokens"]
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Score the owed spines, each by itself: no row depends on what else is owed."""
    from branchdiag.scoring.forward import score_spine

    settings, candidates = context.protocol.teacher, context.protocol.candidates
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    student, teacher = context.student_model, context.teacher_model
    valid_mask = context.valid_tokens.mask

    def measure(texts: _Texts) -> dict[str, NDArray[Any]]:
        student_ids, teacher_ids, spine_ids = texts
        return score_spine(
            student,
            teacher,
            student_ids,
            teacher_ids,
            spine_ids,
            valid_mask,
            temperature=settings.temperature,
            top_k=settings.top_k,
            chunk_positions=settings.chunk_positions,
        )

    texts = [_texts(context, spines[str(unit[0])]) for unit in owed]
    passes = in_order(measure, texts, [student, teacher])
    for unit, scores in zip(owed, passes, strict=True):
        rows = rows_of_spine(
            str(unit[0]),
            spines[str(unit[0])]["spine_ids"],
            scores,
            min_p2=candidates.min_p2,
            min_ratio=candidates.min_ratio,
        )
        yield Done(unit, {"positions": rows}, tokens=len(rows))


def _texts(context: Context, spine: Mapping[str, Any]) -> _Texts:
    problem, settings = context.problem(spine["problem_id"]), context.protocol.spine
    return (
        render_student(context.tokenizer, settings, problem).token_ids,
        render_teacher(
            context.tokenizer, context.protocol.teacher, settings.prompt, problem
        ).token_ids,
        spine["spine_ids"],
    )


PHASE = Phase(
    letter="B",
    name="teacher",
    question="What would the teacher write at each position, and what the student?",
    reads=("A",),
    writes=("positions",),
    unit=("problem_id",),
    settings=("teacher", "candidates.min_p2", "candidates.min_ratio", "candidates.spines"),
    inputs=("student", "teacher", "problems", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
)
