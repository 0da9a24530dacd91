"""Figures of the position bias: who reaches the answer from a prefix, discrepancy, weights.

Takes the document alone (`position_bias.json`); gives Matplotlib figures that say what is missing
where a curve is. Computes no statistic. After figures 1b and 3 of IW-OPD (arXiv 2606.22600).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.report.figures import draw_curve
from branchdiag.report.style import (
    CHILD,
    CONTROL,
    DIVERSITY,
    INK,
    MUTED,
    NARROW,
    RELATIVE,
    house_style,
    legend_above,
    new_figure,
    say_missing,
)
from branchdiag.report.wording import number, percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

GROUP_TITLES = {"all": "All spines", "correct": "Correct spines", "incorrect": "Incorrect spines"}
GROUP_LOOKS = {
    "all": (INK, "o", "-"),
    "correct": (DIVERSITY, "s", "--"),
    "incorrect": (CHILD, "D", "-."),
}
X_FRACTION = "share of the spine that is kept"
X_POSITION = "relative position r in the spine"
LOG_RATIO = 20.0
"""A scale is logarithmic where the largest mean is this many times the least."""


def draw(document: Document) -> dict[str, Figure]:
    """Every figure of the section, by the name of its file.

    Args:
        document: as `position_bias.json` holds it.
    """
    return {
        "prefix_accuracy": prefix_accuracy(document, columns=4),
        "prefix_accuracy" + NARROW: prefix_accuracy(document, columns=2),
        "discrepancy_by_r": discrepancy(document, "discrepancy_by_r"),
        "discrepancy_by_token": discrepancy(document, "discrepancy_by_position"),
        "weight_iw_opd": iw_opd_weight(document),
        "weight_fitted": fitted_weight(document),
    }


def describe(document: Document) -> dict[str, str]:
    """What each figure says to someone who cannot see it."""
    curves = document["curves"]
    return {
        "prefix_accuracy": "Continuations that reach the answer, against the share of the spine "
        "that is kept. "
        + " ".join(
            _ends(points(curves, group, writer), f"{title}, {writer}", share=True)
            for group, title in GROUP_TITLES.items()
            for writer in ("student", "teacher")
        ),
        "discrepancy_by_r": "Discrepancy of teacher and student against relative position. "
        + _by_group(curves, "discrepancy_by_r"),
        "discrepancy_by_token": "Discrepancy of teacher and student against token position. "
        + _by_group(curves, "discrepancy_by_position"),
        "weight_iw_opd": "IW-OPD's weight against relative position. "
        + _by_group(curves, "weight_by_r"),
        "weight_fitted": "The schedule fitted to the same run: status "
        f"{document['schedule']['status']}, weight "
        f"{number(document['schedule']['curve']['w'][0])} at r = 0 and "
        f"{number(document['schedule']['curve']['w'][-1])} at r = 1.",
    }


def _by_group(curves: Mapping[str, Any], series: str) -> str:
    return " ".join(
        _ends(points(curves, group, series), title) for group, title in GROUP_TITLES.items()
    )


def _ends(shown: Sequence[Mapping[str, Any]], what: str, *, share: bool = False) -> str:
    known = [point for point in shown if point["y"] is not None]
    if not known:
        return f"{what}: not known."
    write = percent if share else lambda value: number(value, 3)
    first, last = known[0], known[-1]
    return (
        f"{what}: {write(first['y'])} at {number(first['x'])}, {write(last['y'])} at "
        f"{number(last['x'])}."
    )


def points(curves: Mapping[str, Any], group: str, series: str) -> list[dict[str, Any]]:
    """The points of a curve of a group, from left to right; none where there is no such curve."""
    found: list[dict[str, Any]] = curves.get(group, {}).get(series, [])
    return found


def prefix_accuracy(document: Document, *, columns: int) -> Figure:
    """Who reaches the answer from a prefix, for all spines and split, and the teacher's gain."""
    with house_style():
        rows = -(-4 // columns)
        figure = new_figure(
            2.55 * columns,
            2.75 * rows + 0.25,
            left=0.62,
            top=0.72,
            bottom=0.52,
            between=(0.28, 0.62),
        )
        *panels, last = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (group, title) in zip(panels, GROUP_TITLES.items(), strict=True):
            _accuracy_panel(axes, document, group, title)
        _gain_panel(last, document)
        return figure


def _accuracy_panel(axes: Axes, document: Document, group: str, title: str) -> None:
    from matplotlib.ticker import PercentFormatter

    counts = document["counts"]
    n = {
        "correct": counts["spines_correct"],
        "incorrect": counts["spines_incorrect"],
        "all": counts["spines_correct"] + counts["spines_incorrect"],
    }[group]
    axes.set_title(f"{title} ({n:,})")
    looks = {"teacher": (CHILD, "o", "-"), "student": (CONTROL, "s", "--")}
    for writer, (colour, marker, line) in looks.items():
        shown = _frame(points(document["curves"], group, writer))
        if shown is None:
            say_missing(axes, "no problem has samples here")
            return
        draw_curve(axes, shown, colour, writer, marker=marker, line=line)
    axes.set(xlim=(-0.03, 1), ylim=(-0.03, 1.03), xlabel=X_FRACTION)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if group == "all":
        axes.set_ylabel("reach the answer")
    legend_above(axes)


def _gain_panel(axes: Axes, document: Document) -> None:
    """Teacher less student, paired in each problem."""
    axes.set_title("Teacher − student")
    ends = [-0.05, 0.05]
    for group, (colour, marker, line) in GROUP_LOOKS.items():
        shown = _frame(points(document["curves"], group, "gain"))
        if shown is not None:
            draw_curve(axes, shown, colour, group, marker=marker, line=line)
            ends += [float(shown.min(numeric_only=True)[["y", "lo", "hi"]].min())]
            ends += [float(shown.max(numeric_only=True)[["y", "lo", "hi"]].max())]
    axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
    axes.set(xlim=(-0.03, 1), xlabel=X_FRACTION)
    axes.set_ylim(1.08 * min(ends), 1.08 * max(ends))
    legend_above(axes)


def discrepancy(document: Document, series: str) -> Figure:
    """|ln(q / p)| of the spine's own tokens, in bins of equally many tokens."""
    by_r = series == "discrepancy_by_r"
    with house_style():
        figure = new_figure(4.6, 3.3, left=0.78)
        axes = figure.subplots()
        axes.set_title("Discrepancy along the spine" if by_r else "Discrepancy by token")
        drawn = _group_curves(axes, document, series)
        if not drawn:
            say_missing(axes, "no token was scored")
            return figure
        means = [float(y) for frame in drawn for y in frame.y.dropna()]
        if means and min(means) > 0 and max(means) > LOG_RATIO * min(means):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(lambda *_: "")
        else:
            axes.set_ylim(bottom=0)
        if by_r:
            axes.set_xlim(0, 1)
        axes.set(
            xlabel=X_POSITION if by_r else "tokens before this one", ylabel="|ln(q / p)|, nats"
        )
        legend_above(axes)
        return figure


def iw_opd_weight(document: Document) -> Figure:
    """IW-OPD's weight, which always falls, beside what an even discrepancy would make of it."""
    gamma = document["iw_opd"]["gamma"]
    with house_style():
        figure = new_figure(4.6, 3.3, left=0.66)
        axes = figure.subplots()
        axes.set_title("IW-OPD's weight")
        axes.plot([0, 1], [1 + gamma, 1], color=MUTED, linewidth=1.0, linestyle=":", label="even")
        if not _group_curves(axes, document, "weight_by_r"):
            say_missing(axes, "no spine has a discrepancy at every token")
            return figure
        _weight_axes(axes, gamma)
        return figure


def fitted_weight(document: Document) -> Figure:
    """The schedule that `fit-schedule` fits to the same run, on the same axes."""
    schedule = document["schedule"]
    curve = schedule["curve"]
    with house_style():
        figure = new_figure(4.6, 3.3, left=0.66)
        axes = figure.subplots()
        axes.set_title(f"Fitted schedule ({schedule['status']})")
        for name, (colour, line) in {
            "viability": (RELATIVE, "-"),
            "relative": (CONTROL, "--"),
        }.items():
            band = schedule["fits"].get(name, {}).get("band")
            if band is None:
                continue
            if band["low"] is not None:
                axes.fill_between(
                    band["r"], band["low"], band["high"], color=colour, alpha=0.14, linewidth=0
                )
            label = "fit to viability" if name == "viability" else "to the ratio"
            axes.plot(band["r"], band["w"], line, color=colour, linewidth=1.3, label=label)
        axes.plot(curve["r"], curve["w"], color=INK, linewidth=2.0, label="written", zorder=3)
        _weight_axes(axes, document["iw_opd"]["gamma"])
        return figure


def _weight_axes(axes: Axes, gamma: float) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * (1 + gamma)), xlabel=X_POSITION, ylabel="weight")
    legend_above(axes)


def _group_curves(axes: Axes, document: Document, series: str) -> list[pd.DataFrame]:
    """A curve a group; which were drawn."""
    drawn = []
    for group, (colour, marker, line) in GROUP_LOOKS.items():
        shown = _frame(points(document["curves"], group, series))
        if shown is not None:
            draw_curve(axes, shown, colour, group, marker=marker, line=line)
            drawn.append(shown)
    return drawn


def _frame(shown: Sequence[Mapping[str, Any]]) -> pd.DataFrame | None:
    """The points with a value, or None where there is none."""
    import pandas as pd

    known = [point for point in shown if point["y"] is not None]
    return pd.DataFrame(known).astype({"y": float, "lo": float, "hi": float}) if known else None
