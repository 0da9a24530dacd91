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
from branchdiag.stats.schedule_isotonic import Start, sigmoid_start
from branchdiag.stats.schedule_solver import CELLS, fit_best, fit_many, loss

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
CELLS_OF_REFITS = 2**22
"""Resamples times rows whose weights are held at once (32 MiB)."""


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
        start = _shape_start(observations, constant, constant_theta, share, sign)
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
        own = [
            _theta(
                _shape_start(rows, fits.constant, constants[b], weights[b], sign), constants[b, 1:]
            )
            for b in mine
        ]
        candidates = [
            fit_many(curve, rows.y, weights[mine], starts)
            for starts in (np.tile(estimate, (mine.size, 1)), np.array(own))
        ]
        first_is_lower = candidates[0][1] <= candidates[1][1]
        theta = np.where(first_is_lower[:, np.newaxis], candidates[0][0], candidates[1][0])
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
    n_folds = int(folds.max()) + 1
    in_fold = np.zeros((rows.n_problems, n_folds))
    in_fold[np.arange(rows.n_problems), folds] = 1.0
    resample, fold = np.nonzero((multiplicities @ in_fold) > 0.0)
    row_fold = folds[rows.codes]
    total = np.zeros(multiplicities.shape[0])
    step = max(1, CELLS // max(1, rows.r.size))
    for first in range(0, resample.size, step):
        b, f = resample[first : first + step], fold[first : first + step]
        weights = multiplicities[b][:, rows.codes] * rows.share
        mine = row_fold[np.newaxis] == f[:, np.newaxis]
        kept = np.where(mine, 0.0, weights)
        fitted, _ = fit_many(
            curve,
            rows.y,
            kept,
            theta[b],
            iterations=effort["iterations"],
            tolerance=effort["tolerance"],
        )
        left = loss(curve.mean(fitted), rows.y, np.where(mine, weights, 0.0))
        total += np.bincount(b, left, total.size)
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


def _shape_start(
    observations: Observations,
    constant: Curve,
    constant_theta: FloatArray,
    weights: FloatArray,
    sign: Sign,
) -> Start:
    """From the isotonic fit to the children, taken against the control where there is one."""
    rows = observations
    if not rows.relative:
        return sigmoid_start(rows.r, rows.y, weights, sign)
    child = ~rows.is_control
    free = constant.control_at(constant_theta[np.newaxis], constant.basis)[0]
    # Weighted by what is known of a ratio: where nothing succeeds freely it is not known at all.
    ratio = np.clip(rows.y[child] / np.maximum(free, 0.02), 0.0, 1.0)
    return sigmoid_start(rows.r[child], ratio, weights[child] * free, sign)


def _theta(start: Start, spline: FloatArray) -> FloatArray:
    shape = [_logit(start.hi), _logit(start.w_min), start.tau, float(np.log(start.s))]
    return np.concatenate([shape, spline])


def _logit(share: float) -> float:
    inside = min(max(share, 1e-3), 1.0 - 1e-3)
    return float(np.log(inside / (1.0 - inside)))
