"""Side stage N4: does the distillation gradient point where success does, and under which context?

Reads `spines`, `candidates`, `nodes`, `node_contexts` and `node_arms`; writes `gradients` (a row a
node and context), `alignment` (every estimate) and `alignment.json`, from which page, terminal and
`--json` are made. After arXiv 2605.10889: the ideal gradient from measured success, the gradients
of four distillation losses, their cosine, and the teacher's advantage, which is primary. Groups of
nodes (correct spines, incorrect ones, random positions) are never pooled. Computes nothing from
tokens or models.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from branchdiag.phases.align_plan import all_nodes, planned_nodes
from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.groups import groups_of

if TYPE_CHECKING:
    from branchdiag.stats.alignment_estimates import Alignment, Cell
    from branchdiag.stats.alignment_nodes import Nodes
    from branchdiag.stats.estimate import Estimate, Resampling

DOCUMENT = "alignment.json"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """The nodes of a run as they are analysed, and what became of the others.

    nodes: rows of `nodes`, with `arms` (the row of `node_arms`), `views` (context -> the row of
    `node_contexts`) and `spine_correct`, in the order of the candidates.
    """

    nodes: list[dict[str, Any]]
    counts: dict[str, int]


@dataclass(frozen=True)
class Group:
    """One group of nodes, and what was found; None where it has no node."""

    name: str
    description: str
    nodes: list[dict[str, Any]]
    found: Alignment | None


def measured(context: Context) -> Measured:
    """The nodes of which every arm has its samples."""
    table = context.run.table
    correct = {
        row["problem_id"]: row["correct"]
        for row in table("spines").read(["problem_id", "correct"]).to_pylist()
    }
    arms = {row["candidate_id"]: row for row in table("node_arms").rows()}
    views: dict[str, dict[str, Row]] = {}
    for row in table("node_contexts").rows():
        views.setdefault(row["candidate_id"], {})[row["context"]] = row
    rows = {row["candidate_id"]: row for row in table("nodes").rows()}
    every, planned = all_nodes(context), planned_nodes(context)
    least = context.protocol.align.min_samples
    # Of the plan alone: nodes that N1 could add only when it was resumed may have moved a budget.
    complete = [node for node in planned if node.candidate_id in arms]
    kept = [node for node in complete if min(arms[node.candidate_id]["samples"]) >= least]
    return Measured(
        nodes=[
            {
                **rows[name],
                "arms": arms[name],
                "views": views.get(name, {}),
                "spine_correct": bool(correct[rows[name]["problem_id"]]),
            }
            for name in (node.candidate_id for node in kept)
        ],
        counts={
            "candidates": table("candidates").n_rows(),
            "nodes": len(every),
            "measured": len(kept),
            "beyond_budget": len(every) - len(planned),
            "not_graded": len(planned) - len(complete),
            "too_few_samples": len(complete) - len(kept),
            "arms": sum(len(node.arms) for node in kept),
            "samples_of_phase_e": sum(arm.had for node in kept for arm in node.arms),
            "new_samples": sum(node.cost for node in kept),
        },
    )


def to_arrays(rows: Sequence[Row], contexts: Sequence[str]) -> Nodes:
    """Nodes as padded arrays; a context that a node lacks is NaN."""
    import numpy as np

    from branchdiag.stats.alignment_nodes import Nodes

    width = max(len(row["support_ids"]) for row in rows)
    shape = (len(rows), width)
    student = np.full(shape, np.nan)
    teacher = {name: np.full(shape, np.nan) for name in contexts}
    counts = {
        name: np.zeros(shape, dtype=np.int64)
        for name in ("successes", "samples", "first_successes", "first_samples")
    }
    for place, row in enumerate(rows):
        used = len(row["support_ids"])
        student[place, :used] = row["student"]
        for name, values in teacher.items():
            if name in row["views"]:
                values[place, :used] = row["views"][name]["teacher"]
        for name, array in counts.items():
            array[place, :used] = row["arms"][name]
    return Nodes(
        student_NK=student,
        teacher=teacher,
        successes_NK=counts["successes"],
        samples_NK=counts["samples"],
        first_successes_NK=counts["first_successes"],
        first_samples_NK=counts["first_samples"],
        r=np.array([row["r"] for row in rows], dtype=np.float64),
        problem_id=np.array([row["problem_id"] for row in rows], dtype=np.str_),
    )


def gradient_rows(rows: Sequence[Row], contexts: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of `gradients`: every figure at every node, under each context that it has."""
    if not rows:
        return []
    import numpy as np

    from branchdiag.stats.alignment import LOSSES, has_length, ideal_gradient, renormalised
    from branchdiag.stats.alignment_nodes import ADVANTAGE, node_values

    nodes = to_arrays(rows, contexts)
    success, p = nodes.success(), renormalised(nodes.student_NK)
    values = node_values(nodes, success)
    tells = has_length(ideal_gradient(p, success))
    made = []
    for name in contexts:
        q = renormalised(nodes.teacher[name])
        differs = has_length(q - p)
        for place, row in enumerate(rows):
            if name not in row["views"]:
                continue
            cosines = {loss: float(values[f"cosine_{loss}", name, ""][place]) for loss in LOSSES}
            present = {k: v if np.isfinite(v) else None for k, v in cosines.items()}
            reason = None
            if None in present.values():
                reason = "the teacher excludes a token, or a clip leaves no gradient"
                if not tells[place]:
                    reason = "every token succeeds equally often"
                elif not differs[place]:
                    reason = "teacher and student agree on the support"
            made.append(
                {
                    **{key: row[key] for key in ("candidate_id", "problem_id", "position", "r")},
                    "context": name,
                    "spine_correct": row["spine_correct"],
                    "n_support": len(row["support_ids"]),
                    "student_success": float((p[place] * success[place]).sum()),
                    "teacher_success": float((q[place] * success[place]).sum()),
                    "advantage": float(values[ADVANTAGE, name, ""][place]),
                    **{f"cosine_{loss}": value for loss, value in present.items()},
                    "reason": reason,
                }
            )
    return made


