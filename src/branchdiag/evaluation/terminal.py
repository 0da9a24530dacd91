"""The report of an evaluation for people: tables, sentences and notes on a terminal.

Reads the report object alone and computes nothing. Names of models and benchmarks are a user's
text: nothing in them formats or steers, and a terminal without UTF-8 gets ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.evaluation.report import MEAN

if TYPE_CHECKING:
    from rich.console import Console

Report = Mapping[str, Any]


def print_report(report: Report, console: Console) -> None:
    """Figures of every model, differences of every pair, sentences and notes."""
    from rich.table import Table

    from branchdiag.report.console import cells, plain_text, say

    for title, header, rows in (figure_table(report), difference_table(report)):
        if not rows:
            continue
        say(console, title)
        table = Table()
        for name in header:
            words = name in ("model", "benchmark", "pair", "metric", "verdict")
            table.add_column(
                plain_text(name, console), justify="left" if words else "right", no_wrap=not words
            )
        for row in rows:
            table.add_row(*cells(console, *row))
        console.print(table)
    for line in [*report["sentences"], *(f"Note: {note}" for note in report["notes"])]:
        say(console, line)


def figure_table(report: Report) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows: a row a model and benchmark, percent but for the length.

    A single benchmark is named in the title.
    """
    n, sets = report["settings"]["n"], report["seeds"]["sets"]
    metrics = [f"avg@{n}", f"pass@{n}", f"maj@{n}"]
    found = {(f["model"], f["benchmark"], f["metric"]): f for f in report["metrics"]}
    names = [benchmark["name"] for benchmark in report["benchmarks"]]
    shown = [*names, MEAN] if len(names) > 1 else names
    rows = []
    for model in report["models"]:
        for name in shown:
            cells = [_with_deviation(found[model["label"], name, metric]) for metric in metrics]
            length = found[model["label"], name, "tokens"]["value"]
            rates = [found[model["label"], name, rate] for rate in ("truncated", "formatted")]
            rows.append(
                [
                    *([model["label"], name] if len(shown) > 1 else [model["label"]]),
                    *cells,
                    "-" if length is None else f"{length:,.1f}",
                    *("-" if r["value"] is None else f"{100 * r['value']:.1f}" for r in rates),
                ]
            )
    problems = ", ".join(f"{b['name']} ({b['n_problems']} problems)" for b in report["benchmarks"])
    title = f"{problems}: percent, mean ± deviation over {sets} repeats; length in tokens"
    header = ["model", "benchmark"] if len(shown) > 1 else ["model"]
    scores = [metric.capitalize() for metric in metrics]
    return title, [*header, *scores, "length", "cut off", "boxed"], rows


def difference_table(report: Report) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and rows: the three scores of every pair, on the mean over benchmarks."""
    n = report["settings"]["n"]
    level = report["settings"]["comparison"]["level"]
    rows = [
        [
            f"{d['second']} - {d['first']}",
            d["metric"].capitalize(),
            "-" if d["difference"] is None else f"{100 * d['difference']:+.1f}",
            _interval(d),
            d["verdict"],
        ]
        for d in report["differences"]
        if d["benchmark"] == MEAN and d["metric"] in (f"avg@{n}", f"pass@{n}", f"maj@{n}")
    ]
    title = f"Differences in points, {100 * level:g}% intervals over problems"
    return title, ["pair", "metric", "difference", "interval", "verdict"], rows


def _with_deviation(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    text = f"{100 * figure['value']:.1f}"
    return text if figure["deviation"] is None else f"{text} ± {100 * figure['deviation']:.1f}"


def _interval(difference: Mapping[str, Any]) -> str:
    if difference["ci_low"] is None:
        return "-"
    return f"{100 * difference['ci_low']:+.1f} to {100 * difference['ci_high']:+.1f}"


def missing_lines(report: Report) -> Sequence[str]:
    """Why figures are missing, a line a model and benchmark."""
    lines = {
        f"{f['model']}, {f['benchmark']}: {f['reason']}"
        for f in report["metrics"]
        if f["value"] is None
    }
    return sorted(lines)
