"""What `branchdiag align` prints: the advantage under each context, cosines, and what they say.

Takes the document and a Rich console; computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from branchdiag.report.alignment import table_of
from branchdiag.report.wording import interval, number, percent

if TYPE_CHECKING:
    from rich.console import Console

Document = Mapping[str, Any]


def show(document: Document, console: Console) -> None:
    """Print the document for people; fits 80 columns."""
    from branchdiag.report.console import say

    say(console, "gradient alignment", (f"  {document['stands_on']}", "dim"), style="bold")
    for group in document["groups"]:
        console.print()
        say(console, group["description"], style="bold")
        if group["reason"] is not None:
            say(console, f"nothing: {group['reason']}", style="dim")
            continue
        _advantages(group, console)
        _cosines(group, console)
        for sentence in group["sentences"]:
            say(console, f"- {sentence}")
    for entry in document["between"]:
        say(console, f"- {entry['sentence']}")
    console.print()
    for note in document["notes"]:
        say(console, note, style="dim")


def _advantages(group: Mapping[str, Any], console: Console) -> None:
    from branchdiag.report.console import cells, plain_table

    table = plain_table()
    for name, justify in (
        ("teacher", "left"),
        ("advantage", "right"),
        ("interval", "left"),
        ("nodes", "right"),
        ("outside", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for entry in group["contexts"]:
        cell = entry["advantage"]
        table.add_row(
            *cells(
                console,
                entry["words"],
                number(cell["value"], 3),
                interval(cell["ci_low"], cell["ci_high"], 3),
                f"{cell['n_nodes']:,}",
                percent(entry["teacher_excluded"]["mean"], 1),
            )
        )
    console.print(table)


def _has_interval(estimate: Mapping[str, Any]) -> bool:
    """Whether it is worth a number: a cosine that is all noise has none."""
    return estimate["ci_low"] is not None


def _cosines(group: Mapping[str, Any], console: Console) -> None:
    from branchdiag.report.console import cells, plain_table

    rows = table_of(group)
    if not rows:
        return
    table = plain_table()
    for name, justify in (
        ("teacher", "left"),
        ("loss", "left"),
        ("cosine", "right"),
        ("interval", "left"),
        ("nodes", "right"),
        ("corrected", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        cell = row["cosine"]
        table.add_row(
            *cells(
                console,
                row["words"],
                row["name"],
                number(cell["value"]),
                interval(cell["ci_low"], cell["ci_high"]),
                f"{cell['n_nodes']:,}",
                number(row["corrected"]["value"] if _has_interval(row["corrected"]) else None),
            )
        )
    console.print(table)
