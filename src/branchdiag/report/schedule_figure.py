"""The figure beside `fitted.json`: what was seen along the trace, and the weight that follows.

Takes a schedule with its document and the fit it stands on; gives one Matplotlib figure of three
panels: the success rate, the same against the control, and the weight with its band beside the
published schedules. Computes no statistic. The panels on the left continue figure 1 of arXiv
2605.21606; the weight is its equation 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from branchdiag.report.style import (
    CHILD,
    CONTROL,
    DIVERSITY,
    GRAY,
    INK,
    MANY_POINTS,
    MUTED,
    RELATIVE,
    house_style,
    legend_above,
    new_figure,
    say_missing,
    wrap,
)
from branchdiag.schedule import PRESETS, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from branchdiag.stats.schedule_fit import FittedSchedule

X_POSITION = "relative position r"
OUTCOMES = {
    "viability": "forced samples that succeed",
    "relative": "forced samples that succeed",
    "binary": "candidates not real-uncertain",
    "teacher-weighted": "success, teacher-weighted",
}
PRESET_LINES = {
    "mild": (DIVERSITY, ":"),
    "moderate": (CONTROL, "--"),
    "sharp": (MUTED, "-."),
    "aggressive": (GRAY, (0, (5, 1, 1, 1, 1, 1))),
}


def draw_schedule(schedule: Schedule, fitted: FittedSchedule | None) -> Figure:
    """The weight, and where there is a fit the data and curves that it comes from.

    Args:
        schedule: what is written; its provenance is the document.
        fitted: the fit of the run, None for a preset alone.
    """
    document = schedule.document
    with house_style():
        if fitted is None:
            figure = new_figure(4.6, 4.0, left=0.66, top=1.15)
            _weight_panel(figure.subplots(), schedule, document)
        else:
            figure = new_figure(11.4, 4.3, left=0.66, top=1.15, between=(0.2, 0.0))
            success, ratio, weight = figure.subplots(1, 3)
            _success_panel(success, fitted, document)
            _ratio_panel(ratio, document["fits"]["relative"])
            _weight_panel(weight, schedule, document)
        height = figure.get_size_inches()[1]
        figure.text(
            0.012 if fitted else 0.03,
            1 - 0.12 / height,
            wrap(headline(document), 165 if fitted else 62),
            va="top",
            fontsize=9,
            color=INK,
        )
        return figure


def headline(document: dict[str, Any]) -> str:
    """What the file says, in a sentence or two: status, shape and reason."""
    if document.get("origin") == "preset":
        said = f"preset {document['preset']}, not fitted"
    else:
        said = f"{document['status']}, fitted to {document['estimand']}"
    if document["tau"] is None:
        shape = "weight 1 everywhere"
    else:
        shape = (
            f"{document['direction']}, w_min {document['w_min']:.2f}, "
            f"tau {document['tau']:.2f}, s {document['s']:.2f}"
        )
    reason = document.get("reason")
    return f"{said}: {shape}." + (f" {reason[0].upper()}{reason[1:]}." if reason else "")


def _success_panel(axes: Axes, fitted: FittedSchedule, document: dict[str, Any]) -> None:
    """The absolute estimand: candidates, bins, isotonic curves, fit; the control's curve."""
    estimand = "viability" if fitted.estimand == "relative" else fitted.estimand
    axes.set_title("Success along the trace")
    entry, rows = document["fits"][estimand], fitted.fits[estimand].rows
    curves = entry["curves"]
    control = None if estimand == "binary" else document["control"]  # a rate of another thing
    if curves is None:
        say_missing(axes, entry["reason"] or "no candidate can be used")
        return
    axes.scatter(
        rows.r,
        rows.y,
        s=10,
        color=CHILD,
        alpha=0.2,
        linewidths=0,
        rasterized=rows.r.size > MANY_POINTS,
    )
    if control is not None:
        _points(axes, control["data"], CONTROL, "control", marker="s", bar=4.0)
        if control["fit"] is not None:
            axes.plot(control["fit"]["r"], control["fit"]["y"], "--", color=CONTROL, linewidth=1.2)
    _curves(axes, curves, CHILD, "forced")
    axes.set(xlim=(0, 1), ylim=(-0.03, 1.03), xlabel=X_POSITION, ylabel=OUTCOMES[estimand])
    legend_above(axes)


