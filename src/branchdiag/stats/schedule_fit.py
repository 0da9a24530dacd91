"""A schedule from labelled candidates: the fit of each estimand with its band, and what it allows.

Reads candidates, writes results as dataclasses; knows no files and no models. The weight of PW-OPSD
(arXiv 2605.21606) is fitted by quasi-binomial likelihood with every problem weighing the same; a
constant is chosen against it by left-out problems; its direction is tested by permuting outcomes
within problems; its band comes from drawing problems whole, the choice made anew each time.

Weights w(r) are steadier than parameters: with 61 problems, parameters that give the same curve
are far apart. The pointwise band is the result; percentiles of parameters stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from branchdiag.schedule import Direction
from branchdiag.stats.estimate import Estimate, FloatArray
from branchdiag.stats.schedule_band import (
    GRID,
    Band,
    FitSettings,
    band_of,
    expanded_level,
    parameter_intervals,
    resample,
)
from branchdiag.stats.schedule_curve import Curve, Parameters, Sign, spline_basis
from branchdiag.stats.schedule_data import ESTIMANDS, Estimand, LabelledCandidates, observe
from branchdiag.stats.schedule_data import Observations as Rows
from branchdiag.stats.schedule_direction import DirectionTest, direction_test
from branchdiag.stats.schedule_refit import Fits, fit_families
from branchdiag.stats.schedule_status import Status, judge, untestable, unusable

ENDS = np.array([0.0, 1.0])
FITTED: frozenset[Status] = frozenset({"ok", "separation"})
"""Statuses under which the fitted numbers are the schedule."""


@dataclass(frozen=True)
class EstimandFit:
    """Everything about one estimand.

    status, reason, direction: of this fit alone. parameters: of the chosen sigmoid, whatever the
    status. intervals: of w_min, tau and s, over resamples that chose a sigmoid the same way.
    level: hi, the height that is divided out. ends: w(0) and w(1), which need not reach 1.
    """

    rows: Rows
    status: Status
    reason: str | None
    direction: Direction
    test: DirectionTest | None
    fits: Fits | None
    parameters: Parameters | None
    intervals: Mapping[str, Estimate]
    level: float | None
    ends: tuple[float, float] | None
    band: Band | None

    @property
    def estimand(self) -> Estimand:
        """Which one."""
        return self.rows.estimand


@dataclass(frozen=True)
class FittedSchedule:
    """The result: what the data allow as a schedule, and the fits it stands on.

    named: whether the user asked for the estimand. provenance: of the run, for the document.
    """

    estimand: Estimand
    named: bool
    status: Status
    reason: str | None
    direction: Direction
    w_min: float
    tau: float | None
    s: float | None
    fits: Mapping[Estimand, EstimandFit]
    settings: FitSettings
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> EstimandFit:
        """The fit of the estimand that was asked for."""
        return self.fits[self.estimand]


def fit_schedule(
    data: LabelledCandidates,
    *,
    estimand: Estimand | None = None,
    settings: FitSettings | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> FittedSchedule:
    """Fit the estimand, with `viability` and `relative` always beside it, and say what it allows.

    Args:
        data: the labelled candidates.
        estimand: by default viability, and then a direction that is not left when it is taken
            against the control (where the ratio is flat, or goes the other way) is called
            `horizon_only` and gives weight 1; a named estimand is taken knowingly.
        settings: of bootstrap and permutation.
        provenance: what the document says of the run and its model.
    """
    settings = settings or FitSettings()
    chosen: Estimand = estimand or "viability"
    wanted = [name for name in ESTIMANDS if name in ("viability", "relative", chosen)]
    fits = {name: fit_estimand(data, name, settings) for name in wanted}
    fit = fits[chosen]
    status, reason, direction = fit.status, fit.reason, fit.direction
    if chosen == "viability" and direction != "none":
        shared, remark = _against_control(fits["viability"], fits["relative"])
        if shared and estimand is None:
            status, reason, direction = "horizon_only", remark, "none"
        else:
            reason = "; ".join(part for part in (reason, remark) if part) or None
    found = fit.parameters if status in FITTED else None
    return FittedSchedule(
        estimand=chosen,
        named=estimand is not None,
        status=status,
        reason=reason,
        direction=direction,
        w_min=found.w_min if found else 1.0,
        tau=found.tau if found else None,
        s=found.s if found else None,
        fits=fits,
        settings=settings,
        provenance=dict(provenance or {}),
    )


def fit_estimand(
    data: LabelledCandidates, estimand: Estimand, settings: FitSettings
) -> EstimandFit:
    """One estimand: constant or sigmoid, which way, and how sure. Never raises for data."""
    rows = observe(data, estimand)
    stopped = unusable(rows)
    if stopped is not None:
        return _unfitted(rows, stopped, None)
    test = direction_test(
        rows,
        permutations=settings.permutations,
        resamples=settings.slope_resamples,
        level=settings.level,
        seed=settings.seed,
        max_dropped_share=settings.max_failed_share,
    )
    stopped = untestable(test)
    if stopped is not None:
        return _unfitted(rows, stopped, test)
    fits = fit_families(rows)
    status, reason = judge(fits, test, level=settings.level)
    curve, theta = fits.constant, fits.constant_theta
    if status != "flat":
        curve, theta = fits.sigmoids[test.sign], fits.sigmoid_thetas[test.sign]
    w = curve.weight(theta[np.newaxis], np.concatenate([GRID, ENDS]))[0]
    replicates = resample(fits, test, settings)
    return EstimandFit(
        rows=rows,
        status=status,
        reason=reason,
        direction=_direction(test.sign) if curve.sigmoid else "none",
        test=test,
        fits=fits,
        parameters=curve.parameters(theta) if curve.sigmoid else None,
        intervals=parameter_intervals(
            curve.parameters(theta),
            test.sign,
            replicates,
            level=expanded_level(settings.level, rows.n_problems),
            max_failed_share=settings.max_failed_share,
        )
        if curve.sigmoid
        else {},
        level=float(0.5 * (1.0 + np.tanh(0.5 * theta[0]))),
        ends=(float(w[-2]), float(w[-1])),
        band=band_of(fits, w[:-2], replicates, settings),
    )


def fitted_mean(fit: EstimandFit, r: FloatArray) -> FloatArray | None:
    """The fitted level times weight at r (R,): a success rate, or the ratio; None if not fitted."""
    if fit.fits is None or fit.level is None:
        return None
    curve, theta = _chosen_curve(fit, fit.fits)
    mean: FloatArray = fit.level * curve.weight(theta[np.newaxis], r)[0]
    return mean


def control_mean(fit: EstimandFit, r: FloatArray) -> FloatArray | None:
    """The control's fitted success rate at r (R,); None without a control."""
    if fit.fits is None or not fit.rows.relative:
        return None
    curve, theta = _chosen_curve(fit, fit.fits)
    # The knots are quantiles of the children's positions: those that were fitted, and no others.
    mean: FloatArray = curve.control_at(theta[np.newaxis], spline_basis(curve.r, r))[0]
    return mean


