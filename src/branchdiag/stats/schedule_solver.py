"""Weighted binomial fits of a curve: one with care, or thousands at once.

`fit_best` takes SciPy's L-BFGS-B from many starts; it makes the estimate. `fit_many` runs projected
Fisher scoring with Levenberg damping on a batch of weightings of the same rows, in arrays: it makes
the bootstrap's refits and the leave-one-problem-out folds, where 20,000 fits of one curve would
take L-BFGS-B minutes. Both minimise the same quasi-likelihood under the same bounds with analytic
derivatives, and are held against each other by the tests. Knows nothing of estimands or problems.
"""

from __future__ import annotations

import numpy as np

from branchdiag.stats.estimate import FloatArray
from branchdiag.stats.schedule_curve import Curve

CELLS = 2**18
"""Fits times rows that are worked on at once: what stays in a processor's cache."""
HIGHEST_DAMPING = 1e8


def loss(mean: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Minus the weighted log-likelihood of shares y (C,) at means (B, C): (B,).

    Half the deviance, up to a term that no parameter changes.
    """
    likelihood: FloatArray = y * np.log(mean) + (1.0 - y) * np.log1p(-mean)
    value: FloatArray = -np.einsum("bc,bc->b", weights, likelihood)
    return value


def fit_best(
    curve: Curve, y: FloatArray, weights: FloatArray, starts: FloatArray
) -> tuple[FloatArray, float]:
    """The best of L-BFGS-B from each start.

    Args:
        y, weights: (C,).
        starts: (S, K).

    Returns:
        theta (K,) and its loss.
    """
    from scipy.optimize import minimize

    def value_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        mean, slopes = curve.mean_and_slopes(theta[np.newaxis])
        score = weights * (y - mean[0]) / (mean[0] * (1.0 - mean[0]))
        return float(loss(mean, y, weights[np.newaxis])[0]), -(slopes[0] @ score)

    bounds = [(float(low), float(high)) for low, high in curve.bounds]
    best, lowest = _inside(curve, starts)[0], np.inf
    for start in _inside(curve, starts):
        found = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-9},
        )
        if float(found.fun) < lowest:
            best, lowest = np.asarray(found.x, dtype=np.float64), float(found.fun)
    return best, lowest


def fit_many(
    curve: Curve,
    y: FloatArray,
    weights: FloatArray,
    starts: FloatArray,
    *,
    iterations: int = 60,
    tolerance: float = 1e-9,
) -> tuple[FloatArray, FloatArray]:
    """One fit for each row of weights, from its own start.

    Args:
        y: (C,).
        weights: (B, C).
        starts: (B, K).
        iterations: at most; a fit stops earlier once no step can gain more than `tolerance` times
            its total weight.

    Returns:
        theta (B, K) and losses (B,).
    """
    theta = _inside(curve, starts)
    losses = np.empty(theta.shape[0])
    step = max(1, CELLS // max(1, curve.n_rows))
    for first in range(0, theta.shape[0], step):
        part = slice(first, first + step)
        theta[part], losses[part] = _score(
            curve, y, weights[part], theta[part], iterations, tolerance
        )
    return theta, losses


def _score(
    curve: Curve,
    y: FloatArray,
    weights: FloatArray,
    theta: FloatArray,
    iterations: int,
    tolerance: float,
) -> tuple[FloatArray, FloatArray]:
    theta = theta.copy()
    low, high = curve.bounds.T
    losses = loss(curve.mean(theta), y, weights)
    damping = np.full(theta.shape[0], 1e-3)
    enough = tolerance * np.maximum(weights.sum(axis=1), 1e-300)
    active = np.arange(theta.shape[0])
    for _ in range(iterations):
        here = theta[active]
        drawn = weights if active.size == theta.shape[0] else weights[active]
        gradient, information = _derivatives(curve, y, drawn, here)
        move, promised = _step(here, gradient, information, damping[active], low, high)
        trial = np.clip(here + move, low, high)
        reached = loss(curve.mean(trial), y, drawn)
        gain = losses[active] - reached
        better = gain > 0.0
        theta[active[better]] = trial[better]
        losses[active[better]] = reached[better]
        damping[active] = np.where(
            better, np.maximum(damping[active] * 0.2, 1e-9), damping[active] * 8.0
        )
        settled = (better & (gain <= enough[active])) | (promised <= enough[active])
        active = active[~settled & (damping[active] < HIGHEST_DAMPING)]
        if active.size == 0:
            break
    return theta, losses


def _derivatives(
    curve: Curve, y: FloatArray, weights: FloatArray, theta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Uphill gradient of the log-likelihood (B, K) and its expected information (B, K, K)."""
    mean, slopes = curve.mean_and_slopes(theta)
    per_row = weights / (mean * (1.0 - mean))
    gradient = np.matmul(slopes, (per_row * (y - mean))[..., np.newaxis])[..., 0]
    slopes *= np.sqrt(per_row)[:, np.newaxis, :]
    return gradient, np.matmul(slopes, slopes.transpose(0, 2, 1))


def _step(
    theta: FloatArray,
    gradient: FloatArray,
    information: FloatArray,
    damping: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """A damped scoring step of the parameters that are free, and the gain that it promises."""
    held = ((theta <= low) & (gradient <= 0.0)) | ((theta >= high) & (gradient >= 0.0))
    free = ~held
    matrix = information * (free[:, :, np.newaxis] & free[:, np.newaxis, :])
    diagonal = np.einsum("bkk->bk", matrix)
    # A parameter on which nothing depends any more must not make the system singular.
    floor = 1e-10 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-10)
    ridge = np.where(free, damping[:, np.newaxis] * diagonal + floor, 1.0)
    matrix[:, np.arange(theta.shape[1]), np.arange(theta.shape[1])] += ridge
    uphill = np.where(free, gradient, 0.0)
    move = np.linalg.solve(matrix, uphill[..., np.newaxis])[..., 0]
    move = np.clip(move, low - theta, high - theta)
    return move, np.einsum("bk,bk->b", uphill, move)


def _inside(curve: Curve, starts: FloatArray) -> FloatArray:
    return np.clip(starts, curve.bounds[:, 0], curve.bounds[:, 1])
