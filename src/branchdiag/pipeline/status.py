"""How far a run is, from its manifest and its parts: reads, never writes, needs no lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from branchdiag.phases import PHASES
from branchdiag.phases.base import Phase
from branchdiag.pipeline.durable import done_units
from branchdiag.report.terminal import PhaseStatus, RunStatus
from branchdiag.store.run import RunDirectory

STATES = {"complete": "done", "running": "partial", "incomplete": "failed", "owed": "outdated"}


def describe_status(path: Path) -> RunStatus:
    """Each phase's state and units, who holds the run, and the command that goes on.

    Raises:
        UsageError: the path holds no run.
    """
    run = RunDirectory.open(path)
    phases = [
        _phase_status(run, phase, run.manifest.get("phases", {}).get(letter, {}))
        for letter, phase in PHASES.items()
        if phase.command is None or letter in run.manifest.get("phases", {})
    ]
    holder = run.holder()
    left = [phase["letter"] for phase in phases if phase["state"] != "done"]
    report = path / "report.html"
    return {
        "name": run.path.name,
        "directory": str(path),
        "model": run.manifest.get("inputs", {}).get("student", {}).get("name", "unknown"),
        "protocol": run.manifest.get("protocol", {}).get("name", "unknown"),
        "holder": str(holder) if holder else None,
        "phases": phases,
        "next": run.manifest.get("command") if left and not holder else None,
        "report": str(report) if report.is_file() else None,
    }


def _phase_status(run: RunDirectory, phase: Phase, record: dict[str, Any]) -> PhaseStatus:
    if not phase.unit:
        done = int(record.get("status") == "complete")
    elif record.get("status") == "complete":
        done = int(record["units"])  # a unit without rows is done as well
    else:
        done = len(done_units(run, phase)) if record else 0
    return {
        "letter": phase.letter,
        "name": phase.name,
        "state": STATES.get(record.get("status", ""), "waiting"),
        "done": done,
        "total": record.get("units"),
        "failed": int(record.get("failed", 0)),
        "seconds": record.get("wall_s"),
    }
