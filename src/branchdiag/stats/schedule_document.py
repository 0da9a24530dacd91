"""A fitted schedule as the JSON document of `fitted.json`, and as a `Schedule`.

Reads a result; writes plain dictionaries that JSON can hold, described by `schedule_schema.json` in
the package. A number that could not be computed is null beside a reason. Computes no statistic
beyond the means of the bins with their bands, and the isotonic curves, that a figure draws (figure
1 of arXiv 2605.21606, which has no form fitted to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from branchdiag.schedule import FORMAT, VERSION, Schedule
from branchdiag.stats.bootstrap import interval, replicate
from branchdiag.stats.estimate import Estimate, FloatArray, IntArray
from branchdiag.stats.reliability import equal_count_bins
from branchdiag.stats.schedule_band import Band, FitSettings
from branchdiag.stats.schedule_fit import (
    EstimandFit,
    FittedSchedule,
    control_mean,
    fitted_mean,
)
from branchdiag.stats.schedule_isotonic import isotonic
from branchdiag.stats.weighted import weighted_ratio

BINS = 10
CURVE_AT = np.round(np.linspace(0.0, 1.0, 41), 3)
"""Relative positions at which curves are written."""
SMALLEST_CONTROL = 0.02
"""A ratio to a control below this is taken to this: of the isotonic curves, not of the fit."""

FORMULAS = {
    "increasing": "w(r) = w_min + (1 - w_min) / (1 + exp(-(r - tau) / s))",
    "decreasing": "w(r) = w_min + (1 - w_min) / (1 + exp(-(tau - r) / s))",
    "none": "w(r) = 1",
}


def to_schedule(fitted: FittedSchedule, *, preset: str | None = None) -> Schedule:
    """The schedule, with the whole document as its provenance: its `save` writes `fitted.json`.

    Args:
        preset: a published schedule that is taken instead, knowingly; what was fitted stays beside.

    Raises:
        UsageError: there is no preset of that name.
    """
    return Schedule.from_document(make_document(fitted, preset=preset))


def make_document(fitted: FittedSchedule, *, preset: str | None = None) -> dict[str, Any]:
    """The JSON document; arguments as `to_schedule`.

    Of a preset the status is null, since nothing of it was fitted, and so is the band; the reason
    says so, and what the fit beside it came to.
    """
    if preset is None:
        taken = Schedule(fitted.w_min, fitted.tau, fitted.s, fitted.direction)
        says = {"origin": "fit", "preset": None, "status": fitted.status, "reason": fitted.reason}
    else:
        taken = Schedule.preset(preset)
        says = dict(taken.provenance or {})
        beside = f"the fit to this run is {fitted.status}"
        if fitted.reason:
            beside += f" ({fitted.reason})"
        says["reason"] = f"{says['reason']}; {beside}"
    chosen, settings = fitted.chosen, fitted.settings
    band = chosen.band if preset is None else None
    return {
        "schema": FORMAT,
        "version": VERSION,
        "w_min": taken.w_min,
        "tau": taken.tau,
        "s": taken.s,
        "direction": taken.direction,
        "formula": FORMULAS["none" if taken.tau is None else taken.direction],
        **says,
        "estimand": fitted.estimand,
        "estimand_named": fitted.named,
        "band": None if band is None else _band(band, settings.level),
        "counts": chosen.rows.counts,
        "fits": {name: _fit(fit, settings) for name, fit in fitted.fits.items()},
        "control": _control(fitted.fits["relative"], settings),
        "settings": asdict(fitted.settings),
        "model": fitted.provenance.get("model"),
        "teacher": fitted.provenance.get("teacher"),
        "run": fitted.provenance.get("run"),
    }


def run_provenance(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a document says of the run it was fitted to: model, teacher and fingerprints.

    Args:
        manifest: of the run.
        name: of the run.
    """
    inputs = manifest.get("inputs", {})
    kept = ("name", "revision", "content_id")
    models = {
        key: {field: inputs[role].get(field) for field in kept} if role in inputs else None
        for key, role in (("model", "student"), ("teacher", "teacher"))
    }
    phases = manifest.get("phases", {})
    return {
        **models,
        "run": {
            "name": name,
            "created": manifest.get("created"),
            "branchdiag": manifest.get("branchdiag"),
            "data_id": inputs.get("data_id"),
            "failed_units": sum(int(phases[x].get("failed", 0)) for x in "ABCDEF" if x in phases),
            "fingerprints": {
                letter: phase["fingerprint"]
                for letter, phase in phases.items()
                if "fingerprint" in phase
            },
        },
    }


