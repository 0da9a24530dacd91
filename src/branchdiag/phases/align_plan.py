"""Which rollouts the alignment stages want: the arms of each node, and what a budget pays for.

Shared by the stages that sample, grade and analyse; pure functions of the tables, the settings and
the run's seed. An arm is a token of a node's support. What Phase E has of it counts, so that only
what is missing is sampled.

Spreading a budget follows an idea of arXiv 2605.10889, "exponential depth windows", whose law is
not published. This is our reconstruction: the depth of a node is its position in tokens, windows
double in width (0, 1-2, 3-6, 7-14, ...), so that a trace has as many as the logarithm of its
length, and every turn takes one problem's next window and pays for one node of it. Cost then
follows the budget, and long traces do not crowd out short ones. Whether a node costs anything has
no say in whether it is chosen: which tokens Phase E happens to have is no property of alignment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from branchdiag.phases.arms import SPINE, child_arm
from branchdiag.phases.base import Context
from branchdiag.protocol import ContinuationSettings
from branchdiag.stage_settings import AlignSettings
from branchdiag.store.fingerprint import derive_seed


@dataclass(frozen=True)
class NodeArm:
    """One token of a node's support.

    arm: the name of its new samples, which are numbered from `had` to below `total`.
    earlier: the arm under which Phase E has `had` samples of it, if it has.
    """

    token_id: int
    arm: str
    earlier: str | None
    had: int
    total: int


@dataclass(frozen=True)
class PlannedNode:
    """A node that is measured, with every arm of its support, in the support's order."""

    candidate_id: str
    problem_id: str
    position: int
    arms: tuple[NodeArm, ...]

    @property
    def cost(self) -> int:
        """Samples to draw."""
        return sum(arm.total - arm.had for arm in self.arms)


def arms_of_node(
    support_ids: Sequence[int],
    candidate: Mapping[str, Any],
    align: AlignSettings,
    continuation: ContinuationSettings,
) -> tuple[NodeArm, ...]:
    """The arms of a support, and what Phase E has of each.

    Where Phase E forces the spine's token both as a child and as the spine, the child's samples
    count.
    """
    arms = []
    for token_id in support_ids:
        earlier = None
        if token_id in candidate["child_ids"]:
            earlier = child_arm(token_id)
        elif continuation.spine and token_id == candidate["spine_token_id"]:
            earlier = SPINE
        had = continuation.rollouts if earlier else 0
        arms.append(NodeArm(token_id, child_arm(token_id), earlier, had, max(align.rollouts, had)))
    return tuple(arms)


def window_of(position: int) -> int:
    """The depth window of a position: 0, then 1-2, 3-6, 7-14, ..."""
    return (position + 1).bit_length() - 1


def affordable(nodes: Sequence[PlannedNode], budget: int, seed: int) -> list[PlannedNode]:
    """The nodes that a budget of samples pays for, in the given order; 0 pays for all.

    A drawn order of problems; in each problem its windows in a drawn order, and in each window a
    drawn order of its nodes; taken in turns. It ends at the first node that the rest cannot pay.
    """
    if not budget:
        return list(nodes)
    windows: dict[str, dict[int, list[PlannedNode]]] = {}
    for node in nodes:
        own = windows.setdefault(node.problem_id, {})
        own.setdefault(window_of(node.position), []).append(node)

    def drawn(*key: str | int) -> int:
        return derive_seed(seed, "align order", *key)

    def in_windows(problem: str) -> list[PlannedNode]:
        inside = windows[problem]
        order = sorted(inside, key=lambda window: drawn(problem, window))
        return _in_turns(
            [sorted(inside[window], key=lambda node: drawn(node.candidate_id)) for window in order]
        )

    queues = [in_windows(problem) for problem in sorted(windows, key=drawn)]
    left, chosen = budget, set()
    for node in _in_turns(queues):
        if node.cost > left:
            break
        left -= node.cost
        chosen.add(node.candidate_id)
    return [node for node in nodes if node.candidate_id in chosen]


def _in_turns(rows: Iterable[Sequence[PlannedNode]]) -> list[PlannedNode]:
    """One of each row, then the next of each, until all are taken."""
    return [node for node in chain(*zip_longest(*rows)) if node is not None]


def all_nodes(context: Context) -> list[PlannedNode]:
    """Every node with its arms, in the order of the candidates."""
    supports = {
        row["candidate_id"]: row["support_ids"]
        for row in context.run.table("nodes").read(["candidate_id", "support_ids"]).to_pylist()
    }
    return [
        PlannedNode(
            row["candidate_id"],
            row["problem_id"],
            row["position"],
            arms_of_node(
                supports[row["candidate_id"]],
                row,
                context.protocol.align,
                context.protocol.continuation,
            ),
        )
        for row in context.run.table("candidates").rows()
        if row["candidate_id"] in supports
    ]


def planned_nodes(context: Context) -> list[PlannedNode]:
    """The nodes that are measured."""
    return affordable(all_nodes(context), context.protocol.align.budget, context.seed)