def analyse(
    context: Context, rows: Sequence[dict[str, Any]], contexts: Sequence[str]
) -> list[Group]:
    """The groups of nodes, each evaluated by itself with a seed of its own."""
    from branchdiag.stats.alignment_estimates import evaluate

    candidates = context.run.table("candidates").rows()
    correct = {row["problem_id"]: row["spine_correct"] for row in rows}
    groups = []
    settings = context.protocol.report
    for place, (name, (description, ids)) in enumerate(
        groups_of(candidates, correct, context.protocol.candidates).items()
    ):
        own = [row for row in rows if row["candidate_id"] in ids]
        group = Group(name, description, own, None)
        if own:
            resampling: Resampling = {
                "resamples": settings.resamples,
                "level": settings.level,
                "seed": settings.seed + place,
                "max_dropped_share": settings.max_dropped_share,
            }
            found = evaluate(to_arrays(own, contexts), bins=settings.bins, **resampling)
            group = replace(group, found=found)
        groups.append(group)
    return groups


def alignment_rows(group: Group) -> list[dict[str, Any]]:
    """The rows of `alignment` of a group."""
    found = group.found
    if found is None:
        return []

    def row(
        figure: str, context: str, against: str, place: int, estimate: Estimate, **more: Any
    ) -> dict[str, Any]:
        return {
            "group": group.name,
            "figure": figure,
            "context": context,
            "against": against,
            "bin": place,
            "value": estimate.value,
            "ci_low": estimate.ci_low,
            "ci_high": estimate.ci_high,
            "reason": estimate.reason,
            "n_nodes": found.n_nodes,
            "n_problems": found.n_problems,
            "n_undefined": 0,
            **more,
        }

    def of_cell(cell: Cell) -> dict[str, Any]:
        names = ("r", "n_nodes", "n_problems", "n_undefined")
        return {name: getattr(cell, name) for name in names}

    rows = []
    for (figure, context, _), series in found.series.items():
        for place, cell in enumerate([series.whole, *series.by_position], start=-1):
            rows.append(row(figure, context, "", place, cell.estimate, **of_cell(cell)))
        if series.slope is not None:
            rows.append(row(f"{figure}_slope", context, "", -1, series.slope))
    for (figure, context, against), pair in found.differences.items():
        ends = {"low": pair.low, "high": pair.high, "p": pair.p}
        rows.append(row(figure, context, against, -1, pair.estimate, **ends))
    pooled = found.pooled
    for what, estimates in (("pooled", pooled.cosines), ("corrected", pooled.corrected)):
        rows += [
            row(f"{what}_{loss}", context, "", -1, estimate)
            for (loss, context), estimate in estimates.items()
        ]
    rows.append(row("split_half", "", "", -1, pooled.split_half))
    rows.append(row("signal_share", "", "", -1, pooled.signal_share))
    return rows


def units(context: Context) -> list[Unit]:
    """The whole stage is one unit."""
    return [()]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Analyse the nodes, hand over the rows, write the document."""
    from branchdiag.phases.n4_document import make_document
    from branchdiag.store.atomic import write_json

    known = measured(context)
    contexts = [
        name
        for name in context.protocol.align.contexts
        if any(name in row["views"] for row in known.nodes)
    ]
    groups = analyse(context, known.nodes, contexts)
    document = make_document(context, known, contexts, groups)
    rows = {
        "gradients": gradient_rows(known.nodes, contexts),
        "alignment": [row for group in groups for row in alignment_rows(group)],
    }
    write_json(context.run.path / DOCUMENT, document)
    yield Done((), rows)


PHASE = Phase(
    letter="N4",
    name="alignment",
    question="Does the distillation gradient point where success does, and under which context?",
    reads=("A", "C", "N1", "N3"),
    writes=("gradients", "alignment"),
    unit=(),
    settings=("align.min_samples", "report"),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
    command="align",
)
