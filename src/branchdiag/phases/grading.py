"""From the text of a sampled continuation to its grade: the one rule of every phase that grades.

Shared by the phases that grade samples; knows nothing of labels, and runs no grader itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.answers.extract import is_thinking_open, last_boxed
from branchdiag.phases.base import Failed, Unit

if TYPE_CHECKING:
    from branchdiag.answers.grade import Grade


def answers_of(new: str, prefix: str) -> tuple[str | None, str | None]:
    """The answer of a continuation under the paper's rule and under the stricter one.

    Both look at `new` (forced token and continuation, decoded) alone: a box in the prefix does not
    count. The stricter rule also wants it after the thinking that the prefix may have opened.
    """
    strict = last_boxed(new, rule="after_thinking", thinking_open=is_thinking_open(prefix))
    return last_boxed(new).answer, strict.answer


def grade_row(
    sample: Mapping[str, Any], answer: str | None, grade: Grade, strict: Grade
) -> dict[str, Any]:
    """The `grades` row of one sample."""
    return {
        "candidate_id": sample["candidate_id"],
        "problem_id": sample["problem_id"],
        "arm": sample["arm"],
        "sample": sample["sample"],
        "answer": answer,
        "correct": grade.correct,
        "correct_strict": strict.correct,
        "grade_path": grade.path,
        "truncated": sample["finish_reason"] == "length",
        "n_tokens": sample["n_tokens"],
    }


def ungraded(
    unit: Unit, graded: Sequence[Mapping[str, Any]], which: Callable[[Mapping[str, Any]], str]
) -> Failed | None:
    """The failure of a unit of which some sample has no grade; None where every one has.

    Args:
        which: what a reader calls a sample's group.
    """
    missing = [row for row in graded if None in (row["correct"], row.get("correct_strict", False))]
    if not missing:
        return None
    first = missing[0]
    return Failed(
        unit,
        "MissingGrade",
        f"{len(missing)} samples could not be graded; the first is {which(first)}, sample "
        f"{first['sample']} ({first['grade_path']})",
    )
