"""Each outcome of the comparison of contexts has its sentence, and no sentence says more."""

import dataclasses
import re

import numpy as np
import pytest

from branchdiag.stats.alignment_estimates import Alignment, between_groups, evaluate
from branchdiag.stats.alignment_sentences import (
    against_student,
    along_the_trace,
    best_context,
    between,
    of_cosines,
    of_noise,
)
from branchdiag.stats.estimate import Estimate, Resampling, missing
from tests.unit.stats.planted_nodes import planted

FEW: Resampling = {"resamples": 200, "level": 0.95, "seed": 3, "max_dropped_share": 0.1}
WORDS = {"answer": "told the answer", "solution": "shown the solution", "none": "told nothing"}


def aligned(gain: float, contexts: tuple[str, ...], n_problems: int = 40) -> Alignment:
    nodes, _, _ = planted(4, gain=gain, contexts=contexts, n_problems=n_problems, rollouts=20)
    return evaluate(nodes, bins=3, **FEW)


def test_one_context_is_told_apart_from_every_other() -> None:
    found = best_context(aligned(6.0, ("answer", "solution", "none")), WORDS, 0.95)
    assert (found.status, found.best) == ("one_best", "answer")
    assert found.sentence.startswith(
        "The teacher told the answer aligns better than under every other context: "
    )
    assert "above shown the solution" in found.sentence and "adjusted p" in found.sentence
    assert "all 3 pairs of contexts together" in found.sentence


def test_the_order_in_which_contexts_are_named_changes_no_verdict() -> None:
    found = best_context(aligned(6.0, ("none", "answer")), WORDS, 0.95)
    assert (found.status, found.best) == ("one_best", "answer")
    assert "told the answer +" in found.sentence
    assert "The difference of advantage is taken at the same nodes" in found.sentence


def test_the_best_of_three_may_be_told_from_one_alone() -> None:
    whole = aligned(6.0, ("answer", "solution", "none"))
    key = ("advantage", "answer", "none")
    near = dataclasses.replace(whole.differences[key], low=-0.1, high=0.2)
    found = best_context(
        dataclasses.replace(whole, differences={**whole.differences, key: near}), WORDS, 0.95
    )
    assert (found.status, found.best) == ("some_told_apart", None)
    assert "Some contexts align better than others: told the answer +" in found.sentence
    assert "Not told apart: " in found.sentence and "less told nothing" in found.sentence


def test_contexts_that_are_not_told_apart() -> None:
    found = best_context(aligned(0.0, ("solution", "none")), WORDS, 0.95)
    assert (found.status, found.best) == ("not_told_apart", None)
    assert found.sentence.startswith("The teacher's contexts are not told apart: ")


def test_too_few_problems_and_one_context_alone() -> None:
    few = best_context(aligned(6.0, ("answer", "none"), n_problems=9), WORDS, 0.95)
    assert few.status == "too_few" and few.best is None
    assert "9 problems with measured nodes, where 10 are needed" in few.sentence
    assert best_context(aligned(6.0, ("answer",)), WORDS, 0.95).status == "one_context"
    still = aligned(0.0, ("answer", "none"))
    key = ("advantage", "answer", "none")
    silent = dataclasses.replace(
        still.differences[key], estimate=Estimate(0.0, None, None, "no spread"), low=None, high=None
    )
    found = best_context(dataclasses.replace(still, differences={key: silent}), WORDS, 0.95)
    assert (
        found.status == "too_few" and "no difference has an interval (no spread)" in found.sentence
    )


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(0.02, 0.01, 0.03), "the teacher's choice is better than the student's: "),
        (Estimate(-0.02, -0.03, -0.01), "the teacher's choice is worse than the student's: "),
        (Estimate(0.02, -0.01, 0.03), "the teacher's choice is not told from the student's: "),
        (Estimate(0.0, None, None, "no spread"), "the teacher chooses as the student does"),
        (missing("no node"), "no advantage (no node)"),
    ],
)
def test_against_the_student_by_the_interval_alone(estimate: Estimate, words: str) -> None:
    found = aligned(0.0, ("answer", "none"))
    key = ("advantage", "answer", "")
    cell = dataclasses.replace(found.series[key].whole, estimate=estimate)
    series = {**found.series, key: dataclasses.replace(found.series[key], whole=cell)}
    sentence = against_student(dataclasses.replace(found, series=series), "answer", WORDS, 0.95)
    assert sentence.startswith("Told the answer") and words in sentence


