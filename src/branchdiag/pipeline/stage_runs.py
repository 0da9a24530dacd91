"""Run a side diagnostic in a run that stands: its stages, then the report anew.

Takes models, problems, protocol and seed from the run's manifest, so that nothing of the run has to
be said again. Knows no stage by name.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from branchdiag.errors import Incomplete, UsageError
from branchdiag.phases import PHASES, stages_of
from branchdiag.pipeline.durable import done_units
from branchdiag.pipeline.fingerprints import dependents
from branchdiag.pipeline.inputs import RunRequest, inputs_of_run
from branchdiag.pipeline.progress import create_reporter
from branchdiag.pipeline.runner import RunOutcome, check_settings, execute, make_context
from branchdiag.protocol import Protocol, apply_override, validate
from branchdiag.store.run import RunDirectory

REPORT = "G"


def run_stages(
    path: Path,
    command: str,
    *,
    settings: Sequence[str] = (),
    restart_from: str | None = None,
    progress: str = "auto",
) -> RunOutcome:
    """Run the stages of a command and make the report anew.

    Args:
        settings: `section.key=value` on top of the run's own protocol.
        restart_from: letter of a stage of this command to remove and make anew.

    Raises:
        BranchdiagError: as `runner.execute`, or the run is not finished.
    """
    request, run = _request(path, command, settings, restart_from, progress)
    return execute(request, inputs_of_run(run, request.protocol))


def plan_stages(
    path: Path, command: str, *, settings: Sequence[str] = (), restart_from: str | None = None
) -> dict[str, Any]:
    """What the stages would do: units and how many of them are owed. Writes nothing.

    A stage that reads an earlier one of the same command is known once that has been run.

    Raises:
        BranchdiagError: what `run_stages` would refuse.
    """
    request, run = _request(path, command, settings, restart_from, "none")
    inputs = inputs_of_run(run, request.protocol)
    check_settings(request, inputs, run.manifest["phases"])
    removed = dependents(restart_from) if restart_from else ()
    context = make_context(run, request, inputs, create_reporter("none"))
    recorded = {k: v for k, v in run.manifest["phases"].items() if k not in removed}
    stages = []
    for letter in stages_of(command):
        phase = PHASES[letter]
        known = all(recorded.get(name, {}).get("status") == "complete" for name in phase.reads)
        units = phase.units(context) if known else None
        done = done_units(run, phase) if phase.unit and letter in recorded else set()
        if not phase.unit and recorded.get(letter, {}).get("status") == "complete":
            done = {()}
        stages.append(
            {
                "letter": letter,
                "name": phase.name,
                "units": None if units is None else len(units),
                "owed": None if units is None else len(set(units) - done),
            }
        )
    return {"run": str(run.path), "command": command, "stages": stages}


def _request(
    path: Path, command: str, settings: Sequence[str], restart_from: str | None, progress: str
) -> tuple[RunRequest, RunDirectory]:
    run = RunDirectory.open(path)
    letters = stages_of(command)
    if restart_from is not None and restart_from not in letters:
        raise UsageError(
            f"{command} has no stage {restart_from}",
            where="--restart-from",
            fix=f"one of {', '.join(letters)}",
        )
    manifest = run.manifest
    unfinished = unfinished_phases(manifest.get("phases", {}), letters)
    if unfinished:
        raise Incomplete(
            f"the run is not finished: phase {', '.join(unfinished)}",
            where=str(path),
            fix=manifest.get("command") or f"branchdiag run-all --out {shlex.quote(str(path))}",
        )
    return (
        RunRequest(
            command=manifest["command"],
            model=None,
            teacher=None,
            problems=(),
            limit=None,
            protocol=_protocol(manifest["protocol"], settings, path),
            seed=manifest["seed"],
            out=run.path,
            restart_from=restart_from,
            phases=(*letters, REPORT),
            progress=progress,
        ),
        run,
    )


def unfinished_phases(
    recorded: Mapping[str, Mapping[str, Any]], letters: Sequence[str]
) -> list[str]:
    """Phases that the stages or the report read and that have not come to their end.

    The report itself is made anew after the stages, and a killed `--restart-from` has removed it.
    """
    read = {name for letter in (*letters, REPORT) for name in PHASES[letter].reads} - {*letters}
    ended = ("complete", "incomplete")  # incomplete: some units failed, and are left out
    return [
        name
        for name in PHASES
        if name in read and recorded.get(name, {}).get("status") not in ended
    ]


def _protocol(recorded: dict[str, Any], settings: Sequence[str], where: Path) -> Protocol:
    values = {
        name: dict(value) if isinstance(value, dict) else value for name, value in recorded.items()
    }
    for setting in settings:
        apply_override(values, setting)
    return validate(values, where=str(where))
