"""Tables become the rows of each estimand; what is left out is counted."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_data import ESTIMANDS, LabelledCandidates, observe

LABELS = {
    "candidate_id": ["a@1", "a@9", "b@3", "b@7", "c@2"],
    "problem_id": ["a", "a", "b", "b", "c"],
    "r": [0.1, 0.9, 0.3, 0.7, None],
    "arms": [
        ["child:5", "child:6", "control"],
        ["child:5", "child:7", "child:8", "control", "spine"],
        ["child:5", "child:6", "control"],
        ["child:5", "child:6", "control"],
        ["child:5", "child:6", "control"],
    ],
    "successes": [[1, 2, 6], [6, 6, 0, 3, 6], [6, 6, 0], [2, 0, 4], [1, 1, 1]],
    "samples": [[6, 6, 6], [6, 6, 0, 6, 6], [6, 6, 0], [6, 0, 6], [6, 6, 6]],
    "label": ["real_uncertain", "diversity", "diversity", None, "gray"],
}
LABELS["successes"][1][2] = 0
CANDIDATES = {
    "candidate_id": ["a@9", "a@1"],
    "child_ids": [[8, 7, 5], [5, 6]],
    "child_teacher": [[0.1, 0.2, 0.6], [0.8, 0.1]],
}


def data(candidates=CANDIDATES) -> LabelledCandidates:
    return LabelledCandidates.from_tables(LABELS, candidates)


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_each_problem_weighs_one_in_total(estimand) -> None:
    rows = observe(data(), estimand)
    np.testing.assert_allclose(np.bincount(rows.codes, rows.share), np.ones(rows.n_problems))


def test_viability_counts_the_children_alone() -> None:
    rows = observe(data(), "viability")
    np.testing.assert_allclose(rows.r, [0.1, 0.9, 0.3])
    np.testing.assert_allclose(rows.y, [3 / 12, 12 / 12, 12 / 12])
    assert rows.counts["dropped_no_position"] == 1
    assert rows.counts["dropped_too_few_children"] == 1
    assert rows.counts["dropped_children_without_samples"] == 2
    assert (rows.counts["used"], rows.counts["problems"]) == (3, 2)
    assert (rows.counts["child_successes"], rows.counts["child_samples"]) == (27, 36)


def test_relative_needs_a_graded_control() -> None:
    rows = observe(data(), "relative")
    assert rows.counts["dropped_no_control"] == 1
    np.testing.assert_array_equal(rows.is_control, [False, False, True, True])
    np.testing.assert_allclose(rows.y, [3 / 12, 1, 1, 1 / 2])
    np.testing.assert_allclose(rows.share, [12 / 36, 12 / 36, 6 / 36, 6 / 36])
    ratio = (0.25 + 1) / (1 + 0.5)
    np.testing.assert_allclose(rows.outcome, [0.25 - ratio, 1 - ratio / 2])


def test_binary_is_of_labelled_candidates_without_gray() -> None:
    rows = observe(data(), "binary")
    np.testing.assert_array_equal(rows.y, [0, 1, 1])
    assert (rows.counts["failing"], rows.counts["problems_with_failing"]) == (1, 1)
    assert rows.counts["dropped_unlabelled"] == 1
    assert rows.counts["dropped_no_position"] == 1


def test_teacher_weights_are_matched_by_token_and_renormalised() -> None:
    rows = observe(data(), "teacher-weighted")
    np.testing.assert_allclose(rows.y, [(0.8 * 1 / 6 + 0.1 * 2 / 6) / 0.9, 1.0])
    assert rows.counts["dropped_no_teacher_probability"] == 1
    without = observe(data(None), "teacher-weighted")
    assert without.counts["used"] == 0


def test_an_unknown_estimand_is_an_error() -> None:
    with pytest.raises(ValueError, match="no estimand"):
        observe(data(), "guess")


def test_the_order_of_candidates_changes_nothing() -> None:
    order = [4, 2, 0, 3, 1]
    shuffled = {name: [column[i] for i in order] for name, column in LABELS.items()}
    for estimand in ESTIMANDS:
        one = observe(data(), estimand)
        other = observe(LabelledCandidates.from_tables(shuffled, CANDIDATES), estimand)
        assert sorted(zip(one.r, one.y, one.share, strict=True)) == sorted(
            zip(other.r, other.y, other.share, strict=True)
        )


def test_missing_and_nan_values_of_the_tables_are_dropped_and_counted() -> None:
    arms = [["child:1", "child:2", "control"]] * 5
    labels = {
        "candidate_id": list("abcde"),
        "problem_id": list("pqrst"),
        "r": [float("nan"), None, 0.3, 0.4, 0.5],
        "arms": arms,
        "successes": [[1, 2, 3], [1, 2, 3], [0, 0, 0], [1, 2, 0], [1, 2, 3]],
        "samples": [[3, 3, 3], [3, 3, 3], [0, 3, 3], [3, 3, 0], [3, 3, 3]],
        "label": [None, float("nan"), "gray", None, "diversity"],
    }
    found = {
        "candidate_id": list("de"),
        "child_ids": [[1, 2], [1, 2]],
        "child_teacher": [[float("nan"), float("nan")], [0.5, 0.25]],
    }
    data = LabelledCandidates.from_tables(labels, found)
    counts = {name: observe(data, name).counts for name in ESTIMANDS}
    assert all(count["dropped_no_position"] == 2 for count in counts.values())
    assert counts["viability"]["dropped_children_without_samples"] == 1
    assert counts["viability"]["dropped_too_few_children"] == 1
    assert counts["relative"]["dropped_no_control"] == 1
    assert counts["binary"]["dropped_gray"] == 1
    assert counts["binary"]["dropped_unlabelled"] == 1
    assert counts["teacher-weighted"]["dropped_no_teacher_probability"] == 1
    assert {name: count["used"] for name, count in counts.items()} == {
        "viability": 2,
        "relative": 1,
        "binary": 1,
        "teacher-weighted": 1,
    }


def test_empty_tables_are_no_candidates() -> None:
    keys = ("candidate_id", "problem_id", "r", "arms", "successes", "samples", "label")
    data = LabelledCandidates.from_tables({key: [] for key in keys})
    for name in ESTIMANDS:
        rows = observe(data, name)
        assert (rows.r.size, rows.n_problems, rows.counts["used"]) == (0, 0, 0)