@pytest.mark.parametrize(
    ("slope", "words"),
    [
        (Estimate(0.2, 0.1, 0.3), " rises from the start of a trace to its end: +0.200 "),
        (Estimate(-0.2, -0.3, -0.1), " falls from the start"),
        (Estimate(0.2, -0.1, 0.3), " is not seen to rise or fall "),
        (missing("one position"), "is not known (one position)"),
    ],
)
def test_along_the_trace_by_the_interval_alone(slope: Estimate, words: str) -> None:
    found = aligned(0.0, ("answer", "none"))
    key = ("advantage", "answer", "")
    series = {**found.series, key: dataclasses.replace(found.series[key], slope=slope)}
    sentence = along_the_trace(dataclasses.replace(found, series=series), "answer", WORDS, 0.95)
    assert sentence is not None and words in sentence
    assert along_the_trace(found, "none", WORDS, 0.95) is None


def test_small_advantages_have_the_digits_that_tell_them_from_0() -> None:
    pair = ("incorrect spines", "correct ones", "Advantage", 0.95)
    small = between(Estimate(0.0004, 0.0001, 0.0007), *pair)
    assert "+0.00040 (95% interval 0.00010 to 0.00070), higher on incorrect spines." in small
    assert "+0.0004 (95% interval -0.0010 to 0.0030)" in between(
        Estimate(0.0004, -0.001, 0.003), *pair
    )
    assert "+0.200 (95% interval 0.000 to 0.300)" in between(Estimate(0.2, -1e-9, 0.3), *pair)


def test_cosines_say_at_how_many_nodes_they_are_defined_and_how_noisy_they_are() -> None:
    found = aligned(3.0, ("answer", "none"))
    sentence = of_cosines(found, "answer", WORDS, 0.95)
    assert re.search(r"over the \d+ of 200 nodes at which it is defined", sentence)
    assert "there is no cosine: no node" in of_cosines(found, "none", WORDS, 0.95)
    noise = of_noise(found, 0.95)
    assert "pulls every cosine to 0" in noise and "The advantage has no such bias." in noise
    silent = dataclasses.replace(found.pooled, split_half=missing("too little"))
    assert "cannot be said: too little" in of_noise(dataclasses.replace(found, pooled=silent), 0.95)


def test_groups_are_said_to_differ_by_the_interval_alone() -> None:
    what = "Advantage of the teacher told the answer"
    pair = ("incorrect spines", "correct ones", what, 0.95)
    assert between(Estimate(0.1, 0.05, 0.2), *pair).endswith("higher on incorrect spines.")
    assert between(Estimate(-0.1, -0.2, -0.05), *pair).endswith("lower on incorrect spines.")
    assert between(Estimate(0.1, -0.05, 0.2), *pair).endswith("not told apart.")
    assert between(missing("no node"), *pair).endswith("not known (no node).")


def test_few_problems_say_nothing_of_a_sign_however_clear_their_interval() -> None:
    few = aligned(6.0, ("answer", "none"), n_problems=9)
    assert few.series["advantage", "answer", ""].whole.estimate.is_above(0.0)
    said = against_student(few, "answer", WORDS, 0.95)
    assert "too few problems" in said and "better" not in said
    key = ("advantage", "answer", "")
    series = {key: dataclasses.replace(few.series[key], slope=Estimate(0.2, 0.1, 0.3))}
    said = along_the_trace(dataclasses.replace(few, series=series), "answer", WORDS, 0.95)
    assert said is not None and "cannot be said to rise or fall (9 problems, where" in said
    many = aligned(0.0, ("answer", "none"))
    apart = between_groups(few, many, key, **FEW)
    assert apart.value is not None and "9 problems, where 10 are needed" in str(apart.reason)


def test_a_context_that_few_problems_have_is_told_from_no_other() -> None:
    nodes, _, _ = planted(
        4, gain=6.0, contexts=("answer", "solution", "none"), n_problems=40, rollouts=20
    )
    own = np.isin(nodes.problem_id, np.unique(nodes.problem_id)[:6])
    kept = np.where(own[:, np.newaxis], nodes.teacher["answer"], np.nan)
    found = evaluate(
        dataclasses.replace(nodes, teacher={**nodes.teacher, "answer": kept}), bins=3, **FEW
    )
    pair = found.differences["advantage", "answer", "none"]
    assert pair.low is None and "6 problems, where 10 are needed" in str(pair.estimate.reason)
    assert best_context(found, WORDS, 0.95).best is None
