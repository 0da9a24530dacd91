"""Every status of the finding, each combination of directions, and what the sentence holds."""

from __future__ import annotations

from itertools import product

import pytest

from branchdiag.stats.estimate import Estimate, missing
from branchdiag.stats.finding import MIN_PROBLEMS, finding
from branchdiag.stats.horizon import AgainstControl, Slope
from branchdiag.stats.horizon_null import PermutedNull

# Slopes of failure: negative when early candidates fail more. Slopes of d: the other way round.
EARLY, LATE, NONE = (
    Estimate(-0.45, -0.61, -0.28),
    Estimate(0.4, 0.2, 0.6),
    Estimate(0.02, -0.1, 0.14),
)
GONE = missing("no candidate has this outcome")
RANKS = {
    "early": Estimate(0.83, 0.66, 0.95),
    "late": Estimate(0.2, 0.05, 0.4),
    "none": Estimate(0.55, 0.4, 0.7),
}
SLOPES = {"early": EARLY, "late": LATE, "none": NONE}


def decide(failure=EARLY, control=NONE, difference=NONE, auroc=RANKS["none"], p=0.01, **counts):
    numbers = {"n_positive": 8, "n_problems_positive": 6, "n_problems": 61} | counts
    n_problems = numbers.pop("n_problems")
    slopes = AgainstControl(
        failure=Slope(failure, 306, n_problems),
        control=Slope(control, 306, n_problems),
        difference=Slope(difference, 306, n_problems),
        null=PermutedNull(0.0, p, None if p is not None else "no control", 2000, 0, 0),
    )
    return finding(auroc=auroc, slopes=slopes, level=0.95, **numbers)


def relative(way):
    return SLOPES[way].negated()


def expected_status(failure, auroc, control, difference):
    """The rule as a table, written again from its description."""
    pointing = {failure, auroc} - {"none"}
    if len(pointing) == 2:
        return "not_told_apart"
    absolute = pointing.pop() if pointing else "none"
    if difference != "none":
        opposed = absolute not in ("none", difference)
        return "not_told_apart" if opposed else f"{difference}_worse"
    if absolute != "none" and control == absolute:
        return "no_more_than_horizon"
    return "not_told_apart"


@pytest.mark.parametrize(
    ("failure", "auroc", "control", "difference"), list(product(SLOPES, repeat=4))
)
def test_status_of_every_combination(failure, auroc, control, difference) -> None:
    result = decide(SLOPES[failure], SLOPES[control], relative(difference), RANKS[auroc])
    assert result.status == expected_status(failure, auroc, control, difference)
    check_sentence(result.sentence)


def check_sentence(sentence: str) -> None:
    assert sentence.endswith(".") and ". " not in sentence  # one sentence
    assert sentence[0].isupper()
    for bad in ("None", "nan", "_", "  ", "--", "((", "))"):
        assert bad not in sentence


def test_early_worse_carries_every_number() -> None:
    result = decide(EARLY, NONE, Estimate(0.31, 0.12, 0.5), RANKS["early"], p=0.002)
    assert result.status == "early_worse"
    assert result.sentence == (
        "Early teacher tokens are the worse ones, beyond what the longer way still to go explains: "
        "from the start of a trace to its end, forced less free viability changes by +0.31 (95% "
        "interval 0.12 to 0.50, permutation p 0.002; 306 candidates in 61 problems) and the "
        "failure rate of forced branches changes by -0.45 (95% interval -0.61 to -0.28); the "
        "AUROC of early position is 0.83 (95% interval 0.66 to 0.95; 8 real-uncertain candidates "
        "in 6 problems)."
    )


def test_late_worse_turns_the_numbers_round() -> None:
    result = decide(LATE, NONE, Estimate(-0.31, -0.5, -0.12), RANKS["late"])
    assert result.status == "late_worse"
    assert result.sentence.startswith("Late teacher tokens are the worse ones, beyond what the way")
    assert "viability changes by -0.31 (95% interval -0.50 to -0.12" in result.sentence
    assert "forced branches changes by +0.40 (95% interval 0.20 to 0.60" in result.sentence


