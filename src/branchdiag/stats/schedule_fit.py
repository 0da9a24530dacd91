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
from branchdiag.stats.bootstrap import MIN_CLUSTERS, draw_multiplicities
from branchdiag.stats.estimate import BoolArray, Estimate, FloatArray, percentile_estimate
from branchdiag.stats.schedule_curve import Curve, Parameters, Sign, spline_basis
from branchdiag.stats.schedule_data import ESTIMANDS, Estimand, LabelledCandidates, observe
from branchdiag.stats.schedule_data import Observations as Rows
from branchdiag.stats.schedule_direction import DirectionTest, direction_test
from branchdiag.stats.schedule_refit import Fits, Refits, fit_families, refit
from branchdiag.stats.schedule_status import MIN_RANGE, Status, judge, untestable, unusable

GRID = np.round(np.arange(0.05, 0.96, 0.05), 2)
"""Relative positions of the band."""
ENDS = np.array([0.0, 1.0])
FITTED: frozenset[Status] = frozenset({"ok", "separation"})
"""Statuses under which the fitted numbers are the schedule."""


@dataclass(frozen=True)
class FitSettings:
    """How a schedule is fitted.

    resamples: refits of the bootstrap. permutations: of the test of direction. slope_resamples:
    for the slope's interval. level: of band, intervals and test. max_failed_share: of resamples
    that cannot be fitted before there is no band.
    """

    resamples: int = 500
    permutations: int = 2000
    slope_resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    max_failed_share: float = 0.10


