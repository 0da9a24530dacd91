"""Clusters of equal answers, for majority votes.

Reads the answers of one problem and a grader, gives a cluster number for each. Knows nothing of the
reference answer: a vote is graded afterwards, by the first member of the winning cluster
(arXiv 2605.21606, appendix J: plurality over equivalence clusters, ties to the smallest first
occurrence, answers without a box form one cluster that votes and scores 0).

Equality of answers is not transitive (0.333333 equals 1/3, 0.3333333 too, but not each other), so
the clusters depend on the order of the answers: each joins the first cluster whose first member it
equals, in either direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from branchdiag.answers.grade import Grade

Grader = Callable[[str, str], Grade]
"""Grades (predicted, gold): `GradingPool.grade` or `grade_one`."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of answers.

    Attributes:
        ids: cluster of each answer; clusters are numbered by first occurrence.
        undecided: pairs that the grader could not compare; they were taken as different.
    """

    ids: list[int]
    undecided: list[tuple[str, str]]


def cluster_answers(answers: Sequence[str | None], grader: Grader) -> list[int]:
    """The cluster of each answer (see `cluster`)."""
    return cluster(answers, grader).ids


def cluster(answers: Sequence[str | None], grader: Grader) -> Clusters:
    """Greedy clusters: first match against the first member of each cluster, both directions.

    Args:
        answers: answers of one problem in the order they were sampled; None, or blank, is invalid.
        grader: compares two answers.
    """
    ids: list[int] = []
    undecided: list[tuple[str, str]] = []
    known: dict[str | None, int] = {}
    first: dict[int, str] = {}  # cluster -> first member; the invalid cluster has none
    for answer in answers:
        key = answer if answer is not None and answer.strip() else None
        if key not in known:
            new = len(set(known.values()))
            known[key] = new if key is None else _match(key, first, grader, undecided, new)
            if key is not None:
                first.setdefault(known[key], key)
        ids.append(known[key])
    return Clusters(ids, undecided)


def majority(ids: Sequence[int]) -> int:
    """Index of the first answer of the largest cluster; ties go to the earliest first occurrence.

    Raises:
        ValueError: there are no answers.
    """
    if not ids:
        raise ValueError("a vote needs at least one answer")
    counts = Counter(ids)
    return min((-count, list(ids).index(label)) for label, count in counts.items())[1]


def _match(
    answer: str,
    first: dict[int, str],
    grader: Grader,
    undecided: list[tuple[str, str]],
    new: int,
) -> int:
    for label, member in first.items():
        forward = grader(answer, member)
        backward = forward if forward.correct else grader(member, answer)
        if forward.correct or backward.correct:
            return label
        if forward.correct is None or backward.correct is None:
            undecided.append((answer, member))
    return new
