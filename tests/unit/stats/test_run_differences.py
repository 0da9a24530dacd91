"""Paired differences of two runs: against laying out every resample, and what a verdict asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchdiag.stats.auroc import auroc
from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.run_differences import (
    EQUAL,
    Difference,
    PairedFigure,
    differences,
    paired_auroc,
    paired_mean,
    paired_slope,
)

RESAMPLING = {"resamples": 400, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def one(figure: PairedFigure, n_problems: int, **changes: int) -> Difference:
    return differences([figure], n_problems, n_pairs=1, permutations=400, **(RESAMPLING | changes))[
        0
    ]


def some_candidates(
    generator: np.random.Generator, n_problems: int, *, slope: float = 0.0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, r and problem of some candidates; a few problems have one only."""
    sizes = generator.integers(1, 6, n_problems)
    places = np.repeat(np.arange(n_problems), sizes)
    r = generator.uniform(0, 1, places.size)
    hard = generator.normal(0, 0.3, n_problems)[places]
    y = hard + shift + slope * r + generator.normal(0, 0.1, places.size)
    return y, r, places


def slow_slope(y: np.ndarray, r: np.ndarray, clusters: np.ndarray) -> float:
    """Least squares on r and an indicator a cluster, by the normal equations."""
    design = np.column_stack([r, (clusters[:, None] == np.unique(clusters)).astype(float)])
    return float(np.linalg.lstsq(design, y, rcond=None)[0][0])


