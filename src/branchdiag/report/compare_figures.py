"""Figures of a comparison: curves by position, slopes, scores and schedules, all runs on one axis.

Takes the comparison document alone; gives Matplotlib figures that say what is missing. A run has
one colour and one marker in every figure. Computes no statistic. Lays several runs over each other
in the form of figure 1 of arXiv 2605.21606, each with its control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.report.compare_document import Comparison
from branchdiag.report.figures import X_POSITION, draw_curve, share_axis
from branchdiag.report.style import (
    CHILD,
    CONTROL,
    DIVERSITY,
    GRAY,
    INK,
    MUTED,
    NARROW,
    RELATIVE,
    house_style,
    new_figure,
    say_missing,
)
from branchdiag.report.wording import score_label, visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (CHILD, CONTROL, DIVERSITY, RELATIVE, INK, GRAY)
ROLES = ("child", "control", "diversity", "relative", "ink", "gray")
MARKERS = ("o", "s", "D", "^", "v", "P")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
SHOWN_SCORES = 14
LABEL_CHARACTERS = 34


def draw_comparison(document: Comparison) -> dict[str, Figure]:
    """Every figure by name, in the order of the page; `.narrow` ones are for small screens."""
    figures = {
        "compared_positions": positions(document, columns=3),
        "compared_positions" + NARROW: positions(document, columns=1),
        "compared_slopes": slopes(document),
        "compared_scores": scores(document),
    }
    if document["schedules"]:
        figures["compared_schedules"] = schedules(document)
    return figures


def describe(document: Comparison) -> dict[str, str]:
    """What each figure says to someone who cannot see it."""
    runs = ", ".join(run["label"] for run in document["runs"])
    return {
        "compared_positions": f"Failure and d against position for {runs}; numbers in the table.",
        "compared_positions" + NARROW: f"Failure and d against position for {runs}.",
        "compared_slopes": f"Slope of d with its interval for {runs}; numbers in the table.",
        "compared_scores": f"AUROC of scores with intervals for {runs}; numbers in the table.",
        "compared_schedules": f"Fitted weight against position for {runs}.",
    }


def positions(document: Comparison, *, columns: int) -> Figure:
    """Three panels of all runs: failure after a forced token, with nothing forced, and d."""
    panels = (
        ("forced", "After a forced token", "continuations that fail"),
        ("control", "With nothing forced", ""),
        ("d", "Forced less unforced viability, d", ""),
    )
    with house_style():
        top = _legend_height(document) + 0.42
        if columns == 1:
            figure = new_figure(4.6, 8.4 + top, left=0.78, top=top, between=(0, 0.32))
            grid = figure.subplots(3, 1)
        else:
            figure = new_figure(11.4, 3.2 + top, left=0.66, top=top, between=(0.19, 0))
            grid = figure.subplots(1, 3)
        for axes, (name, title, ylabel) in zip(grid, panels, strict=True):
            axes.set_title(title)
            shown = [_points(curve["series"][name]) for curve in document["curves"]]
            if all(points.empty for points in shown):
                say_missing(axes, "no run has this curve")
                continue
            if name == "d":
                axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
            for index, points in enumerate(shown):
                if not points.empty:
                    draw_curve(axes, points, COLOURS[index], None, marker=MARKERS[index], size=3.8)
            axes.set(xlim=(0, 1), xlabel=X_POSITION, ylabel=ylabel if columns > 1 else "")
            if name == "d":
                reach = max(float(p[["y", "lo", "hi"]].abs().max().max()) for p in shown if len(p))
                axes.set_ylim(-1.08 * max(0.05, reach), 1.08 * max(0.05, reach))
        _share_failure_axis(grid, document)
        _legend(figure, document)
        return figure


def _share_failure_axis(grid: Sequence[Axes], document: Comparison) -> None:
    """One ordinate for the forced and the unforced failure of all runs."""
    shown = [
        points
        for curve in document["curves"]
        for points in (_points(curve["series"][name]) for name in ("forced", "control"))
        if not points.empty
    ]
    for axes in list(grid)[:2]:
        if axes.axison and shown:
            share_axis(axes, shown)


def slopes(document: Comparison) -> Figure:
    """The within-problem slope of d of each run with its interval."""
    runs = document["runs"]
    with house_style():
        figure = new_figure(4.6, 1.35 + 0.42 * len(runs), left=1.75, top=0.42)
        axes = figure.subplots()
        axes.set_title("Slope of d on r", x=0)
        axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
        reach = 0.05
        for row, run in enumerate(runs):
            slope = run["slope"]
            if slope["estimate"] is None:
                axes.text(0, row, f"missing: {slope['reason']}"[:40], fontsize=7.5, color=MUTED,
                          va="center")  # fmt: skip
                continue
            if slope["ci_low"] is not None:
                axes.plot([slope["ci_low"], slope["ci_high"]], [row] * 2, color=COLOURS[row],
                          linewidth=3, alpha=0.45, solid_capstyle="butt")  # fmt: skip
                reach = max(reach, abs(slope["ci_low"]), abs(slope["ci_high"]))
            reach = max(reach, abs(slope["estimate"]))
            axes.plot(slope["estimate"], row, MARKERS[row], color=COLOURS[row], markersize=6)
        axes.set_xlim(-1.1 * reach, 1.1 * reach)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_yticks(range(len(runs)), [short(run["label"], 22) for run in runs])
        axes.grid(False, axis="y")
        axes.set_xlabel("change of d from a spine's start to its end")
        return figure


def scores(document: Comparison) -> Figure:
    """AUROC of the first run's best scores and signals in every run, with intervals."""
    runs = document["runs"]
    rows = [row for row in document["leaderboard"] if _drawable(row)][:SHOWN_SCORES]
    with house_style():
        top = _legend_height(document, columns=2) + 0.3
        height = max(1.0, 0.17 * len(rows) * max(2, len(runs)))
        figure = new_figure(6.4, height + top + 0.5, left=1.85, top=top)
        axes = figure.subplots()
        if not rows:
            say_missing(axes, "no run has an AUROC")
            return figure
        axes.axvline(0.5, color=MUTED, linewidth=0.9, linestyle="--", zorder=1)
        step = 0.72 / max(1, len(runs) - 1)
        for place, row in enumerate(rows):
            for index, entry in enumerate(row["entries"]):
                if entry is None or entry["auroc"] is None:
                    continue
                y = place + (index * step - 0.36 if len(runs) > 1 else 0)
                if entry["ci_low"] is not None:
                    axes.plot([entry["ci_low"], entry["ci_high"]], [y] * 2, color=COLOURS[index],
                              linewidth=2, alpha=0.45, solid_capstyle="butt")  # fmt: skip
                filled = COLOURS[index] if entry["ci_low"] is not None else "none"
                axes.plot(entry["auroc"], y, MARKERS[index], color=COLOURS[index], markersize=4.2,
                          markerfacecolor=filled)  # fmt: skip
        axes.set_yticks(range(len(rows)), [score_label(row["name"]) for row in rows], fontsize=8)
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="AUROC, centred in its problem")
        axes.grid(True, axis="x")
        _legend(figure, document, columns=2)
        return figure


