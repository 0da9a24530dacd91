"""Do the teacher's tokens help or harm on the whole?"""

import numpy as np
import pytest

from branchdiag.stats.estimate import Estimate, Resampling, missing
from branchdiag.stats.overall import Overall, overall, sentence

RESAMPLING: Resampling = {"resamples": 400, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
PROBLEMS = np.repeat(np.arange(20), 5)


def test_the_means_weigh_candidates_alike_and_skip_what_is_missing() -> None:
    rng = np.random.default_rng(1)
    d, advantage = rng.normal(-0.2, 0.1, 100), rng.normal(0.0, 0.1, 100)
    d[::7] = np.nan
    means = overall(d, advantage, PROBLEMS, **RESAMPLING)
    assert means.difference.value == pytest.approx(np.nanmean(d))
    assert means.advantage.value == pytest.approx(advantage.mean())
    assert means.difference.is_below(0) and not means.advantage.is_below(0)


def test_problems_are_drawn_whole() -> None:
    shift = np.repeat(np.where(np.arange(20) % 2, 0.5, -0.5), 5)
    clustered = overall(shift, shift, PROBLEMS, **RESAMPLING).difference
    alone = overall(shift, shift, np.arange(100), **RESAMPLING).difference
    assert clustered.ci_high is not None and clustered.ci_low is not None
    assert alone.ci_high is not None and alone.ci_low is not None
    assert clustered.ci_high - clustered.ci_low > 1.8 * (alone.ci_high - alone.ci_low)


def test_nine_problems_say_nothing_of_a_sign() -> None:
    values = np.random.default_rng(2).normal(-0.5, 0.05, 100)
    nine, ten = (np.where(n > PROBLEMS, values, np.nan) for n in (9, 10))
    means = overall(nine, ten, PROBLEMS, **RESAMPLING)
    assert means.difference.reason == "9 problems, where 10 are needed"
    assert means.advantage.is_below(0)
    text = sentence(means, 0.95)
    assert "not told apart from going on freely" in text and "loses" in text


LESS, MORE, NONE = (
    Estimate(-0.21, -0.23, -0.19),
    Estimate(0.21, 0.19, 0.23),
    Estimate(0.0, -0.02, 0.02),
)


@pytest.mark.parametrize(
    ("difference", "advantage", "words"),
    [
        (LESS, LESS, ["succeeds less often", "by 0.21 (95% interval -0.23 to -0.19)", "loses"]),
        (MORE, MORE, ["succeeds more often", "by 0.21 (95% interval +0.19 to +0.23)", "gains"]),
        (NONE, NONE, ["not told apart from going on freely", "0.00", "neither gain nor loss"]),
        (missing("no control"), LESS, ["cannot be compared (no control)", "loses 0.210"]),
        (LESS, missing("one child"), ["less often", "is not known (one child)"]),
        (
            Estimate(-0.2, None, None, "1 problem"),
            LESS,
            ["not told apart", "no interval: 1 problem"],
        ),
    ],
)
def test_the_sentence_says_what_the_intervals_do(
    difference: Estimate, advantage: Estimate, words: list[str]
) -> None:
    text = sentence(Overall(difference, advantage), 0.95)
    assert all(word in text for word in words), text
