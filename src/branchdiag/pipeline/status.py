"""How far a run is, from its manifest and its parts: reads, never writes, needs no lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from branchdiag.phases import PHASES
from branchdiag.store.run import RunDirectory


def describe_status(path: Path) -> dict[str, Any]:
    """Each phase's state, units and rows; failures; and who holds the run now.

    Raises:
        UsageError: the path holds no run.
    """
    run = RunDirectory.open(path)
    phases = []
    for letter, phase in PHASES.items():
        record = run.manifest.get("phases", {}).get(letter, {})
        table = run.table(phase.writes[-1])
        phases.append(
            {
                "phase": letter,
                "name": phase.name,
                "status": record.get("status", "not started"),
                "units": record.get("units"),
                "rows": table.n_rows() if table.exists() else 0,
                "table": phase.writes[-1],
                "failed": record.get("failed", 0),
                "wall_s": record.get("wall_s"),
                "tokens": record.get("tokens"),
            }
        )
    holder = run.holder()
    held = str(holder) if holder else None
    complete = all(entry["status"] == "complete" for entry in phases)
    return {
        "run": str(path),
        "state": "complete" if complete else "running" if held else "not finished",
        "held_by": held,
        "created": run.manifest.get("created"),
        "model": run.manifest.get("inputs", {}).get("student", {}).get("name"),
        "protocol": run.manifest.get("protocol", {}).get("name"),
        "phases": phases,
    }
