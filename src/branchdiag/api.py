"""A run as Python sees it: tables as frames, the manifest, the summary. Imports no torch.

import branchdiag
run = branchdiag.open_run("runs/bundled")
run.table("labels")
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag.errors import Incomplete, UsageError
from branchdiag.store.run import RunDirectory, latest_run
from branchdiag.store.schemas import TABLES

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A run directory, read only. Safe to use while the run is under way."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    @property
    def path(self) -> Path:
        """Where the run lies."""
        return self._directory.path

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json: settings, inputs, versions, the state of each phase."""
        return self._directory.manifest

    @property
    def summary(self) -> dict[str, Any]:
        """report.json: counts, scores, slope, finding.

        Raises:
            Incomplete: Phase G has not been run.
        """
        file = self.path / "report.json"
        if not file.is_file():
            raise Incomplete("this run has no report yet", where=str(self.path))
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return document

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that the run has, in the phases' order."""
        return tuple(name for name in TABLES if self._directory.table(name).exists())

    def table(self, name: str) -> pd.DataFrame:
        """A table as a frame, rows in the order of its key; empty where no row is there yet.

        Raises:
            UsageError: there is no table of that name.
        """
        if name not in TABLES:
            raise UsageError(f"no table {name}", fix="one of " + ", ".join(TABLES))
        return self._directory.table(name).frame()

    def describe(self, name: str) -> pd.DataFrame:
        """The columns of a table with their types and meanings."""
        import pandas as pd

        if name not in TABLES:
            raise UsageError(f"no table {name}", fix="one of " + ", ".join(TABLES))
        rows = [(c.name, str(c.type), c.description) for c in TABLES[name].columns]
        return pd.DataFrame(rows, columns=["column", "type", "meaning"]).set_index("column")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, tables={list(self.tables)})"


def open_run(path: str | Path | None = None) -> Run:
    """Open a run to read it; without a path, the latest one in runs/.

    Raises:
        UsageError: there is no run.
    """
    found = Path(path) if path is not None else latest_run(Path("runs"))
    if found is None:
        raise UsageError("there is no run yet", where="runs/", fix="branchdiag run-all")
    return Run(RunDirectory.open(found))
