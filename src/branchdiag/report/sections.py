"""Sections that side diagnostics add to the report, by the command that makes them.

A section is drawn, printed and laid out from one JSON document alone, which the last stage of its
command writes into the run. Knows no statistic and no table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag.report import (
    alignment,
    alignment_terminal,
    position_bias,
    position_bias_terminal,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        command: the command that makes it.
        title: its heading, and its name in the page's list of contents.
        last_stage: letter of the stage that writes its document; shown once that is complete.
        file: name of the document in the run directory.
        template: its part of the page; it is given `section`, the document, and `drawings`.
        draw: document -> figures by name (names are unique in the report).
        describe: document -> what each figure says to someone who cannot see it, by name.
        show: prints the document for people.
    """

    command: str
    title: str
    last_stage: str
    file: str
    template: str
    draw: Callable[[Document], dict[str, Figure]]
    describe: Callable[[Document], dict[str, str]]
    show: Callable[[Document, Console], None]


SECTIONS: dict[str, Section] = {
    section.command: section
    for section in (
        Section(
            command="prefixes",
            title="Position bias",
            last_stage="P3",
            file="position_bias.json",
            template="position_bias.html.j2",
            draw=position_bias.draw,
            describe=position_bias.describe,
            show=position_bias_terminal.show,
        ),
        Section(
            command="align",
            title="Gradient alignment",
            last_stage="N4",
            file="alignment.json",
            template="alignment.html.j2",
            draw=alignment.draw,
            describe=alignment.describe,
            show=alignment_terminal.show,
        ),
    )
}


def read_sections(
    directory: Path, phases: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The documents of the sections whose last stage is complete, by command.

    Args:
        directory: of the run.
        phases: the manifest's record of each phase.
    """
    return {
        command: json.loads((directory / section.file).read_text(encoding="utf-8"))
        for command, section in SECTIONS.items()
        if phases.get(section.last_stage, {}).get("status") == "complete"
        and (directory / section.file).is_file()
    }
