"""Phase C: spacing, junk, the box, children, against a brute-force reading of the rules."""

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from branchdiag.phases.c_candidates import choose, select_random, select_spaced
from branchdiag.protocol import CandidateSettings

TEXTS = {1: " so", 2: " then", 3: " Then", 4: ".", 5: " now", 6: " go"}


def position_row(position: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "problem_id": "p",
        "position": position,
        "token_id": 1,
        "plausible": True,
        "h_trunc": 1.0,
        "p1": 0.5,
        "p2": 0.2,
        "top_ids": [1, 2, 5, 6],
        "top_teacher": [0.5, 0.2, 0.1, 0.05],
        "top_student": [0.4, 0.3, 0.1, 0.05],
    }
    return row | changes


def chosen(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    boxed = changes.pop("boxed", None)
    settings = CandidateSettings(**({"spacing_tokens": 1} | changes))
    return choose(
        rows,
        n_spine_tokens=100,
        boxed_position=boxed,
        settings=settings,
        text_of=TEXTS.__getitem__,
        is_junk=lambda token: not any(c.isalnum() for c in TEXTS[token]),
    )


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), unique_by=lambda pair: pair[0]),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_spacing_is_greedy_by_score_and_then_by_place(
    pairs: list[tuple[int, int]], spacing: int, limit: int
) -> None:
    positions = [position for position, _ in pairs]
    taken = select_spaced(
        positions, [float(score) for _, score in pairs], spacing=spacing, limit=limit
    )
    assert taken == sorted(taken) and len(taken) <= limit
    assert all(abs(a - b) >= spacing for a, b in combinations(taken, 2))
    # The slow way: of what is still allowed, the best score, and of those the earliest.
    expected: list[int] = []
    left = dict(pairs)
    while left and len(expected) < limit:
        best = min(left, key=lambda position: (-left[position], position))
        expected.append(best)
        left = {p: s for p, s in left.items() if abs(p - best) >= spacing}
    assert taken == sorted(expected)


def test_the_box_and_all_after_it_are_no_candidates() -> None:
    rows = [position_row(position) for position in (5, 10, 15)]
    assert [row["position"] for row in chosen(rows, boxed=10)] == [5]


def test_position_zero_and_junk_are_skipped_unless_the_filter_is_off() -> None:
    rows = [
        position_row(0),
        position_row(3, token_id=4),
        position_row(6, top_ids=[4, 1, 2, 5]),
        position_row(9),
    ]
    assert [row["position"] for row in chosen(rows)] == [9]
    assert [row["position"] for row in chosen(rows, junk_filter=False)] == [0, 3, 6, 9]


def test_children_are_the_teachers_first_and_know_the_spines_token() -> None:
    (row,) = chosen([position_row(7, token_id=2)])
    assert row["candidate_id"] == "p@7"
    assert row["r"] == 0.075
    assert row["child_ids"] == [1, 2, 5]
    assert row["child_teacher"] == [0.5, 0.2, 0.1]
    assert row["child_student"] == [0.4, 0.3, 0.1]
    assert row["spine_child"] == 1
    (other,) = chosen([position_row(7, token_id=6)])
    assert other["spine_child"] is None


def test_equal_texts_are_merged_only_when_asked() -> None:
    rows = [position_row(7, top_ids=[2, 3, 5, 6])]
    assert chosen(rows)[0]["child_ids"] == [2, 3, 5]
    assert chosen(rows, merge_equal_children=True)[0]["child_ids"] == [2, 5, 6]


def test_two_children_are_enough_and_one_is_not() -> None:
    two = position_row(7, top_teacher=[0.5, 0.2, 0.0, 0.0])
    assert chosen([two])[0]["n_children"] == 2
    one = position_row(7, top_teacher=[0.5, 0.0, 0.0, 0.0])
    assert chosen([one]) == []


def test_what_is_not_plausible_is_not_looked_at() -> None:
    row = position_row(7, plausible=False, top_ids=None, top_teacher=None, top_student=None)
    assert chosen([row]) == []


@given(st.sets(st.integers(0, 60)), st.integers(1, 20), st.integers(0, 6), st.integers(0, 2**40))
def test_random_positions_are_spaced_and_as_many_as_fit(
    positions: set[int], spacing: int, limit: int, seed: int
) -> None:
    taken = select_random(sorted(positions), spacing=spacing, limit=limit, seed=seed)
    assert taken == sorted(taken) and set(taken) <= positions and len(taken) <= limit
    assert all(abs(a - b) >= spacing for a, b in combinations(taken, 2))
    if len(taken) < limit:  # nothing more would have fitted
        assert all(any(abs(p - t) < spacing for t in taken) for p in positions)
    assert taken == select_random(sorted(positions)[::-1], spacing=spacing, limit=limit, seed=seed)


def test_random_positions_do_not_look_at_entropy() -> None:
    rows = [position_row(p, h_trunc=float(p)) for p in range(1, 31)]
    other = [position_row(p, h_trunc=float(-p)) for p in range(1, 31)]

    def drawn(source: list[dict[str, Any]]) -> list[int]:
        made = chosen(source, random_per_problem=4, max_per_problem=2)
        return [row["position"] for row in made if row["selected_by"] != "entropy"]

    assert len(drawn(rows)) == 4 and drawn(rows) == drawn(other)
    counts = [0] * 31
    for seed in range(600):
        for position in select_random(range(1, 31), spacing=1, limit=3, seed=seed):
            counts[position] += 1
    assert min(counts[1:]) > 30 and max(counts[1:]) < 95  # 60 each on average


def test_a_position_may_be_chosen_both_ways_and_is_one_candidate() -> None:
    rows = [position_row(p) for p in (3, 9)]
    made = chosen(rows, random_per_problem=5, max_per_problem=1)
    assert [(row["position"], row["selected_by"]) for row in made] == [(3, "both"), (9, "random")]
    plain = chosen(rows, max_per_problem=1)
    assert [(row["position"], row["selected_by"]) for row in plain] == [(3, "entropy")]