def _chosen_curve(fit: EstimandFit, fits: Fits) -> tuple[Curve, FloatArray]:
    if fit.parameters is None or fit.test is None:
        return fits.constant, fits.constant_theta
    return fits.sigmoids[fit.test.sign], fits.sigmoid_thetas[fit.test.sign]


def _against_control(viability: EstimandFit, relative: EstimandFit) -> tuple[bool, str | None]:
    """Whether viability's direction is gone against the control, and what to say of it."""
    way = "rises" if viability.direction == "increasing" else "falls"
    explained = (
        "no more than the horizon explains"
        if viability.direction == "increasing"
        else "no more than it falls with nothing forced"
    )
    if relative.status == "flat":
        return True, (
            f"viability {way} along the trace, but relative to going on with nothing forced it is "
            f"flat ({relative.reason}): {explained}"
        )
    if relative.direction == "none":
        return False, (
            f"whether the horizon explains it is not known: the relative fit is {relative.status} "
            f"({relative.reason})"
        )
    if relative.direction != viability.direction:
        return True, (
            f"viability {way} along the trace, but relative to going on with nothing forced it "
            f"does the opposite: {explained}"
        )
    return False, None


def _unfitted(rows: Rows, why: tuple[Status, str], test: DirectionTest | None) -> EstimandFit:
    return EstimandFit(rows, *why, "none", test, None, None, {}, None, None, None)


def _direction(sign: Sign) -> Direction:
    return "increasing" if sign > 0 else "decreasing"
