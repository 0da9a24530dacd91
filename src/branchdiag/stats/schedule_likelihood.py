"""The likelihood of many fits of one curve at once: its loss, gradient and expected information.

Reads curves, shares of success and weights; writes arrays. A likelihood needs of its rows no more
than the weighted successes and failures at each mean, so rows that share a mean are added up first:
tied positions, and all rows of a constant. Derivatives are sums of products that parameters have in
common, taken without an array of slopes for each row; the tests hold them against such an array.
Knows nothing of searches or problems.

B fits, C rows, L rows after adding up, U positions of children (half of L where a control follows),
K parameters, J of them the spline's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from branchdiag.stats.estimate import FloatArray, IntArray
from branchdiag.stats.schedule_curve import SMALLEST_CHANCE, Curve, Means, sigmoid


@dataclass(frozen=True)
class Outcomes:
    """Weighted successes and failures (B, L) of each fit at each row."""

    successes: FloatArray
    failures: FloatArray

    def of(self, fits: IntArray) -> Outcomes:
        """Those of some of the fits."""
        return Outcomes(self.successes[fits], self.failures[fits])


@dataclass(frozen=True)
class Derivatives:
    """Uphill gradient of the log-likelihood (B, K) and its expected information (B, K, K)."""

    gradient: FloatArray
    information: FloatArray

    @staticmethod
    def empty(n_fits: int, n_parameters: int) -> Derivatives:
        """Room for as many fits."""
        shape = (n_fits, n_parameters)
        return Derivatives(np.empty(shape), np.empty((*shape, n_parameters)))

    def of(self, fits: IntArray) -> Derivatives:
        """Those of some of the fits."""
        return Derivatives(self.gradient[fits], self.information[fits])

    def put(self, fits: IntArray, fresh: Derivatives) -> None:
        """Replace those of some of the fits."""
        self.gradient[fits], self.information[fits] = fresh.gradient, fresh.information


class Batch(Protocol):
    """What is to be fitted: one curve to rows of one kind, under many weightings."""

    @property
    def curve(self) -> Curve:
        """Over rows that were added up."""
        ...

    @property
    def draw(self) -> IntArray:
        """(B,) in order; fits of one draw weigh the same rows."""
        ...

    @property
    def n_rows(self) -> int:
        """How many rows a draw weighs, on average."""
        ...

    def weight(self) -> FloatArray:
        """(B,) of all rows of each fit."""
        ...

    def some(self, fits: IntArray) -> tuple[Curve, Outcomes]:
        """The curve over rows that some of the fits weigh, and their outcomes there."""
        ...


@dataclass(frozen=True)
class Weightings:
    """A batch of which every fit weighs about all rows."""

    curve: Curve
    outcomes: Outcomes

    @staticmethod
    def of(curve: Curve, y: FloatArray, weights: FloatArray) -> Weightings:
        """From shares of success y (C,) and weights (B, C)."""
        pooled, row = pool(curve)
        order = np.argsort(row, kind="stable")
        first = np.searchsorted(row[order], np.arange(pooled.n_rows))
        sums = (np.add.reduceat((weights * part)[:, order], first, axis=1) for part in (y, 1.0 - y))
        return Weightings(pooled, Outcomes(*sums))

    @property
    def draw(self) -> IntArray:
        """Each its own."""
        return np.arange(self.outcomes.successes.shape[0])

    @property
    def n_rows(self) -> int:
        """All."""
        return self.curve.n_rows

    def weight(self) -> FloatArray:
        """(B,) of all rows of each fit."""
        return np.asarray((self.outcomes.successes + self.outcomes.failures).sum(axis=1))

    def some(self, fits: IntArray) -> tuple[Curve, Outcomes]:
        """All rows."""
        return self.curve, self.outcomes.of(fits)


def pool(curve: Curve) -> tuple[Curve, IntArray]:
    """The curve over rows that differ in their mean, and where each row (C,) goes among them."""
    # All rows of a constant have one mean, unless a control moves it.
    same = curve.r if curve.sigmoid or curve.has_control else np.zeros(curve.r.size)
    _, first, place = np.unique(same, return_index=True, return_inverse=True)
    row = np.concatenate([place, place + first.size]) if curve.has_control else place
    return curve.only(first), row


def loss_of_rows(mean: FloatArray, y: FloatArray) -> FloatArray:
    """Minus the log-likelihood of shares y at means, of each row.

    Half the deviance, up to a term that no parameter changes.
    """
    return np.asarray(-(y * np.log(mean) + (1.0 - y) * np.log1p(-mean)))


def loss_of(means: Means, outcomes: Outcomes) -> FloatArray:
    """Minus the log-likelihood (B,)."""
    likelihood = np.vecdot(outcomes.successes, np.log(means.mean))
    likelihood += np.vecdot(outcomes.failures, np.log(means.missed))
    return np.asarray(-likelihood)


def loss_and_slope(curve: Curve, theta: FloatArray, outcomes: Outcomes) -> tuple[float, FloatArray]:
    """The loss of a single fit at parameters (K,) and its gradient.

    A search one fit at a time asks for nothing else, so what is one number for a batch of one is a
    plain number here: the arrays of a batch would take three times as long.
    """
    n_children, n_shape = curve.r.size, curve.n_shape
    hi, *w = (0.5 * (1.0 + math.tanh(0.5 * logit)) for logit in theta[:2][:n_shape].tolist())
    steep = depth = 0.0
    turn = away = np.zeros(n_children)
    if curve.sigmoid:
        steep, depth = curve.sign / math.exp(theta[3]), 0.5 * hi * (1.0 - w[0])
        away = curve.r - theta[2]
        turn = np.tanh(away * (0.5 * steep))
    mean = depth * turn + (hi - depth)
    control = None
    if curve.has_control:
        control = sigmoid(curve.basis @ theta[n_shape:])
        mean = np.concatenate([mean * control, control])
        np.clip(mean, SMALLEST_CHANCE, 1.0 - SMALLEST_CHANCE, out=mean)
    missed = 1.0 - mean
    successes, failures = outcomes.successes[0], outcomes.failures[0]
    loss = -float(successes @ np.log(mean) + failures @ np.log(missed))
    pull = failures / missed - successes / mean
    raised = pull * mean
    slope = np.empty(theta.size)
    slope[0] = (1.0 - hi) * raised[:n_children].sum()
    if curve.sigmoid:
        below = (1.0 - turn) * pull[:n_children]
        if control is not None:
            below *= control
        slope[1] = depth * w[0] * below.sum()
        below *= 1.0 + turn
        slope[2:4] = -0.5 * depth * steep * np.array([below.sum(), below @ away])
    if control is not None:
        moved = (raised[:n_children] + raised[n_children:]) * (1.0 - control)
        slope[n_shape:] = moved @ curve.basis
    return loss, slope


def derivatives(curve: Curve, means: Means, outcomes: Outcomes) -> Derivatives:
    """Of each fit at its own parameters."""
    n_fits, n_children, n_shape = means.theta.shape[0], curve.r.size, curve.n_shape
    made = Derivatives.empty(n_fits, curve.n_parameters)
    gradient, information = made.gradient, made.information
    # pull: how far each row is from its mean, and known: its weight, both over its variance.
    known = outcomes.successes + outcomes.failures
    pull = known * means.mean
    np.subtract(outcomes.successes, pull, out=pull)
    variance = means.mean * means.missed
    pull /= variance
    known /= variance
    moved = None
    if means.control is not None:
        # What the logit of the control moves: the children's mean and its own.
        arms, size = (n_fits, 2, n_children), curve.basis.shape[1]
        moved = means.mean.reshape(arms) * (1.0 - means.control)[:, np.newaxis]
        gradient[:, n_shape:] = np.einsum("bac,bac->bc", pull.reshape(arms), moved) @ curve.basis
        of_spline = np.einsum("bac,bac,bac->bc", known.reshape(arms), moved, moved)
        information[:, n_shape:, n_shape:] = (of_spline @ curve.basis_products).reshape(
            -1, size, size
        )
    parts, scale = _shape_slopes(curve, means)
    weighted = variance[:, :n_children]  # a place that is in the cache and no longer needed
    for i, part in enumerate(parts):
        np.multiply(part, known[:, :n_children], out=weighted)
        gradient[:, i] = np.vecdot(part, pull[:, :n_children])
        for j in range(i + 1):
            information[:, i, j] = information[:, j, i] = np.vecdot(weighted, parts[j])
        if moved is not None:
            weighted *= moved[:, 0]
            cross = weighted @ curve.basis * scale[:, i, np.newaxis]
            information[:, i, n_shape:] = information[:, n_shape:, i] = cross
    gradient[:, :n_shape] *= scale
    information[:, :n_shape, :n_shape] *= scale[:, :, np.newaxis] * scale[:, np.newaxis]
    return made


def _shape_slopes(curve: Curve, means: Means) -> tuple[list[FloatArray], FloatArray]:
    """Slopes of the children's mean by the shape's parameters, each (B, U) times a scale (B, K).

    With the mean m, the control g and the sigmoid u = (1 + turn) / 2: m, 2 g (1 - u),
    4 g (1 - u) u and 4 g (1 - u) u (r - tau).
    """
    theta, turn = means.theta, means.turn
    parts, hi = [means.mean[:, : curve.r.size]], means.shape[:, :1]
    if turn is None:
        return parts, 1.0 - hi
    w, s = means.shape[:, 1:2], means.shape[:, 2:]
    below = 1.0 - turn
    if means.control is not None:
        below *= means.control
    bend, tilt = 1.0 + turn, curve.r - theta[:, 2:3]
    bend *= below
    tilt *= bend
    parts += [below, bend, tilt]
    steep = 0.25 * hi * (w - 1.0) * (curve.sign / s)
    return parts, np.concatenate([1.0 - hi, 0.5 * hi * w * (1.0 - w), steep, steep], axis=1)