def schedules(document: Comparison) -> Figure:
    """The fitted weight of each run with its band, and what would be written."""
    import numpy as np

    from branchdiag.schedule import Schedule

    with house_style():
        top = _legend_height(document, columns=2) + 0.42
        figure = new_figure(6.0, 3.1 + top, left=0.7, top=top)
        axes = figure.subplots()
        axes.set_title("Weight of a token by position")
        r = np.linspace(0.0, 1.0, 201)
        for index, entry in enumerate(document["schedules"]):
            colour, band = COLOURS[index], entry["fitted"]
            if band is not None:
                if band["low"] is not None:
                    axes.fill_between(
                        band["r"], band["low"], band["high"], color=colour, alpha=0.13, linewidth=0
                    )
                axes.plot(
                    band["r"], band["w"], marker=MARKERS[index], color=colour, linewidth=1.1,
                    markersize=3.2,
                )  # fmt: skip
            written = Schedule(entry["w_min"], entry["tau"], entry["s"], entry["direction"])
            axes.plot(r, written.curve(r), color=colour, linewidth=2.4, linestyle=LINES[index])
        axes.set(xlim=(0, 1), ylim=(0, 1.06), xlabel=X_POSITION, ylabel="w(r)")
        _legend(figure, document, columns=2)
        return figure


def short(label: str, characters: int = LABEL_CHARACTERS) -> str:
    """A run's label, its middle left out where it is long."""
    text = visible(label, keep="")
    if len(text) <= characters:
        return text
    left = (characters - 1) // 2
    return f"{text[:left]}…{text[-(characters - 1 - left) :]}"


def _drawable(row: Mapping[str, Any]) -> bool:
    return any(entry is not None and entry["auroc"] is not None for entry in row["entries"])


def _points(points: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(list(points), columns=["r", "y", "lo", "hi"]).rename(columns={"r": "x"})
    return frame.astype(float)


def _legend_height(document: Comparison, columns: int = 3) -> float:
    """Inches that the names of the runs take above the panels."""
    return 0.2 * -(-len(document["runs"]) // columns)


def _legend(figure: Figure, document: Comparison, columns: int = 3) -> None:
    from matplotlib.lines import Line2D

    width = figure.get_size_inches()[0]
    columns = columns if width > 5 else 1 if len(document["runs"]) < 4 else 2
    limit = 24 if columns == 2 and width < 6.2 else LABEL_CHARACTERS
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, label=short(run["label"], limit))
        for colour, marker, run in zip(COLOURS, MARKERS, document["runs"], strict=False)
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.006, 1.0),
        ncols=columns,
        fontsize=8.5,
        columnspacing=1.6,
        borderaxespad=0.1,
    )
