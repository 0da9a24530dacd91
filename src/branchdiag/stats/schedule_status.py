"""What a fit may say: a closed list of statuses, each by one rule, and the sentence of its reason.

Reads observations, fits and tests; computes nothing new. In the order in which they are asked:

    insufficient    fewer than 3 problems; positions that span less than 0.2; no problem with
                    candidates at two positions, so that no direction can be tested; for `binary`,
                    fewer than 5 failing candidates or failures in fewer than 3 problems
    no_variation    no failures or no successes (asked before what `binary` needs); for `relative`
                    also a control that never succeeds, on which no ratio can stand
    flat            the constant is chosen: it tells left-out problems as well, or the permutation
                    of outcomes within problems shows no direction
    no_transition   tau outside [0, 1]: the curve is given, but no transition was seen
    separation      s at its lower bound: a step as sharp as the fit allows, clamped there
    ok              everything else

`horizon_only` is said of a result, not of one fit: viability has a direction, and the relative fit
beside it is flat or goes the other way.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from branchdiag.stats.bootstrap import MIN_CLUSTERS
from branchdiag.stats.schedule_curve import SCALE_BOUNDS, Parameters, Sign
from branchdiag.stats.schedule_data import Observations
from branchdiag.stats.schedule_direction import DirectionTest
from branchdiag.stats.schedule_refit import Fits

Status = Literal[
    "ok", "flat", "horizon_only", "no_variation", "insufficient", "separation", "no_transition"
]
STATUSES: tuple[Status, ...] = (
    "ok",
    "flat",
    "horizon_only",
    "no_variation",
    "insufficient",
    "separation",
    "no_transition",
)

MIN_RANGE = 0.2
MIN_FAILING = 5
MIN_PROBLEMS_FAILING = 3
AT_BOUND = 1.05
"""A scale within this factor of a bound is at it: the likelihood is flat there, and where a search
stops on it is an accident."""
REACHED = 0.95
"""A weight that stays below this is said not to reach 1."""


def unusable(observations: Observations) -> tuple[Status, str] | None:
    """Why nothing can be fitted to the observations, or None."""
    rows = observations
    if rows.n_problems < MIN_CLUSTERS:
        problems = "1 problem" if rows.n_problems == 1 else f"{rows.n_problems} problems"
        return "insufficient", (
            f"{problems} with usable candidates, where {MIN_CLUSTERS} are needed"
        )
    children = rows.y[~rows.is_control]
    if rows.relative and not rows.y[rows.is_control].any():
        return "no_variation", "no continuation without a forced token succeeds: no ratio to it"
    if not children.any():
        return "no_variation", "nothing succeeds at any position"
    if (children == 1.0).all():
        return "no_variation", "nothing fails at any position"
    span = float(np.ptp(rows.r))
    if span < MIN_RANGE:
        return "insufficient", (
            f"the candidates' positions span {span:.2f} of the trace, where {MIN_RANGE} is needed"
        )
    if rows.estimand == "binary":
        failing, problems_failing = (
            rows.counts[key] for key in ("failing", "problems_with_failing")
        )
        if failing < MIN_FAILING or problems_failing < MIN_PROBLEMS_FAILING:
            return "insufficient", (
                f"{failing} real-uncertain candidates in {problems_failing} problems, where "
                f"{MIN_FAILING} in {MIN_PROBLEMS_FAILING} are needed"
            )
    return None


def untestable(test: DirectionTest) -> tuple[Status, str] | None:
    """Why no direction can be tested, or None."""
    if test.slope.estimate.value is None:
        return "insufficient", f"{test.slope.estimate.reason}, so no direction can be tested"
    return None


def judge(fits: Fits, test: DirectionTest, *, level: float) -> tuple[Status, str | None]:
    """The status of a fit that could be made, and its reason (None for a plain `ok`)."""
    alpha = 1.0 - level
    if test.p is None:
        return "flat", f"{test.reason}: the constant is chosen"
    if test.p > alpha + 1e-12:
        return "flat", (
            "the order of outcomes within problems shows no direction "
            f"(permutation p = {test.p:.2g}): the constant is chosen"
        )
    sign = test.sign
    if not fits.prefers_sigmoid(sign):
        return "flat", (
            "a constant tells left-out problems at least as well as a sigmoid "
            f"({fits.constant_left_out:.4f} against {fits.sigmoid_left_out[sign]:.4f} nats a "
            "problem): the constant is chosen"
        )
    found = fits.sigmoids[sign].parameters(fits.sigmoid_thetas[sign])
    return of_parameters(found, sign)


def of_parameters(found: Parameters, sign: Sign) -> tuple[Status, str | None]:
    """The status of a chosen sigmoid by where its parameters lie."""
    if not 0.0 <= found.tau <= 1.0:
        return "no_transition", (
            f"the middle of the fitted transition lies outside the trace (tau = {found.tau:.2f}): "
            "the curve is given, but no schedule"
        )
    status: Status = "ok"
    remarks = []
    if found.s <= SCALE_BOUNDS[0] * AT_BOUND:
        status = "separation"
        remarks.append(
            f"the transition is as sharp as the fit allows: s is held at {SCALE_BOUNDS[0]:g}"
        )
    if found.s >= SCALE_BOUNDS[1] / AT_BOUND:
        remarks.append(
            f"the transition is as gradual as the fit allows (s is held at {SCALE_BOUNDS[1]:g}): "
            "nearly a straight line, so read the curve and not its parameters"
        )
    reached = found.w_min + (1.0 - found.w_min) * _highest_share(found, sign)
    if reached < REACHED:
        end = "at the end" if sign > 0 else "at the start"
        remarks.append(f"the weight does not reach 1 inside the trace: it is {reached:.2f} {end}")
    return status, "; ".join(remarks) or None


def _highest_share(found: Parameters, sign: Sign) -> float:
    """The share of the transition that is done at the better end of the trace."""
    distance = 1.0 - found.tau if sign > 0 else found.tau
    return float(1.0 / (1.0 + np.exp(-distance / found.s)))
