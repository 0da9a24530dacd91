"""The folds of many resamples at once, against loops; and refits, against SciPy one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_data import observe
from branchdiag.stats.schedule_folds import Folds
from branchdiag.stats.schedule_likelihood import Weightings, derivatives, loss_of
from branchdiag.stats.schedule_refit import RESAMPLE_FOLDS, fit_families, left_out_loss, refit
from branchdiag.stats.schedule_solver import fit_many, loss
from tests.unit.schedule import schedule_oracle as slow
from tests.unit.schedule.planted_schedules import candidates, level, plant, shape

RISING, FALLING = shape(0.4, 0.3, 0.1), shape(0.4, 0.6, 0.15, falling=True)
STEP = lambda r: np.where(r < 0.45, 0.05, 0.95)  # noqa: E731


def draws(n_problems: int, n_draws: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_problems, np.full(n_problems, 1 / n_problems), n_draws) + 0.0


def tied(seed: int = 0):
    """Candidates at few positions, so that problems share them."""
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(9), 4)
    r = generator.choice([0.05, 0.3, 0.45, 0.7, 0.9], problem.size)
    return candidates(r, problem, generator.binomial(6, 0.3 + 0.6 * r[:, np.newaxis], (36, 4)))


@pytest.mark.parametrize("cells", [None, 1])
@pytest.mark.parametrize("groups", [None, 3])
@pytest.mark.parametrize("data", [tied(), plant(RISING, level(0.9), seed=1, n_problems=9)])
@pytest.mark.parametrize("estimand", ["viability", "relative"])
def test_a_fold_is_its_draw_less_its_rows(estimand, data, groups, cells, monkeypatch) -> None:
    if cells:
        monkeypatch.setattr("branchdiag.stats.schedule_folds.CELLS", cells)
    rows = observe(data, estimand)
    fits, drawn = fit_families(rows), draws(rows.n_problems, 5)
    weights = drawn[:, rows.codes] * rows.share
    folds = (np.arange(rows.n_problems) % (groups or rows.n_problems))[rows.codes]
    generator = np.random.default_rng(3)
    for curve, theta in (
        (fits.constant, fits.constant_theta),
        (fits.sigmoids[-1], fits.sigmoid_thetas[-1]),
    ):
        batch = Folds.of(curve, rows.y, weights, folds)
        pairs = [(n, f) for n in range(5) for f in np.unique(folds[weights[n] > 0])]
        assert batch.draw.tolist() == [n for n, _ in pairs]
        kept = np.array([np.where(folds == f, 0.0, weights[n]) for n, f in pairs])
        np.testing.assert_allclose(batch.weight(), kept.sum(axis=1))
        points = theta + 0.1 * generator.normal(size=(5, theta.size))
        points = np.clip(points, *curve.bounds.T)
        whole = Weightings.of(curve, rows.y, kept)
        means = whole.curve.at(points[batch.draw])
        losses, slopes = batch.at(points)
        expected = derivatives(whole.curve, means, whole.outcomes)
        np.testing.assert_allclose(losses, loss_of(means, whole.outcomes), rtol=1e-10)
        np.testing.assert_allclose(slopes.gradient, expected.gradient, atol=1e-9)
        np.testing.assert_allclose(slopes.information, expected.information, atol=1e-9)
        # Of some fits, over the positions that these weigh.
        for some in (np.array([0, 2]), np.array([1, len(pairs) - 1]), np.arange(len(pairs))):
            narrow, outcomes = batch.some(some)
            means = narrow.at(points[batch.draw[some]])
            np.testing.assert_allclose(
                loss_of(means, outcomes), losses[some], rtol=1e-10, atol=1e-12
            )
        fitted = theta + 0.1 * generator.normal(size=(len(pairs), theta.size))
        left = np.zeros(5)
        for (n, _), mine, one in zip(pairs, kept, fitted, strict=True):
            mean = curve.mean(one[np.newaxis])
            left[n] += loss(mean, rows.y, (weights[n] - mine)[np.newaxis])[0]
        np.testing.assert_allclose(batch.left_out(fitted), left, rtol=1e-10)


PLANTED = {
    "rising": (RISING, level(0.9), 8, 1.0),
    "falling": (FALLING, level(0.9), 8, 1.0),
    "flat": (level(0.6), level(0.7), 8, 1.0),
    "separated": (STEP, level(0.9), 8, 0.0),
    "few problems": (RISING, level(0.9), 4, 0.5),
}


def study(name: str, estimand: str, n_draws: int):
    """Rows, estimates, draws of at least three problems, and the way of the planted curve."""
    child, control, n_problems, sd = PLANTED[name]
    data = plant(child, control, seed=11, n_problems=n_problems, problem_sd=sd)
    rows = observe(data, estimand)
    drawn = draws(n_problems, 20, seed=4)
    drawn = drawn[(drawn > 0).sum(axis=1) >= 3][:n_draws]
    return rows, fit_families(rows), drawn, -1 if name == "falling" else 1


@pytest.mark.parametrize("estimand", ["viability", "relative"])
@pytest.mark.parametrize("name", list(PLANTED))
def test_many_fits_go_the_way_of_one_in_plain_steps(name, estimand) -> None:
    rows, fits, drawn, sign = study(name, estimand, 3)
    weights = drawn[:, rows.codes] * rows.share
    for way in (None, sign):
        curve = fits.constant if way is None else fits.sigmoids[way]
        estimate = fits.constant_theta if way is None else fits.sigmoid_thetas[way]
        of_curve = curve.r, curve.basis, way
        theta, _ = fit_many(curve, rows.y, weights, np.tile(estimate, (3, 1)), iterations=20)
        told = left_out_loss(rows, curve, theta, drawn, RESAMPLE_FOLDS) * drawn.sum(axis=1)
        for b in range(3):
            alone = slow.score(estimate, rows.y, weights[b], *of_curve, 20, 1e-9)
            np.testing.assert_allclose(theta[b], alone, rtol=1e-5, atol=1e-5)

            def without_a_fold(kept, start=theta[b], of_curve=of_curve):
                return slow.score(start, rows.y, kept, *of_curve, 15, 1e-6)

            left = slow.left_out(without_a_fold, rows.y, weights[b], rows.codes, *of_curve)
            assert told[b] == pytest.approx(left, rel=1e-5)


@pytest.mark.parametrize("estimand", ["viability", "relative"])
@pytest.mark.parametrize("name", list(PLANTED))
def test_refits_and_their_choices_are_those_of_scipy(name, estimand) -> None:
    rows, fits, drawn, sign = study(name, estimand, 2)
    made = refit(fits, drawn, np.full(2, sign))
    r, basis = fits.constant.r, fits.constant.basis
    for b, multiplicity in enumerate(drawn):
        weights = multiplicity[rows.codes] * rows.share
        constant, _ = slow.fit(fits.constant_theta, rows.y, weights, r, basis, None)
        starts = [fits.sigmoid_thetas[sign], np.r_[made.theta[b], constant[1:]]]
        found = [slow.fit(start, rows.y, weights, r, basis, sign) for start in starts]
        sigmoid, lowest = min(found, key=lambda one: one[1])
        # On the flat of a valley a search may stop anywhere, but not much above the other.
        assert found[1][1] <= lowest + 0.01
        told = [
            slow.left_out(
                lambda kept, start=theta, way=way: slow.fit(start, rows.y, kept, r, basis, way)[0],
                *(rows.y, weights, rows.codes, r, basis, way),
            )
            for theta, way in ((constant, None), (sigmoid, sign))
        ]
        # Folds in valleys stop early, which decides only where the models are about as good.
        if abs(told[0] - told[1]) > 0.05 * multiplicity.sum():
            assert made.sigmoid[b] == (told[1] < told[0])
