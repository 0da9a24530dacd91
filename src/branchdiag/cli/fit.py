"""`fit-schedule`: from a run's labels to a schedule of token weights, or to a statement that the
data support none.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.cli.look import Json, Run


class EstimandName(enum.StrEnum):
    """What is fitted along the trace."""

    viability = "viability"
    relative = "relative"
    binary = "binary"
    teacher_weighted = "teacher-weighted"


class PresetName(enum.StrEnum):
    """The schedules of arXiv 2605.21606."""

    mild = "mild"
    moderate = "moderate"
    sharp = "sharp"
    aggressive = "aggressive"


def fit_schedule(
    run: Run = None,
    estimand: Annotated[
        EstimandName | None,
        typer.Option(
            help="What is fitted. By default viability, held against the control; one that is "
            "named is taken even where the control explains it."
        ),
    ] = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="Write this published schedule instead of a fit. RUN is then optional."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="What is written.")] = Path(
        "fitted.json"
    ),
    as_json: Json = False,
) -> None:
    """Fit token weights to a run's labels, with a band; flat or too few data give weight 1."""
    from rich.console import Console

    from branchdiag.pipeline.fitting import fit_run

    with Console(stderr=True).status("fitting"):  # shows on a terminal alone
        written = fit_run(
            run,
            estimand=estimand.value if estimand else None,
            preset=preset.value if preset else None,
            out=out,
        )
    if as_json:
        print(json.dumps(written.document, indent=2, allow_nan=False))
        return
    from branchdiag.report.schedule_terminal import print_schedule

    print_schedule(written.document, [str(p) for p in (out, *written.figures)], Console())
