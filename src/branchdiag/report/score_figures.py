"""Figures that compare the scores: their AUROC side by side, and each against position by label.

Reads score entries of the report document and one frame with a row a candidate. Computes no
statistic. The scatter and histograms are those of arXiv 2605.21606, Phase G.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.report.document import RelativeEntry, ScoreEntry, common_reason, primary
from branchdiag.report.style import (
    CHILD,
    GRID,
    INK,
    LABEL_COLOURS,
    LABEL_MARKERS,
    MANY_POINTS,
    MUTED,
    PAPER,
    RELATIVE,
    house_style,
    legend_above,
    new_figure,
    say_missing,
    title,
    wrap,
)
from branchdiag.report.wording import MINUS, label_words, number, score_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HISTOGRAM_BINS = 14
NULL_MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "|",
    "markersize": 11,
    "markeredgewidth": 1.8,
    "color": INK,
    "zorder": 3,
}
FOLDED_MARK: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 5.5,
    "markeredgewidth": 0.9,
    "markerfacecolor": "none",
    "color": MUTED,
}


def score_comparison(
    scores: Sequence[ScoreEntry], relative: Sequence[RelativeEntry], *, narrow: bool = False
) -> Figure:
    """AUROC of each score with its interval: against the label, and against the relative one.

    A hollow diamond is the paper's folded figure; in the relative panel a bar is the permuted
    null's mean. A score that ranks as another does is drawn once.
    """
    rows = primary(scores)
    known = {entry["name"]: entry for entry in relative}
    beside = [known[entry["name"]] for entry in rows if entry["name"] in known]
    with house_style():
        told = any(entry["auroc"] is not None for entry in [*rows, *beside])
        panel = 0.28 * max(3, len(rows) if told else 0)
        margins = {"left": 1.5, "right": 0.2, "top": 0.55}
        if narrow:
            gap = (0.0, 1.15 / panel)
            figure = new_figure(4.3, 2 * panel + 2.2, **margins, between=gap)
            absolute_axes, relative_axes = figure.subplots(2, 1)
        else:
            figure = new_figure(7.8, panel + 1.05, **margins, between=(0.07, 0.0))
            absolute_axes, relative_axes = figure.subplots(1, 2)
        title(absolute_axes, "Real-uncertain or diversity?")
        title(relative_axes, "Worse than the control?")
        _forest(absolute_axes, rows, CHILD, "no score was computed")
        _forest(relative_axes, beside, RELATIVE, "no label relative to the control")
        if rows and beside and not narrow:
            relative_axes.tick_params(labelleft=False)
        return figure


def _forest(axes: Axes, entries: Sequence[ScoreEntry], colour: str, empty: str) -> None:
    missing = common_reason(entries) if entries else empty
    if missing is not None:
        say_missing(axes, missing)
        return
    axes.grid(False)
    axes.axvline(0.5, color=MUTED, linewidth=1.0, linestyle=(0, (3, 2)))
    for row, entry in enumerate(entries):
        axes.axhline(row, color=GRID, linewidth=0.6, zorder=0)
        if entry["auroc"] is None:
            axes.text(
                0.03, row, wrap(entry["reason"] or "not computed", 60).split("\n")[0],
                va="center", fontsize=7, color=MUTED, style="italic",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        folded, null = entry["paper_compat"]["auroc"], entry.get("null_mean")
        if isinstance(null, float):
            axes.plot(null, row, **NULL_MARK)
        elif folded is not None:
            axes.plot(folded, row, **FOLDED_MARK)
        if entry["ci_low"] is not None and entry["ci_high"] is not None:
            axes.plot([entry["ci_low"], entry["ci_high"]], [row, row], color=colour, linewidth=2.2)
        hollow = entry["ci_low"] is None
        axes.plot(
            entry["auroc"], row, linestyle="none", marker="o", markersize=6, markeredgecolor=colour,
            markerfacecolor=PAPER if hollow else colour, color=colour, zorder=4, clip_on=False,
        )  # fmt: skip
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_yticks(range(len(entries)), [score_label(entry["name"]) for entry in entries])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("AUROC")
    _forest_legend(axes, entries, colour)


def _forest_legend(axes: Axes, entries: Sequence[ScoreEntry], colour: str) -> None:
    marks: dict[str, dict[str, Any]] = {
        "AUROC and interval": {"linestyle": "none", "marker": "o", "color": colour}
    }
    if any(isinstance(entry.get("null_mean"), float) for entry in entries):
        marks["mean of its null"] = NULL_MARK
    elif any(entry["paper_compat"]["auroc"] is not None for entry in entries):
        marks["folded (paper)"] = FOLDED_MARK
    for name, style in marks.items():
        axes.plot([], [], label=name, **style)
    legend_above(axes)


def score_panel(values: pd.DataFrame, entry: ScoreEntry) -> Figure:
    """One score against r, coloured by label, with its histograms by label beside it.

    Each label's histogram has its own unit area, so that few positives show beside many negatives.
    """
    name = entry["name"]
    with house_style():
        figure = new_figure(
            3.6, 2.5, left=0.52, right=0.08, top=0.32, bottom=0.46, between=(0.05, 0)
        )
        scatter, histogram = figure.subplots(1, 2, width_ratios=[3, 1], sharey=True)
        title(scatter, score_label(name))
        rows = values.dropna(subset=[name, "label"]) if name in values else values.iloc[:0]
        if rows.empty:
            histogram.set_axis_off()
            say_missing(scatter, "no candidate has this score")
            return figure
        for label in ("diversity", "gray", "real_uncertain"):
            group = rows[rows["label"] == label]
            if not group.empty:
                _points(scatter, group, name, label)
        scatter.set(xlim=(0, 1), xlabel="r")
        scatter.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        scatter.tick_params(labelsize=8)
        scatter.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}".replace("-", MINUS))
        _histograms(histogram, rows, name)
        auroc = f"AUROC {number(entry['auroc'])}"
        title(histogram, auroc, loc="right", fontsize=8, fontweight="normal", color=MUTED)
        return figure


def _points(axes: Axes, group: pd.DataFrame, name: str, label: str) -> None:
    first = label == "real_uncertain"
    axes.scatter(
        group["r"],
        group[name],
        s=22 if first else 11,
        marker=LABEL_MARKERS[label],
        color=LABEL_COLOURS[label],
        alpha=0.95 if first else 0.45,
        linewidths=0.8 if label == "gray" else 0,
        zorder=4 if first else 2,
        rasterized=len(group) > MANY_POINTS,
        label=label_words(label),
    )


def _histograms(axes: Axes, rows: pd.DataFrame, name: str) -> None:
    low, high = float(rows[name].min()), float(rows[name].max())
    if high - low <= 1e-12 * max(1.0, abs(low), abs(high)):  # one value: give the bar a height
        low, high = low - 0.5, high + 0.5
    edges = [low + (high - low) * i / HISTOGRAM_BINS for i in range(HISTOGRAM_BINS + 1)]
    for label in ("diversity", "real_uncertain"):
        group = rows.loc[rows["label"] == label, name]
        if not group.empty:
            axes.hist(
                group, bins=edges, density=True, orientation="horizontal", histtype="stepfilled",
                facecolor=LABEL_COLOURS[label], alpha=0.30, linewidth=0,
            )  # fmt: skip
            axes.hist(
                group, bins=edges, density=True, orientation="horizontal", histtype="step",
                edgecolor=LABEL_COLOURS[label], linewidth=1.2,
            )  # fmt: skip
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel("share", color=MUTED)
