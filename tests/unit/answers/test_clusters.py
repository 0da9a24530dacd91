"""Majority votes: greedy clusters in both directions, ties, the invalid cluster."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.clusters import cluster, cluster_answers, majority
from branchdiag.answers.grade import Grade, cheap_grade


def by_rules(predicted: str, gold: str) -> Grade:
    return cheap_grade(predicted, gold) or Grade(False, "algebra")


def test_equal_answers_share_a_cluster() -> None:
    answers = ["1/2", None, "7", "0.5", r"\frac12", " ", "007"]
    assert cluster_answers(answers, by_rules) == [0, 1, 2, 0, 0, 1, 2]


def test_invalid_answers_are_one_cluster_that_can_win() -> None:
    ids = cluster_answers(["3", None, "", None, "4", "3"], by_rules)
    assert ids == [0, 1, 1, 1, 2, 0]
    assert majority(ids) == 1


def test_a_tie_goes_to_the_smallest_first_occurrence() -> None:
    assert majority(cluster_answers(["1", "2", "2", "1"], by_rules)) == 0
    assert majority(cluster_answers(["9", "2", "1", "2", "1"], by_rules)) == 1


def test_either_direction_is_enough() -> None:
    def one_way(predicted: str, gold: str) -> Grade:
        return Grade((predicted, gold) in {("a", "b"), ("c", "d")}, "test")

    assert cluster_answers(["a", "b"], one_way) == [0, 0]
    assert cluster_answers(["d", "c"], one_way) == [0, 0]


def test_answers_are_compared_with_the_first_member_only() -> None:
    # 1/3 equals both decimals, which are not equal: the order decides
    assert cluster_answers(["1/3", "0.333333", "0.3333333"], by_rules) == [0, 0, 0]
    assert cluster_answers(["0.333333", "0.3333333", "1/3"], by_rules) == [0, 1, 0]


def test_pairs_that_cannot_be_compared_are_apart_and_reported() -> None:
    clusters = cluster(["a", "b"], lambda _predicted, _gold: Grade(None, "timeout"))
    assert clusters.ids == [0, 1]
    assert clusters.undecided == [("b", "a")]


def test_no_answers_have_no_majority() -> None:
    with pytest.raises(ValueError, match="at least one"):
        majority([])


@given(st.lists(st.none() | st.integers(0, 4)))
def test_with_integers_clusters_are_the_distinct_values(numbers: list[int | None]) -> None:
    answers = [None if number is None else f"0{number}.0" for number in numbers]
    ids = cluster_answers(answers, by_rules)
    seen: list[int | None] = []
    for number in numbers:
        if number not in seen:
            seen.append(number)
    assert ids == [seen.index(number) for number in numbers]
    if numbers:
        counts = Counter(numbers)
        best = max(counts.values())
        assert majority(ids) == next(i for i, n in enumerate(numbers) if counts[n] == best)
