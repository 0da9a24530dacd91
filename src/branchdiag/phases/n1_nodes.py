"""Side stage N1: which tokens are compared at each candidate, and what do student and teacher give
them under every context?

Reads `spines` and `candidates`; writes `node_contexts` and `nodes`. A node's support is the forced
children, the student's own likeliest valid tokens and the spine's token: "a sufficiently visited
token subset" is what arXiv 2605.10889 asks for, and the choice is ours. One forward pass of the
student and one of the teacher a context over each diagnosed spine, as in Phase B; several contexts
at once. A context that shows a solution is left out of problems that have none. Knows no rollout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.prompts import Template, render_student, render_teacher, teacher_template

if TYPE_CHECKING:
    from branchdiag.problems import Problem
    from branchdiag.scoring.node_distributions import Support, TeacherView


def units(context: Context) -> list[Unit]:
    """One unit a problem with candidates."""
    names = context.run.table("candidates").read(["problem_id"])["problem_id"].unique()
    return [(name,) for name in sorted(names.to_pylist())]


def templates_of(context: Context) -> dict[str, Template]:
    """The teacher's message under each context.

    Raises:
        UsageError: an unknown context, or a template file that cannot be used.
    """
    teacher = context.protocol.teacher
    return {
        name: teacher_template(
            teacher.model_copy(update={"context": name}), context.protocol.spine.prompt
        )
        for name in context.protocol.align.contexts
    }


def usable(templates: Mapping[str, Template], problem: Problem) -> dict[str, Template]:
    """The contexts that a problem can fill: one that shows a solution needs it."""
    return {
        name: template
        for name, template in templates.items()
        if problem.solution is not None or "solution" not in template.fields
    }


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """The nodes of the owed problems, a spine at a time."""
    templates = templates_of(context)
    by_problem: dict[str, list[dict[str, Any]]] = {}
    for row in context.run.table("candidates").rows():
        by_problem.setdefault(row["problem_id"], []).append(row)
    rows = context.run.table("spines").read(["problem_id", "spine_ids"]).to_pylist()
    spines = {row["problem_id"]: row["spine_ids"] for row in rows}
    for unit in owed:
        name = str(unit[0])
        problem = context.problem(name)
        own = usable(templates, problem)
        nodes, views = _measured(context, problem, spines[name], by_problem[name], own)
        yield Done(
            unit,
            {"node_contexts": views, "nodes": nodes},
            tokens=(1 + len(own)) * len(spines[name]),
        )


def _measured(
    context: Context,
    problem: Problem,
    spine_ids: Sequence[int],
    candidates: Sequence[Mapping[str, Any]],
    templates: Mapping[str, Template],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `nodes` and of `node_contexts` of one spine."""
    from branchdiag.scoring.node_distributions import node_distributions

    teacher, student, align = (
        context.protocol.teacher,
        context.protocol.spine,
        context.protocol.align,
    )
    found = node_distributions(
        context.student_model,
        context.teacher_model,
        render_student(context.tokenizer, student, problem).token_ids,
        {
            name: render_teacher(
                context.tokenizer, teacher, student.prompt, problem, template=template
            ).token_ids
            for name, template in templates.items()
        },
        spine_ids,
        {row["position"]: row["child_ids"] for row in candidates},
        context.valid_tokens.mask,
        student_tokens=align.student_tokens,
        min_probability=align.min_student_probability,
        temperature=teacher.temperature,
        chunk_positions=teacher.chunk_positions,
    )
    nodes, views = [], []
    for row, (support, seen) in zip(candidates, found, strict=True):
        nodes.append(node_row(row, support, [context.decode([t]) for t in support.token_ids]))
        views += [view_row(row, name, view) for name, view in seen.items()]
    return nodes, views


def node_row(
    candidate: Mapping[str, Any], support: Support, texts: Sequence[str]
) -> dict[str, Any]:
    """The `nodes` row of a candidate."""
    return {
        **{name: candidate[name] for name in ("candidate_id", "problem_id", "position", "r")},
        "support_ids": list(support.token_ids),
        "support_texts": list(texts),
        "sources": list(support.sources),
        "student": list(support.student),
        "student_excluded": support.excluded,
        "student_entropy": support.entropy,
    }


def view_row(candidate: Mapping[str, Any], name: str, view: TeacherView) -> dict[str, Any]:
    """The `node_contexts` row of a candidate under one context."""
    values = dataclasses.asdict(view)
    return {
        **{key: candidate[key] for key in ("candidate_id", "problem_id", "position")},
        "context": name,
        "teacher": list(view.teacher),
        "teacher_excluded": view.excluded,
        "teacher_entropy": view.entropy,
        **{key: values[key] for key in ("forward_kl", "reverse_kl", "jsd", "clipped_forward_kl")},
    }


PHASE = Phase(
    letter="N1",
    name="nodes",
    question="What do student and teacher give the same few tokens, under every context?",
    reads=("A", "C"),
    writes=("node_contexts", "nodes"),
    unit=("problem_id",),
    settings=("align.contexts", "align.student_tokens", "align.min_student_probability"),
    inputs=("student", "teacher", "problems", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
    command="align",
)
