"""The rows of the alignment stages: contexts, halves, gradients and why one is missing."""

from types import SimpleNamespace
from typing import Any

import pytest

from branchdiag.phases.align_plan import NodeArm, PlannedNode, planned_nodes
from branchdiag.phases.base import Done, Failed
from branchdiag.phases.n1_nodes import usable
from branchdiag.phases.n2_arms import keys_of
from branchdiag.phases.n3_grade import _outcome, arms_row
from branchdiag.phases.n4_alignment import gradient_rows, measured
from branchdiag.problems import Problem
from branchdiag.prompts import parse_template
from branchdiag.protocol import validate

NODE = PlannedNode(
    "p@7", "p", 7, (NodeArm(5, "child:5", "child:5", 3, 5), NodeArm(9, "child:9", "spine", 3, 3))
)


def grades(arm: str, outcomes: str, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "arm": arm,
            "sample": first + index,
            "correct": letter == "C",
            "correct_strict": letter == "C",
            "truncated": letter == "T",
            "grade_path": "integer",
        }
        for index, letter in enumerate(outcomes)
    ]


def test_a_context_that_shows_a_solution_is_left_out_where_there_is_none() -> None:
    templates = {
        "answer": parse_template("{problem} {answer}", where="a"),
        "own.txt": parse_template("{problem} {solution}", where="own.txt"),
    }
    known = Problem("p", "s", "1 + 1", "2", solution="two")
    unknown = Problem("q", "s", "1 + 1", "2", solution=None)
    assert list(usable(templates, known)) == ["answer", "own.txt"]
    assert list(usable(templates, unknown)) == ["answer"]


def test_new_samples_are_numbered_after_those_of_phase_e() -> None:
    assert keys_of(NODE) == [("p@7", "child:5", 3), ("p@7", "child:5", 4)]


def test_arms_are_counted_in_the_order_of_the_support_and_in_two_halves() -> None:
    earlier = [*grades("spine", "CWC"), *grades("child:5", "CCT"), *grades("control", "CCC")]
    row = arms_row(NODE, earlier, grades("child:5", "WC", first=3))
    assert row["arms"] == ["child:5", "child:9"]
    assert row["successes"] == [3, 2] and row["samples"] == [5, 3] and row["truncated"] == [1, 0]
    assert row["first_samples"] == [3, 2]  # samples 0, 2, 4 and 0, 2
    assert row["first_successes"] == [2, 2]


def test_a_grade_that_is_missing_is_no_wrong_answer() -> None:
    graded = grades("child:5", "WC", first=3)
    assert isinstance(_outcome(NODE, [], graded), Done)
    graded[1]["correct"] = None
    failed = _outcome(NODE, [], graded)
    assert isinstance(failed, Failed) and "child:5, sample 4 (integer)" in failed.message


def measured_node(
    student: list[float], teacher: list[float], successes: list[int]
) -> dict[str, Any]:
    half = [s // 2 for s in successes]
    return {
        "candidate_id": "p@7",
        "problem_id": "p",
        "position": 7,
        "r": 0.5,
        "spine_correct": True,
        "support_ids": list(range(len(student))),
        "student": student,
        "views": {"answer": {"teacher": teacher}},
        "arms": {
            "successes": successes,
            "samples": [4] * len(student),
            "first_successes": half,
            "first_samples": [2] * len(student),
        },
    }


def test_gradient_rows_hold_success_under_both_sides_and_their_difference() -> None:
    (row,) = gradient_rows([measured_node([0.4, 0.4], [0.6, 0.2], [4, 0])], ["answer", "none"])
    assert row["student_success"] == pytest.approx(0.5)
    assert row["teacher_success"] == pytest.approx(0.75)
    assert row["advantage"] == pytest.approx(0.25)
    assert row["cosine_forward_kl"] == pytest.approx(1.0) and row["reason"] is None
    assert row["context"] == "answer" and row["n_support"] == 2


@pytest.mark.parametrize(
    ("teacher", "successes", "reason"),
    [
        ([0.6, 0.2], [4, 4], "every token succeeds equally often"),
        ([0.3, 0.3], [4, 0], "teacher and student agree on the support"),
        ([0.6, 0.0], [4, 0], "the teacher excludes a token, or a clip leaves no gradient"),
    ],
)
def test_a_missing_cosine_has_its_reason(
    teacher: list[float], successes: list[int], reason: str
) -> None:
    (row,) = gradient_rows([measured_node([0.4, 0.4], teacher, successes)], ["answer"])
    assert row["reason"] == reason and row["cosine_reverse_kl"] is None
    assert row["advantage"] is not None
    assert (row["cosine_forward_kl"] is None) == ("excludes" not in reason)


def test_no_node_has_no_rows() -> None:
    assert gradient_rows([], ["answer"]) == []


class _Rows(list[dict[str, Any]]):
    """A table's reading side."""

    def rows(self) -> list[dict[str, Any]]:
        return list(self)

    def read(self, columns: list[str]) -> SimpleNamespace:
        return SimpleNamespace(to_pylist=lambda: [{c: row[c] for c in columns} for row in self])

    def n_rows(self) -> int:
        return len(self)


def test_nodes_outside_the_plan_do_not_count_though_they_were_sampled_once() -> None:
    names = ["a@0", "b@0", "c@0"]
    own = [{"candidate_id": n, "problem_id": n[0], "position": 0, "r": 0.1} for n in names]
    tables = {
        "spines": [{"problem_id": n[0], "correct": True} for n in names],
        "candidates": [{**row, "child_ids": [1, 2], "spine_token_id": 1} for row in own],
        "nodes": [{**row, "support_ids": [1, 2, 3]} for row in own],
        "node_contexts": [],
        "node_arms": [],
    }
    context: Any = SimpleNamespace(
        run=SimpleNamespace(table=lambda name: _Rows(tables[name])),
        protocol=validate({"align": {"budget": 6}}, where="test"),
        seed=0,
    )
    (planned,) = planned_nodes(context)  # one new arm of 6 samples is paid for
    other = next(name for name in names if name != planned.candidate_id)
    tables["node_arms"] = [
        {"candidate_id": name, "samples": [6, 6, 6]} for name in (other, planned.candidate_id)
    ]
    found = measured(context)
    assert [row["candidate_id"] for row in found.nodes] == [planned.candidate_id]
    assert found.counts["not_graded"] == 0 and found.counts["beyond_budget"] == 2
    assert (found.counts["new_samples"], found.counts["samples_of_phase_e"]) == (6, 12)
