"""What `compare` prints: what differs, each run in a row, the differences, and where the page is.

Takes the comparison document and a Rich console. Fits 80 columns and copes with fewer; needs no
colour. Labels and settings are untrusted text. Computes nothing and reads no file. The figures are
those of arXiv 2605.21606's diagnosis.
"""

from __future__ import annotations

from textwrap import fill
from typing import Any

from rich.console import Console
from rich.table import Table

from branchdiag.report.compare_document import Comparison, PairEntry, RunEntry
from branchdiag.report.compare_figures import short
from branchdiag.report.compare_page import VERDICT_WORDS
from branchdiag.report.compare_sentences import FIGURES
from branchdiag.report.console import cells, plain_table, say
from branchdiag.report.page import setting_text
from branchdiag.report.wording import (
    MISSING,
    count,
    interval,
    number,
    plural,
    status_words,
)

SHOWN_SCORES = 6
SHOWN_KEYS = 12
VALUE_CHARACTERS = 28


def print_comparison(document: Comparison, console: Console) -> None:
    """The comparison for people at a terminal."""
    runs = document["runs"]
    say(console, f"{plural(len(runs), 'run')}, each held against {runs[0]['label']}", style="bold")
    console.print(_runs(runs, console))
    _print_differs(document, console)
    for pair in document["pairs"]:
        _print_pair(pair, console)
    _print_board(document, console)
    if document["schedules"]:
        console.print()
        say(console, "fitted schedules", style="bold")
        for entry in document["schedules"]:
            _wrapped(console, f"  {entry['label']}: {entry['headline']}")
    for command, sections in document["sections"].items():
        with_it = [r["label"] for r, s in zip(runs, sections, strict=True) if s is not None]
        _wrapped(console, f"{command}: of {', '.join(with_it)}; side by side on the page")
    console.print()
    for line in document["notes"]:
        _wrapped(console, line, style="dim")
    console.print()
    for pair in document["pairs"]:
        _wrapped(console, pair["summary"], style="bold")
    if document["page"]:
        say(console, f"page: {document['page']}", wrap=False)


def _runs(runs: list[RunEntry], console: Console) -> Table:
    table = _columns(
        ("run", "left"), ("problems", "right"), ("solved", "right"), ("cand.", "right"),
        ("real-unc.", "right"), ("slope of d", "left"),
    )  # fmt: skip
    for run in runs:
        counts, slope = run["counts"], run["slope"]
        words = f"{number(slope['estimate'])} {interval(slope['ci_low'], slope['ci_high'])}"
        table.add_row(
            *cells(
                console,
                short(run["label"], 24),
                count(counts["problems"]),
                count(counts["correct_spines"]),
                count(counts["candidates"]),
                count(counts["real_uncertain"]),
                words,
            )
        )
        table.add_row(*cells(console, f"  {status_words(run['finding_status'])}"), style="dim")
    return table


def _print_differs(document: Comparison, console: Console) -> None:
    console.print()
    rows = document["differs"]
    say(console, "what differs", style="bold")
    if not rows:
        say(console, "  no input and no setting")
    for row in rows[:SHOWN_KEYS]:
        values = " | ".join(_value(value) for value in row["values"])
        _wrapped(console, f"  {row['key']}: {values}")
        if row["means"]:
            _wrapped(console, f"    {row['means']}", style="dim")
    if len(rows) > SHOWN_KEYS:
        say(console, f"  and {len(rows) - SHOWN_KEYS} more on the page")


def _print_pair(pair: PairEntry, console: Console) -> None:
    console.print()
    say(console, f"{pair['second']} less {pair['first']}", style="bold")
    for line in pair["comparable"]:
        _wrapped(console, f"+ {line}")
    for line in pair["not_comparable"]:
        _wrapped(console, f"- {line}", style="dim")
    if not pair["shared"]["problems"]:
        return
    table = _columns(("figure", "left"), ("difference", "right"), ("interval", "left"),
                     ("n", "right"), ("verdict", "left"))  # fmt: skip
    for figure in pair["figures"]:
        digits = FIGURES[figure["name"]].digits
        table.add_row(
            *cells(
                console,
                figure["what"].split(",")[0],
                number(figure["difference"], digits),
                interval(figure["ci_low"], figure["ci_high"], digits),
                count(figure["n_problems"]),
                VERDICT_WORDS[figure["verdict"]],
            )
        )
    console.print(table)


def _print_board(document: Comparison, console: Console) -> None:
    rows = [row for row in document["leaderboard"] if _has_auroc(row)][:SHOWN_SCORES]
    if not rows:
        return
    console.print()
    say(console, "AUROC", ("  best of the first run; the page has all", "dim"), style="bold")
    runs = document["runs"]
    table = _columns(("score", "left"), *((short(run["label"], 18), "left") for run in runs))
    for row in rows:
        values = []
        for entry in row["entries"]:
            if entry is None or entry["auroc"] is None:
                values.append(MISSING)
            else:
                ends = interval(entry["ci_low"], entry["ci_high"])
                values.append(number(entry["auroc"]) + (f" {ends}" if len(runs) < 4 else ""))
        table.add_row(*cells(console, row["name"], *values))
    console.print(table)


def _has_auroc(row: Any) -> bool:
    return any(entry is not None and entry["auroc"] is not None for entry in row["entries"])


def _columns(*columns: tuple[str, str]) -> Table:
    table = plain_table()
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def _value(value: Any) -> str:
    text = "not there" if value is None else setting_text(value).replace("\n", " ")
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def _wrapped(console: Console, text: str, style: str = "") -> None:
    indent = len(text) - len(text.lstrip(" "))
    lines = fill(text.strip(), max(20, console.width - 1 - indent))
    say(console, "\n".join(" " * indent + line for line in lines.splitlines()), style=style)
