"""A fitted schedule as the JSON document of `fitted.json`, and as a `Schedule`.

Reads a result; writes plain dictionaries that JSON can hold, described by `schedule_schema.json` in
the package. A number that could not be computed is null beside a reason. Computes no statistic
beyond the means of the bins and isotonic curves that a figure draws (figure 1 of arXiv 2605.21606,
which has no form fitted to it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from branchdiag.schedule import FORMAT, VERSION, Schedule
from branchdiag.stats.estimate import BoolArray, Estimate, FloatArray
from branchdiag.stats.reliability import equal_count_bins
from branchdiag.stats.schedule_band import Band
from branchdiag.stats.schedule_fit import (
    EstimandFit,
    FittedSchedule,
    control_mean,
    fitted_mean,
)
from branchdiag.stats.schedule_isotonic import isotonic

BINS = 10
CURVE_AT = np.round(np.linspace(0.0, 1.0, 41), 3)
"""Relative positions at which curves are written."""
SMALLEST_CONTROL = 0.02
"""A ratio to a control below this is taken to this: points of a figure, not of the fit."""

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
    """The JSON document; arguments as `to_schedule`."""
    taken = (
        Schedule(fitted.w_min, fitted.tau, fitted.s, fitted.direction)
        if preset is None
        else Schedule.preset(preset)
    )
    chosen = fitted.chosen
    return {
        "schema": FORMAT,
        "version": VERSION,
        "w_min": taken.w_min,
        "tau": taken.tau,
        "s": taken.s,
        "direction": taken.direction,
        "origin": "fit" if preset is None else "preset",
        "preset": preset,
        "formula": FORMULAS["none" if taken.tau is None else taken.direction],
        "status": fitted.status,
        "reason": fitted.reason,
        "estimand": fitted.estimand,
        "estimand_named": fitted.named,
        "band": None if chosen.band is None else _band(chosen.band, fitted.settings.level),
        "counts": chosen.rows.counts,
        "fits": {name: _fit(fit, fitted.settings.level) for name, fit in fitted.fits.items()},
        "control": _control(fitted.fits["relative"]),
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
            "fingerprints": {
                letter: phase["fingerprint"]
                for letter, phase in phases.items()
                if "fingerprint" in phase
            },
        },
    }


def _fit(fit: EstimandFit, level: float) -> dict[str, Any]:
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
        "band": None if fit.band is None else _band(fit.band, level),
        "counts": fit.rows.counts,
        "curves": _curves(fit),
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


def _curves(fit: EstimandFit) -> dict[str, Any] | None:
    """Data in bins, both isotonic curves and the fit: of the success rate, or of the ratio."""
    rows = fit.rows
    if rows.r.size == 0:
        return None
    child = ~rows.is_control
    r, y, weights = rows.r[child], rows.y[child], rows.share[child]
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
        "data": _bins(r, y, weights),
        **{f"isotonic_{way}": {"r": _list(f.r), "y": _list(f.y)} for way, f in steps.items()},
        "fit": None if mean is None else {"r": _list(CURVE_AT), "y": _list(mean)},
    }


_WAYS = ("increasing", "decreasing")


def _control(relative: EstimandFit) -> dict[str, Any] | None:
    """The control arm's success rate by position: in bins, and as fitted beside the ratio."""
    rows = relative.rows
    if not rows.is_control.any():
        return None
    of_control: BoolArray = rows.is_control
    mean = control_mean(relative, CURVE_AT)
    return {
        "data": _bins(rows.r[of_control], rows.y[of_control], rows.share[of_control]),
        "fit": None if mean is None else {"r": _list(CURVE_AT), "y": _list(mean)},
    }


def _bins(r: FloatArray, y: FloatArray, weights: FloatArray) -> dict[str, Any]:
    """Weighted means in bins of equal count."""
    filled, index = np.unique(equal_count_bins(r, BINS), return_inverse=True)
    mass = np.bincount(index, weights, filled.size)
    means = [np.bincount(index, weights * values, filled.size) / mass for values in (r, y)]
    counts = np.bincount(index, minlength=filled.size)
    return {"r": _list(means[0]), "y": _list(means[1]), "n": [int(count) for count in counts]}


def _list(values: FloatArray | None) -> list[float] | None:
    return None if values is None else [float(value) for value in values]
