"""Curves and their derivatives, against differences and against the formula."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.schedule_curve import curve_over, spline_basis

R = np.sort(np.random.default_rng(0).random(12))


def families():
    for with_control in (False, True):
        constant = curve_over(R, with_control=with_control)
        yield constant
        for sign in (1, -1):
            yield constant.family(sigmoid=True, sign=sign)


def some_theta(curve, seed=1, batch=3):
    generator = np.random.default_rng(seed)
    shape = [generator.normal(size=batch), generator.normal(size=batch)]
    shape += [generator.random(batch), np.log(generator.uniform(0.05, 0.5, batch))]
    spline = generator.normal(size=(batch, curve.basis.shape[1]))
    return np.column_stack([np.array(shape[: curve.n_shape]).T, spline])


@pytest.mark.parametrize("curve", list(families()))
def test_slopes_are_those_of_differences(curve) -> None:
    theta, h = some_theta(curve), 1e-6
    mean, slopes = curve.mean_and_slopes(theta)
    np.testing.assert_array_equal(mean, curve.mean(theta))
    assert slopes.shape == (3, curve.n_parameters, curve.n_rows)
    for k in range(curve.n_parameters):
        step = np.zeros(curve.n_parameters)
        step[k] = h
        numeric = (curve.mean(theta + step) - curve.mean(theta - step)) / (2 * h)
        np.testing.assert_allclose(slopes[:, k], numeric, atol=1e-8)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_mean_is_level_times_weight_times_control(sign) -> None:
    curve = curve_over(R, with_control=True).family(sigmoid=True, sign=sign)
    theta = some_theta(curve, batch=1)
    found = curve.parameters(theta[0])
    control = 1 / (1 + np.exp(-curve.basis @ theta[0, 4:]))
    weight = found.w_min + (1 - found.w_min) / (1 + np.exp(-sign * (R - found.tau) / found.s))
    np.testing.assert_allclose(
        curve.mean(theta)[0], np.concatenate([found.hi * weight * control, control]), atol=1e-12
    )
    np.testing.assert_allclose(curve.weight(theta, R)[0], weight, atol=1e-12)


def test_the_spline_is_smooth_and_straight_outside_its_knots() -> None:
    r = np.linspace(0, 1, 200)
    outside = spline_basis(r, np.linspace(0.96, 1.4, 50))
    np.testing.assert_allclose(np.diff(outside, n=2, axis=0), 0, atol=1e-10)
    inside = spline_basis(r, r)
    assert inside.shape == (200, 4)
    assert np.abs(np.diff(inside, n=2, axis=0)).max() < 0.01


def test_few_positions_leave_a_straight_line_and_no_nan() -> None:
    for r in (np.full(5, 0.4), np.array([0.2, 0.2, 0.8])):
        assert np.isfinite(spline_basis(r, np.linspace(0, 1, 7))).all()
