"""Fits of a schedule one at a time and from the formula: what the fast ones are held to.

Shares no code with `branchdiag.stats`: chances row by row from the logistic function, slopes by a
complex step, which is exact to the last digits. Parameters are logit hi, for a sigmoid logit w, tau
and log s, and then the control's spline. `fit` is SciPy's; `score` is the search of the fast fits
in plain steps, so that even what it leaves undone must agree.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

BOUNDS = [(-8.0, 8.0), (-8.0, 8.0), (-0.2, 1.2), (np.log(0.02), np.log(1.0))]


def expit(x):
    """The logistic function, of complex numbers too."""
    return 1.0 / (1.0 + np.exp(-x))


def chances(theta, r, basis, sign: int | None) -> np.ndarray:
    """Of success at each row (..., C): children's, then the control's if there is a spline.

    Args:
        theta: (..., K).
        sign: None for a constant.
    """
    part = [theta[..., k, np.newaxis] for k in range(theta.shape[-1])]
    weight, n_shape = 1.0 + 0.0 * r, 1
    if sign is not None:
        w, n_shape = expit(part[1]), 4
        weight = w + (1.0 - w) * expit(sign * (r - part[2]) / np.exp(part[3]))
    child = expit(part[0]) * weight
    if basis.shape[1]:
        control = expit(theta[..., n_shape:] @ basis.T)
        child = np.concatenate([child * control, control], axis=-1)
    return np.where(child.real < 1e-9, 1e-9, np.where(child.real > 1 - 1e-9, 1 - 1e-9, child))


def losses(theta, y, r, basis, sign) -> np.ndarray:
    """Minus the log-likelihood of each row."""
    mean = chances(theta, r, basis, sign)
    return -(y * np.log(mean) + (1.0 - y) * np.log1p(-mean))


def slopes(theta, r, basis, sign) -> np.ndarray:
    """Of the chances by each parameter (K, C)."""
    step = 1e-30
    return chances(theta + 1j * step * np.eye(theta.size), r, basis, sign).imag / step


def bounds_of(basis, sign) -> np.ndarray:
    """Lowest and highest value of each parameter (K, 2)."""
    return np.array(BOUNDS[: 1 if sign is None else 4] + [(-12.0, 12.0)] * basis.shape[1])


def fit(start, y, weights, r, basis, sign) -> tuple[np.ndarray, float]:
    """The best parameters that L-BFGS-B finds from a start, and their loss."""

    def value_and_gradient(theta):
        mean = chances(theta, r, basis, sign)
        pull = weights * (mean - y) / (mean * (1.0 - mean))
        return weights @ losses(theta, y, r, basis, sign), slopes(theta, r, basis, sign) @ pull

    bounds = bounds_of(basis, sign)
    options = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-9}
    begin = np.clip(start, *bounds.T)
    found = minimize(value_and_gradient, begin, jac=True, bounds=bounds, options=options)
    return found.x, float(found.fun)


def score(start, y, weights, r, basis, sign, iterations: int, tolerance: float) -> np.ndarray:
    """Projected Fisher scoring with Levenberg damping, from one start."""
    low, high = bounds_of(basis, sign).T
    theta, damping = np.clip(start, low, high), 1e-3
    value = weights @ losses(theta, y, r, basis, sign)
    for _ in range(iterations):
        mean, slope = chances(theta, r, basis, sign), slopes(theta, r, basis, sign)
        known = weights / (mean * (1.0 - mean))
        uphill, information = slope @ (known * (y - mean)), (slope * known) @ slope.T
        held = ((theta <= low) & (uphill <= 0)) | ((theta >= high) & (uphill >= 0))
        free, move = np.flatnonzero(~held), np.zeros_like(theta)
        if free.size:
            matrix = information[np.ix_(free, free)]
            floor = 1e-10 * max(1e-10, matrix.diagonal().max())
            matrix = matrix + np.diag(damping * matrix.diagonal() + floor)
            move[free] = np.linalg.solve(matrix, uphill[free])
        trial = np.clip(theta + move, low, high)
        promised = uphill @ (trial - theta)
        reached = weights @ losses(trial, y, r, basis, sign)
        gain, better = value - reached, reached < value
        if better:
            theta, value = trial, reached
        damping = max(damping * 0.2, 1e-9) if better else damping * 8.0
        enough = tolerance * weights.sum()
        if (better and gain <= enough) or promised <= enough or damping >= 1e8:
            break
    return theta


def left_out(fit_of, y, weights, problem, r, basis, sign) -> float:
    """Loss of all drawn problems, each under the fit to the others.

    Args:
        fit_of: the parameters fitted to some weights.
    """
    total = 0.0
    for one in np.unique(problem[weights > 0]):
        mine = problem == one
        theta = fit_of(np.where(mine, 0.0, weights))
        total += float(weights[mine] @ losses(theta, y, r, basis, sign)[mine])
    return total
