"""Figures of the gradient alignment, drawn from its document alone.

For each group of nodes: the teacher's advantage by position under each context, the forward KL's
cosine by position, and every loss's cosine side by side. Computes no statistic; what is missing is
said in the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.report.style import (
    CHILD,
    CONTROL,
    DIVERSITY,
    GRAY,
    GRID,
    INK,
    MUTED,
    PAPER,
    RELATIVE,
    house_style,
    legend_above,
    new_figure,
    say_missing,
)
from branchdiag.report.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]

COLOURS = (CHILD, CONTROL, RELATIVE, DIVERSITY, GRAY)
MARKERS = ("o", "s", "D", "^", "v")
LINES = ("-", "--", "-.", ":", "-")
X_POSITION = "relative position r in the spine"
NAME_CHARACTERS = 24
CORRECTED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "D",
    "markersize": 4.5,
    "markerfacecolor": PAPER,
    "markeredgewidth": 0.9,
    "color": INK,
    "zorder": 5,
}


def draw(document: Document) -> dict[str, Figure]:
    """Every figure of the section, by the name of its file."""
    figures = {}
    for group in document["groups"]:
        if group["reason"] is None:
            name = group["group"]
            figures[f"alignment_advantage_{name}"] = advantage_by_position(document, group)
            figures[f"alignment_cosine_{name}"] = cosine_by_position(document, group)
            figures[f"alignment_losses_{name}"] = losses(document, group)
    return figures


def describe(document: Document) -> dict[str, str]:
    """What each figure says to someone who cannot see it."""
    texts = {}
    for group in document["groups"]:
        if group["reason"] is not None:
            continue
        name, about = group["group"], group["description"]
        for figure, what in (
            ("advantage", "The teacher's advantage"),
            ("cosine", "Cosine of the forward KL's gradient with the ideal one"),
        ):
            key = "advantage" if figure == "advantage" else "cosine_forward_kl"
            ends = " ".join(filter(None, (_ends(entry, key) for entry in group["contexts"])))
            texts[f"alignment_{figure}_{name}"] = f"{what} by position, {about}. {ends}".strip()
        texts[f"alignment_losses_{name}"] = (
            f"Mean cosine of each loss's gradient with the ideal one, {about}; the numbers are in "
            "the table."
        )
    return texts


def _ends(entry: Mapping[str, Any], figure: str) -> str | None:
    """Where a context's line begins and ends."""
    points = [point for point in entry["by_position"][figure] if point["value"] is not None]
    if not points:
        return None
    first, last = points[0], points[-1]
    return (
        f"{entry['words']}: {number(first['value'], 3)} at r = {number(first['r'])}, "
        f"{number(last['value'], 3)} at r = {number(last['r'])}."
    )


def advantage_by_position(document: Document, group: Mapping[str, Any]) -> Figure:
    """sum (q - p) V by position, a line a context, with its band."""
    with house_style():
        figure = new_figure(4.9, 3.4, left=0.78)
        axes = figure.subplots()
        axes.set_title("The teacher's advantage")
        reach = _curves(axes, document, group, "advantage")
        if reach is None:
            say_missing(axes, "no node has an advantage")
            return figure
        reach = max(0.01, 1.08 * reach)
        axes.set(xlim=(0, 1), ylim=(-reach, reach), xlabel=X_POSITION)
        axes.set_ylabel("gain in success at the node")
        style: dict[str, Any] = {"color": MUTED, "fontsize": 8, "style": "italic", "ha": "right"}
        axes.text(
            0.99, 0.985, "teacher chooses better", transform=axes.transAxes, va="top", **style
        )
        axes.text(
            0.99, 0.015, "student chooses better", transform=axes.transAxes, va="bottom", **style
        )
        legend_above(axes)
        return figure


def cosine_by_position(document: Document, group: Mapping[str, Any]) -> Figure:
    """Mean cosine of the forward KL's gradient by position, over the nodes where it is defined."""
    with house_style():
        figure = new_figure(4.9, 3.4, left=0.78)
        axes = figure.subplots()
        axes.set_title("Cosine with the ideal gradient")
        if _curves(axes, document, group, "cosine_forward_kl") is None:
            say_missing(axes, "no node has a defined cosine")
            return figure
        axes.set(xlim=(0, 1), ylim=(-1.03, 1.03), xlabel=X_POSITION)
        axes.set_ylabel("mean cosine, forward KL")
        legend_above(axes)
        return figure


