"""Which rollouts the alignment wants: what Phase E has counts, and a budget follows no length."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from branchdiag.phases.align_plan import (
    NodeArm,
    PlannedNode,
    affordable,
    arms_of_node,
    window_of,
)
from branchdiag.protocol import ContinuationSettings
from branchdiag.stage_settings import AlignSettings

CANDIDATE = {"child_ids": [5, 6], "spine_token_id": 9}


def node(problem: str, position: int, cost: int = 4) -> PlannedNode:
    arm = NodeArm(1, "child:1", None, 0, cost)
    return PlannedNode(f"{problem}@{position}", problem, position, (arm,))


def test_what_phase_e_has_is_not_sampled_again() -> None:
    arms = arms_of_node(
        [5, 6, 7, 9], CANDIDATE, AlignSettings(rollouts=8), ContinuationSettings(rollouts=6)
    )
    assert [(arm.arm, arm.earlier, arm.had, arm.total) for arm in arms] == [
        ("child:5", "child:5", 6, 8),
        ("child:6", "child:6", 6, 8),
        ("child:7", None, 0, 8),
        ("child:9", None, 0, 8),
    ]
    assert PlannedNode("p@1", "p", 1, arms).cost == 2 + 2 + 8 + 8


def test_more_of_phase_e_than_asked_for_is_kept_and_its_spine_arm_counts() -> None:
    settings = ContinuationSettings(rollouts=6, spine=True)
    arms = arms_of_node([5, 9], CANDIDATE, AlignSettings(rollouts=4), settings)
    assert [(arm.earlier, arm.had, arm.total) for arm in arms] == [
        ("child:5", 6, 6),
        ("spine", 6, 6),
    ]
    both = arms_of_node([9], {"child_ids": [9], "spine_token_id": 9}, AlignSettings(), settings)
    assert both[0].earlier == "child:9"


def test_windows_double_in_width() -> None:
    windows = [window_of(position) for position in range(16)]
    assert windows == [0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    assert window_of(16_383) == 14  # a trace of 16k tokens has 15 windows


positions = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.integers(0, 9)),
    unique_by=lambda row: row[:2],
    max_size=40,
)


@given(positions, st.integers(0, 120), st.integers(0, 5))
def test_a_budget_is_kept_and_depends_on_nothing_but_nodes_and_seed(
    rows: list[tuple[str, int, int]], budget: int, seed: int
) -> None:
    nodes = [node(*row) for row in rows]
    chosen = affordable(nodes, budget, seed)
    if not budget:
        assert chosen == nodes
        return
    assert sum(n.cost for n in chosen) <= budget
    assert [n for n in nodes if n in chosen] == chosen  # the order of the candidates
    again = affordable(nodes[::-1], budget, seed)
    assert {n.candidate_id for n in again} == {n.candidate_id for n in chosen}
    more = {n.candidate_id for n in affordable(nodes, budget + 10, seed)}
    assert {n.candidate_id for n in chosen} <= more  # a larger budget adds


def test_cost_follows_the_budget_and_not_the_length() -> None:
    short = [node("short", position) for position in range(32)]
    long = [node("long", position) for position in range(4096)]
    chosen = affordable([*short, *long], 4 * 20, 0)
    assert Counter(n.problem_id for n in chosen) == {"short": 10, "long": 10}
    for problem, windows in (("short", 6), ("long", 13)):
        depth = Counter(window_of(n.position) for n in chosen if n.problem_id == problem)
        # Each window is taken once before any is taken twice; the first holds one node.
        assert len(depth) == min(windows, 10)


def test_a_node_that_costs_nothing_is_no_likelier_to_be_chosen() -> None:
    def chosen(cost_of_even: int) -> list[str]:
        nodes = [
            node("p", position, cost_of_even if position % 2 == 0 else 4) for position in range(64)
        ]
        return [n.candidate_id for n in affordable(nodes, 40, 3)]

    equal, free = chosen(4), chosen(0)
    assert set(equal) <= set(free)  # the same order; only where it ends differs
    assert any(int(name.partition("@")[2]) % 2 for name in free)
    assert len([name for name in free if int(name.partition("@")[2]) % 2]) == 10
