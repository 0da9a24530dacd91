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

from branchdiag.stats.estimate import FloatArray

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

    def family(self, *, sigmoid: bool, sign: Sign = 1) -> Curve:
        """Another family over the same rows."""
        return replace(self, sigmoid=sigmoid, sign=sign)

    def mean(self, theta: FloatArray) -> FloatArray:
        """(B, C) chances of success at parameters (B, K)."""
        return self._parts(theta)[0]

    def mean_and_slopes(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean (B, C) and its derivatives by each parameter (B, K, C)."""
        mean, hi, rise, z, control = self._parts(theta)
        n_children = self.r.size
        slopes = np.empty((theta.shape[0], self.n_parameters, self.n_rows))
        child = slopes[:, : self.n_shape, :n_children]
        child[:, 0] = (1.0 - hi) * mean[:, :n_children]
        if rise is not None and z is not None:
            w = _sigmoid(theta[:, 1:2])
            level = hi if control is None else hi * control
            below = level * (1.0 - rise)
            child[:, 1] = below * (w * (1.0 - w))
            bend = below * rise * (1.0 - w)
            child[:, 2] = bend * (-self.sign / np.exp(theta[:, 3:4]))
            child[:, 3] = bend * -z
        if control is not None:
            slopes[:, : self.n_shape, n_children:] = 0.0
            unsure = 1.0 - control
            for half in (slice(None, n_children), slice(n_children, None)):
                moved = (mean[:, half] * unsure)[:, np.newaxis]
                np.multiply(moved, self.basis.T, out=slopes[:, self.n_shape :, half])
        return mean, slopes

    def weight(self, theta: FloatArray, r: FloatArray) -> FloatArray:
        """(B, R) the weight w(r) of each fit at positions (R,); 1 for a constant."""
        if not self.sigmoid:
            return np.ones((theta.shape[0], r.size))
        w = _sigmoid(theta[:, 1:2])
        z = self.sign * (r - theta[:, 2:3]) / np.exp(theta[:, 3:4])
        return np.asarray(w + (1.0 - w) * _sigmoid(z))

    def control_at(self, theta: FloatArray, basis: FloatArray) -> FloatArray:
        """(B, R) the control's chance of success for rows (R, J) of the spline."""
        return np.asarray(_sigmoid(theta[:, self.n_shape :] @ basis.T))

    def parameters(self, theta: FloatArray) -> Parameters:
        """What one sigmoid's parameters (K,) mean."""
        hi, w = _sigmoid(theta[:2])
        return Parameters(float(hi), float(w), float(theta[2]), float(np.exp(theta[3])))

    def _parts(
        self, theta: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, FloatArray | None, FloatArray | None]:
        hi = _sigmoid(theta[:, :1])
        rise = z = control = None
        child = hi
        if self.sigmoid:
            w = _sigmoid(theta[:, 1:2])
            z = (self.sign * (self.r - theta[:, 2:3])) / np.exp(theta[:, 3:4])
            rise = _sigmoid(z)
            child = hi * (w + (1.0 - w) * rise)
        if self.has_control:
            control = _sigmoid(theta[:, self.n_shape :] @ self.basis.T)
            mean = np.concatenate([child * control, control], axis=1)
        else:
            mean = np.broadcast_to(child, (theta.shape[0], self.r.size))
        return np.clip(mean, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE), hi, rise, z, control


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


def _sigmoid(x: FloatArray) -> FloatArray:
    # tanh neither overflows nor branches; fitted logits are bounded, so its rounding is harmless.
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))
