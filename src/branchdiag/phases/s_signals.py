"""Side stage S: what every published control signal says at each candidate.

Reads `spines` and `candidates`; writes `signals`, one column a registered signal
(`branchdiag.signals`). One pass of teacher and student over each stored spine, as in Phase B, and
no rollout: Phases C to F never read this table, Phase G does. A signal that is registered later is
a column that older parts lack; that column alone is computed, by passes over the stored spines, and
the part is replaced by itself with the column added. Knows no signal by name.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.side_by_side import in_order
from branchdiag.prompts import render_student, render_teacher

if TYPE_CHECKING:
    from branchdiag.signals import Signal

Candidate = Mapping[str, Any]


def units(context: Context) -> list[Unit]:
    """One unit a problem with candidates."""
    names = context.run.table("candidates").read(["problem_id"])["problem_id"].unique()
    return [(name,) for name in sorted(names.to_pylist())]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Every signal of the owed problems' candidates, a spine at a time."""
    from branchdiag.signals import SIGNALS

    by_problem: dict[str, list[Candidate]] = {}
    columns = ["candidate_id", "problem_id", "position"]
    for row in context.run.table("candidates").read(columns).to_pylist():
        by_problem.setdefault(row["problem_id"], []).append(row)
    spines = _spines(context)
    own = {str(unit[0]): by_problem[str(unit[0])] for unit in owed}
    measured = _measured(context, spines, own, list(SIGNALS.values()))
    for unit, rows in zip(owed, measured, strict=True):
        yield Done(unit, {"signals": rows}, tokens=2 * len(spines[str(unit[0])]))


def fill(
    context: Context, rows: Sequence[Candidate], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of an older part with the columns that they lack, in their order; the others stay."""
    from branchdiag.signals import SIGNALS

    by_problem: dict[str, list[Candidate]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    lacking = [SIGNALS[name] for name in columns]
    added = {
        row["candidate_id"]: row
        for measured in _measured(context, _spines(context), by_problem, lacking)
        for row in measured
    }
    return [{**row, **added[row["candidate_id"]]} for row in rows]


def _spines(context: Context) -> dict[str, list[int]]:
    rows = context.run.table("spines").read(["problem_id", "spine_ids"]).to_pylist()
    return {row["problem_id"]: row["spine_ids"] for row in rows}


def _measured(
    context: Context,
    spines: Mapping[str, Sequence[int]],
    by_problem: Mapping[str, Sequence[Candidate]],
    signals: Sequence[Signal],
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each problem's candidates with those signals alone, a problem at a time."""
    from branchdiag.scoring.spine_signals import spine_signals

    settings, prompt = context.protocol.teacher, context.protocol.spine
    student, teacher = context.student_model, context.teacher_model

    def measure(task: tuple[str, Sequence[int], Sequence[int]]) -> dict[str, NDArray[np.float64]]:
        name, student_ids, teacher_ids = task
        return spine_signals(
            student,
            teacher,
            student_ids,
            teacher_ids,
            spines[name],
            [candidate["position"] for candidate in by_problem[name]],
            signals,
            temperature=settings.temperature,
            chunk_positions=settings.chunk_positions,
        )

    tasks = [
        (
            name,
            render_student(context.tokenizer, prompt, problem).token_ids,
            render_teacher(context.tokenizer, settings, prompt.prompt, problem).token_ids,
        )
        for name in by_problem
        for problem in [context.problem(name)]
    ]
    passes = in_order(measure, tasks, [student, teacher])
    for candidates, values in zip(by_problem.values(), passes, strict=True):
        yield [
            {
                "candidate_id": candidate["candidate_id"],
                "problem_id": candidate["problem_id"],
                "position": candidate["position"],
                **{name: _present(float(column[index])) for name, column in values.items()},
            }
            for index, candidate in enumerate(candidates)
        ]


def _present(value: float) -> float | None:
    """The value, or None where the signal is undefined."""
    return None if math.isnan(value) else value


PHASE = Phase(
    letter="S",
    name="signals",
    question="What does every published control signal say at each candidate?",
    reads=("A", "C"),
    writes=("signals",),
    unit=("problem_id",),
    settings=(),
    inputs=("student", "teacher", "problems", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
    fill=fill,
)
