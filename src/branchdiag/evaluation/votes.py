"""The majority vote of one problem's samples (arXiv 2605.21606, appendix J).

Reads answers and their grades in the order of sampling; gives clusters and the winner's grade.
Plurality over clusters of equal answers; ties go to the cluster that occurs first; samples without
an answer are one cluster that votes and scores 0; the vote's grade is that of the cluster's first
member. Where the grader could not compare two answers and that could change the outcome, the vote
is missing, never wrong. Knows no tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from branchdiag.answers.clusters import Grader, cluster, majority


@dataclass(frozen=True)
class Vote:
    """A majority vote.

    Attributes:
        clusters: cluster of each sample, numbered by first occurrence.
        winner: index of the first sample of the largest cluster.
        votes: samples in that cluster.
        correct: the winner's grade; None where comparisons are missing that could change it.
        reason: why it is None.
    """

    clusters: list[int]
    winner: int
    votes: int
    correct: bool | None
    reason: str | None = None


def vote(answers: Sequence[str | None], correct: Sequence[bool], grader: Grader) -> Vote:
    """Vote on the answers of one problem.

    Args:
        answers: one a sample, in the order of sampling; None or blank is invalid.
        correct: each sample's grade against the reference answer.
        grader: compares two answers.

    Raises:
        ValueError: there are no answers, or the two differ in length.
    """
    if len(answers) != len(correct):
        raise ValueError(f"{len(answers)} answers and {len(correct)} grades")
    found = cluster(answers, grader)
    winner = majority(found.ids)
    votes = found.ids.count(found.ids[winner])
    if found.undecided and not _is_certain(answers, correct, found.ids, found.undecided):
        pairs = len(found.undecided)
        reason = f"{pairs} comparison{'s' * (pairs > 1)} of answers could not be made"
        return Vote(found.ids, winner, votes, None, reason)
    return Vote(found.ids, winner, votes, bool(correct[winner]))


def _is_certain(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    ids: Sequence[int],
    undecided: Sequence[tuple[str, str]],
) -> bool:
    """Whether the grade is the same however the undecided pairs would have come out.

    Where equality is transitive, they could only join clusters that a pair touches. That does not
    matter if together those are fewer than the largest other cluster, or if all of their members
    and the first of that cluster have one grade.
    """
    named = {answer for pair in undecided for answer in pair}
    touched = {label for answer, label in zip(answers, ids, strict=True) if answer in named}
    doubtful = [i for i, label in enumerate(ids) if label in touched]
    settled = [label for label in ids if label not in touched]
    grades = {bool(correct[i]) for i in doubtful}
    if settled:
        if len(doubtful) < max(Counter(settled).values()):
            return True
        grades.add(bool(correct[list(ids).index(settled[majority(settled)])]))
    return len(grades) == 1
