"""Phase F's labels: integer thresholds, truncation, the stricter rule, the control."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.phases.f_label import failing, label_of, label_row, viable
from branchdiag.phases.grading import answers_of
from branchdiag.protocol import LabelSettings

PAPER = LabelSettings()
CANDIDATE = {"candidate_id": "p@3", "problem_id": "p", "position": 3, "r": 0.35}


def grades(arm: str, outcomes: str) -> list[dict[str, Any]]:
    """One letter a sample: C correct, W wrong, T cut off, S correct but inside thinking."""
    return [
        {
            "candidate_id": "p@3",
            "problem_id": "p",
            "arm": arm,
            "sample": index,
            "correct": letter in "CS",
            "correct_strict": letter == "C",
            "truncated": letter == "T",
            "n_tokens": 10 + index,
        }
        for index, letter in enumerate(outcomes)
    ]


def row_of(**arms: str) -> dict[str, Any]:
    named = {"a": "child:1", "b": "child:2", "c": "child:3", "control": "control"}
    rows = [row for name, outcomes in arms.items() for row in grades(named[name], outcomes)]
    return label_row(CANDIDATE, rows, PAPER)


def test_the_papers_thresholds_on_six_samples() -> None:
    assert [viable(s, 6, PAPER) for s in range(7)] == [False] * 5 + [True] * 2
    assert [failing(s, 6, PAPER) for s in range(7)] == [True] * 3 + [False] * 4


@given(st.integers(0, 50), st.integers(1, 50))
def test_thresholds_are_exact_fractions(successes: int, samples: int) -> None:
    share = Fraction(min(successes, samples), samples)
    count = min(successes, samples)
    assert viable(count, samples, PAPER) == (share >= Fraction(3, 4))
    assert failing(count, samples, PAPER) == (share < Fraction(2, 5))


@pytest.mark.parametrize(
    ("successes", "label"),
    [
        ([5, 5, 0], "diversity"),
        ([6, 5], "diversity"),
        ([5, 4, 4], "gray"),
        ([2, 2, 2], "real_uncertain"),
        ([0, 0], "real_uncertain"),
        ([3, 0, 0], "gray"),
        ([6], None),
    ],
)
def test_labels(successes: list[int], label: str | None) -> None:
    assert label_of(successes, [6] * len(successes), PAPER) == label


@given(st.lists(st.integers(0, 6), min_size=2, max_size=3))
def test_no_candidate_is_both_and_the_mean_of_real_uncertain_is_below(counts: list[int]) -> None:
    label = label_of(counts, [6] * len(counts), PAPER)
    mean = Fraction(sum(counts), 6 * len(counts))
    if label == "real_uncertain":
        assert mean < Fraction(2, 5)  # the paper's second condition follows from the first
    if label == "diversity":
        assert sum(count >= 5 for count in counts) >= 2


def test_a_row_with_its_control() -> None:
    row = row_of(a="CCCCCC", b="CCCWWW", control="CCCCCW")
    assert row["arms"] == ["child:1", "child:2", "control"]
    assert row["successes"] == [6, 3, 5]
    assert row["mean_child_viability"] == 0.75
    assert row["control_viability"] == pytest.approx(5 / 6)
    assert row["d"] == pytest.approx(0.75 - 5 / 6)
    assert row["control_viable"] is True
    assert row["control_length"] == 12.5
    assert row["lengths"] == [13.5, 13.5, 12.5]  # the forced token is counted
    assert row["label"] == "gray"


def test_without_a_control_what_is_relative_is_missing() -> None:
    row = row_of(a="CCCCCC", b="CCCCCC")
    assert row["label"] == "diversity"
    assert row["control_viability"] is None and row["d"] is None
    assert row["control_viable"] is None and row["control_length"] is None


def test_truncated_samples_fail_and_the_sensitivity_label_drops_them() -> None:
    row = row_of(a="CCCCTT", b="CCCCTT", control="CCCCCC")
    assert row["label"] == "gray"
    assert row["label_finished"] == "diversity"
    assert row["share_truncated"] == pytest.approx(4 / 18)
    assert row_of(a="CCCTTT", b="CCCCCC", control="C")["label_finished"] is None


def test_the_stricter_rule_has_a_label_of_its_own() -> None:
    row = row_of(a="SSSSSS", b="SSSSSS", control="CCCCCC")
    assert row["label"] == "diversity"
    assert row["label_strict"] == "real_uncertain"


def test_a_box_in_the_prefix_does_not_count_and_open_thinking_is_inherited() -> None:
    assert answers_of(" so it is 4.", "first \\boxed{3}") == (None, None)
    assert answers_of("\\boxed{4}", "<think> a while") == ("4", None)
    assert answers_of("</think> \\boxed{4}", "<think> a while") == ("4", "4")
    assert answers_of("\\boxed{4} </think> done", "<think>") == ("4", None)
    assert answers_of("\\boxed{4}", "no thinking here") == ("4", "4")
