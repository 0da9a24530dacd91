"""Weighted binomial fits of a curve: one with care, or thousands at once.

`fit_best` takes SciPy's L-BFGS-B from many starts; it makes the estimate. `fit_many` runs projected
Fisher scoring with Levenberg damping on a batch of weightings of the same rows, in arrays: it makes
the bootstrap's refits and the leave-one-problem-out folds, where 20,000 fits of one curve would
take L-BFGS-B minutes. Both minimise the same quasi-likelihood under the same bounds with analytic
derivatives, and are held against each other by the tests. Knows nothing of estimands or problems.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from branchdiag.stats.estimate import FloatArray, IntArray
from branchdiag.stats.schedule_curve import Curve
from branchdiag.stats.schedule_likelihood import (
    Batch,
    Derivatives,
    Weightings,
    derivatives,
    loss_and_slope,
    loss_of,
    loss_of_rows,
)

CELLS = 32_000
"""Fits times rows that are worked on at once: what stays in a processor's nearest caches."""
HIGHEST_DAMPING = 1e8


def loss(mean: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Minus the weighted log-likelihood of shares y (C,) at means (B, C): (B,)."""
    return np.asarray(np.vecdot(weights, loss_of_rows(mean, y)))


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

    rows = Weightings.of(curve, y, weights[np.newaxis])

    def value_and_gradient(theta: FloatArray) -> tuple[float, FloatArray]:
        return loss_and_slope(rows.curve, theta, rows.outcomes)

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
    batch = Weightings.of(curve, y, weights)
    return fit_batch(batch, theta, _at_starts(batch, theta), iterations, tolerance)


def fit_batch(
    batch: Batch,
    starts: FloatArray,
    known: tuple[FloatArray, Derivatives],
    iterations: int,
    tolerance: float,
) -> tuple[FloatArray, FloatArray]:
    """`fit_many` from starts (B, K) inside the bounds, with their losses and derivatives."""
    low, high = batch.curve.bounds.T
    theta, losses, slopes = starts.copy(), *known
    damping, turns = np.full(losses.size, 1e-3), np.zeros(losses.size, dtype=np.int64)
    enough = tolerance * np.maximum(batch.weight(), 1e-300)
    moving = np.arange(losses.size)
    while moving.size:
        here = theta[moving]
        move, promised = _step(here, slopes.of(moving), damping[moving], low, high)
        trial = np.clip(here + move, low, high)
        still = []
        for block in _blocks(batch, moving):
            fits = moving[block]
            curve, outcomes = batch.some(fits)
            means = curve.at(trial[block])
            reached = loss_of(means, outcomes)
            gain = losses[fits] - reached
            better = gain > 0.0
            theta[fits[better]], losses[fits[better]] = means.theta[better], reached[better]
            damping[fits] = np.where(
                better, np.maximum(damping[fits] * 0.2, 1e-9), damping[fits] * 8.0
            )
            turns[fits] += 1
            settled = (better & (gain <= enough[fits])) | (promised[block] <= enough[fits])
            settled |= (damping[fits] >= HIGHEST_DAMPING) | (turns[fits] >= iterations)
            still.append(fits[~settled])
            # A fit whose step was refused stands where it stood: its derivatives are known.
            went = np.flatnonzero(better & ~settled)
            if went.size == fits.size:
                slopes.put(fits, derivatives(curve, means, outcomes))
            elif went.size:
                slopes.put(fits[went], derivatives(curve, means.of(went), outcomes.of(went)))
        moving = np.concatenate(still)
    return theta, losses


def _blocks(batch: Batch, moving: IntArray) -> Iterator[slice]:
    """Fits that are worked on at once; those of one draw stay together unless too many."""
    draw, first = batch.draw[moving], 0
    step = max(1, CELLS // batch.n_rows)
    while first < moving.size:
        last = min(first + step, moving.size)
        if last < moving.size:
            whole = int(np.searchsorted(draw, draw[last]))
            last = whole if whole > first else last
        yield slice(first, last)
        first = last


def _at_starts(batch: Batch, starts: FloatArray) -> tuple[FloatArray, Derivatives]:
    losses, slopes = np.empty(starts.shape[0]), Derivatives.empty(*starts.shape)
    everything = np.arange(starts.shape[0])
    for block in _blocks(batch, everything):
        fits = everything[block]
        curve, outcomes = batch.some(fits)
        means = curve.at(starts[block])
        losses[block] = loss_of(means, outcomes)
        slopes.put(fits, derivatives(curve, means, outcomes))
    return losses, slopes


def _step(
    theta: FloatArray,
    slopes: Derivatives,
    damping: FloatArray,
    low: FloatArray,
    high: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """A damped scoring step of the parameters that are free, and the gain that it promises."""
    uphill, matrix = slopes.gradient, slopes.information.copy()
    diagonal = np.einsum("bkk->bk", matrix)
    held = ((theta <= low) & (uphill <= 0.0)) | ((theta >= high) & (uphill >= 0.0))
    if held.any():
        uphill = np.where(held, 0.0, uphill)
        matrix[held] = 0.0
        matrix.transpose(0, 2, 1)[held] = 0.0
    # A parameter on which nothing depends any more must not make the system singular.
    floor = 1e-10 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-10)
    diagonal += damping[:, np.newaxis] * diagonal + floor
    diagonal[held] = 1.0
    move = np.linalg.solve(matrix, uphill[..., np.newaxis])[..., 0]
    move = np.clip(move, low - theta, high - theta)
    return move, np.vecdot(uphill, move)


def _inside(curve: Curve, starts: FloatArray) -> FloatArray:
    return np.clip(starts, curve.bounds[:, 0], curve.bounds[:, 1])
