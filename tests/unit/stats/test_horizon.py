"""Slopes within problems against regression on indicators, and the other figures by position."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.arms import Arms
from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.horizon import (
    against_control,
    count_viable_controls,
    teacher_advantage,
    within_problem_slope,
)

SETTINGS = {"resamples": 300, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def indicator_slope(y, r, clusters):
    """Least squares with a column for r and one for every cluster; NaN when r adds no rank."""
    indicators = np.array([[float(c == d) for d in sorted(set(clusters))] for c in clusters])
    design = np.column_stack([r, indicators])
    if np.linalg.matrix_rank(design) == np.linalg.matrix_rank(indicators):
        return np.nan
    return np.linalg.lstsq(design, y, rcond=None)[0][0]


def copies(weights, codes):
    """Row numbers and copy names of each drawn copy."""
    rows, names = [], []
    for cluster, count in enumerate(weights):
        for copy in range(int(count)):
            mine = np.flatnonzero(codes == cluster)
            rows += mine.tolist()
            names += [f"{cluster}/{copy}"] * mine.size
    return np.array(rows), names


def test_slope_equals_regression_with_indicators_on_1000_random_cases() -> None:
    generator = np.random.default_rng(0)
    settings = SETTINGS | {"resamples": 2}
    n_degenerate = 0
    for _ in range(1000):
        n = int(generator.integers(1, 12))
        clusters = generator.integers(0, generator.integers(1, n + 1), n)
        r = generator.integers(0, 5, n) / 4.0  # ties, also whole problems at one r
        y = generator.normal(size=n)
        slope = within_problem_slope(y, r, clusters, **settings)
        expected = indicator_slope(y, r, clusters.tolist())
        if np.isnan(expected):
            n_degenerate += 1
            assert slope.estimate.value is None and slope.n_problems == 0
            assert slope.estimate.reason == "no problem has candidates at two positions"
        else:
            assert slope.estimate.value == pytest.approx(expected, abs=1e-10)
            carrying = [c for c in set(clusters) if len(set(r[clusters == c])) > 1]
            assert slope.n_problems == len(carrying)
            assert slope.n_candidates == np.isin(clusters, carrying).sum()
    assert 50 < n_degenerate < 950


def test_slope_interval_equals_refitting_every_resample() -> None:
    generator = np.random.default_rng(1)
    codes = np.repeat(np.arange(12), generator.integers(1, 5, 12))
    r, y = generator.random(codes.size), generator.normal(size=codes.size)
    result = within_problem_slope(y, r, codes, **SETTINGS)
    slopes = []
    for weights in next(draw_multiplicities(12, resamples=300, seed=0)):
        rows, names = copies(weights, codes)
        slopes.append(indicator_slope(y[rows], r[rows], names))
    expected = np.nanquantile(slopes, [0.025, 0.975])
    assert [result.estimate.ci_low, result.estimate.ci_high] == pytest.approx(expected.tolist())


def test_slope_finds_a_planted_change_in_spite_of_problem_effects() -> None:
    generator = np.random.default_rng(2)
    clusters = np.repeat(np.arange(60), 5)
    centre = generator.random(60)[clusters]
    r = 0.5 * centre + 0.5 * generator.random(300)
    y = 0.3 * r - 2.0 * centre + 0.05 * generator.normal(size=300)
    slope = within_problem_slope(y, r, clusters, **SETTINGS).estimate
    assert slope.is_above(0.2) and slope.is_below(0.4)
    assert np.polyfit(r, y, 1)[0] < -0.5  # pooled, the sign is wrong


def test_missing_outcomes_are_left_out() -> None:
    y, r = np.array([0.0, 1.0, np.nan, 0.0, 1.0]), np.array([0.0, 0.5, 0.9, 0.0, 0.5])
    slope = within_problem_slope(y, r, [0, 0, 0, 1, 1], **SETTINGS)
    assert slope.estimate.value == pytest.approx(2.0) and slope.n_candidates == 4
    nothing = within_problem_slope([np.nan], [0.5], [0], **SETTINGS)
    assert nothing.estimate.reason == "no candidate has this outcome"


def random_arms(generator, n, n_children=3):
    samples = np.full((n, n_children + 1), 6)
    samples[generator.random(n) < 0.3, n_children] = 0
    return Arms(
        generator.binomial(samples, generator.random((n, 1))), samples, np.full(samples.shape, 9.0)
    )


def test_failure_splits_exactly_into_the_control_and_the_difference() -> None:
    generator = np.random.default_rng(3)
    arms, clusters = random_arms(generator, 120), np.repeat(np.arange(30), 4)
    r = generator.random(120)
    split = against_control(arms, r, clusters, permutations=200, **SETTINGS)
    assert split.failure.estimate.value == pytest.approx(
        split.control.estimate.value - split.difference.estimate.value
    )
    assert split.failure.n_candidates == split.difference.n_candidates == 120
    children = [
        sum(s / n for s, n in zip(a[1:], b[1:], strict=True) if n) / sum(n > 0 for n in b[1:])
        for a, b in zip(arms.successes, arms.samples, strict=True)
    ]
    expected = indicator_slope(1 - np.array(children), r, clusters.tolist())
    assert split.failure.estimate.value == pytest.approx(expected)
    assert split.null.p is not None


def test_without_controls_only_failure_has_a_slope() -> None:
    generator = np.random.default_rng(4)
    arms = random_arms(generator, 60)
    arms.samples[:, 0] = arms.successes[:, 0] = 0
    clusters, r = np.repeat(np.arange(15), 4), generator.random(60)
    split = against_control(arms, r, clusters, permutations=100, **SETTINGS)
    assert split.failure.estimate.has_interval and split.failure.n_candidates == 60
    assert split.difference.estimate.value is None and split.control.estimate.value is None
    assert split.null.p is None and split.null.reason is not None


def test_real_uncertain_candidates_with_a_viable_control_are_counted() -> None:
    label = ["real_uncertain"] * 5 + ["diversity", "gray"]
    viable = [True, True, False, None, np.True_, True, True]
    counts = count_viable_controls(label, viable, ["a", "a", "b", "b", "c", "d", "e"])
    assert (counts.n_real_uncertain, counts.n_without_control) == (5, 1)
    assert (counts.n_control_viable, counts.n_problems_control_viable) == (3, 2)
    assert count_viable_controls([], [], []).n_real_uncertain == 0
    as_array = count_viable_controls(label[:3], np.array(viable[:3], dtype=bool), ["a", "a", "b"])
    assert as_array.n_control_viable == 2


def test_teacher_advantage_against_a_loop_on_1000_random_cases() -> None:
    generator = np.random.default_rng(5)
    teacher, student = generator.random((2, 1000, 3)) * (generator.random((2, 1000, 3)) < 0.8)
    viability = generator.integers(0, 7, (1000, 3)) / 6
    viability[generator.random((1000, 3)) < 0.2] = np.nan
    result = teacher_advantage(teacher, student, viability)
    n_missing = 0
    for q, p, v, got in zip(teacher, student, viability, result, strict=True):
        kept = [i for i in range(3) if v[i] == v[i]]
        q_mass, p_mass = sum(q[i] for i in kept), sum(p[i] for i in kept)
        if len(kept) < 2 or q_mass == 0 or p_mass == 0:
            n_missing += 1
            assert np.isnan(got)
        else:
            assert got == pytest.approx(sum((q[i] / q_mass - p[i] / p_mass) * v[i] for i in kept))
    assert 100 < n_missing < 900


def test_teacher_advantage_is_positive_when_the_teacher_prefers_the_better_branch() -> None:
    assert teacher_advantage([[0.8, 0.2]], [[0.4, 0.4]], [[1.0, 0.0]])[0] == pytest.approx(0.3)
    assert teacher_advantage([[0.3, 0.3]], [[0.1, 0.1]], [[1.0, 0.0]])[0] == pytest.approx(0.0)
