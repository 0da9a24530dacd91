"""Stage G: the answer of every sample, its grade, and the vote of each problem's samples.

Reads the problems and `samples`; writes `grades` (a row a sample) and `outcomes` (a row a model,
problem and repeat). The answer is the last complete box; a later box that is torn or bare hides no
earlier one, and an empty box is no answer. A group with a grade that is missing has no outcome: it
stays owed and is tried again. Needs no model: the samples keep their text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from branchdiag.answers.extract import last_boxed
from branchdiag.evaluation.context import EvaluationContext, evaluation_of
from branchdiag.evaluation.settings import GradingSettings
from branchdiag.evaluation.votes import vote
from branchdiag.phases.base import Context, Done, Failed, Outcome, Phase, Unit

if TYPE_CHECKING:
    from branchdiag.answers.pool import GradingPool

CHUNK_GROUPS = 32
"""Groups graded together, so that the graders stay busy."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What grading needs of a sample."""

    sample: int
    answer: str | None
    extraction: str
    truncated: bool
    n_tokens: int


def units(context: Context) -> list[Unit]:
    """One unit a group whose every sample is there: (model, problem, seed set)."""
    evaluation = evaluation_of(context)
    present = Counter(key[:3] for key in context.run.table("samples").keys())  # noqa: SIM118
    return [group for group in evaluation.groups() if present[group] >= evaluation.settings.n]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Grade the owed groups and vote in each."""
    from branchdiag.answers.pool import GradingPool

    evaluation = evaluation_of(context)
    settings = evaluation.settings.grading
    answers = _answers(evaluation, set(owed))
    with GradingPool(settings.workers, settings.timeout_s) as pool:
        for start in range(0, len(owed), CHUNK_GROUPS):
            chunk = owed[start : start + CHUNK_GROUPS]
            golds = [context.problem(str(unit[1])).answer for unit in chunk]
            pairs = [
                (a.answer, gold)
                for unit, gold in zip(chunk, golds, strict=True)
                for a in answers[unit]
            ]
            pool.grade_many(pairs)  # all at once; the pool remembers
            for unit, gold in zip(chunk, golds, strict=True):
                yield grade_group(unit, answers[unit], gold, pool)


def _answers(context: EvaluationContext, owed: set[Unit]) -> dict[Unit, list[Answer]]:
    """The answers of the owed groups; texts are read a part at a time and let go."""
    rule = context.settings.grading
    columns = [
        *("model", "problem_id", "seed_set", "sample"),
        *("text", "thinking_open", "finish_reason", "n_tokens"),
    ]
    found: dict[Unit, list[Answer]] = {unit: [] for unit in owed}
    for part in context.run.table("samples").scan(columns):
        for row in part.to_pylist():
            unit = (row["model"], row["problem_id"], row["seed_set"])
            if unit in found and row["sample"] < context.settings.n:
                found[unit].append(answer_of(row, rule))
    for group in found.values():
        group.sort(key=lambda answer: answer.sample)
    return found


def answer_of(row: Mapping[str, Any], settings: GradingSettings) -> Answer:
    """The answer that counts in a `samples` row."""
    extraction = last_boxed(
        row["text"], rule=settings.answer_rule, thinking_open=row["thinking_open"]
    )
    return Answer(
        sample=row["sample"],
        answer=extraction.answer,
        extraction=extraction.status,
        truncated=row["finish_reason"] == "length",
        n_tokens=row["n_tokens"],
    )


def grade_group(unit: Unit, answers: Sequence[Answer], gold: str, pool: GradingPool) -> Outcome:
    """Grades and outcome of one group; a failure where a grade is missing."""
    grades = pool.grade_many([(answer.answer, gold) for answer in answers])
    missing = [i for i, grade in enumerate(grades) if grade.correct is None]
    if missing:
        first = missing[0]
        message = (
            f"{len(missing)} of {len(answers)} samples could not be graded; the first is sample "
            f"{answers[first].sample} ({grades[first].path})"
        )
        return Failed(unit, "MissingGrade", message)
    correct = [bool(grade.correct) for grade in grades]
    voted = vote([answer.answer for answer in answers], correct, pool.grade)
    model, problem_id, seed_set = unit
    key = {"model": model, "problem_id": problem_id, "seed_set": seed_set}
    rows = [
        {
            **key,
            "sample": answer.sample,
            "answer": answer.answer,
            "extraction": answer.extraction,
            "correct": grade.correct,
            "grade_path": grade.path,
            "cluster": label,
        }
        for answer, grade, label in zip(answers, grades, voted.clusters, strict=True)
    ]
    outcome = {
        **key,
        "n": len(answers),
        "n_correct": sum(correct),
        "n_formatted": sum(answer.answer is not None for answer in answers),
        "n_truncated": sum(answer.truncated for answer in answers),
        "n_tokens": sum(answer.n_tokens for answer in answers),
        "n_clusters": len(set(voted.clusters)),
        "majority_sample": answers[voted.winner].sample,
        "majority_votes": voted.votes,
        "majority_correct": voted.correct,
        "majority_reason": voted.reason,
    }
    return Done(unit, {"grades": rows, "outcomes": [outcome]})


def outcomes_of(context: EvaluationContext) -> Iterator[dict[str, Any]]:
    """The outcomes of the evaluation's own models and problems."""
    wanted = set(context.groups())
    for row in context.run.table("outcomes").rows():
        if (row["model"], row["problem_id"], row["seed_set"]) in wanted:
            yield row


PHASE = Phase(
    letter="G",
    name="grade",
    question="Which answers are right, and what does the majority say?",
    reads=("S",),
    writes=("grades", "outcomes"),
    unit=("model", "problem_id", "seed_set"),
    settings=(),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
)
