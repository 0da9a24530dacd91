"""Is a run sound? Checksums and keys of every part, then Phases F and G made again and compared.

Reads the run and writes nothing: the recomputed rows stay in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from branchdiag.models import ResolvedModel
from branchdiag.phases import PHASES, f_label, g_report
from branchdiag.phases.base import Context, Done, Failed, Outcome
from branchdiag.pipeline.fingerprints import contents, of_other_commands
from branchdiag.pipeline.inputs import Inputs, stored_problems
from branchdiag.protocol import validate
from branchdiag.store.fingerprint import fingerprint
from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES
from branchdiag.store.verify import verify_tables

TOLERANCE = 1e-9


def verify_run(path: Path) -> list[dict[str, str]]:
    """Every fault found, as {table, message}; an empty list: the run is sound.

    Raises:
        UsageError: the path holds no run.
    """
    run = RunDirectory.open(path)
    faults = [
        {"table": finding.table, "message": finding.message} for finding in verify_tables(run)
    ]
    faults += _fingerprints(run)
    done = {k for k, v in run.manifest.get("phases", {}).items() if v.get("status") == "complete"}
    if faults or "F" not in done:
        return faults
    context = context_of_run(run)
    outcomes = list(f_label.work(context, f_label.units(context)))
    faults += [
        {"table": "labels", "message": f"{outcome.unit}: {outcome.message}"}
        for outcome in outcomes
        if isinstance(outcome, Failed)
    ]
    faults += _compare_phase(run, _recomputed(outcomes))
    if "G" in done:
        _, analysis = g_report.analyse_run(context)
        faults += _compare_phase(run, analysis.rows())
    return faults


def context_of_run(run: RunDirectory) -> Context:
    """The context that made the run, from what the run holds."""
    manifest = run.manifest
    inputs = manifest["inputs"]
    return Context(
        run=run,
        protocol=validate(manifest["protocol"], where=str(run.path)),
        seed=manifest["seed"],
        problems=stored_problems(run),
        student=ResolvedModel.from_dict(inputs["student"]),
        teacher=ResolvedModel.from_dict(inputs["teacher"]),
        engine_name=inputs["engine_name"],
        note=lambda text: None,
    )


def _recomputed(outcomes: Sequence[Outcome]) -> dict[str, list[Mapping[str, Any]]]:
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Done):
            for name, rows in outcome.rows.items():
                tables.setdefault(name, []).extend(rows)
    return tables


def _compare_phase(
    run: RunDirectory, tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[dict[str, str]]:
    faults = []
    for name, rows in tables.items():
        key = TABLES[name].key
        columns = TABLES[name].arrow.names
        stored = {tuple(row[k] for k in key): row for row in run.table(name).rows()}
        made = {tuple(row[k] for k in key): row for row in rows}
        for missing in sorted(map(str, made.keys() - stored.keys()))[:5]:
            faults.append({"table": name, "message": f"row {missing} is missing"})
        for extra in sorted(map(str, stored.keys() - made.keys()))[:5]:
            faults.append({"table": name, "message": f"row {extra} cannot be made again"})
        for row_key in stored.keys() & made.keys():
            for column in columns:
                if not same(stored[row_key][column], made[row_key].get(column)):
                    faults.append(
                        {
                            "table": name,
                            "message": f"{row_key}: {column} is {stored[row_key][column]!r}, "
                            f"made again {made[row_key].get(column)!r}",
                        }
                    )
    return faults


def same(left: Any, right: Any) -> bool:
    """Equal, where numbers may differ by rounding and NaN is missing."""
    if isinstance(left, Sequence) and not isinstance(left, str):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) or isinstance(right, float):
        missing = [v is None or math.isnan(v) for v in (left, right)]
        if any(missing):
            return all(missing)
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(left == right)


def _fingerprints(run: RunDirectory) -> list[dict[str, str]]:
    """Whether the manifest's own settings give the fingerprints it recorded."""
    context = context_of_run(run)
    inputs = Inputs(
        student=context.student,
        teacher=context.teacher,
        engine_name=context.engine_name,
        problems=context.problems,
        data_id=run.manifest["inputs"]["data_id"],
        source={},
    )
    phases = run.manifest.get("phases", {})
    # The report's settings, and a template file of N1's, may be others since a side stage was run.
    kept = of_other_commands(phases, ())
    wanted = contents(context.protocol, inputs, context.seed, kept)
    return [
        {"table": f"phase {letter}", "message": "the fingerprint is not that of the settings"}
        for letter, record in phases.items()
        if letter in PHASES and record["fingerprint"] != fingerprint(wanted[letter])
    ]
