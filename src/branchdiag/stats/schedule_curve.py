"""The curves that are fitted: a level times a sigmoid weight, and, for a ratio, a smooth control.

    mean(r) = hi [w + (1 - w) sigmoid(z)] g(r),  z = (r - tau) / s, or its negative (decreasing)

g is 1, or, for the relative estimand, the control arm's own success rate, a logistic curve in a
restricted cubic spline of r, fitted together with the children's so that what is unsure of the
control makes the ratio as unsure as it is. The weight is the schedule of arXiv 2605.21606; hi, in
(0, 1], is divided out, which caps a ratio at 1. A constant is the same without the bracket.

Parameters theta: logit hi, then for a sigmoid logit w, tau and log s, then the spline's. Knows
nothing of data beyond their positions. B is a batch of fits, C rows, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from branchdiag.stats.estimate import FloatArray, IntArray

Sign = Literal[1, -1]
"""+1 where the weight rises with r, -1 where it falls."""

LOGIT_BOUND = 8.0
"""Bounds hi and w to 0.0003 and 0.9997."""
TAU_BOUNDS = (-0.2, 1.2)
SCALE_BOUNDS = (0.02, 1.0)
SPLINE_BOUND = 12.0
SMALLEST_CHANCE = 1e-9
KNOT_SHARES = (0.05, 0.35, 0.65, 0.95)
"""Quantiles of r at which the restricted cubic spline of the control bends."""


@dataclass(frozen=True)
class Parameters:
    """What is reported: the level hi and the weight's w_min, tau and s."""

    hi: float
    w_min: float
    tau: float
    s: float


@dataclass(frozen=True)
class Means:
    """A batch of fits at their parameters, and what their derivatives have in common.

    theta: (B, K). shape: (B, 1) hi, and for a sigmoid (B, 3) hi, w and s. mean: (B, C) chances of
    success. turn: (B, R) tanh(z / 2), which is how far the sigmoid has come, from -1 to 1. control:
    (B, R) the control's chance of success.
    """

    theta: FloatArray
    shape: FloatArray
    mean: FloatArray
    turn: FloatArray | None
    control: FloatArray | None

    @cached_property
    def missed(self) -> FloatArray:
        """(B, C) chances of failure."""
        return np.asarray(1.0 - self.mean)

    def of(self, fits: IntArray) -> Means:
        """Some of the fits."""
        parts = (self.turn, self.control)
        turn, control = (None if part is None else part[fits] for part in parts)
        return Means(self.theta[fits], self.shape[fits], self.mean[fits], turn, control)


