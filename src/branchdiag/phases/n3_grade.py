"""Side stage N3: how often does each token of a support lead to the answer?

Reads `spines`, `nodes`, `arm_continuations` and Phase F's `grades`; writes `arm_grades` (a row a
new sample) and `node_arms` (a row a node). Grades as Phase F does: the last complete box of forced
token and continuation, in killable processes; a grade that is missing leaves the node owed and is
never a wrong answer. Samples of even and of odd index are counted apart, so that the analysis has
two halves. Knows no model: the tokenizer only decodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from branchdiag.phases.align_plan import PlannedNode, planned_nodes
from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.grading import answers_of, grade_row, ungraded

CHUNK_NODES = 64

Sample = Mapping[str, Any]


def units(context: Context) -> list[Unit]:
    """One unit a planned node whose every sample is there, Phase E's graded."""
    new = _counted(context, "arm_continuations")
    earlier = _counted(context, "grades")
    return [
        (node.candidate_id,)
        for node in planned_nodes(context)
        if all(
            new[node.candidate_id, arm.arm] == arm.total - arm.had
            and (arm.earlier is None or earlier[node.candidate_id, arm.earlier] == arm.had)
            for arm in node.arms
        )
    ]


def _counted(context: Context, table: str) -> Counter[tuple[str, str]]:
    rows = context.run.table(table).read(["candidate_id", "arm"])
    return Counter(zip(rows["candidate_id"].to_pylist(), rows["arm"].to_pylist(), strict=True))


def arms_row(node: PlannedNode, earlier: Sequence[Sample], new: Sequence[Sample]) -> dict[str, Any]:
    """The `node_arms` row of a node.

    Args:
        earlier: Phase F's grades of the node; arms that no token of the support has do not count.
        new: the grades of its new samples.
    """
    groups = [
        [
            row
            for rows, name in ((earlier, arm.earlier), (new, arm.arm))
            for row in rows
            if row["arm"] == name
        ]
        for arm in node.arms
    ]
    halves = [[row for row in group if row["sample"] % 2 == 0] for group in groups]
    return {
        "candidate_id": node.candidate_id,
        "problem_id": node.problem_id,
        "arms": [arm.arm for arm in node.arms],
        "successes": [sum(bool(row["correct"]) for row in group) for group in groups],
        "samples": [len(group) for group in groups],
        "truncated": [sum(bool(row["truncated"]) for row in group) for group in groups],
        "first_successes": [sum(bool(row["correct"]) for row in half) for half in halves],
        "first_samples": [len(half) for half in halves],
    }


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Grade the owed nodes' new samples, a few nodes at a time so that the graders stay busy."""
    from branchdiag.answers.pool import GradingPool

    settings = context.protocol.label
    wanted = {str(unit[0]) for unit in owed}
    nodes = [node for node in planned_nodes(context) if node.candidate_id in wanted]
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    earlier = _rows_of(context, "grades", wanted)
    new = _rows_of(context, "arm_continuations", wanted)
    with GradingPool(settings.grading_workers, settings.grading_timeout_s) as pool:
        for start in range(0, len(nodes), CHUNK_NODES):
            chunk = nodes[start : start + CHUNK_NODES]
            answers = {
                node.candidate_id: _answers(
                    context, node, spines[node.problem_id], new[node.candidate_id]
                )
                for node in chunk
            }
            pairs = [
                (answer, spines[node.problem_id]["gold_answer"])
                for node in chunk
                for both in answers[node.candidate_id]
                for answer in both
            ]
            grades = iter(pool.grade_many(pairs))
            for node in chunk:
                name = node.candidate_id
                graded = [
                    grade_row(row, loose, next(grades), next(grades))
                    for row, (loose, _) in zip(new[name], answers[name], strict=True)
                ]
                yield _outcome(node, earlier[name], graded)


def _rows_of(context: Context, table: str, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The wanted candidates' rows of a table, samples of an arm in order."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for row in context.run.table(table).rows():
        if row["candidate_id"] in wanted:
            rows[row["candidate_id"]].append(row)
    for own in rows.values():
        own.sort(key=lambda row: (row["arm"], row["sample"]))
    return rows


def _answers(
    context: Context, node: PlannedNode, spine: Mapping[str, Any], samples: Sequence[Sample]
) -> list[tuple[str | None, str | None]]:
    prefix = context.decode([*spine["prompt_ids"], *spine["spine_ids"][: node.position]])
    forced = {arm.arm: arm.token_id for arm in node.arms}
    return [
        answers_of(context.decode([forced[row["arm"]], *row["token_ids"]]), prefix)
        for row in samples
    ]


def _outcome(
    node: PlannedNode, earlier: Sequence[Sample], graded: Sequence[dict[str, Any]]
) -> Outcome:
    unit = (node.candidate_id,)
    failed = ungraded(unit, graded, lambda row: str(row["arm"]))
    if failed is not None:
        return failed
    return Done(unit, {"arm_grades": graded, "node_arms": [arms_row(node, earlier, graded)]})


PHASE = Phase(
    letter="N3",
    name="grade arms",
    question="How often does each token of a support lead to the answer?",
    reads=("A", "C", "F", "N1", "N2"),
    writes=("arm_grades", "node_arms"),
    unit=("candidate_id",),
    settings=(),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
    command="align",
)
