"""The look of every figure, and its way into files and into the page.

Colours are roles, told apart in every common form of colour blindness and doubled by shape or line
style. In a file they are fixed; inside the page each becomes a CSS variable of that role, so that
one drawing serves light and dark. Knows Matplotlib (imported only when something is drawn) and no
data.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from branchdiag.store.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1c2127", "#5d6772", "#dfe3e8", "#ffffff"
CHILD, CONTROL, DIVERSITY, GRAY, RELATIVE = "#c2410c", "#1d6fb8", "#0f766e", "#87909b", "#6d3fa8"
ROLES = {
    "ink": INK,
    "muted": MUTED,
    "grid": GRID,
    "paper": PAPER,
    "child": CHILD,
    "control": CONTROL,
    "diversity": DIVERSITY,
    "gray": GRAY,
    "relative": RELATIVE,
}
LABEL_COLOURS = {"diversity": DIVERSITY, "real_uncertain": CHILD, "gray": GRAY}
LABEL_MARKERS = {"diversity": "o", "real_uncertain": "D", "gray": "x"}

NARROW = ".narrow"  # suffix of a figure's variant for small screens
PNG_DPI = 200
MANY_POINTS = 2000  # more are drawn as a picture inside the figure

_SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",  # text stays text: readable by machines, light, searchable
    "svg.hashsalt": "branchdiag",  # the same data give the same file
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for our figures, for the length of the block."""
    import matplotlib as mpl

    with mpl.rc_context(cast(Any, _SETTINGS)):
        yield


def new_figure(
    width: float,
    height: float,
    *,
    left: float = 0.66,
    right: float = 0.12,
    top: float = 0.58,
    bottom: float = 0.5,
    between: tuple[float, float] = (0.0, 0.0),
) -> Figure:
    """An empty figure that no global state knows of; all lengths in inches.

    Margins are set here, once: an automatic layout draws every figure twice and gives way to long
    labels. `between` is the gap between panels, across and down, as shares of a panel.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=between[0],
        hspace=between[1],
    )
    return figure


def say_missing(axes: Axes, reason: str) -> None:
    """Write in empty axes why nothing is drawn."""
    axes.set_axis_off()
    axes.text(
        0.5,
        0.5,
        wrap(f"not computed: {reason}", 44),
        ha="center",
        va="center",
        color=MUTED,
        style="italic",
        fontsize=9,
        transform=axes.transAxes,
    )


def wrap(text: str, width: int) -> str:
    """The text in lines of at most `width` characters."""
    import textwrap

    return "\n".join(textwrap.wrap(text, width)) or text


def title(axes: Axes, text: str, **style: Any) -> None:
    """A title just above axes that write no power of ten over their ordinate.

    Left to place it, Matplotlib measures every label of the ordinate in every drawing, which is a
    third of the time, to make room for such a power.
    """
    axes.set_title(text, y=1.0, **style)


def legend_above(axes: Axes) -> None:
    """The legend in a row between title and axes, where it hides no data."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    axes.set_title(axes.get_title(loc="left"), pad=21)
    axes.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(-0.012, 0.995),
        ncols=len(names),
        fontsize=8,
        borderaxespad=0.0,
        borderpad=0.25,
        handletextpad=0.45,
        columnspacing=1.1,
    )


class Rendered(NamedTuple):
    """A figure as SVG, of which the page and the file are made, and as PNG where there is one."""

    svg: str
    png: bytes | None


def render(named: tuple[str, Figure]) -> Rendered:
    """A figure of that name; variants for small screens are for the page alone: no PNG."""
    name, figure = named
    with house_style():
        return Rendered(_svg(figure), None if name.endswith(NARROW) else _png(figure))


def save_figures(
    figures: Mapping[str, Figure],
    directory: Path,
    rendered: Mapping[str, Rendered] | None = None,
) -> list[Path]:
    """Write each figure as PNG and SVG; variants for small screens are for the page alone.

    Args:
        rendered: what `render` made of them, where it is known.

    Returns:
        The paths written, in order. Each is replaced as a whole.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        svg, png = render((name, figure)) if rendered is None else rendered[name]
        if png is None:
            continue
        for suffix, data in ((".png", png), (".svg", _file_svg(svg))):
            paths.append(directory / (name + suffix))
            write_bytes(paths[-1], data)
    return paths


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return stream.getvalue()


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _file_svg(text: str) -> bytes:
    """For a drawing program: Verdana has the metrics of the font the layout was made with."""
    families = "'DejaVu Sans', Verdana, Helvetica, Arial, sans-serif"
    return text.replace("'DejaVu Sans'", families).encode()


def inline_svg(figure: Figure, name: str, description: str, svg: str | None = None) -> str:
    """The figure as an `<svg>` element to stand inside the page.

    Theme colours become `var(--fig-ROLE)`, fonts the page's own; identifiers are prefixed with the
    name, so that figures do not share any; the prolog, metadata and name spaces are left out, so
    that no address is in it. Its text is escaped by Matplotlib, `description` here.

    Args:
        svg: of `render`, where it is known.
    """
    if svg is None:
        with house_style():
            svg = _svg(figure)
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).replace("xlink:href", "href")
    text = _rename_identifiers(text, re.sub(r"[^A-Za-z0-9]+", "-", name))
    text = text.replace("stroke: #000000; stroke-opacity: 0", "stroke: none")
    for role, colour in ROLES.items():
        text = text.replace(f": {colour}", f": var(--fig-{role})")
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"(font: [^;\"]*?)'DejaVu Sans'", r"\1var(--sans)", text)
    width, height = figure.get_size_inches() * 96
    opening = (
        f'<svg role="img" aria-label="{escape(description)}" viewBox="0 0 {width * 0.75:g} '
        f'{height * 0.75:g}" style="max-width:{width * 1.25:.0f}px"'
    )
    text = re.sub(r"<svg\b[^>]*", opening, text, count=1)
    return re.sub(r">\s+<", "><", text).strip()


def _rename_identifiers(text: str, prefix: str) -> str:
    """Keep the identifiers that something refers to, prefixed; drop the others."""
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    names = {a or b for a, b in used}

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}-{match[1]}"' if match[1] in names else ""

    text = re.sub(r'\sid="([^"]+)"', renamed, text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