def laid_out(rows: tuple[np.ndarray, ...], draw: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rows of a resample, copies as clusters of their own."""
    chosen, clusters = [], []
    copy = 0
    for place, times in enumerate(draw.astype(int)):
        index = np.flatnonzero(rows[-1] == place)
        for _ in range(times):
            chosen.append(index)
            clusters.append(np.full(index.size, copy))
            copy += 1
    index = np.concatenate(chosen)
    return (*(column[index] for column in rows[:-1]), np.concatenate(clusters))


def test_the_slopes_of_a_resample_are_those_of_its_rows_laid_out() -> None:
    generator = np.random.default_rng(3)
    first = some_candidates(generator, 14)
    second = some_candidates(generator, 14, slope=0.4)
    both = [
        p
        for p in range(14)
        if all(np.unique(rows[1][rows[2] == p]).size > 1 for rows in (first, second))
    ]
    figure = paired_slope("x", first, second, 14)
    assert figure.n_problems == len(both)
    assert figure.statistic is not None
    draw = next(iter(draw_multiplicities(14, resamples=20, seed=1)))
    nothing = np.zeros_like(draw)
    got = figure.statistic(np.hstack([nothing, draw])) - figure.statistic(
        np.hstack([draw, nothing])
    )
    kept = np.isin(np.arange(14), both)
    want = [
        slow_slope(*laid_out(second, row * kept)) - slow_slope(*laid_out(first, row * kept))
        for row in draw
    ]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_a_mean_weighs_problems_alike_and_only_those_in_both() -> None:
    first = np.array([0.2, 0.4, np.nan, 1.0])
    second = np.array([0.3, 0.8, 0.9, np.nan])
    found = one(paired_mean("x", first, second), 4)
    assert found.first == pytest.approx(0.3)
    assert found.second == pytest.approx(0.55)
    assert found.estimate.value == pytest.approx(0.25)
    assert found.n_problems == 2


def test_the_auroc_is_that_of_each_run_and_absent_problems_do_no_harm() -> None:
    generator = np.random.default_rng(0)
    places = np.repeat([0, 1, 2, 5], 6)  # problems 3, 4, 6 and 7 have no candidate
    rows = [
        (generator.normal(size=24), generator.integers(2, size=24).astype(bool), places)
        for _ in range(2)
    ]
    found = one(paired_auroc("x", rows[0], rows[1], 8), 8)
    assert found.first == pytest.approx(auroc(rows[0][0], rows[0][1]))
    assert found.second == pytest.approx(auroc(rows[1][0], rows[1][1]))
    assert found.n_problems == 4


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_without_a_class_is_named(which: int) -> None:
    values, places = np.arange(6.0), np.array([0, 0, 1, 1, 2, 2])
    mixed = (values, np.array([True, False] * 3), places)
    empty = (values, np.zeros(6, bool), places)
    rows = [mixed, mixed]
    rows[which] = empty
    found = one(paired_auroc("x", *rows, 3), 3)
    assert found.verdict == "not compared"
    assert ("first", "second")[which] in str(found.estimate.reason)
    assert found.first is None
    assert found.p is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 20))
def test_turning_the_runs_round_turns_the_difference_round(seed: int, n_problems: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.uniform(size=(2, n_problems))
    ahead = one(paired_mean("x", first, second), n_problems)
    back = one(paired_mean("x", second, first), n_problems)
    assert ahead.estimate.value == pytest.approx(-float(back.estimate.value or 0))
    assert ahead.estimate.ci_low == pytest.approx(-float(back.estimate.ci_high or 0))
    assert ahead.low == pytest.approx(-float(back.high or 0))
    assert ahead.p == pytest.approx(back.p, abs=0.02)
    turned = {"higher": "lower", "lower": "higher"}
    assert back.verdict == turned.get(ahead.verdict, ahead.verdict)


def test_a_planted_difference_is_found_and_its_sign_is_right() -> None:
    generator = np.random.default_rng(1)
    base = generator.uniform(size=40)
    found = one(paired_mean("x", base, base - 0.05 + generator.normal(0, 0.02, 40)), 40)
    assert found.verdict == "lower"
    assert found.estimate.ci_high is not None
    assert found.estimate.ci_high < 0
    assert found.p is not None
    assert found.p < 0.01


def test_runs_that_are_no_different_are_seldom_told_apart() -> None:
    verdicts, ps = [], []
    for seed in range(120):
        generator = np.random.default_rng(seed)
        hard = generator.uniform(size=20)
        first, second = hard + generator.normal(0, 0.1, (2, 20))
        figures = [
            paired_mean("x", first, second),
            paired_mean("y", first**2, second**2),
            paired_mean("z", *generator.uniform(size=(2, 20))),
        ]
        for found in differences(figures, 20, n_pairs=1, permutations=200, **RESAMPLING):
            verdicts.append(found.verdict)
            ps.append(found.p)
    # Each at 5% at most, all three of a study together: 360 figures, 18 expected at the very most.
    assert sum(verdict in ("higher", "lower") for verdict in verdicts) <= 18
    assert 0.4 < np.mean(ps) < 0.6


def test_the_swap_is_the_permutation_it_says() -> None:
    first, second = np.zeros(5), np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    found = differences(
        [paired_mean("x", first, second)], 5, n_pairs=1, permutations=4000, **RESAMPLING
    )[0]
    # Of 2^5 ways to toss, two give as much as was seen.
    assert found.p == pytest.approx(2 / 32, abs=0.012)


def test_more_figures_and_more_pairs_widen_the_simultaneous_interval() -> None:
    generator = np.random.default_rng(5)
    base, noise = generator.uniform(size=30), generator.normal(0, 0.1, (6, 30))
    figures = [paired_mean(str(i), base, base + part) for i, part in enumerate(noise)]

    def width(found: Difference) -> float:
        assert found.high is not None
        assert found.low is not None
        return found.high - found.low

    alone = one(figures[0], 30)
    many = differences(figures, 30, n_pairs=1, permutations=50, **RESAMPLING)[0]
    pairs = differences(figures, 30, n_pairs=5, permutations=50, **RESAMPLING)[0]
    assert alone.estimate == many.estimate == pairs.estimate  # the same resamples
    assert width(alone) < width(many) < width(pairs)


def test_what_no_problem_shows_is_equal_and_not_merely_not_told_apart() -> None:
    same = np.linspace(0, 1, 12)
    found = one(paired_mean("x", same, same), 12)
    assert (found.verdict, found.estimate.reason) == ("equal", EQUAL)
    assert found.low is None


def test_too_few_problems_give_no_verdict_however_large_the_difference() -> None:
    found = one(paired_mean("x", np.zeros(9), np.linspace(1, 2, 9)), 9)
    assert found.estimate.ci_low is not None
    assert found.estimate.ci_low > 0
    assert found.verdict == "too few"
    assert found.few is not None
    assert "9 problems" in found.few


def test_an_auroc_of_few_positives_gives_no_verdict() -> None:
    places = np.repeat(np.arange(12), 4)
    values = np.random.default_rng(0).normal(size=48)
    positive = np.zeros(48, bool)
    positive[[0, 4, 8, 12]] = True  # four, where five are needed
    figure = paired_auroc("x", (values, positive, places), (-values, positive, places), 12)
    found = one(figure, 12)
    assert found.verdict == "too few"
    assert found.few is not None
    assert "4 real-uncertain in 4" in found.few


def test_an_interval_without_a_small_p_is_not_enough() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        found = one(paired_mean("x", np.zeros(10), generator.normal(0.0, 1.0, 10)), 10)
        if found.verdict in ("higher", "lower", "alone"):
            assert found.p is not None
            assert found.p <= 0.05 + 1e-9
            hits += 1
    assert hits <= 8
