"""`compare`: finished runs side by side, and whether they differ on the problems they share."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.cli.look import Json


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN ...",
            help="Directories of finished runs; the others are held against the first.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path(
        "compare.html"
    ),
    schedules: Annotated[
        bool,
        typer.Option(
            "--schedules/--no-schedules", help="Fit a schedule to each run (seconds a run)."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Runs side by side: models, teachers or protocols. Writes one page and leaves the runs as
    they are.
    """
    from rich.console import Console

    from branchdiag.pipeline.comparing import compare_runs

    with Console(stderr=True).status("reading") as status:  # shows on a terminal alone
        document = compare_runs(
            runs,
            out=out,
            schedules=schedules,
            command=shlex.join(["branchdiag", *sys.argv[1:]]),
            tell=status.update,
        )
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    from branchdiag.report.compare_terminal import print_comparison

    print_comparison(document, Console())
