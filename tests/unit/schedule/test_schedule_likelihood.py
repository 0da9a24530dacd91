"""The likelihood of a batch, against arrays of slopes and against the formula row by row."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_curve import Curve, curve_over
from branchdiag.stats.schedule_likelihood import (
    Outcomes,
    Weightings,
    derivatives,
    loss_and_slope,
    loss_of,
    pool,
)
from tests.unit.schedule.schedule_oracle import chances, losses

R = np.array([0.1, 0.35, 0.35, 0.5, 0.62, 0.62, 0.62, 0.8, 0.97])


def families() -> list[Curve]:
    constants = [curve_over(R, with_control=control) for control in (False, True)]
    rising = [one.family(sigmoid=True, sign=1) for one in constants]
    return [*constants, *rising, *(one.family(sigmoid=True, sign=-1) for one in constants)]


def some_theta(curve: Curve, batch: int = 4, *, at_bounds: bool = False) -> np.ndarray:
    generator = np.random.default_rng(5)
    low, high = curve.bounds.T
    if at_bounds:
        return np.where(generator.random((batch, low.size)) < 0.5, low, high)
    return generator.uniform(np.maximum(low, -2.5), np.minimum(high, 2.5), (batch, low.size))


def sign_of(curve: Curve) -> int | None:
    return curve.sign if curve.sigmoid else None


@pytest.mark.parametrize("at_bounds", [False, True])
@pytest.mark.parametrize("curve", families())
def test_derivatives_are_those_of_an_array_of_slopes(curve, at_bounds) -> None:
    theta = some_theta(curve, at_bounds=at_bounds)
    successes, failures = np.random.default_rng(1).random((2, 4, curve.n_rows))
    mean, slopes = curve.mean_and_slopes(theta)
    gradient = np.einsum("bkc,bc->bk", slopes, successes / mean - failures / (1 - mean))
    known = (successes + failures) / (mean * (1 - mean))
    information = np.einsum("bkc,blc,bc->bkl", slopes, slopes, known)
    outcomes, means = Outcomes(successes, failures), curve.at(theta)
    made = derivatives(curve, means, outcomes)
    close = {"rtol": 1e-9, "atol": 1e-9 * max(1.0, np.abs(gradient).max())}
    np.testing.assert_allclose(made.gradient, gradient, **close)
    np.testing.assert_allclose(made.information, information, rtol=1e-8, atol=1e-9)
    for one in range(4):
        loss, slope = loss_and_slope(curve, theta[one], outcomes.of(np.array([one])))
        assert loss == pytest.approx(loss_of(means, outcomes)[one], rel=1e-12)
        np.testing.assert_allclose(slope, -gradient[one], **close)


@pytest.mark.parametrize("curve", families())
def test_means_are_those_of_the_formula(curve) -> None:
    for theta in some_theta(curve):
        expected = chances(theta, R, curve.basis, sign_of(curve))
        np.testing.assert_allclose(curve.mean(theta[np.newaxis])[0], expected, atol=1e-13)
        rows = np.arange(curve.n_rows)[::-1]
        one_each = curve.mean_at(np.tile(theta, (rows.size, 1)), rows)
        np.testing.assert_allclose(one_each, expected[rows], atol=1e-13)


@pytest.mark.parametrize("curve", families())
def test_rows_of_one_mean_are_added_up_and_lose_nothing(curve) -> None:
    pooled, row = pool(curve)
    alone = not curve.sigmoid and not curve.has_control
    assert pooled.r.size == (1 if alone else np.unique(R).size)
    generator = np.random.default_rng(2)
    y, weights = generator.random(curve.n_rows), generator.random((3, curve.n_rows))
    batch = Weightings.of(curve, y, weights)
    np.testing.assert_allclose(batch.weight(), weights.sum(axis=1))
    theta = some_theta(curve, 3)
    np.testing.assert_allclose(pooled.mean(theta)[:, row], curve.mean(theta), atol=1e-14)
    expected = [
        w @ losses(t, y, R, curve.basis, sign_of(curve))
        for w, t in zip(weights, theta, strict=True)
    ]
    np.testing.assert_allclose(loss_of(pooled.at(theta), batch.outcomes), expected, rtol=1e-12)