def test_no_more_than_horizon_shows_the_control_and_what_may_be_left() -> None:
    result = decide(EARLY, Estimate(-0.43, -0.6, -0.25), NONE.negated(), RANKS["early"], p=0.6)
    assert result.status == "no_more_than_horizon"
    assert "but no more than the longer way still to go explains" in result.sentence
    assert "that of free ones by -0.43 (95% interval -0.60 to -0.25)" in result.sentence
    assert "which includes 0, permutation p 0.6" in result.sentence


def test_not_told_apart_when_nothing_is_seen() -> None:
    result = decide(NONE, NONE, NONE)
    assert result.status == "not_told_apart"
    assert result.sentence.count("which includes") == 3


def test_absolute_pattern_that_the_control_does_not_show_is_not_put_down_to_the_horizon() -> None:
    result = decide(EARLY, NONE, NONE, RANKS["early"])
    assert result.status == "not_told_apart"
    assert "what makes them fail is not told apart" in result.sentence


def test_opposed_figures_are_both_told() -> None:
    result = decide(EARLY, EARLY, relative("late"), RANKS["early"])
    assert result.status == "not_told_apart"
    assert "compare better with going on freely" in result.sentence


@pytest.mark.parametrize(("p", "status"), [(0.05, "early_worse"), (0.051, "not_told_apart")])
def test_the_permutation_must_agree_with_the_interval(p: float, status: str) -> None:
    assert decide(NONE, NONE, relative("early"), p=p).status == status


def test_without_a_null_the_interval_decides() -> None:
    result = decide(NONE, NONE, relative("early"), p=None)
    assert result.status == "early_worse" and "permutation" not in result.sentence


def test_without_a_control_nothing_is_put_down_to_the_teacher() -> None:
    for failure, opening in (
        (EARLY, "Early tokens fail more often, but the teacher's part"),
        (NONE, "Early and late teacher tokens are not told apart"),
    ):
        result = decide(failure, GONE, GONE, RANKS["none"], p=None)
        assert result.status == "not_told_apart"
        assert result.sentence.startswith(opening)
        assert "no comparison with going on freely" in result.sentence
        check_sentence(result.sentence)


def test_too_few_problems() -> None:
    result = decide(n_problems=MIN_PROBLEMS - 1, n_positive=1, n_problems_positive=1)
    assert result.status == "too_few"
    assert "9 problems with candidates at two or more positions, where 10 are needed" in (
        result.sentence
    )
    assert "1 real-uncertain candidate in 1 problem." in result.sentence
    assert decide(n_problems=MIN_PROBLEMS).status != "too_few"


def test_no_usable_figure_is_too_few_and_says_why() -> None:
    flat = Estimate(0.0, None, None, "the resamples gave one value")
    result = decide(
        flat,
        flat,
        flat,
        missing("no real-uncertain candidate"),
        n_positive=0,
        n_problems_positive=0,
    )
    assert result.status == "too_few"
    assert "the resamples gave one value" in result.sentence
    assert "no candidate is real-uncertain" in result.sentence
    check_sentence(result.sentence)


@pytest.mark.parametrize(
    ("n_positive", "n_problems_positive", "counts"), [(5, 5, True), (4, 4, False), (9, 4, False)]
)
def test_auroc_counts_only_with_enough_positives(n_positive, n_problems_positive, counts) -> None:
    result = decide(
        NONE,
        EARLY,
        NONE,
        RANKS["early"],
        n_positive=n_positive,
        n_problems_positive=n_problems_positive,
    )
    assert (result.status == "no_more_than_horizon") is counts


def test_auroc_without_interval_is_told_with_its_reason() -> None:
    auroc = Estimate(0.9, None, None, "676 of 2000 resamples had no value")
    result = decide(EARLY, EARLY, NONE, auroc, n_positive=2, n_problems_positive=1)
    assert result.status == "no_more_than_horizon"
    assert "0.90 (no interval: 676 of 2000 resamples had no value; 2 real-uncertain" in (
        result.sentence
    )


@pytest.mark.parametrize("way", ["early", "late"])
def test_nothing_is_said_to_be_left_only_where_the_interval_says_so(way) -> None:
    """The interval of d's slope leaves out 0, its permutation does not: no ground for either."""
    result = decide(EARLY, EARLY, relative(way), p=0.2)
    assert result.status == "not_told_apart"
    assert "what makes them fail is not told apart" in result.sentence
    assert "permutation p 0.2" in result.sentence
    check_sentence(result.sentence)
