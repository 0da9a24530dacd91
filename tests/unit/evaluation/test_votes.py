"""Maj@N on hostile cases, against a slow vote, and with comparisons that could not be made."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.grade import Grade
from branchdiag.evaluation.votes import Vote, vote


def spelled(predicted: str, gold: str) -> Grade:
    return Grade(predicted == gold, "exact")


def voted(answers: Sequence[str | None], gold: str) -> Vote:
    return vote(answers, [answer == gold for answer in answers], spelled)


def test_the_plurality_wins_though_most_are_against_it() -> None:
    assert voted(["7", "3", "7", "5", "4"], "7").correct is True
    assert voted(["7", "3", "7", "5", "4"], "5").correct is False


def test_a_tie_goes_to_the_answer_that_came_first() -> None:
    first = voted(["3", "7", "7", "3"], "7")
    assert (first.winner, first.votes, first.correct) == (0, 2, False)
    assert voted(["7", "3", "3", "7"], "7").correct is True


def test_invalid_answers_are_one_cluster_that_votes_and_scores_nothing() -> None:
    outvoted = voted([None, "7", " ", "7", None], "7")
    assert outvoted.clusters == [0, 1, 0, 1, 0]
    assert outvoted.correct is False
    assert voted([None, "7", "7"], "7").correct is True
    assert voted([None, "7"], "7").correct is False  # a tie that the invalid cluster began
    assert voted(["7", None], "7").correct is True


def test_all_invalid_is_wrong_and_not_an_error() -> None:
    assert voted([None] * 4, "7") == Vote([0] * 4, 0, 4, False)


def test_the_grade_is_that_of_the_first_member() -> None:
    """Equality is not transitive: two members of a cluster may have other grades."""

    def close(predicted: str, gold: str) -> Grade:
        return Grade(abs(float(predicted) - float(gold)) < 0.15, "rounded")

    answers = ["1.0", "1.1", "9"]
    assert vote(answers, [False, True, False], close).correct is False
    assert vote(answers, [True, False, False], close).correct is True


def test_one_sample_is_its_own_majority() -> None:
    assert voted(["7"], "7").correct is True


def test_no_answers_or_too_few_grades_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError):
        vote([], [], spelled)
    with pytest.raises(ValueError):
        vote(["1"], [], spelled)


def slow_vote(answers: Sequence[str | None], gold: str) -> bool:
    """Largest count, then smallest first index; None never scores."""
    best, best_count = None, 0
    for i, answer in enumerate(answers):
        if any(answers[j] == answer for j in range(i)):
            continue
        count = sum(other == answer for other in answers)
        if count > best_count:
            best, best_count = answer, count
    return best == gold


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=9))
def test_votes_agree_with_a_slow_vote(answers: list[str | None]) -> None:
    assert voted(answers, "1").correct is slow_vote(answers, "1")


def test_a_comparison_that_cannot_matter_leaves_the_vote() -> None:
    answers = ["a", "b", "7", "7", "7"]
    found = vote(answers, [a == "7" for a in answers], unsure({("a", "b")}))
    assert found.correct is True


def test_a_comparison_that_could_matter_leaves_the_vote_missing_with_a_reason() -> None:
    answers = ["a", "7", "7", "b"]  # were a and b equal, they would tie and come first
    found = vote(answers, [a == "7" for a in answers], unsure({("a", "b")}))
    assert found.correct is None
    assert found.reason == "1 comparison of answers could not be made"


def unsure(pairs: set[tuple[str, str]]) -> object:
    def grader(predicted: str, gold: str) -> Grade:
        if (predicted, gold) in pairs or (gold, predicted) in pairs:
            return Grade(None, "timeout")
        return Grade(predicted == gold, "exact")

    return grader


@given(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=8),
    st.fixed_dictionaries({letter: st.integers(0, 2) for letter in "abcde"}),
    st.sets(st.sampled_from(list(combinations("abcde", 2)))),
)
def test_a_vote_that_is_given_is_the_one_that_all_comparisons_give(
    answers: list[str], meaning: dict[str, int], hidden: set[tuple[str, str]]
) -> None:
    """Letters of one meaning are equal; the gold means 0; the grader cannot compare some pairs."""

    def knowing(predicted: str, gold: str) -> Grade:
        return Grade(meaning[predicted] == meaning[gold], "exact")

    def forgetful(predicted: str, gold: str) -> Grade:
        if (predicted, gold) in hidden or (gold, predicted) in hidden:
            return Grade(None, "timeout")
        return knowing(predicted, gold)

    correct = [meaning[answer] == 0 for answer in answers]
    found = vote(answers, correct, forgetful)
    if found.correct is not None:
        assert found.correct is vote(answers, correct, knowing).correct
    else:
        assert found.reason
