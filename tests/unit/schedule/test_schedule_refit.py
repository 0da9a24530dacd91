"""The choice by left-out problems and the refits, against one fit at a time."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_curve import SCALE_BOUNDS, TAU_BOUNDS
from branchdiag.stats.schedule_data import observe
from branchdiag.stats.schedule_isotonic import isotonic, sigmoid_start
from branchdiag.stats.schedule_refit import (
    ESTIMATE_FOLDS,
    RESAMPLE_FOLDS,
    fit_families,
    fold_of_problems,
    left_out_loss,
    refit,
)
from branchdiag.stats.schedule_solver import fit_best, loss
from tests.unit.schedule.planted_schedules import horizon, level, plant, shape


def slow_left_out(rows, curve, start, drawn) -> float:
    """Each drawn problem told by L-BFGS-B on the others."""
    total = 0.0
    for problem in np.flatnonzero(drawn):
        weights = drawn[rows.codes] * rows.share
        mine = rows.codes == problem
        theta, _ = fit_best(curve, rows.y, np.where(mine, 0.0, weights), start[np.newaxis])
        mean = curve.mean(theta[np.newaxis])
        total += float(loss(mean, rows.y, np.where(mine, weights, 0.0)[np.newaxis])[0])
    return total / drawn.sum()


@pytest.mark.parametrize("estimand", ["viability", "relative"])
def test_left_out_loss_is_that_of_a_loop_and_leaves_out_all_copies(estimand) -> None:
    rows = observe(plant(shape(0.4, 0.3, 0.1), level(0.9), seed=2, n_problems=25), estimand)
    fits = fit_families(rows)
    drawn = np.random.default_rng(0).multinomial(25, np.full(25, 1 / 25), size=1).astype(float)
    assert drawn.max() > 1
    for curve, theta, tolerance in (
        (fits.constant, fits.constant_theta, 1e-4),
        (fits.sigmoids[1], fits.sigmoid_thetas[1], 1e-3),
    ):
        fast = left_out_loss(rows, curve, theta[np.newaxis], drawn, ESTIMATE_FOLDS)[0]
        assert fast == pytest.approx(slow_left_out(rows, curve, theta, drawn[0]), abs=tolerance)


def test_a_resample_of_every_problem_once_is_the_estimate() -> None:
    rows = observe(plant(shape(0.4, 0.3, 0.1), level(0.9), seed=2), "viability")
    fits = fit_families(rows)
    again = refit(fits, np.ones((1, rows.n_problems)), np.ones(1, int))
    assert again.sigmoid[0] == fits.prefers_sigmoid(1)
    np.testing.assert_allclose(again.theta[0], fits.sigmoid_thetas[1], atol=1e-3)


def test_a_resample_is_a_study_with_copied_problems() -> None:
    rows = observe(plant(shape(0.4, 0.3, 0.1), level(0.9), seed=5, n_problems=15), "viability")
    fits = fit_families(rows)
    drawn = np.random.default_rng(3).multinomial(15, np.full(15, 1 / 15)).astype(float)
    made = refit(fits, drawn[np.newaxis], np.ones(1, int))
    index = np.concatenate(
        [np.tile(np.flatnonzero(rows.codes == p), int(drawn[p])) for p in range(15)]
    )
    curve = fits.sigmoids[1].__class__(rows.r[index], np.zeros((index.size, 0)), True, 1)
    starts = np.array([fits.sigmoid_thetas[1], made.theta[0]])
    theta, _ = fit_best(curve, rows.y[index], rows.share[index], starts)
    grid = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        curve.weight(theta[np.newaxis], grid), curve.weight(made.theta, grid), atol=5e-3
    )


def test_no_start_beats_the_estimate() -> None:
    rows = observe(plant(horizon(), horizon(), seed=4), "viability")
    fits = fit_families(rows)
    curve, theta = fits.sigmoids[1], fits.sigmoid_thetas[1]
    best = float(loss(curve.mean(theta[np.newaxis]), rows.y, rows.share[np.newaxis])[0])
    generator = np.random.default_rng(0)
    low, high = curve.bounds.T
    starts = generator.uniform(np.maximum(low, -3), np.minimum(high, 3), size=(40, 4))
    assert fit_best(curve, rows.y, rows.share, starts)[1] >= best - 1e-4


def test_folds_are_problems_until_there_are_very_many() -> None:
    for effort in (ESTIMATE_FOLDS, RESAMPLE_FOLDS):
        few, many = effort["most"], 10 * effort["most"]
        np.testing.assert_array_equal(fold_of_problems(few, effort), np.arange(few))
        sizes = np.bincount(fold_of_problems(many, effort))
        np.testing.assert_array_equal(sizes, np.full(effort["groups"], many / effort["groups"]))


def test_isotonic_fits_are_monotone_and_keep_the_weighted_mean() -> None:
    generator = np.random.default_rng(0)
    r, y, weights = generator.random((3, 50)).round(1)
    for increasing in (True, False):
        fit = isotonic(r, y, weights, increasing=increasing)
        steps = np.diff(fit.y)
        assert (steps >= 0).all() if increasing else (steps <= 0).all()
        back = fit.y[np.searchsorted(fit.r, r[weights > 0])]
        assert back @ weights[weights > 0] == pytest.approx(y @ weights)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_isotonic_start_is_near_what_was_planted(sign) -> None:
    r = np.linspace(0, 1, 200)
    y = 0.8 * (0.25 + 0.75 / (1 + np.exp(-sign * (r - 0.4) / 0.1)))
    start = sigmoid_start(r, y, np.ones(200), sign)
    # At the ends the sigmoid is not at its limits yet, so the start is only near.
    assert start.hi == pytest.approx(0.8, abs=0.02)
    assert start.w_min == pytest.approx(0.25, abs=0.05)
    assert start.tau == pytest.approx(0.4, abs=0.02)
    assert start.s == pytest.approx(0.1, abs=0.02)


def test_a_start_is_inside_the_bounds_whatever_the_data() -> None:
    for y in (np.zeros(3), np.ones(3), np.array([0.0, 1.0, 1.0])):
        start = sigmoid_start(np.array([0.1, 0.1, 0.9]), y, np.ones(3), 1)
        assert TAU_BOUNDS[0] <= start.tau <= TAU_BOUNDS[1]
        assert SCALE_BOUNDS[0] < start.s < SCALE_BOUNDS[1]
