"""Commands that add a diagnostic of their own to a finished run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.cli.look import Json, Run, find_run
from branchdiag.cli.run import DryRun, Progress, ProgressStyle

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Change one number of this diagnostic. May be repeated.",
    ),
]
RestartFrom = Annotated[
    str | None,
    typer.Option(metavar="STAGE", help="Remove this stage and what reads it, and make them anew."),
]


def prefixes(
    run: Run = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: Progress = ProgressStyle.auto,
    restart_from: RestartFrom = None,
) -> None:
    """From fractions of each spine, who still reaches the answer? The position bias of IW-OPD."""
    _run_stages("prefixes", run, settings, dry_run, as_json, progress, restart_from)


def align(
    run: Run = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: Progress = ProgressStyle.auto,
    restart_from: RestartFrom = None,
) -> None:
    """Does the distillation gradient point where success does? By position and teacher context."""
    _run_stages("align", run, settings, dry_run, as_json, progress, restart_from)


def _run_stages(
    command: str,
    run: Path | None,
    settings: list[str] | None,
    dry_run: bool,
    as_json: bool,
    progress: ProgressStyle,
    restart_from: str | None,
) -> None:
    from branchdiag.pipeline.stage_runs import plan_stages, run_stages

    path = find_run(run)
    letter = restart_from.strip().upper() if restart_from else None
    if dry_run:
        plan = plan_stages(path, command, settings=settings or [], restart_from=letter)
        _print_plan(plan, as_json)
        return
    outcome = run_stages(
        path,
        command,
        settings=settings or [],
        restart_from=letter,
        progress=progress.value,
    )
    if outcome.nothing_to_do:
        print(f"{outcome.path}: finished before; nothing to do", file=sys.stderr)
    _print_section(outcome.path, command, as_json)


def _print_plan(plan: dict[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=2))
        return
    print(f"run      {plan['run']}")
    stages = plan["stages"]
    assert isinstance(stages, list)
    for stage in stages:
        counts = "known once the stages before it have run"
        if stage["units"] is not None:
            counts = f"{stage['units']:,} units, {stage['owed']:,} of them owed"
        print(f"  {stage['letter']}  {stage['name']:<12} {counts}")


def _print_section(path: Path, command: str, as_json: bool) -> None:
    from branchdiag.report.sections import SECTIONS

    section = SECTIONS[command]
    text = (path / section.file).read_text(encoding="utf-8")
    if as_json:
        print(text)
        return
    from rich.console import Console

    section.show(json.loads(text), Console())
    print(path / "report.html")
