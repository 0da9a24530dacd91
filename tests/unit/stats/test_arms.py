"""Arms of candidates: from ragged lists to arrays, and the difference against the control."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.arms import Arms


def test_lists_become_arrays_with_the_control_first() -> None:
    arms = Arms.from_lists(
        [["child:7", "child:9", "control"], ["control", "spine", "child:3"], ["child:1"]],
        [[1, 2, 3], [4, 6, 5], [0]],
        [[6, 6, 6], [6, 6, 6], [4]],
        [[10.0, 20.0, 30.0], [40.0, 1.0, 50.0], [9.0]],
    )
    assert arms.successes.tolist() == [[3, 1, 2], [4, 5, 0], [0, 0, 0]]
    assert arms.samples.tolist() == [[6, 6, 6], [6, 6, 0], [0, 4, 0]]
    np.testing.assert_equal(
        arms.lengths, [[30.0, 10.0, 20.0], [40.0, 50.0, np.nan], [np.nan, 9.0, np.nan]]
    )
    assert arms.comparable.tolist() == [True, False, False]


def test_no_candidates() -> None:
    arms = Arms.from_lists([], [], [])
    assert arms.comparable.size == 0 and arms.difference.size == 0


def test_difference_is_mean_child_viability_less_control() -> None:
    arms = Arms.from_lists(
        [["control", "child:1", "child:2", "child:3"], ["control", "child:1", "child:2"]],
        [[3, 6, 0, 3], [6, 3, 1]],
        [[6, 6, 6, 6], [6, 6, 4]],
    )
    assert arms.difference.tolist() == pytest.approx([0.5 - 0.5, (0.5 + 0.25) / 2 - 1.0])


def test_difference_of_each_arm_as_control_against_a_loop_and_with_mean_zero() -> None:
    generator = np.random.default_rng(0)
    samples = generator.integers(0, 7, (200, 4))
    successes = generator.binomial(samples, 0.5)
    arms = Arms(successes, samples, np.full(samples.shape, np.nan))
    for row, differences in enumerate(arms.difference_by_arm):
        shares = {a: successes[row, a] / n for a, n in enumerate(samples[row]) if n > 0}
        for arm, difference in enumerate(differences):
            others = [v for a, v in shares.items() if a != arm]
            if arm in shares and others:
                assert difference == pytest.approx(sum(others) / len(others) - shares[arm])
            else:
                assert np.isnan(difference)
        if len(shares) > 1:
            assert np.nanmean(differences) == pytest.approx(0.0, abs=1e-12)


def test_a_candidate_without_control_or_with_one_child_is_not_compared() -> None:
    arms = Arms.from_lists(
        [["child:1", "child:2"], ["control", "child:1"], ["control", "child:1", "child:2"]],
        [[1, 1], [1, 1], [1, 1, 1]],
        [[6, 6], [6, 6], [6, 6, 6]],
    )
    assert np.isnan(arms.difference).tolist() == [True, True, False]


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 successes"):
        Arms.from_lists([["control"]], [[7]], [[6]])
    with pytest.raises(ValueError, match="equal shapes"):
        Arms(np.zeros((2, 3), int), np.zeros((2, 2), int), np.zeros((2, 3)))
