"""What `branchdiag prefixes` prints: who reaches the answer, what changes, and the paragraph.

Takes the document and a Rich console. Fits 80 columns. Computes nothing and reads no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

from rich.console import Console

from branchdiag.report.console import cells, plain_table, say
from branchdiag.report.position_bias import GROUP_TITLES, points
from branchdiag.report.wording import count, interval, number, percent, plural

CHANGES = {
    "mean": "gain, mean",
    "slope": "its change",
    "per_remaining": "per share left",
}
VERDICT_WORDS = {
    "discount_early": "discount early tokens",
    "discount_late": "discount late tokens",
    "neither": "neither prescription",
    "contradictory": "contradictory",
    "too_few": "too few",
}


def show(document: Mapping[str, Any], console: Console) -> None:
    """The curve over prefixes, the changes along the trace, the verdict with what limits it."""
    counts = document["counts"]
    samples = sum(counts["samples"].values())
    say(
        console,
        f"{plural(samples, 'continuation')} from {plural(counts['prefixes'], 'prefix', 'prefixes')}"
        f" of {plural(counts['spines_correct'], 'correct spine')} and "
        f"{count(counts['spines_incorrect'])} incorrect ones, by student and teacher",
    )
    for line in left_out(counts):
        say(console, line, style="dim")
    console.print()
    _show_accuracy(document, console)
    console.print()
    _show_changes(document, console)
    console.print()
    words = f"{VERDICT_WORDS[document['verdict']]}: {document['sentence']}"
    say(console, fill(words, console.width - 1), style="bold")
    for strand in document["basis"]:
        say(console, fill(strand["sentence"], console.width - 1))
    for remark in document["remarks"]:
        line = fill(f"! {remark}", console.width - 1, subsequent_indent="  ")
        say(console, line, style="dim")


def left_out(counts: Mapping[str, Any]) -> list[str]:
    """What the document stands without, a line each; nothing where all is there."""
    lines = []
    for number_of, words in (
        (counts["spines_ungraded"], "could not be graded and took no part"),
        (counts["spines_without_samples"], "lack samples or grades; the same command goes on"),
        (counts["spines_without_accumulated"], "have no accumulated discrepancy: a side excludes "
         "one of their tokens"),
    ):  # fmt: skip
        if number_of:
            lines.append(f"{plural(number_of, 'spine')}: {words}")
    if counts["prefixes_shared"]:
        lines.append(
            f"{plural(counts['prefixes_shared'], 'fraction')} of short spines cut where a smaller "
            "one does, and share its samples"
        )
    if counts["prefixes_after_box"]:
        lines.append(
            f"{plural(counts['prefixes_after_box'], 'prefix', 'prefixes')} already hold a box, "
            "which does not count: the continuation must give the answer again"
        )
    for writer, cut in counts["truncated"].items():
        if cut:
            share = percent(cut / counts["samples"][writer], 1)
            lines.append(f"{share} of the {writer}'s continuations were cut off by the budget")
    return lines


def _show_accuracy(document: Mapping[str, Any], console: Console) -> None:
    """Share of correct continuations by fraction kept, a line a group and writer."""
    curves = document["curves"]
    fractions = document["settings"]["fractions"]
    shown = fractions if len(fractions) <= 8 else fractions[::2]
    table = plain_table()
    table.add_column("kept", no_wrap=True)
    table.add_column("", no_wrap=True)
    for fraction in shown:
        table.add_column(percent(fraction), justify="right", no_wrap=True)
    for group, title in GROUP_TITLES.items():
        for writer in ("student", "teacher"):
            values = {point["x"]: point["y"] for point in points(curves, group, writer)}
            shares = [percent(values.get(fraction)) for fraction in shown]
            name = title.lower() if writer == "student" else ""
            table.add_row(*cells(console, name, writer, *shares))
    console.print(table)


def _show_changes(document: Mapping[str, Any], console: Console) -> None:
    """The gain's and the discrepancy's changes from start to end, a line a group."""
    table = plain_table()
    table.add_column("from start to end", no_wrap=True)
    for words in (*CHANGES.values(), "discrepancy"):
        table.add_column(words, no_wrap=True)
    for group, title in GROUP_TITLES.items():
        gain, slope = document["gain"][group], document["discrepancy"][group]
        entries = [_entry(gain[name]) for name in CHANGES]
        table.add_row(*cells(console, title.lower(), *entries, _entry(slope, 3)))
    console.print(table)


def _entry(entry: Mapping[str, Any], digits: int = 2) -> str:
    if entry["low"] is None:
        return number(entry["value"], digits)
    return interval(entry["low"], entry["high"], digits)
