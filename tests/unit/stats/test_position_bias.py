"""Prefix curves, the two changes of the gain, and accumulated discrepancy against slow formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from branchdiag.stats.estimate import Resampling
from branchdiag.stats.position_bias import (
    accumulate,
    contrasts,
    gain_change,
    prefix_curve,
    relative_position,
    step_slope,
)
from branchdiag.stats.schedule_band import expanded_level

RESAMPLING: Resampling = {"resamples": 400, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
TENTHS = np.arange(10) / 10


def slow_interval(values: list[float], level: float) -> tuple[float, float]:
    """Mean of problems drawn whole, one resample and one problem at a time."""
    generator = np.random.default_rng(RESAMPLING["seed"])
    n = len(values)
    drawn = generator.integers(n, size=(RESAMPLING["resamples"], n))
    means = [sum(values[int(problem)] for problem in row) / n for row in drawn]
    tail = (1 - level) / 2
    return float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))


def test_a_curve_is_the_mean_over_problems_with_problems_resampled_whole() -> None:
    generator = np.random.default_rng(1)
    shares = generator.integers(0, 5, size=(30, 4)) / 4
    points = prefix_curve([0.0, 0.3, 0.5, 0.9], shares, **RESAMPLING)
    for column, point in enumerate(points):
        values = [float(v) for v in shares[:, column]]
        assert point["y"] == pytest.approx(sum(values) / 30, abs=1e-12)
        assert (point["lo"], point["hi"]) == pytest.approx(slow_interval(values, 0.95), abs=1e-12)
        assert point["n"] == 30
        assert point["reason"] is None


def test_a_fraction_without_samples_has_a_reason_and_no_number() -> None:
    shares = np.array([[0.5, np.nan], [1.0, np.nan], [0.0, np.nan], [0.5, np.nan]])
    first, second = prefix_curve([0.0, 0.5], shares, **RESAMPLING)
    assert first["y"] == 0.5
    assert (second["y"], second["lo"], second["n"]) == (None, None, 0)
    assert second["reason"]


def test_no_problem_at_all_gives_points_with_reasons() -> None:
    points = prefix_curve(TENTHS, np.empty((0, 10)), **RESAMPLING)
    assert [point["y"] for point in points] == [None] * 10
    found = gain_change(TENTHS, np.empty((0, 10)), **RESAMPLING)
    assert found.n_problems == 0
    assert found.slope.value is None
    assert found.slope.reason


def slow_changes(fractions: NDArray[np.float64], gain: NDArray[np.float64]) -> tuple[float, float]:
    """Both changes of one curve by least squares on explicit design matrices."""
    line = np.stack([np.ones_like(fractions), fractions], axis=1)
    left = np.stack([1 - fractions, (1 - fractions) * fractions], axis=1)
    return (
        float(np.linalg.lstsq(line, gain, rcond=None)[0][1]),
        float(np.linalg.lstsq(left, gain, rcond=None)[0][1]),
    )


def test_changes_and_their_intervals_equal_a_fit_of_each_problem() -> None:
    generator = np.random.default_rng(2)
    fractions = np.array([0.0, 0.2, 0.3, 0.7])
    gains = generator.integers(-4, 5, size=(25, 4)) / 4
    gains[3, 1] = np.nan  # left out: not every fraction is there
    found = gain_change(fractions, gains, **RESAMPLING)
    slow = [slow_changes(fractions, row) for row in gains if np.isfinite(row).all()]
    level = expanded_level(0.95, 24)
    assert found.n_problems == len(slow) == 24
    for estimate, values in (
        (found.slope, [slope for slope, _ in slow]),
        (found.per_remaining, [change for _, change in slow]),
    ):
        assert estimate.value == pytest.approx(sum(values) / 24, abs=1e-12)
        ends = (estimate.ci_low, estimate.ci_high)
        assert ends == pytest.approx(slow_interval(values, level), abs=1e-12)


@given(
    st.lists(st.floats(0, 0.95), min_size=2, max_size=10, unique=True),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
def test_contrasts_find_the_line_and_the_value_per_remaining_share(
    fractions: list[float], start: float, change: float
) -> None:
    fraction = np.sort(np.round(fractions, 2))
    if np.ptp(fraction) < 0.05:
        return
    slope, per_remaining = contrasts(fraction)
    assert slope is not None
    assert per_remaining is not None
    assert slope @ (start + change * fraction) == pytest.approx(change, abs=1e-6)
    shrinking = (1 - fraction) * (start + change * fraction)
    assert per_remaining @ shrinking == pytest.approx(change, abs=1e-6)


def test_one_fraction_has_no_change() -> None:
    found = gain_change([0.0], np.zeros((20, 1)), **RESAMPLING)
    assert found.slope.value is None
    assert found.slope.reason == "a change needs two fractions"


def test_a_gain_that_ends_because_nothing_is_left_makes_no_change_per_remaining_share() -> None:
    """A teacher that fails less at each step, on prefixes without a mistake: the slope falls,
    and only because the way left does.
    """
    generator = np.random.default_rng(3)
    steps = np.round(40 * (1 - TENTHS)).astype(int)
    truth = 0.999**steps - 0.996**steps
    shares = {
        name: generator.binomial(8, np.tile(error**steps, (400, 1))) / 8
        for name, error in (("student", 0.996), ("teacher", 0.999))
    }
    found = gain_change(TENTHS, shares["teacher"] - shares["student"], **RESAMPLING)
    assert found.slope.is_below(0.0)
    assert not found.per_remaining.is_below(0.0)
    assert truth[0] > truth[-1]


def test_prefixes_that_are_ruined_make_the_gain_per_remaining_share_fall() -> None:
    """The student's own mistakes stay in the prefix: what is left to gain shrinks faster than the
    way left, which is the drift that IW-OPD speaks of.
    """
    generator = np.random.default_rng(4)
    steps = np.round(40 * (1 - TENTHS)).astype(int)
    intact = generator.random((500, 1)) < 0.95 ** np.round(40 * TENTHS)
    shares = [
        generator.binomial(8, np.where(intact, good**steps, 0.0)) / 8 for good in (0.95, 0.995)
    ]
    found = gain_change(TENTHS, shares[1] - shares[0], **RESAMPLING)
    assert found.per_remaining.is_below(0.0)


def test_the_same_model_on_both_sides_is_seldom_said_to_drift() -> None:
    """Student and teacher with equal chances, mistakes and all: the nominal rate is 2.5% a side."""
    generator = np.random.default_rng(7)
    steps = np.round(40 * (1 - TENTHS)).astype(int)
    said = 0
    for _ in range(200):
        intact = generator.random((60, 1)) < 0.97 ** np.round(40 * TENTHS)
        chance = np.where(intact, 0.97**steps, 0.0)
        gain = (generator.binomial(4, chance) - generator.binomial(4, chance)) / 4
        found = gain_change(TENTHS, gain, **RESAMPLING)
        said += found.per_remaining.is_below(0.0) or found.slope.is_above(0.0)
    assert said <= 22  # 10 are expected; more than 22 would come once in 3,000


def test_accumulated_discrepancy_equals_a_loop_over_tokens() -> None:
    generator = np.random.default_rng(5)
    lengths = {"b": 5, "a": 1, "c": 9}
    spine = [name for name, length in lengths.items() for _ in range(length)]
    position = [place for length in lengths.values() for place in range(length)]
    step = generator.exponential(size=len(spine))
    order = generator.permutation(len(spine))  # rows may come in any order
    made = accumulate(step[order], np.array(position)[order], np.array(spine)[order], gamma=0.5)
    for index, row in enumerate(order):
        own = [float(s) for s, name in zip(step, spine, strict=True) if name == spine[row]]
        before = math.fsum(own[: position[row]])
        share = before / (math.fsum(own) + 1e-8)
        assert made.before_T[index] == pytest.approx(before, abs=1e-12)
        assert made.share_T[index] == pytest.approx(share, abs=1e-12)
        assert made.weight_T[index] == pytest.approx(1 + 0.5 * (1 - share), abs=1e-12)
    assert made.n_left_out == 0


def test_it_is_the_registered_signal() -> None:
    import torch

    from branchdiag.signals import SIGNALS, SpineLogprobs, View

    torch.manual_seed(0)
    teacher, student = torch.log_softmax(torch.randn(2, 12, 7), -1)
    tokens = torch.randint(7, (12,))
    rows = torch.arange(12)
    logprobs = SpineLogprobs(teacher[rows, tokens], student[rows, tokens], teacher.max(-1).values)
    view = View(teacher, student, tokens, rows, logprobs)
    step = (teacher - student)[rows, tokens].abs().double().numpy()
    made = accumulate(step, rows.numpy(), np.zeros(12))
    for name, ours in (
        ("iw_opd_accumulated", made.before_T),
        ("iw_opd_share", made.share_T),
        ("iw_opd_weight", made.weight_T),
    ):
        signal = SIGNALS[name].measure(view).double().numpy()
        assert np.allclose(signal, ours, atol=1e-6), name


def test_a_spine_that_lacks_a_token_has_no_sum_and_the_others_keep_theirs() -> None:
    step = [0.5, np.nan, 0.5, 1.0, 3.0]
    made = accumulate(step, [0, 1, 2, 0, 1], ["x", "x", "x", "y", "y"])
    assert np.isnan(made.weight_T[:3]).all()
    assert made.share_T[3:].tolist() == pytest.approx([0.0, 0.25], abs=1e-8)
    assert made.n_left_out == 1
    gap = accumulate([1.0, 1.0], [0, 2], ["x", "x"])
    assert gap.n_left_out == 1


def test_where_the_two_agree_everywhere_the_weight_stays_at_its_height() -> None:
    made = accumulate(np.zeros(6), np.arange(6), np.zeros(6))
    assert made.weight_T.tolist() == [1.5] * 6


@given(st.lists(st.floats(0, 50), min_size=1, max_size=40))
def test_the_weight_begins_at_its_height_and_never_rises(steps: list[float]) -> None:
    made = accumulate(steps, np.arange(len(steps)), np.zeros(len(steps)))
    assert made.weight_T[0] == 1.5
    assert (np.diff(made.weight_T) <= 1e-12).all()
    assert (made.weight_T >= 1 - 1e-9).all()


def test_no_token_at_all_is_no_error() -> None:
    made = accumulate([], [], [])
    assert made.before_T.size == 0
    assert step_slope([], [], [], **RESAMPLING).estimate.value is None
    assert relative_position([], []).size == 0


def test_the_slope_of_the_discrepancy_is_within_spines() -> None:
    """Spines that differ in level, and in length, make no slope."""
    generator = np.random.default_rng(6)
    spine = np.repeat(np.arange(40), 30)
    position = np.tile(np.arange(30), 40)
    r = relative_position(position, spine)
    level = 5.0 * spine
    flat = step_slope(level + generator.random(1200), r, spine, **RESAMPLING)
    rising = step_slope(level + r + generator.random(1200), r, spine, **RESAMPLING)
    assert flat.estimate.ci_low is not None
    assert flat.estimate.ci_low < 0 < (flat.estimate.ci_high or 0)
    assert rising.estimate.value == pytest.approx(1.0, abs=0.1)
    assert rising.estimate.is_above(0.0)
    assert flat.n_problems == 40
