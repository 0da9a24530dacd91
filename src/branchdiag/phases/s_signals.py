"""Side stage S: what every published control signal says at each candidate.

Reads `spines` and `candidates`; writes `signals`, one column a registered signal
(`branchdiag.signals`). One pass of teacher and student over each stored spine, as in Phase B, and
no rollout: Phases C to F never read this table, Phase G does. A signal that is registered later is
a column that older parts lack; that column alone is computed, by passes over the stored spines, and
the part is replaced by itself with the column added. Knows no signal by name.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
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
    for unit in owed:
        spine_ids = spines[str(unit[0])]
        rows = _measured(context, spine_ids, by_problem[str(unit[0])], list(SIGNALS.values()))
        yield Done(unit, {"signals": rows}, tokens=2 * len(spine_ids))


def fill(
    context: Context, rows: Sequence[Candidate], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of an older part with the columns that they lack, in their order; the others stay."""
    from branchdiag.signals import SIGNALS

    by_problem: dict[str, list[Candidate]] = {}
    for row in rows:
        by_problem.setdefault(row["problem_id"], []).append(row)
    spines = _spines(context)
    lacking = [SIGNALS[name] for name in columns]
    added = {
        row["candidate_id"]: row
        for name, own in by_problem.items()
        for row in _measured(context, spines[name], own, lacking)
    }
    return [{**row, **added[row["candidate_id"]]} for row in rows]


def _spines(context: Context) -> dict[str, list[int]]:
    rows = context.run.table("spines").read(["problem_id", "spine_ids"]).to_pylist()
    return {row["problem_id"]: row["spine_ids"] for row in rows}


def _measured(
    context: Context,
    spine_ids: Sequence[int],
    candidates: Sequence[Candidate],
    signals: Sequence[Signal],
) -> list[dict[str, Any]]:
    """The rows of one spine's candidates with those signals alone."""
    from branchdiag.scoring.spine_signals import spine_signals

    teacher, student = context.protocol.teacher, context.protocol.spine
    problem = context.problem(candidates[0]["problem_id"])
    values = spine_signals(
        context.student_model,
        context.teacher_model,
        render_student(context.tokenizer, student, problem).token_ids,
        render_teacher(context.tokenizer, teacher, student.prompt, problem).token_ids,
        spine_ids,
        [candidate["position"] for candidate in candidates],
        signals,
        temperature=teacher.temperature,
        chunk_positions=teacher.chunk_positions,
    )
    return [
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
