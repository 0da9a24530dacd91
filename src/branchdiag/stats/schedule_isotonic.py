"""Weighted isotonic curves: what the data say without a form, and where a sigmoid fit starts.

Reads arrays, writes arrays; knows nothing of likelihoods or problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from branchdiag.stats.estimate import FloatArray
from branchdiag.stats.schedule_curve import SCALE_BOUNDS, TAU_BOUNDS, Sign

QUARTERS_OF_A_SIGMOID = 2.197
"""2 ln 3: from a quarter to three quarters of a logistic rise, in units of its scale."""


@dataclass(frozen=True)
class Isotonic:
    """The closest monotone step function: levels of r in order, and its value at each."""

    r: FloatArray
    y: FloatArray


def isotonic(r: FloatArray, y: FloatArray, weights: FloatArray, *, increasing: bool) -> Isotonic:
    """Weighted least-squares monotone fit; rows of equal r share a value, weight 0 is left out.

    Args:
        r, y, weights: (C,), with some weight above 0.
    """
    levels, index = np.unique(r, return_inverse=True)
    mass, sums = (
        np.bincount(index, values).astype(np.float64) for values in (weights, weights * y)
    )
    return isotonic_of_levels(levels, mass, sums, increasing=increasing)


def isotonic_of_levels(
    r: FloatArray, mass: FloatArray, sums: FloatArray, *, increasing: bool
) -> Isotonic:
    """The same from what lies at each level of r.

    Args:
        r: (R,) different, in order.
        mass, sums: (R,) of the weights, and of the weights times y.
    """
    from scipy.optimize import isotonic_regression

    used = mass > 0.0
    fit = isotonic_regression(sums[used] / mass[used], weights=mass[used], increasing=increasing)
    return Isotonic(r[used], np.asarray(fit.x, dtype=np.float64))


@dataclass(frozen=True)
class Start:
    """A first guess at a sigmoid: its level, lowest weight, middle and scale."""

    hi: float
    w_min: float
    tau: float
    s: float


def sigmoid_start(r: FloatArray, y: FloatArray, weights: FloatArray, sign: Sign) -> Start:
    """From the isotonic fit: tau where it is half-way, s from where it is at its quarters.

    Args:
        r, y, weights: (C,), with some weight above 0.
        sign: +1 for a rise, -1 for a fall.
    """
    return start_of(isotonic(r, y, weights, increasing=sign > 0), sign)


def start_of(steps: Isotonic, sign: Sign) -> Start:
    """`sigmoid_start` for steps that are known."""
    bottom, top = float(steps.y.min()), float(steps.y.max())
    hi = min(max(top, 0.02), 0.98)
    middle = 0.5 * float(steps.r[0] + steps.r[-1])
    if top - bottom <= 0.0:
        return Start(hi, 0.9, middle, 0.1)
    reached = [_crossing(steps, bottom + part * (top - bottom), sign) for part in (0.25, 0.5, 0.75)]
    scale = abs(reached[2] - reached[0]) / QUARTERS_OF_A_SIGMOID
    return Start(
        hi,
        min(max(bottom / top, 0.02), 0.98),
        min(max(reached[1], TAU_BOUNDS[0]), TAU_BOUNDS[1]),
        # Half-way to the bound at least: a start on a bound may not leave it.
        min(max(scale, 1.5 * SCALE_BOUNDS[0]), 0.7 * SCALE_BOUNDS[1]),
    )


def _crossing(steps: Isotonic, level: float, sign: Sign) -> float:
    """Where the steps pass a level: between the last position below it and the first not below."""
    high = steps.y >= level if sign > 0 else steps.y <= level
    first = int(np.argmax(high))
    return float(0.5 * (steps.r[max(first - 1, 0)] + steps.r[first]))