def _curves(axes: Axes, document: Document, group: Mapping[str, Any], figure: str) -> float | None:
    """Draw a line a context; the furthest that one of them or its band reaches, None if none."""
    axes.axhline(0, color=INK, linewidth=1.0, zorder=1)
    furthest: list[float] = []
    for entry in group["contexts"]:
        look = _look(document, entry["context"])
        points = [point for point in entry["by_position"][figure] if point["value"] is not None]
        if not points:
            continue
        rs, values = ([point[key] for point in points] for key in ("r", "value"))
        banded = [point for point in points if point["ci_low"] is not None]
        if banded:
            r, low, high = ([point[key] for point in banded] for key in ("r", "ci_low", "ci_high"))
            axes.fill_between(r, low, high, color=look["color"], alpha=0.14, linewidth=0)
        axes.plot(rs, values, markersize=4.5, markeredgecolor="none", label=_named(entry), **look)
        furthest += [
            abs(p[key]) for p in points for key in ("value", "ci_low", "ci_high") if p[key]
        ]
    if not axes.lines[1:]:
        return None
    return max(furthest, default=0.0)


def _look(document: Document, context: str) -> dict[str, Any]:
    """A context's colour, marker and line: the same in every figure."""
    place = [entry["context"] for entry in document["contexts"]].index(context) % len(COLOURS)
    return {"color": COLOURS[place], "marker": MARKERS[place], "linestyle": LINES[place]}


def _named(entry: Mapping[str, Any]) -> str:
    words = str(entry["words"])
    return words if len(words) <= NAME_CHARACTERS else "…" + words[1 - NAME_CHARACTERS :]


def losses(document: Document, group: Mapping[str, Any]) -> Figure:
    """Mean cosine of each loss under each context, and the noise-corrected one of all nodes."""
    shown = [entry for entry in group["contexts"] if _has_cosine(entry)]
    with house_style():
        n_rows = sum(len(entry["losses"]) for entry in shown)
        figure = new_figure(5.2, 0.29 * max(6, n_rows) + 1.25, left=1.4, right=0.25)
        axes = figure.subplots()
        axes.set_title("Cosine with the ideal gradient, by loss")
        if not shown:
            say_missing(axes, "no node has a defined cosine under any context")
            return figure
        axes.grid(False)
        axes.axvline(0, color=MUTED, linewidth=1.0, linestyle=(0, (3, 2)))
        names, row = [], 0
        for entry in shown:
            colour = _look(document, entry["context"])["color"]
            for place, loss in enumerate(entry["losses"]):
                axes.axhline(row, color=GRID, linewidth=0.6, zorder=0)
                _mean_mark(axes, loss["cosine"], row, colour, None if place else _named(entry))
                _corrected_mark(axes, loss["corrected"], row)
                names.append(loss["name"])
                row += 1
        axes.plot([], [], label="all nodes, noise taken out", **CORRECTED)
        axes.set_ylim(row - 0.4, -0.6)
        axes.set_yticks(range(row), names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_xlim(-1.03, 1.03)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("cosine")
        legend_above(axes)
        axes.legend_.set_bbox_to_anchor((-0.35, 0.995))  # type: ignore[union-attr]
        return figure


def _has_cosine(entry: Mapping[str, Any]) -> bool:
    return any(loss["cosine"]["value"] is not None for loss in entry["losses"])


def _mean_mark(
    axes: Axes, cosine: Mapping[str, Any], row: int, colour: str, label: str | None
) -> None:
    """A dot at a mean with its interval; hollow without one."""
    if cosine["value"] is None:
        return
    hollow = cosine["ci_low"] is None
    if not hollow:
        axes.plot([cosine["ci_low"], cosine["ci_high"]], [row, row], color=colour, linewidth=2.2)
    axes.plot(
        cosine["value"], row, linestyle="none", marker="o", markersize=6, markeredgecolor=colour,
        markerfacecolor=PAPER if hollow else colour, color=colour, zorder=4, label=label,
    )  # fmt: skip


def _corrected_mark(axes: Axes, corrected: Mapping[str, Any], row: int) -> None:
    """A diamond below the dot, with its interval; none where noise leaves no interval."""
    if corrected["ci_low"] is None:
        return
    value, low, high = (
        max(-1.0, min(1.0, corrected[key])) for key in ("value", "ci_low", "ci_high")
    )
    axes.plot([low, high], [row + 0.27] * 2, color=INK, linewidth=0.9)
    axes.plot(value, row + 0.27, **CORRECTED)


def table_of(group: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The rows of the table of cosines: a loss under a context that has one."""
    return [
        {"words": entry["words"], "context": entry["context"], **loss}
        for entry in group["contexts"]
        if _has_cosine(entry)
        for loss in entry["losses"]
    ]
