"""Side stage P0: how far teacher and student differ on the spines that Phase B did not score.

Reads `spines` and `positions`; writes `log_ratios`. Phase B scores the spines that are diagnosed,
by default the correct ones, on which late drift is absent by construction. IW-OPD's discrepancy
(arXiv 2606.22600) is a matter of all rollouts, so the other graded spines get the same two passes
here. Nothing is sampled. Knows nothing of prefixes.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.prompts import render_student, render_teacher

LOG_RATIO = "reopold_log_ratio"
"""The registered signal that is ln(q / p) of the spine's own token."""


def units(context: Context) -> list[Unit]:
    """One unit a graded spine without rows in `positions`."""
    scored = set(context.run.table("positions").read(["problem_id"])["problem_id"].to_pylist())
    return [
        (row["problem_id"],)
        for row in context.run.table("spines")
        .read(["problem_id", "correct", "n_spine_tokens"])
        .to_pylist()
        if row["correct"] is not None and row["n_spine_tokens"] and row["problem_id"] not in scored
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Score the owed spines, one at a time: no row depends on what else is owed."""
    from branchdiag.scoring.spine_signals import spine_signals
    from branchdiag.signals import SIGNALS

    teacher, student = context.protocol.teacher, context.protocol.spine
    rows = context.run.table("spines").read(["problem_id", "spine_ids"]).to_pylist()
    spines = {row["problem_id"]: row["spine_ids"] for row in rows}
    for unit in owed:
        name = str(unit[0])
        problem = context.problem(name)
        (values,) = spine_signals(
            context.student_model,
            context.teacher_model,
            render_student(context.tokenizer, student, problem).token_ids,
            render_teacher(context.tokenizer, teacher, student.prompt, problem).token_ids,
            spines[name],
            range(len(spines[name])),
            [SIGNALS[LOG_RATIO]],
            temperature=teacher.temperature,
            chunk_positions=teacher.chunk_positions,
        ).values()
        made = [
            {
                "problem_id": name,
                "position": position,
                "log_ratio": None if math.isnan(value) else float(value),
            }
            for position, value in enumerate(values)
        ]
        yield Done(unit, {"log_ratios": made}, tokens=2 * len(made))


PHASE = Phase(
    letter="P0",
    name="drift",
    question="How far do teacher and student differ on the spines that Phase B left out?",
    reads=("A", "B"),
    writes=("log_ratios",),
    unit=("problem_id",),
    settings=(),
    inputs=("student", "teacher", "problems", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
    command="prefixes",
)