@dataclass(frozen=True)
class Band:
    """The fitted weight w(r) with its pointwise band; `reason` where there is no band.

    r, w, low, high: (R,). n_failed: resamples that could not be fitted; n_constant: of the others,
    those that chose the constant.
    """

    r: FloatArray
    w: FloatArray
    low: FloatArray | None
    high: FloatArray | None
    reason: str | None
    resamples: int
    n_failed: int
    n_constant: int


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
        estimand: by default viability, and then a direction that the control shares is called
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
    refits, failed = _resample(fits, test, settings)
    return EstimandFit(
        rows=rows,
        status=status,
        reason=reason,
        direction=_direction(test.sign) if curve.sigmoid else "none",
        test=test,
        fits=fits,
        parameters=curve.parameters(theta) if curve.sigmoid else None,
        intervals=_parameter_intervals(curve.parameters(theta), test.sign, refits, settings)
        if curve.sigmoid
        else {},
        level=float(0.5 * (1.0 + np.tanh(0.5 * theta[0]))),
        ends=(float(w[-2]), float(w[-1])),
        band=_band(fits, w[:-2], refits, failed, settings),
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
    mean: FloatArray = curve.control_at(theta[np.newaxis], spline_basis(fit.rows.r, r))[0]
    return mean


def _chosen_curve(fit: EstimandFit, fits: Fits) -> tuple[Curve, FloatArray]:
    if fit.parameters is None or fit.test is None:
        return fits.constant, fits.constant_theta
    return fits.sigmoids[fit.test.sign], fits.sigmoid_thetas[fit.test.sign]


def _against_control(viability: EstimandFit, relative: EstimandFit) -> tuple[bool, str | None]:
    """Whether the control shares viability's direction, and what to say of it."""
    way = "rises" if viability.direction == "increasing" else "falls"
    if relative.status == "flat":
        return True, (
            f"viability {way} along the trace, but relative to going on with nothing forced it is "
            f"flat ({relative.reason}): no more than the horizon explains"
        )
    if relative.direction == "none":
        return False, (
            f"whether the horizon explains it is not known: the relative fit is {relative.status} "
            f"({relative.reason})"
        )
    if relative.direction != viability.direction:
        return False, (
            f"viability {way}, but relative to going on with nothing forced it does the opposite"
        )
    return False, None


def _resample(fits: Fits, test: DirectionTest, settings: FitSettings) -> tuple[Refits, BoolArray]:
    """All refits, and which of them could not be made (B,)."""
    rows = fits.observations
    chunks = list(
        draw_multiplicities(rows.n_problems, resamples=settings.resamples, seed=settings.seed)
    )
    drawn = np.concatenate(chunks)
    failed = _unfittable(rows, drawn)
    signs = np.where(drawn @ test.sxy_P < 0.0, -1, 1)
    made = refit(fits, drawn[~failed], signs[~failed])
    theta = np.full((drawn.shape[0], 4), np.nan)
    sigmoid = np.zeros(drawn.shape[0], dtype=np.bool_)
    theta[~failed], sigmoid[~failed] = made.theta, made.sigmoid
    failed |= sigmoid & ~np.isfinite(theta).all(axis=1)
    return Refits(sigmoid & ~failed, signs, theta), failed


def _unfittable(rows: Rows, drawn: FloatArray) -> BoolArray:
    """Resamples (B,) of fewer than 3 different problems, one outcome, or hardly a range of r."""
    child = ~rows.is_control
    codes, y = rows.codes[child], rows.y[child]
    successes = np.bincount(codes, y, rows.n_problems)
    failures = np.bincount(codes, 1.0 - y, rows.n_problems)
    failed: BoolArray = (drawn > 0).sum(axis=1) < MIN_CLUSTERS
    failed |= (drawn @ successes <= 0.0) | (drawn @ failures <= 0.0)
    if rows.relative:
        control = np.bincount(rows.codes[rows.is_control], rows.y[rows.is_control], rows.n_problems)
        failed |= drawn @ control <= 0.0
    lowest, highest = np.full(rows.n_problems, np.inf), np.full(rows.n_problems, -np.inf)
    np.minimum.at(lowest, rows.codes, rows.r)
    np.maximum.at(highest, rows.codes, rows.r)
    first = np.where(drawn > 0, lowest, np.inf).min(axis=1)
    last = np.where(drawn > 0, highest, -np.inf).max(axis=1)
    failed |= last - first < MIN_RANGE
    return failed


def _band(
    fits: Fits, w: FloatArray, refits: Refits, failed: BoolArray, settings: FitSettings
) -> Band:
    """Percentiles of w(r) over refits; where one chose the constant, its w is 1."""
    curves = np.ones((refits.sigmoid.size, GRID.size))
    for sign, curve in fits.sigmoids.items():
        mine = refits.sigmoid & (refits.sign == sign)
        curves[mine] = curve.weight(refits.theta[mine], GRID)
    n_failed = int(failed.sum())
    constant = int((~refits.sigmoid & ~failed).sum())
    if n_failed > settings.max_failed_share * failed.size:
        reason = (
            f"{n_failed} of {failed.size} resamples could not be fitted "
            f"(limit {settings.max_failed_share:.0%})"
        )
        return Band(GRID, w, None, None, reason, failed.size, n_failed, constant)
    tail = (1.0 - settings.level) / 2.0
    low, high = np.quantile(curves[~failed], [tail, 1.0 - tail], axis=0)
    return Band(GRID, w, low, high, None, failed.size, n_failed, constant)


def _parameter_intervals(
    found: Parameters, sign: Sign, refits: Refits, settings: FitSettings
) -> dict[str, Estimate]:
    mine = refits.sigmoid & (refits.sign == sign)
    values = {
        "w_min": (found.w_min, 0.5 * (1.0 + np.tanh(0.5 * refits.theta[:, 1]))),
        "tau": (found.tau, refits.theta[:, 2]),
        "s": (found.s, np.exp(refits.theta[:, 3])),
    }
    return {
        name: percentile_estimate(
            value,
            np.where(mine, replicates, np.nan),
            level=settings.level,
            # Resamples that chose the constant have no such parameter; half of them may.
            max_dropped_share=0.5,
        )
        for name, (value, replicates) in values.items()
    }


def _unfitted(rows: Rows, why: tuple[Status, str], test: DirectionTest | None) -> EstimandFit:
    return EstimandFit(rows, *why, "none", test, None, None, {}, None, None, None)


def _direction(sign: Sign) -> Direction:
    return "increasing" if sign > 0 else "decreasing"