def _ratio_panel(axes: Axes, entry: dict[str, Any]) -> None:
    """The ratio to the control, which is 1 where forcing costs nothing."""
    axes.set_title("Against the control")
    if entry["curves"] is None:
        say_missing(axes, entry["reason"] or "no candidate has children and a control")
        return
    axes.axhline(1, color=INK, linewidth=0.8, zorder=1)
    _curves(axes, entry["curves"], RELATIVE, "forced / control")
    shown = [v for key in ("y", "high") for v in entry["curves"]["data"][key] if v is not None]
    axes.set(xlim=(0, 1), ylim=(0, min(2.0, max([1.1, *shown]) * 1.03)), xlabel=X_POSITION)
    axes.set_ylabel(f"ratio of success ({entry['status']})")
    legend_above(axes)


def _weight_panel(axes: Axes, schedule: Schedule, document: dict[str, Any]) -> None:
    """The weight that is written, the fitted one with its band, and the published schedules."""
    import numpy as np

    axes.set_title("Weight of a token")
    r = np.linspace(0.0, 1.0, 201)
    for name, (colour, line) in PRESET_LINES.items():
        if name in PRESETS:
            curve = Schedule.preset(name).curve(r)
            axes.plot(r, curve, linestyle=line, color=colour, linewidth=1.0, label=name)
    entry = document.get("fits", {}).get(document.get("estimand"))
    band = entry["band"] if entry else None
    if band is not None:
        if band["low"] is not None:
            axes.fill_between(band["r"], band["low"], band["high"], color=CHILD, alpha=0.16, lw=0)
        axes.plot(band["r"], band["w"], color=CHILD, linewidth=1.2, label="fit")
    axes.plot(r, schedule.curve(r), color=INK, linewidth=2.0, label="written", zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 1.05), xlabel=X_POSITION, ylabel="w(r)")
    handles, names = axes.get_legend_handles_labels()
    axes.set_title(axes.get_title(loc="left"), pad=33)
    axes.legend(  # up to six names: two rows of three
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(-0.012, 0.995),
        ncols=3,
        fontsize=7.5,
        borderaxespad=0.0,
        borderpad=0.25,
        handlelength=2.2,
        columnspacing=1.0,
    )


def _curves(axes: Axes, curves: dict[str, Any], colour: str, name: str) -> None:
    """Bins with their bands, both isotonic curves as thin steps, the fit."""
    label: str | None = "isotonic"
    for way, line in (("increasing", "-"), ("decreasing", ":")):
        steps = curves[f"isotonic_{way}"]
        axes.step(steps["r"], steps["y"], line, where="mid", color=INK, linewidth=0.8, label=label)
        label = None
    _points(axes, curves["data"], colour, name, marker="o", bar=1.1)
    if curves["fit"] is not None:
        axes.plot(curves["fit"]["r"], curves["fit"]["y"], color=colour, linewidth=2.0, label="fit")


def _points(
    axes: Axes, data: dict[str, Any], colour: str, label: str, *, marker: str, bar: float
) -> None:
    """Means of bins, each with its band as a bar where there is one; wide bars are paler."""
    for r, low, high in zip(data["r"], data["low"], data["high"], strict=True):
        if low is not None:
            axes.plot([r, r], [low, high], color=colour, linewidth=bar, alpha=0.7 / bar)
    axes.plot(
        data["r"],
        data["y"],
        linestyle="none",
        marker=marker,
        color=colour,
        markersize=4.5,
        markeredgecolor="none",
        zorder=3,
        label=label,
    )