@dataclass(frozen=True)
class Curve:
    """A family of curves over the rows of a likelihood.

    r: (R,) positions of the children's rows. basis: (R, J) the spline there; J = 0 without a
    control, and otherwise the children's rows are followed by the control's at the same positions,
    which show g alone: C = 2 R. sigmoid: else constant. sign: of the sigmoid.
    """

    r: FloatArray
    basis: FloatArray
    sigmoid: bool
    sign: Sign = 1

    @cached_property
    def has_control(self) -> bool:
        """Whether the control's rows follow the children's."""
        return bool(self.basis.shape[1] > 0)

    @cached_property
    def n_rows(self) -> int:
        """C."""
        return self.r.size * (2 if self.has_control else 1)

    @cached_property
    def n_shape(self) -> int:
        """Parameters before the spline's."""
        return 4 if self.sigmoid else 1

    @cached_property
    def n_parameters(self) -> int:
        """K."""
        return self.n_shape + int(self.basis.shape[1])

    @cached_property
    def bounds(self) -> FloatArray:
        """(K, 2) lowest and highest value of each parameter."""
        logit = (-LOGIT_BOUND, LOGIT_BOUND)
        scale = (float(np.log(SCALE_BOUNDS[0])), float(np.log(SCALE_BOUNDS[1])))
        shape = [logit, logit, TAU_BOUNDS, scale] if self.sigmoid else [logit]
        spline = [(-SPLINE_BOUND, SPLINE_BOUND)] * self.basis.shape[1]
        return np.array(shape + spline, dtype=np.float64)

    @cached_property
    def basis_products(self) -> FloatArray:
        """(R, J J) products of every two columns of the basis."""
        products = self.basis[:, :, np.newaxis] * self.basis[:, np.newaxis]
        return products.reshape(self.r.size, -1)

    def family(self, *, sigmoid: bool, sign: Sign = 1) -> Curve:
        """Another family over the same rows."""
        return replace(self, sigmoid=sigmoid, sign=sign)

    def only(self, positions: IntArray) -> Curve:
        """The same family over some of the positions, children's and control's."""
        return replace(self, r=self.r[positions], basis=self.basis[positions])

    def mean(self, theta: FloatArray) -> FloatArray:
        """(B, C) chances of success at parameters (B, K)."""
        return self.at(theta).mean

    def at(self, theta: FloatArray) -> Means:
        """The chances of success at parameters (B, K), and how they come about."""
        turn = control = None
        if self.sigmoid:
            shape = np.empty((theta.shape[0], 3))
            shape[:, :2], shape[:, 2] = sigmoid(theta[:, :2]), np.exp(theta[:, 3])
            hi, w, s = shape[:, :1], shape[:, 1:2], shape[:, 2:]
            turn = self.r - theta[:, 2:3]
            turn *= (0.5 * self.sign) / s
            np.tanh(turn, out=turn)
            half = (0.5 - 0.5 * w) * hi
            child = half * turn
            child += hi - half
        else:
            shape = sigmoid(theta[:, :1])
            child = np.repeat(shape, self.r.size, axis=1)
        if not self.has_control:
            return Means(theta, shape, child, turn, None)  # bounds keep it from 0 and 1
        control = sigmoid(theta[:, self.n_shape :] @ self.basis.T)
        mean = np.empty((theta.shape[0], self.n_rows))
        np.multiply(child, control, out=mean[:, : self.r.size])
        mean[:, self.r.size :] = control
        np.clip(mean, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE, out=mean)
        return Means(theta, shape, mean, turn, control)

    def mean_at(self, theta: FloatArray, row: IntArray) -> FloatArray:
        """(B,) the chance of success of each fit (B, K) at one row (B,) of its own."""
        position = row % self.r.size
        control = np.einsum("bj,bj->b", theta[:, self.n_shape :], self.basis[position])
        chance = sigmoid(control) if self.has_control else np.ones(row.size)
        child = sigmoid(theta[:, 0]) * self.weight(theta, self.r[position, np.newaxis])[:, 0]
        chance *= np.where(row < self.r.size, child, 1.0)
        return np.clip(chance, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE)

    def mean_and_slopes(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean (B, C) and its derivatives by each parameter (B, K, C)."""
        means = self.at(theta)
        mean, turn, control = means.mean, means.turn, means.control
        n_children = self.r.size
        slopes = np.empty((theta.shape[0], self.n_parameters, self.n_rows))
        child, hi = slopes[:, : self.n_shape, :n_children], means.shape[:, :1]
        child[:, 0] = (1.0 - hi) * mean[:, :n_children]
        if turn is not None:
            w, s = means.shape[:, 1:2], means.shape[:, 2:]
            below = (hi if control is None else hi * control) * (0.5 - 0.5 * turn)
            np.multiply(below, w * (1.0 - w), out=child[:, 1])
            below *= 0.5 + 0.5 * turn
            np.multiply(below, (w - 1.0) * self.sign / s, out=child[:, 2])
            np.multiply(child[:, 2], self.r - theta[:, 2:3], out=child[:, 3])
        if control is not None:
            slopes[:, : self.n_shape, n_children:] = 0.0
            unsure = 1.0 - control
            for half in (slice(None, n_children), slice(n_children, None)):
                moved = (mean[:, half] * unsure)[:, np.newaxis]
                np.multiply(moved, self.basis.T, out=slopes[:, self.n_shape :, half])
        return mean, slopes

    def weight(self, theta: FloatArray, r: FloatArray) -> FloatArray:
        """(B, R) the weight w(r) of each fit at positions (R,) or (B, R); 1 for a constant."""
        if not self.sigmoid:
            return np.ones((theta.shape[0], r.shape[-1]))
        w = sigmoid(theta[:, 1:2])
        z = self.sign * (r - theta[:, 2:3]) / np.exp(theta[:, 3:4])
        return np.asarray(w + (1.0 - w) * sigmoid(z))

    def control_at(self, theta: FloatArray, basis: FloatArray) -> FloatArray:
        """(B, R) the control's chance of success for rows (R, J) of the spline."""
        return np.asarray(sigmoid(theta[:, self.n_shape :] @ basis.T))

    def parameters(self, theta: FloatArray) -> Parameters:
        """What one sigmoid's parameters (K,) mean."""
        hi, w = sigmoid(theta[:2])
        return Parameters(float(hi), float(w), float(theta[2]), float(np.exp(theta[3])))


def curve_over(r: FloatArray, *, with_control: bool) -> Curve:
    """The constant family over children at positions r (R,), and over as many controls if told."""
    return Curve(r, spline_basis(r, r) if with_control else np.zeros((r.size, 0)), sigmoid=False)


def spline_basis(r: FloatArray, positions: FloatArray) -> FloatArray:
    """Intercept and restricted cubic spline of `positions` (R,), with knots from r: (R, J).

    Linear beyond the outer knots, so the ends stay steady where data are few. Columns are scaled
    over r. With few different positions the knots that fall together are dropped.
    """
    knots = np.unique(np.quantile(r, KNOT_SHARES))
    columns = [_restricted_cubic(positions, knots), _restricted_cubic(r, knots)]
    centre, spread = columns[1].mean(axis=0), columns[1].std(axis=0)
    scaled = (columns[0] - centre) / np.where(spread > 0, spread, 1.0)
    return np.column_stack([np.ones(positions.size), scaled])


def _restricted_cubic(x: FloatArray, knots: FloatArray) -> FloatArray:
    columns = [x]
    if knots.size >= 3:
        last, before = knots[-1], knots[-2]
        for knot in knots[:-2]:
            cubes = [np.clip(x - k, 0.0, None) ** 3 for k in (knot, before, last)]
            span = last - before
            bent = cubes[0] - cubes[1] * (last - knot) / span + cubes[2] * (before - knot) / span
            columns.append(bent / (last - knots[0]) ** 2)
    return np.column_stack(columns)


def sigmoid(x: FloatArray) -> FloatArray:
    """The logistic function."""
    # tanh neither overflows nor branches; fitted logits are bounded, so its rounding is harmless.
    value = np.asarray(0.5 * x)
    np.tanh(value, out=value)
    value += 1.0
    value *= 0.5
    return value
