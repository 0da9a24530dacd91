"""What `fit-schedule` prints: a row an estimand, what is written, and the next command.

Takes the JSON document and a Rich console. Fits 80 columns. Computes nothing and reads no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from branchdiag.report.schedule_figure import headline
from branchdiag.report.wording import interval, number, p_value, plural

BAND_AT = (0.05, 0.25, 0.5, 0.75, 0.95)


def print_schedule(document: dict[str, Any], files: Sequence[str], console: Console) -> None:
    """The fits, the weight with its band, the headline, and where it was written.

    Args:
        document: as `fitted.json` holds it.
        files: paths that were written, the JSON first.
    """
    fits = document.get("fits", {})
    if fits:
        console.print(_table(fits, document["estimand"]))
        for name, fit in fits.items():
            if fit["status"] != "ok" and fit["reason"] and name != document["estimand"]:
                console.print(Text(f"{name}: {fit['reason']}", style="dim"))
        console.print()
    console.print(Text(headline(document), style="bold"))
    band = document.get("band")
    if band is not None:
        console.print(Text(_band_words(band)))
    if document["tau"] is None and document.get("origin") == "fit":
        console.print(Text("What is written is w = 1 for every token: no schedule was supported."))
    run = document.get("run")
    if run is not None and run["failed_units"]:
        console.print(Text(f"{plural(run['failed_units'], 'unit')} of the run failed: not in it."))
    console.print(Text("written: " + ", ".join(files)), soft_wrap=True)
    console.print(Text(f"train with it: branchdiag train --schedule {files[0]}"), soft_wrap=True)


def _table(fits: dict[str, Any], chosen: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for name, justify in (
        ("fitted to", "left"), ("status", "left"), ("direction", "left"), ("w_min", "right"),
        ("tau", "right"), ("s", "right"), ("w(0)", "right"), ("w(1)", "right"), ("p", "right"),
        ("used", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, fit in fits.items():
        shape = fit["parameters"] or {"w_min": None, "tau": None, "s": None}
        table.add_row(
            Text(name, style="bold" if name == chosen else ""),
            fit["status"],
            fit["direction"],
            *(number(shape[key]) for key in ("w_min", "tau", "s")),
            number(fit["w_at_0"]),
            number(fit["w_at_1"]),
            p_value(fit["permutation_p"]),
            str(fit["counts"]["used"]),
        )
    return table


def _band_words(band: dict[str, Any]) -> str:
    if band["low"] is None:
        return f"no band: {band['reason']}"
    by_r = {
        r: (w, interval(low, high))
        for r, w, low, high in zip(band["r"], band["w"], band["low"], band["high"], strict=True)
    }
    said = ", ".join(f"w({r:g}) {number(by_r[r][0])} {by_r[r][1]}" for r in BAND_AT if r in by_r)
    return f"{band['level']:.0%} band: {said}"
