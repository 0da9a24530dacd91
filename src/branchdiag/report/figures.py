"""Figures of what happens along the spine: failure, the control's, and the difference.

Reads the `curves` and `labels` tables as frames, and numbers of the report document; gives
Matplotlib figures that cope with tables that are empty or lack a series (the figure then says what
is missing). Computes no statistic. Continues figure 1 of arXiv 2605.21606: 1A is
`failure_by_position`, 1B is `failure_by_score`; the control (nothing forced) is added to both
readings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.report.document import Report, ScoreEntry, Slope, primary
from branchdiag.report.score_figures import score_comparison, score_panel
from branchdiag.report.style import (
    CHILD,
    CONTROL,
    GRID,
    INK,
    LABEL_COLOURS,
    MANY_POINTS,
    MUTED,
    NARROW,
    RELATIVE,
    house_style,
    legend_above,
    new_figure,
    say_missing,
    title,
)
from branchdiag.report.wording import (
    count,
    interval,
    label_words,
    number,
    score_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAILURE_SERIES = "failure_by_r"
CONTROL_SERIES = "control_by_r"
MONOTONE_SERIES = {"failure_by_r_decreasing": "-", "failure_by_r_increasing": ":"}
DIFFERENCE_SERIES = "d_by_r"
ADVANTAGE_SERIES = "teacher_advantage_by_r"
SCORE_SERIES = "failure_by_{name}"  # abscissa: the score's normalised rank, least suspicious first

X_POSITION = "relative position r in the spine"
RUG_ROWS = ("real_uncertain", "gray", "diversity")


def draw_all(document: Report, frames: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """Every figure of a run, by the name of its file.

    Args:
        document: the report document.
        frames: `curves` and `labels` as the tables hold them, and `score_values`: a row a candidate
            with `label`, `r` and a column for each score that could be had.

    Returns:
        Name -> figure, in the order of the page. A name that ends in `.narrow` is the variant of
        the figure before it for small screens.
    """
    curves, labels = frames["curves"], frames["labels"]
    scores, relative = document["scores"], document["scores_relative"]
    figures = {
        "failure_by_position": failure_by_position(curves, labels),
        "difference_by_position": difference_by_position(curves, labels, document["slope"]),
    }
    if has_series(curves, ADVANTAGE_SERIES):
        figures["advantage_by_position"] = advantage_by_position(curves)
    figures["scores"] = score_comparison(scores, relative)
    figures["scores" + NARROW] = score_comparison(scores, relative, narrow=True)
    figures["failure_by_score"] = failure_by_score(curves, scores, columns=4)
    figures["failure_by_score" + NARROW] = failure_by_score(curves, scores, columns=2)
    for entry in primary(scores):
        figures[f"score_{entry['name']}"] = score_panel(frames["score_values"], entry)
    return figures


def failure_by_position(curves: pd.DataFrame, labels: pd.DataFrame) -> Figure:
    """Share of continuations that fail, along the spine: after a forced token, and with none.

    Above: the binned curves with their cluster bands, and the monotone fits of the forced ones.
    Below: one tick a candidate, by label.
    """
    with house_style():
        figure = new_figure(4.6, 3.9, left=1.06, between=(0, 0.1))
        axes, rug = figure.subplots(2, 1, height_ratios=[5, 1.25], sharex=True)
        title(axes, "Failure along the spine")
        if not has_series(curves, FAILURE_SERIES):
            say_missing(axes, "no candidate has a viability")
        else:
            shown = [series(curves, FAILURE_SERIES)]
            draw_curve(axes, shown[0], CHILD, "forced token", above=True)
            if has_series(curves, CONTROL_SERIES):
                shown.append(series(curves, CONTROL_SERIES))
                draw_curve(axes, shown[1], CONTROL, "unforced control", marker="s", line="--")
            _draw_monotone(axes, curves)
            share_axis(axes, shown)
            axes.set_ylabel("continuations that fail")
            legend_above(axes)
        draw_rug(rug, labels)
        rug.set_xlabel(X_POSITION)
        rug.set_xlim(0, 1)
        return figure


def _draw_monotone(axes: Axes, curves: pd.DataFrame) -> None:
    """The two isotonic fits as thin lines; the one that is flat does not fit."""
    label: str | None = "monotone fits"
    for name, style in MONOTONE_SERIES.items():
        if has_series(curves, name):
            fit = series(curves, name)
            axes.plot(fit.x, fit.y, style, color=INK, linewidth=0.9, label=label)
            label = None


def difference_by_position(curves: pd.DataFrame, labels: pd.DataFrame, slope: Slope) -> Figure:
    """d = child - control viability along the spine, with the within-problem slope and its
    interval.

    The line goes through the mean of the candidates; its fan is the interval of the slope alone.
    """
    from matplotlib.ticker import MaxNLocator

    with house_style():
        figure = new_figure(4.6, 3.9, left=0.78)
        axes = figure.subplots()
        title(axes, "Against the control")
        points = labels.dropna(subset=["d"]) if "d" in labels else labels.iloc[:0]
        if points.empty:
            say_missing(axes, "no candidate has both children and a control")
            return figure
        axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
        axes.scatter(
            points.r,
            points.d,
            s=13,
            color=RELATIVE,
            alpha=0.28,
            linewidths=0,
            rasterized=len(points) > MANY_POINTS,
            label="candidate",
        )
        _draw_slope(axes, float(points.r.mean()), float(points.d.mean()), slope)
        if has_series(curves, DIFFERENCE_SERIES):
            draw_curve(axes, series(curves, DIFFERENCE_SERIES), RELATIVE, "bin mean")
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        reach = max(0.2, min(1.0, 1.12 * float(points.d.abs().max())))
        axes.set(xlim=(0, 1), ylim=(-reach, reach), xlabel=X_POSITION)
        axes.set_ylabel("d = viability, forced − unforced")
        style: dict[str, Any] = {"color": MUTED, "fontsize": 8, "style": "italic", "ha": "right"}
        axes.text(0.99, 0.985, "forced token helps", transform=axes.transAxes, va="top", **style)
        axes.text(0.99, 0.015, "forced token hurts", transform=axes.transAxes, va="bottom", **style)
        legend_above(axes)
        return figure


def _draw_slope(axes: Axes, r_mean: float, d_mean: float, slope: Slope) -> None:
    if slope["estimate"] is None:
        reason = slope["reason"] or "unknown"
        axes.plot([], [], linestyle="none", label=f"no slope: {reason}"[:60])
        return
    ends = (0.0, 1.0)

    def at(gradient: float) -> list[float]:
        return [d_mean + gradient * (end - r_mean) for end in ends]

    words = f"slope {number(slope['estimate'])}"
    if slope["ci_low"] is not None and slope["ci_high"] is not None:
        xs = (0.0, r_mean, 1.0)
        steep = [d_mean + slope["ci_high"] * (x - r_mean) for x in xs]
        flat = [d_mean + slope["ci_low"] * (x - r_mean) for x in xs]
        axes.fill_between(xs, flat, steep, color=INK, alpha=0.12, linewidth=0)
        words += f" {interval(slope['ci_low'], slope['ci_high'])}"
    else:
        words += ", no interval"
    axes.plot(ends, at(slope["estimate"]), color=INK, linewidth=1.3, label=words)


def advantage_by_position(curves: pd.DataFrame) -> Figure:
    """How much viability the teacher's preferences gain over the student's among the forced
    tokens."""
    with house_style():
        figure = new_figure(4.6, 3.1, left=0.78)
        axes = figure.subplots()
        title(axes, "The teacher's advantage")
        if not has_series(curves, ADVANTAGE_SERIES):
            say_missing(axes, "no candidate has a viability")
            return figure
        points = series(curves, ADVANTAGE_SERIES)
        axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
        draw_curve(axes, points, RELATIVE, "Σ (q − p) × viability, bin mean")
        reach = max(0.01, 1.1 * float(points[["y", "lo", "hi"]].astype(float).abs().max().max()))
        axes.set(xlim=(0, 1), ylim=(-reach, reach), xlabel=X_POSITION)
        axes.set_ylabel("gain in viability")
        legend_above(axes)
        return figure


def failure_by_score(curves: pd.DataFrame, scores: Sequence[ScoreEntry], *, columns: int) -> Figure:
    """Failure against the rank of each score, a panel a score, with position's curve behind each.

    The abscissa is the score's normalised rank in its declared orientation: a score that tells
    where forced tokens fail rises from left to right. A score without a curve has no panel.
    """
    names = {e["name"]: SCORE_SERIES.format(name=e["name"]) for e in primary(scores)}
    shown = [entry for entry in primary(scores) if has_series(curves, names[entry["name"]])]
    with house_style():
        rows = max(1, -(-len(shown) // columns))
        figure = new_figure(
            1.95 * columns, 1.7 * rows + 0.75, left=0.72, top=0.3, bottom=0.55, between=(0.1, 0.27)
        )
        if not shown:
            say_missing(figure.subplots(), "no candidate has a viability")
            return figure
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        share_axis(panels[0], [series(curves, names[entry["name"]]) for entry in shown])
        for axes, entry in zip(panels, shown, strict=False):
            title(axes, score_label(entry["name"]), fontsize=8.5)
            earliness = entry["name"] == "one_minus_r"
            if not earliness and has_series(curves, names.get("one_minus_r", "")):
                behind = series(curves, names["one_minus_r"])
                axes.plot(behind.x, behind.y, color=MUTED, linewidth=1.0, linestyle=":")
            points = series(curves, names[entry["name"]])
            draw_curve(axes, points, CHILD if earliness else CONTROL, None, size=2.6)
            axes.text(
                0.04, 0.96, f"AUROC {number(entry['auroc'])}", transform=axes.transAxes,
                va="top", fontsize=7.5, color=MUTED,
            )  # fmt: skip
            axes.set_xlim(0, 1)
            axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        for axes in panels[max(0, len(shown) - columns) : len(shown)]:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("rank of the score, least to most suspicious", fontsize=9, y=0.01)
        figure.supylabel("continuations that fail", fontsize=9, x=0.01)
        return figure


def has_series(curves: pd.DataFrame, name: str) -> bool:
    """Whether the table holds points of that series."""
    return "series" in curves and bool((curves["series"] == name).any())


def series(curves: pd.DataFrame, name: str) -> pd.DataFrame:
    """The points of a series, from left to right."""
    return curves[curves["series"] == name].sort_values("x")


def draw_curve(
    axes: Axes,
    points: pd.DataFrame,
    colour: str,
    label: str | None,
    *,
    marker: str = "o",
    line: str = "-",
    size: float = 4.5,
    above: bool = False,
) -> None:
    """Points joined by a line over their band; one point alone gets an error bar for a band."""
    banded = points.dropna(subset=["lo", "hi"])
    if len(points) == 1:
        for point in banded.to_dict("records"):
            axes.plot([point["x"]] * 2, [point["lo"], point["hi"]], color=colour, alpha=0.5)
    elif not banded.empty:
        lo, hi = points.lo.astype(float), points.hi.astype(float)
        axes.fill_between(points.x, lo, hi, color=colour, alpha=0.16, linewidth=0)
    edge: dict[str, Any] = {
        "markeredgecolor": "none",
        "markersize": size,
        "zorder": 3 if above else 2.5,
    }
    axes.plot(points.x, points.y, line, marker=marker, color=colour, label=label, **edge)


def draw_rug(axes: Axes, labels: pd.DataFrame) -> None:
    """One tick a candidate at its r, a row a label, with the number of each."""
    axes.set_ylim(len(RUG_ROWS) - 0.5, -0.5)
    names = []
    for row, label in enumerate(RUG_ROWS):
        at: list[float] = []
        if "label" in labels:
            at = labels.loc[labels["label"] == label, "r"].tolist()
        names.append(f"{label_words(label)} {count(len(at))}")
        axes.axhline(row, color=GRID, linewidth=0.7, zorder=0)
        few = len(at) <= 40
        axes.plot(
            at, [row] * len(at), linestyle="none", marker="|", color=LABEL_COLOURS[label],
            markersize=9, markeredgewidth=1.8 if few else 0.9, alpha=1.0 if few else 0.55,
            rasterized=len(at) > MANY_POINTS,
        )  # fmt: skip
    axes.set_yticks(range(len(RUG_ROWS)), names, fontsize=7.5)
    axes.grid(False)
    axes.spines["left"].set_visible(False)


def share_axis(axes: Axes, shown: Sequence[pd.DataFrame]) -> None:
    """An ordinate of shares, from 0 to the least multiple of 10% that holds every band."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    highest = max((float(points[["y", "hi"]].max().max()) for points in shown), default=1.0)
    top = min(1.0, max(0.2, math.ceil(10 * highest - 1e-9) / 10))
    axes.set_ylim(-0.02 * top, 1.02 * top)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
