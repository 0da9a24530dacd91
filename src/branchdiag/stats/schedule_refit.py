"""Fits of the constant and the sigmoid, and the choice between them by left-out problems.

Reads observations and how often each problem was drawn; writes parameters. The estimate is the fit
with every problem once; a bootstrap refit is the same with the problems drawn, the choice of model
made anew. What is left out is a whole problem with all its copies: one copy left in would have seen
the others. Criteria such as Akaike's have no scale here, since rows are clustered and weighted.
B resamples, P problems, C rows, K parameters, F folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray
from branchdiag.stats.schedule_curve import Curve, Sign, curve_over
from branchdiag.stats.schedule_data import Observations
from branchdiag.stats.schedule_folds import Folds
from branchdiag.stats.schedule_isotonic import Start, isotonic_of_levels, start_of
from branchdiag.stats.schedule_solver import fit_batch, fit_best, fit_many

START_TAUS = (0.2, 0.4, 0.6, 0.8)
START_SCALES = (0.05, 0.15, 0.4)
SIGNS: tuple[Sign, Sign] = (1, -1)


class Effort(TypedDict):
    """How problems are left out.

    iterations, tolerance: how far a fold's fit goes. most: above this many problems, groups of them
    are left out, `groups` in all, drawn once.
    """

    iterations: int
    tolerance: float
    most: int
    groups: int


ESTIMATE_FOLDS: Effort = {"iterations": 300, "tolerance": 1e-10, "most": 500, "groups": 100}
RESAMPLE_FOLDS: Effort = {"iterations": 15, "tolerance": 1e-6, "most": 100, "groups": 20}
"""A fold starts at the fit to all problems. What is left undone after so many iterations lies along
valleys where w, tau and s make up for each other, and moves the loss of a left-out problem by less
than the choice turns on, unless the two models are as good as each other."""
CELLS = 2**18
"""Resamples times rows whose folds are fitted at once."""
CELLS_OF_REFITS = 2**21
"""Resamples times rows whose weights are held at once (16 MiB)."""


@dataclass(frozen=True)
class Fits:
    """The estimate of each family and its left-out loss.

    curve, theta: of the constant, and of the sigmoid of either sign.
    left_out: loss on left-out problems, in nats a problem: of the constant, and of the sigmoids.
    """

    observations: Observations
    constant: Curve
    constant_theta: FloatArray
    constant_left_out: float
    sigmoids: dict[Sign, Curve]
    sigmoid_thetas: dict[Sign, FloatArray]
    sigmoid_left_out: dict[Sign, float]

    def prefers_sigmoid(self, sign: Sign) -> bool:
        """Whether left-out problems are told better by the sigmoid than by the constant."""
        return self.sigmoid_left_out[sign] < self.constant_left_out


@dataclass(frozen=True)
class Refits:
    """What each resample chose: sigmoid (B,), its sign (B,), and its parameters (B, 4).

    theta: logit hi, logit w, tau, log s, where a sigmoid was chosen.
    """

    sigmoid: BoolArray
    sign: IntArray
    theta: FloatArray


def fit_families(observations: Observations) -> Fits:
    """The estimates: L-BFGS-B from 4 tau x 3 s and from the isotonic fit, for each sign."""
    rows, share = observations, observations.share
    constant = curve_over(rows.r[~rows.is_control], with_control=rows.relative)
    constant_theta, _ = fit_best(
        constant, rows.y, share, _constant_starts(observations, constant, share)
    )
    sigmoids = {sign: constant.family(sigmoid=True, sign=sign) for sign in SIGNS}
    thetas = {}
    for sign in SIGNS:
        (start,) = _shape_starts(rows, constant, constant_theta[None], share[None], sign)
        grid = [Start(start.hi, start.w_min, tau, s) for tau in START_TAUS for s in START_SCALES]
        starts = np.array([_theta(one, constant_theta[1:]) for one in [start, *grid]])
        thetas[sign], _ = fit_best(sigmoids[sign], rows.y, share, starts)
    once = np.ones((1, rows.n_problems))

    def left_out(curve: Curve, theta: FloatArray) -> float:
        losses = left_out_loss(rows, curve, theta[np.newaxis], once, ESTIMATE_FOLDS)
        return float(losses[0])

    return Fits(
        observations=observations,
        constant=constant,
        constant_theta=constant_theta,
        constant_left_out=left_out(constant, constant_theta),
        sigmoids=sigmoids,
        sigmoid_thetas=thetas,
        sigmoid_left_out={sign: left_out(sigmoids[sign], thetas[sign]) for sign in SIGNS},
    )


def refit(fits: Fits, multiplicities: FloatArray, signs: IntArray) -> Refits:
    """Fit every resample, started at the estimate and at its own isotonic fit, and choose anew.

    Args:
        multiplicities: (B, P) how often each problem was drawn.
        signs: (B,) +1 or -1: the way of each resample's own slope.
    """
    step = max(1, CELLS_OF_REFITS // max(1, fits.observations.r.size))
    parts = [
        _refit(fits, multiplicities[first : first + step], signs[first : first + step])
        for first in range(0, max(1, signs.size), step)
    ]
    return Refits(
        np.concatenate([part.sigmoid for part in parts]),
        signs,
        np.concatenate([part.theta for part in parts]),
    )


def _refit(fits: Fits, multiplicities: FloatArray, signs: IntArray) -> Refits:
    rows = fits.observations
    n_resamples = multiplicities.shape[0]
    weights = multiplicities[:, rows.codes] * rows.share
    starts = np.broadcast_to(fits.constant_theta, (n_resamples, fits.constant_theta.size))
    constants, _ = fit_many(fits.constant, rows.y, weights, starts)
    without = left_out_loss(rows, fits.constant, constants, multiplicities, RESAMPLE_FOLDS)
    chosen = np.zeros(n_resamples, dtype=np.bool_)
    shapes = np.full((n_resamples, 4), np.nan)
    for sign in SIGNS:
        mine = np.flatnonzero(signs == sign)
        if mine.size == 0:
            continue
        curve, estimate = fits.sigmoids[sign], fits.sigmoid_thetas[sign]
        own = _shape_starts(rows, fits.constant, constants[mine], weights[mine], sign)
        both = [estimate] * mine.size + [
            _theta(start, constant[1:])
            for start, constant in zip(own, constants[mine], strict=True)
        ]
        thetas, losses = fit_many(curve, rows.y, np.tile(weights[mine], (2, 1)), np.array(both))
        first_is_lower = losses[: mine.size] <= losses[mine.size :]
        theta = np.where(first_is_lower[:, np.newaxis], *np.split(thetas, 2))
        with_sigmoid = left_out_loss(rows, curve, theta, multiplicities[mine], RESAMPLE_FOLDS)
        chosen[mine] = with_sigmoid < without[mine]
        shapes[mine] = theta[:, :4]
    return Refits(chosen, signs, shapes)


def fold_of_problems(n_problems: int, effort: Effort) -> IntArray:
    """The fold (P,) of each problem: its own, unless there are very many."""
    if n_problems <= effort["most"]:
        return np.arange(n_problems)
    return np.random.default_rng(0).permutation(n_problems) % effort["groups"]


def left_out_loss(
    observations: Observations,
    curve: Curve,
    theta: FloatArray,
    multiplicities: FloatArray,
    effort: Effort,
) -> FloatArray:
    """Mean loss (B,) of each drawn problem under the fit to all problems of other folds.

    Args:
        theta: (B, K) the fits to all problems: where each fold's fit starts.
        multiplicities: (B, P).
        effort: which problems are left out together, and how far each fold's fit goes.
    """
    rows = observations
    folds = fold_of_problems(rows.n_problems, effort)
    total = np.zeros(multiplicities.shape[0])
    step = max(1, CELLS // rows.r.size)
    for first in range(0, total.size, step):
        part = slice(first, first + step)
        weights = multiplicities[part][:, rows.codes] * rows.share
        left = Folds.of(curve, rows.y, weights, folds[rows.codes])
        starts = theta[part]
        fitted, _ = fit_batch(
            left, starts[left.draw], left.at(starts), effort["iterations"], effort["tolerance"]
        )
        total[part] = left.left_out(fitted)
    mean: FloatArray = total / multiplicities.sum(axis=1)
    return mean


def _constant_starts(observations: Observations, curve: Curve, share: FloatArray) -> FloatArray:
    rows = observations
    if not observations.relative:
        mean = float(share @ rows.y / share.sum())
        return np.array([[_logit(mean)]])
    spline = np.zeros(curve.basis.shape[1])
    control = rows.is_control
    spline[0] = _logit(float(share[control] @ rows.y[control] / share[control].sum()))
    return np.array([[_logit(hi), *spline] for hi in (0.6, 0.95)])


def _shape_starts(
    observations: Observations,
    constant: Curve,
    constant_thetas: FloatArray,
    weights: FloatArray,
    sign: Sign,
) -> list[Start]:
    """From isotonic fits to the children, taken against the control where there is one.

    Args:
        constant_thetas: (B, K) fits of the constant.
        weights: (B, C).
    """
    rows, child = observations, ~observations.is_control
    levels, index = np.unique(rows.r[child], return_inverse=True)
    y, weights = rows.y[child], weights[:, child]
    if rows.relative:
        free = constant.control_at(constant_thetas, constant.basis)
        # Weighted by what is known of a ratio: where nothing succeeds freely it is not known.
        y, weights = np.clip(y / np.maximum(free, 0.02), 0.0, 1.0), weights * free
    order = np.argsort(index, kind="stable")
    first = np.searchsorted(index[order], np.arange(levels.size))
    mass, sums = (
        np.add.reduceat(values[:, order], first, axis=1) for values in (weights, weights * y)
    )
    return [
        start_of(isotonic_of_levels(levels, *both, increasing=sign > 0), sign)
        for both in zip(mass, sums, strict=True)
    ]


def _theta(start: Start, spline: FloatArray) -> FloatArray:
    shape = [_logit(start.hi), _logit(start.w_min), start.tau, float(np.log(start.s))]
    return np.concatenate([shape, spline])


def _logit(share: float) -> float:
    inside = min(max(share, 1e-3), 1.0 - 1e-3)
    return float(np.log(inside / (1.0 - inside)))
