"""Side stage N2: the rollouts that the supports still lack.

Reads `spines`, `candidates` and `nodes`; writes `arm_continuations`. Forces a token of a node's
support after the student's own prefix and lets the student go on, exactly as Phase E does and with
its sampling settings (`continuation`), so that Phase E's samples of the same token and these are
exchangeable and are counted together. What Phase E has is not sampled again. A budget is spread
over depth (`align_plan`). Knows nothing of answers.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from branchdiag.engines.base import Request
from branchdiag.phases.align_plan import PlannedNode, planned_nodes
from branchdiag.phases.arms import forced_request
from branchdiag.phases.base import Context, Outcome, Phase, Unit
from branchdiag.phases.continuing import completed, named_by_arm
from branchdiag.store.fingerprint import derive_seed


def keys_of(node: PlannedNode) -> list[tuple[str, str, int]]:
    """The samples that a node lacks: (candidate, arm, sample)."""
    return [
        (node.candidate_id, arm.arm, sample)
        for arm in node.arms
        for sample in range(arm.had, arm.total)
    ]


def units(context: Context) -> list[Unit]:
    """One unit a sample that is missing."""
    return [key for node in planned_nodes(context) for key in keys_of(node)]


def plan(context: Context) -> list[Request]:
    """The whole stage's requests, in the order of the nodes, each with a seed of its own."""
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    requests = []
    for node in planned_nodes(context):
        spine = spines[node.problem_id]
        prefix = (*spine["prompt_ids"], *spine["spine_ids"][: node.position])
        forced = {arm.arm: arm.token_id for arm in node.arms}
        requests += [
            forced_request(
                key,
                (*prefix, forced[key[1]]),
                context.protocol.continuation,
                derive_seed(context.seed, "align", *key),
            )
            for key in keys_of(node)
        ]
    return requests


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Complete the owed requests; each row is handed over as its completion finishes."""
    yield from completed(
        context,
        plan(context),
        owed,
        "arm_continuations",
        named_by_arm({node.candidate_id: node.problem_id for node in planned_nodes(context)}),
        max_total_tokens=context.protocol.continuation.max_total_tokens,
    )


PHASE = Phase(
    letter="N2",
    name="arms",
    question="Forced onto each token of a support, does the student still reach the answer?",
    reads=("A", "C", "E", "N1"),
    writes=("arm_continuations",),
    unit=("candidate_id", "arm", "sample"),
    settings=("align.rollouts", "align.budget"),
    inputs=("student", "seed", "engine", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
    command="align",
)
