"""The page of a comparison: one self-contained HTML file in the report's own dress.

Takes the comparison document and writes one file without a script and without any address. Labels,
models and settings are untrusted text: Jinja escapes everything. Computes no statistic. Lays out
what `compare_document` says, for runs of arXiv 2605.21606's diagnosis.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from branchdiag.report import wording
from branchdiag.report.compare_document import Comparison
from branchdiag.report.compare_figures import LINES, ROLES, describe, draw_comparison
from branchdiag.report.compare_sentences import FIGURES
from branchdiag.report.page import environment, setting_text
from branchdiag.report.sections import SECTIONS
from branchdiag.report.style import NARROW, inline_svg
from branchdiag.store.atomic import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "compare.html.j2"
VERDICT_WORDS = {
    "higher": "higher",
    "lower": "lower",
    "alone": "not with all together",
    "not told apart": "not told apart",
    "equal": "the same",
    "too few": "too few",
    "not compared": "not compared",
}
SHOWN_CHARACTERS = 160


def write_comparison(document: Comparison, path: Path) -> None:
    """Write the page to `path`; a reader never sees half of it.

    Raises:
        StorageError: the disk will not take it.
    """
    write_text(path, render_comparison(document, draw_comparison(document)))


def render_comparison(document: Comparison, figures: Mapping[str, Figure]) -> str:
    """The page as text.

    Args:
        document: the comparison.
        figures: what `draw_comparison` gave; one that is not there is left out.
    """
    alternatives = describe(document)
    drawings = {  # our own drawings: the one thing that the template does not escape
        name: Markup(inline_svg(figure, name, alternatives[name]))
        for name, figure in figures.items()
    }
    jinja = environment()
    jinja.filters.update(
        cell=_cell,
        signed=_signed,
        verdict_words=lambda verdict: VERDICT_WORDS.get(verdict, verdict),
    )
    return jinja.get_template(TEMPLATE).render(
        doc=document,
        drawings=drawings,
        narrow=NARROW,
        roles=ROLES,
        reference=document["runs"][0]["label"],
        digits={name: figure.digits for name, figure in FIGURES.items()},
        level=wording.percent(document["level"]),
        parts=_parts(document),
        n_styles=len(LINES),
    )


def _cell(value: Any) -> str:
    """A setting's value, cut where it is long."""
    text = "not there" if value is None else setting_text(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _parts(document: Comparison) -> list[dict[str, Any]]:
    """The side diagnostics that several runs have: figures of each run beside each other."""
    parts = []
    for command, sections in document["sections"].items():
        section = SECTIONS.get(command)
        if section is None:
            continue
        columns = []
        for index, (run, content) in enumerate(zip(document["runs"], sections, strict=True)):
            if content is None:
                continue
            described = section.describe(content)
            figures = section.draw(content)
            drawn = [  # two columns: a figure's form for small screens, where it has one
                Markup(
                    inline_svg(
                        figures.get(name + NARROW, figure),
                        f"run{index}-{name}",
                        described.get(name, name),
                    )
                )
                for name, figure in figures.items()
                if not name.endswith(NARROW)
            ]
            columns.append({"label": run["label"], "drawings": drawn, "lines": headlines(content)})
        parts.append({"title": section.title, "command": command, "columns": columns})
    return parts


def headlines(content: Any) -> list[str]:
    """What a side diagnostic says in words: its paragraph, or its sentences wherever they lie."""
    if isinstance(content, Mapping):
        if isinstance(content.get("paragraph"), str):
            return [content["paragraph"]]
        own = content.get("sentences")
        said = [line for line in own if isinstance(line, str)] if isinstance(own, list) else []
        if said and isinstance(content.get("description"), str):
            # Sentences of a group, which is never pooled with another: say which.
            group = content["description"]
            said = [f"{group[:1].upper()}{group[1:]}:", *said]
        for key, value in content.items():
            if key != "sentences":
                said += headlines(value)
        return said
    if isinstance(content, list):
        return [line for item in content for line in headlines(item)]
    return []


def _signed(value: float, digits: int) -> str:
    """A difference with its sign, none where it is 0 as shown."""
    text = wording.number(value, digits)
    return f"+{text}" if value > 0 and float(text) > 0 else text