def _fit(fit: EstimandFit, settings: FitSettings) -> dict[str, Any]:
    found, test, fits = fit.parameters, fit.test, fit.fits
    sign = None if test is None else test.sign
    return {
        "status": fit.status,
        "reason": fit.reason,
        "direction": fit.direction,
        "family": None if fits is None else "constant" if found is None else "sigmoid",
        "parameters": None if found is None else {**asdict(found)},
        "intervals": {name: _estimate(value) for name, value in fit.intervals.items()},
        "level": fit.level,
        "w_at_0": None if fit.ends is None else fit.ends[0],
        "w_at_1": None if fit.ends is None else fit.ends[1],
        "slope": None if test is None else _estimate(test.slope.estimate),
        "permutation_p": None if test is None else test.p,
        "left_out_loss": None
        if fits is None or sign is None
        else {"constant": fits.constant_left_out, "sigmoid": fits.sigmoid_left_out[sign]},
        "band": None if fit.band is None else _band(fit.band, settings.level),
        "counts": fit.rows.counts,
        "curves": _curves(fit, settings),
    }


def _band(band: Band, level: float) -> dict[str, Any]:
    return {
        "level": level,
        "r": _list(band.r),
        "w": _list(band.w),
        "low": _list(band.low),
        "high": _list(band.high),
        "reason": band.reason,
        "resamples": band.resamples,
        "failed": band.n_failed,
        "constant": band.n_constant,
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.ci_low,
        "high": estimate.ci_high,
        "reason": estimate.reason,
    }


def _curves(fit: EstimandFit, settings: FitSettings) -> dict[str, Any] | None:
    """Data in bins, both isotonic curves and the fit: of the success rate, or of the ratio."""
    rows = fit.rows
    if rows.r.size == 0:
        return None
    child = ~rows.is_control
    r, y, weights = rows.r[child], rows.y[child], rows.share[child]
    beneath = rows.y[rows.is_control] if rows.relative else np.ones_like(y)
    data = _bins(rows.codes[child], r, y, beneath, weights, settings)
    control = control_mean(fit, r)
    if rows.relative and control is None:
        return None
    if control is not None:
        y = y / np.maximum(control, SMALLEST_CONTROL)
        weights = weights * control
    mean = fitted_mean(fit, CURVE_AT)
    steps = {way: isotonic(r, y, weights, increasing=way == "increasing") for way in _WAYS}
    return {
        "quantity": "ratio to the control" if rows.relative else "success rate",
        "data": data,
        **{f"isotonic_{way}": {"r": _list(f.r), "y": _list(f.y)} for way, f in steps.items()},
        "fit": None if mean is None else {"r": _list(CURVE_AT), "y": _list(mean)},
    }


_WAYS = ("increasing", "decreasing")


def _control(relative: EstimandFit, settings: FitSettings) -> dict[str, Any] | None:
    """The control arm's success rate by position: in bins, and as fitted beside the ratio."""
    rows = relative.rows
    if not rows.is_control.any():
        return None
    free = rows.is_control
    y, weights = rows.y[free], rows.share[free]
    mean = control_mean(relative, CURVE_AT)
    return {
        "data": _bins(rows.codes[free], rows.r[free], y, np.ones_like(y), weights, settings),
        "fit": None if mean is None else {"r": _list(CURVE_AT), "y": _list(mean)},
    }


def _bins(
    codes: IntArray,
    r: FloatArray,
    above: FloatArray,
    beneath: FloatArray,
    weights: FloatArray,
    settings: FitSettings,
) -> dict[str, Any]:
    """Weighted mean of `above` over that of `beneath` in bins of equal count, with a band from
    drawing problems whole. A bin where nothing stands beneath has no ratio and is left out.
    """
    filled, index = np.unique(equal_count_bins(r, BINS), return_inverse=True)
    _, problem = np.unique(codes, return_inverse=True)
    n_problems = int(problem.max()) + 1
    cells, shape = problem * filled.size + index, (n_problems, filled.size)

    def sums(values: FloatArray) -> FloatArray:
        flat = np.bincount(cells, weights * values, n_problems * filled.size)
        return flat.reshape(shape).astype(np.float64)

    tops, bottoms, places = sums(above), sums(beneath), sums(r)
    (drawn,) = replicate(
        [weighted_ratio(tops, bottoms)],
        n_problems,
        resamples=settings.slope_resamples,
        seed=settings.seed,
    )
    mass, counts = np.bincount(index, weights), np.bincount(index)
    points: dict[str, list[Any]] = {"r": [], "y": [], "low": [], "high": [], "n": []}
    for column in np.flatnonzero(bottoms.sum(axis=0) > 0.0):
        found = interval(
            float(tops[:, column].sum() / bottoms[:, column].sum()),
            drawn[:, column],
            n_problems,
            resamples=settings.slope_resamples,
            level=settings.level,
            seed=settings.seed,
            max_dropped_share=settings.max_failed_share,
        )
        points["r"].append(float(places[:, column].sum() / mass[column]))
        points["y"].append(found.value)
        points["low"].append(found.ci_low)
        points["high"].append(found.ci_high)
        points["n"].append(int(counts[column]))
    return points


def _list(values: FloatArray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
