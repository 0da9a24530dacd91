"""A candidate with everything around it, joined from rows, and the choice of examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.report.candidate import candidate_view, pick_examples

SPINE = {
    "problem_id": "p1",
    "problem": "How many?",
    "gold_answer": "7",
    "spine_ids": list(range(100, 140)),
}
CANDIDATE = {
    "candidate_id": "p1@10",
    "problem_id": "p1",
    "position": 10,
    "r": 0.2625,
    "h_trunc": 1.25,
    "child_ids": [110, 7],
    "child_texts": [" a", " b"],
    "child_teacher": [0.6, 0.2],
    "child_student": [0.5, 0.3],
    "spine_child": 0,
}
LABEL = {
    "label": "gray",
    "arms": ["child:110", "child:7", "control"],
    "successes": [5, 1, 4],
    "samples": [6, 6, 6],
}
GRADE = {
    "arm": "child:7",
    "sample": 2,
    "answer": "8",
    "correct": False,
    "truncated": True,
    "n_tokens": 3,
}
WRITTEN = {
    "arm": "child:7",
    "sample": 2,
    "finish_reason": "length",
    "n_tokens": 3,
    "token_ids": [1, 2, 3],
}


def decode(ids):
    return " ".join(map(str, ids))


def test_a_view_joins_spine_children_and_counts():
    view = candidate_view(CANDIDATE, SPINE, decode, label=LABEL, context_tokens=4)
    assert (view["before"], view["token"], view["after"]) == ("106 107 108 109", "110", "111 112")
    first, second = view["children"]
    assert (first["text"], first["teacher"], first["student"]) == (" a", 0.6, 0.5)
    assert (first["is_spine"], second["is_spine"]) == (True, False)
    assert [(b["successes"], b["samples"]) for b in view["children"]] == [(5, 6), (1, 6)]
    assert (view["control"]["successes"], view["control"]["samples"]) == (4, 6)
    assert view["label"] == "gray"


def test_what_is_not_there_yet_is_missing():
    view = candidate_view({**CANDIDATE, "spine_child": None}, SPINE, decode)
    assert view["label"] is None and view["control"] is None and view["continuations"] == []
    assert [branch["successes"] for branch in view["children"]] == [None, None]
    assert not any(branch["is_spine"] for branch in view["children"])


def test_a_context_at_the_start_of_the_spine_is_short():
    view = candidate_view({**CANDIDATE, "position": 1}, SPINE, decode, context_tokens=60)
    assert view["before"] == "100" and view["token"] == "101"


@pytest.mark.parametrize(
    ("grades", "written", "expected"),
    [
        ([GRADE], [WRITTEN], ("8", False, True, "1 2 3")),
        ([GRADE], [], ("8", False, True, "")),
        ([], [WRITTEN], (None, None, True, "1 2 3")),
    ],
)
def test_a_continuation_has_what_is_known_of_it(grades, written, expected):
    view = candidate_view(CANDIDATE, SPINE, decode, grades=grades, continuations=written)
    (item,) = view["continuations"]
    assert (item["answer"], item["correct"], item["truncated"], item["text"]) == expected
    assert (item["arm"], item["sample"], item["n_tokens"]) == ("child:7", 2, 3)


def row(name, label, problem, d=0.0, viable=False):
    return {
        "candidate_id": name,
        "problem_id": problem,
        "label": label,
        "d": d,
        "control_viable": viable,
    }


def test_failures_that_the_control_does_not_share_come_first():
    rows = [
        row("a", "diversity", "p1"),
        row("b", "real_uncertain", "p2", -0.1),
        row("c", "real_uncertain", "p3", 0.0, viable=True),
        row("d", "gray", "p4"),
        row("e", None, "p5"),
    ]
    assert pick_examples(rows) == ["c", "b", "d", "a"]


def test_a_place_is_kept_for_a_diversity_candidate_and_problems_differ():
    rows = [row(f"u{i}", "real_uncertain", f"p{i % 4}", d=-i / 10) for i in range(12)]
    rows.append(row("v", "diversity", "q"))
    chosen = pick_examples(rows, limit=4)
    assert len(chosen) == 4 and chosen[-1] == "v"
    problems = [r["problem_id"] for r in rows if r["candidate_id"] in chosen]
    assert len(set(problems)) == 4


def test_no_label_gives_no_example():
    assert pick_examples([]) == []
    assert pick_examples([row("a", None, "p")]) == []


labels = st.sampled_from(["diversity", "real_uncertain", "gray", None])
values = st.lists(st.tuples(labels, st.integers(0, 3), st.floats(-1, 1)), max_size=12)


@given(values, st.randoms(use_true_random=False), st.integers(1, 6))
def test_the_choice_depends_on_the_rows_and_not_on_their_order(drawn, random, limit):
    rows = [row(f"c{i:02d}", label, f"p{p}", d) for i, (label, p, d) in enumerate(drawn)]
    shuffled = list(rows)
    random.shuffle(shuffled)
    chosen = pick_examples(rows, limit)
    assert chosen == pick_examples(shuffled, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, sum(r["label"] is not None for r in rows))
