"""The batched fits, against L-BFGS-B one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_curve import curve_over
from branchdiag.stats.schedule_data import observe
from branchdiag.stats.schedule_refit import fit_families, refit
from branchdiag.stats.schedule_solver import fit_best, fit_many, loss
from tests.unit.schedule.planted_schedules import level, plant, shape

PLANTED = plant(shape(0.4, 0.3, 0.1), level(0.9), seed=3, n_problems=20)


@pytest.mark.parametrize("estimand", ["viability", "relative", "binary", "teacher-weighted"])
def test_a_batch_of_fits_reaches_what_one_fit_at_a_time_reaches(estimand) -> None:
    rows = observe(PLANTED, estimand)
    fits = fit_families(rows)
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(rows.n_problems, np.full(rows.n_problems, 1 / 20), size=6)
    weights = drawn[:, rows.codes] * rows.share
    curve, estimate = fits.sigmoids[1], fits.sigmoid_thetas[1]
    _, fast = fit_many(curve, rows.y, weights, np.tile(estimate, (6, 1)))
    slow = [fit_best(curve, rows.y, row, estimate[np.newaxis])[1] for row in weights]
    # Both may stop on the flat of a valley; neither may stop short of the other by much.
    np.testing.assert_allclose(fast, slow, atol=2e-3)
    _, fast = fit_many(fits.constant, rows.y, weights, np.tile(fits.constant_theta, (6, 1)))
    slow = [fit_best(fits.constant, rows.y, w, fits.constant_theta[None])[1] for w in weights]
    np.testing.assert_allclose(fast, slow, atol=2e-5)


def test_the_constant_is_the_weighted_mean() -> None:
    rows = observe(PLANTED, "viability")
    fits = fit_families(rows)
    mean = 1 / (1 + np.exp(-fits.constant_theta[0]))
    assert mean == pytest.approx(rows.share @ rows.y / rows.share.sum(), abs=1e-6)
    by_problem = [rows.y[rows.codes == p] @ rows.share[rows.codes == p] for p in range(20)]
    assert mean == pytest.approx(np.mean(by_problem), abs=1e-6)  # each problem weighs the same


def test_chunks_change_nothing(monkeypatch) -> None:
    rows = observe(PLANTED, "relative")
    fits = fit_families(rows)
    drawn = np.random.default_rng(1).multinomial(20, np.full(20, 0.05), size=8).astype(float)
    signs = np.ones(8, int)
    whole = refit(fits, drawn, signs)
    monkeypatch.setattr("branchdiag.stats.schedule_solver.CELLS", 400)
    monkeypatch.setattr("branchdiag.stats.schedule_refit.CELLS", 700)
    monkeypatch.setattr("branchdiag.stats.schedule_refit.CELLS_OF_REFITS", 600)
    parts = refit(fits, drawn, signs)
    np.testing.assert_array_equal(whole.sigmoid, parts.sigmoid)
    np.testing.assert_allclose(whole.theta, parts.theta, rtol=1e-6, atol=1e-6)


def test_a_fit_stays_inside_its_bounds_on_separated_data() -> None:
    r = np.linspace(0, 1, 30)
    curve = curve_over(r, with_control=False).family(sigmoid=True, sign=1)
    y = (r > 0.4).astype(float)
    theta, losses = fit_many(curve, y, np.ones((1, 30)), np.array([[0.0, 0.0, 0.5, -2.0]]))
    low, high = curve.bounds.T
    assert ((theta >= low) & (theta <= high)).all()
    assert np.isfinite(losses).all()
    _, best = fit_best(curve, y, np.ones(30), np.array([[2.0, -2.0, 0.4, -3.0]]))
    assert losses[0] == pytest.approx(best, abs=0.01)


def test_the_loss_is_half_the_deviance_less_what_no_parameter_changes() -> None:
    mean, y, weights = np.array([[0.3, 0.6]]), np.array([0.5, 1.0]), np.array([[2.0, 1.0]])
    expected = -2 * (0.5 * np.log(0.3) + 0.5 * np.log(0.7)) - np.log(0.6)
    np.testing.assert_allclose(loss(mean, y, weights), [expected])
