"""Side stage P2: which continuations of a prefix reach the answer?

Reads `spines` and `prefix_samples`; writes `prefix_grades`. As in Phase F the last complete box of
the continuation counts, and a box in the prefix does not: a prefix of less than the whole spine
holds one only where the spine went on after its answer, and its samples are marked. Grading runs in
killable processes; a grade that is missing leaves the problem owed, and is never a wrong answer.
Knows no model: the tokenizer only decodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.grading import answers_of, ungraded
from branchdiag.phases.prefixes import WRITERS, cuts_of

if TYPE_CHECKING:
    from branchdiag.answers.grade import Grade

CHUNK_PROBLEMS = 8


def units(context: Context) -> list[Unit]:
    """One unit a problem whose every sample is there."""
    names = context.run.table("prefix_samples").read(["problem_id"])["problem_id"].to_pylist()
    present = Counter(names)
    settings = context.protocol.prefixes
    spines = context.run.table("spines").read(["problem_id", "n_spine_tokens"]).to_pylist()
    return [
        (row["problem_id"],)
        for row in spines
        if present[row["problem_id"]]
        and present[row["problem_id"]]
        == len(cuts_of(row["n_spine_tokens"], settings.fractions))
        * len(WRITERS)
        * settings.rollouts
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Grade the owed problems, a few at a time so that the graders stay busy."""
    from branchdiag.answers.pool import GradingPool

    settings = context.protocol.label
    wanted = {str(unit[0]) for unit in owed}
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for row in context.run.table("prefix_samples").rows():
        if row["problem_id"] in wanted:
            samples[row["problem_id"]].append(row)
    names = [str(unit[0]) for unit in owed]
    with GradingPool(settings.grading_workers, settings.grading_timeout_s) as pool:
        for start in range(0, len(names), CHUNK_PROBLEMS):
            chunk = names[start : start + CHUNK_PROBLEMS]
            rows = [row for name in chunk for row in samples[name]]
            answers = [answers_of(context.decode(row["token_ids"]), "")[0] for row in rows]
            pairs = [
                (answer, spines[row["problem_id"]]["gold_answer"])
                for answer, row in zip(answers, rows, strict=True)
            ]
            graded: dict[str, list[dict[str, Any]]] = {name: [] for name in chunk}
            for row, answer, grade in zip(rows, answers, pool.grade_many(pairs), strict=True):
                spine = spines[row["problem_id"]]
                graded[row["problem_id"]].append(grade_row(row, spine, answer, grade))
            for name in chunk:
                yield _outcome(name, graded[name])


def grade_row(
    sample: Mapping[str, Any], spine: Mapping[str, Any], answer: str | None, grade: Grade
) -> dict[str, Any]:
    """The `prefix_grades` row of one sample."""
    boxed = spine["boxed_position"]
    return {
        **{name: sample[name] for name in ("problem_id", "cut", "fraction", "writer", "sample")},
        "answer": answer,
        "correct": grade.correct,
        "grade_path": grade.path,
        "after_box": boxed is not None and sample["cut"] > boxed,
        "truncated": sample["finish_reason"] == "length",
        "n_tokens": sample["n_tokens"],
    }


def _outcome(problem_id: str, graded: Sequence[Mapping[str, Any]]) -> Outcome:
    failed = ungraded(
        (problem_id,), graded, lambda row: f"the {row['writer']}'s after {row['cut']} tokens"
    )
    if failed is not None:
        return failed
    return Done((problem_id,), {"prefix_grades": graded})


PHASE = Phase(
    letter="P2",
    name="grade",
    question="Which continuations of a prefix reach the answer?",
    reads=("A", "P1"),
    writes=("prefix_grades",),
    unit=("problem_id",),
    settings=(),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
    command="prefixes",
)
