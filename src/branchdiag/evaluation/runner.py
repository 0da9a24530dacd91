"""An evaluation from end to end: resolve, check, sample what is owed, grade it, report.

Reads models and problems, writes the evaluation's directory. Going on after a kill, refusing other
settings, the lock and parts that appear whole are those of runs (`store`, `pipeline`). A finished
evaluation is left as it is, and no model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag.errors import Incomplete, SettingsConflict, UsageError
from branchdiag.evaluation import grading, sampling
from branchdiag.evaluation.context import EvaluationContext
from branchdiag.evaluation.directory import EvaluationDirectory, default_directory
from branchdiag.evaluation.models import (
    EvaluatedModel,
    default_names,
    is_bundled,
    resolve_models,
)
from branchdiag.evaluation.report import build_report
from branchdiag.evaluation.settings import EvaluationSettings, load_settings
from branchdiag.phases.base import Phase
from branchdiag.pipeline.durable import run_phase
from branchdiag.pipeline.inputs import store_problems, stored_problems
from branchdiag.pipeline.progress import Reporter, create_reporter
from branchdiag.pipeline.runner import environment
from branchdiag.pipeline.signals import Guard
from branchdiag.problems import Problem, data_identity, load_problems, recorded_revisions
from branchdiag.protocol import Protocol
from branchdiag.store.atomic import write_json
from branchdiag.store.fingerprint import differences, fingerprint
from branchdiag.store.schemas import PROBLEMS

REPORT = "report.json"
STAGES = (sampling.PHASE, grading.PHASE)


@dataclass(frozen=True)
class EvaluationRequest:
    """What the user asked for, before anything is resolved.

    Attributes:
        models: as named; empty: the newest result of training below runs/, and its base.
        overrides: `key=value`, in the order in which they apply.
        limit: problems in all, from the front.
        out: the directory; None: by the models' names, below runs/.
        regrade: grade again and take no samples.
    """

    models: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    limit: int | None = None
    out: Path | None = None
    regrade: bool = False
    progress: str = "auto"
    command: str = "branchdiag evaluate"


@dataclass(frozen=True)
class EvaluationOutcome:
    """What a call came to: where the evaluation lies, its report, what is owed still."""

    path: Path
    report: dict[str, Any]
    nothing_to_do: bool
    owed: int


@dataclass(frozen=True)
class _Inputs:
    settings: EvaluationSettings
    models: tuple[EvaluatedModel, ...]
    engine_name: str
    problems: tuple[Problem, ...]
    source: Mapping[str, Any]
    content: Mapping[str, Any]


def evaluate(request: EvaluationRequest) -> EvaluationOutcome:
    """Run or go on with an evaluation.

    Raises:
        BranchdiagError: anything the user can mend.
        Interrupted: a signal came; the same command goes on.
    """
    reporter = create_reporter(request.progress)
    path, inputs = _resolve(request, reporter)
    existing = EvaluationDirectory.existing(path)
    if existing is not None:
        _check(existing, inputs, regrade=request.regrade)
        former = _finished_report(existing, inputs)
        if former is not None and not request.regrade:
            return EvaluationOutcome(path, former, nothing_to_do=True, owed=0)
    elif request.regrade:
        raise UsageError(
            "there are no samples to grade again",
            where=str(path),
            fix="the same command without --regrade takes them",
        )
    guard = Guard()
    with guard.installed():
        directory = EvaluationDirectory.create(path, warn=reporter.note)
        with directory.lock():
            return _run(directory, request, inputs, reporter, guard)


def _resolve(request: EvaluationRequest, reporter: Reporter) -> tuple[Path, _Inputs]:
    # Every key and value is checked before a model is asked for.
    trust = load_settings(bundled=False, overrides=request.overrides).engine.trust_remote_code
    known = EvaluationDirectory.existing(request.out) if request.out else None
    names = list(request.models)
    if not names and known is not None:
        names = [model["name"] for model in known.manifest.get("models", {}).values()]
    if not names:
        names = default_names()
        if len(names) == 1:
            reporter.note("nothing trained below runs/ yet: the bundled model alone is evaluated")
    path = request.out or default_directory(
        [model.label for model in resolve_models(names, trust_remote_code=trust)]
    )
    existing = EvaluationDirectory.existing(path)
    recorded = existing.manifest.get("models", {}) if existing else {}
    if request.regrade and not request.models and recorded:
        # Their texts are here: the models themselves may be gone.
        models = tuple(EvaluatedModel.from_dict(model) for model in recorded.values())
    else:
        models = resolve_models(names, recorded, trust_remote_code=trust)
    settings = load_settings(
        bundled=all(is_bundled(model) for model in models), overrides=request.overrides
    )
    from branchdiag.engines import resolve_engine_name

    engine_name = resolve_engine_name(settings.engine)
    problems, data_id, source = _problems(request, settings, existing)
    content = {
        "S": _sampling_content(settings, engine_name, data_id),
        "G": {
            "version": grading.PHASE.version,
            "grading": settings.grading.result_settings(),
        },
    }
    return path, _Inputs(settings, models, engine_name, problems, source, content)


def _problems(
    request: EvaluationRequest, settings: EvaluationSettings, existing: EvaluationDirectory | None
) -> tuple[tuple[Problem, ...], str, Mapping[str, Any]]:
    source = existing.manifest.get("problems", {}) if existing else {}
    if request.regrade and existing is not None and source:
        return stored_problems(existing), source["data_id"], source
    loaded = load_problems(
        settings.problems,
        limit=request.limit,
        seed=settings.seed,
        recorded_revisions=recorded_revisions(source.get("provenance", [])),
    )
    data_id = data_identity(loaded)
    return loaded.problems, data_id, {"data_id": data_id, "provenance": loaded.provenance}


def _sampling_content(
    settings: EvaluationSettings, engine_name: str, data_id: str
) -> dict[str, Any]:
    """What decides the samples, beside the model, whose content its label stands for."""
    return {
        "version": sampling.PHASE.version,
        "sampling": settings.sampling.result_settings(),
        "n": settings.n,
        "seeds": settings.seeds,
        "seed": settings.seed,
        "problems": data_id,
        "engine": engine_name,
        "dtype": settings.engine.dtype,
    }


def _check(directory: EvaluationDirectory, inputs: _Inputs, *, regrade: bool) -> None:
    """Refuse to go on with other settings than those the rows were made with.

    Raises:
        SettingsConflict: says what changed.
    """
    stored = directory.manifest.get("content", {})
    checked = ("S",) if regrade else ("S", "G")
    lines = [
        f"{name}: {line}"
        for letter, name in (("S", "samples"), ("G", "grades"))
        if letter in stored and letter in checked
        for line in differences(stored[letter], inputs.content[letter])
    ]
    if lines:
        fix = "--out DIR starts another evaluation; or give the settings it was made with"
        if all(line.startswith("grades") for line in lines):
            fix = "--regrade grades the samples again; " + fix
        raise SettingsConflict(
            "this evaluation was made with other settings:\n  " + "\n  ".join(lines),
            where=str(directory.path),
            fix=fix,
        )


def _finished_report(directory: EvaluationDirectory, inputs: _Inputs) -> dict[str, Any] | None:
    """The report, where nothing is owed and nothing that it says could be asked otherwise."""
    file = directory.path / REPORT
    if directory.manifest.get("reported") != _reported(inputs) or not file.is_file():
        return None
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def _reported(inputs: _Inputs) -> str:
    """Names all that a finished report depends on."""
    return fingerprint(
        {
            "content": inputs.content,
            "comparison": inputs.settings.comparison.result_settings(),
            "models": [[model.label, model.content_id] for model in inputs.models],
        }
    )


def _run(
    directory: EvaluationDirectory,
    request: EvaluationRequest,
    inputs: _Inputs,
    reporter: Reporter,
    guard: Guard,
) -> EvaluationOutcome:
    _check(directory, inputs, regrade=request.regrade)
    if request.regrade:
        _forget_grades(directory)
    context = _open(directory, request, inputs, reporter)
    for stage in STAGES:
        for name in stage.writes:
            if directory.table(name).exists():
                directory.table(name).check()  # damage is set aside, its rows are owed again
    if not request.regrade:
        _run_stage(context, sampling.PHASE, reporter, guard)
    _run_stage(context, grading.PHASE, reporter, guard)
    owed = len(set(context.groups()) - directory.table("outcomes").keys())
    engines = directory.manifest["engines"]
    engines.update(context.described)
    context.described.update(
        {m.label: engines[m.label] for m in inputs.models if m.label in engines}
    )
    report = build_report(context, inputs.source["provenance"], environment()["versions"])
    write_json(directory.path / REPORT, report)
    directory.manifest["reported"] = None if owed else _reported(inputs)
    directory.save_manifest()
    return EvaluationOutcome(directory.path, report, nothing_to_do=False, owed=owed)


def _forget_grades(directory: EvaluationDirectory) -> None:
    """Remove the grades before another rule is recorded: after a kill in between, none of the old
    ones may stand under the new rule.
    """
    directory.manifest["reported"] = None
    directory.save_manifest()
    for name in reversed(grading.PHASE.writes):
        directory.table(name).remove()


def _open(
    directory: EvaluationDirectory,
    request: EvaluationRequest,
    inputs: _Inputs,
    reporter: Reporter,
) -> EvaluationContext:
    """Record what is about to be done, before any row of it."""
    manifest = directory.manifest
    begun = "content" in manifest
    manifest["command"] = request.command
    manifest["content"] = dict(inputs.content)
    manifest["settings"] = inputs.settings.model_dump(mode="json")
    manifest["problems"] = dict(inputs.source)
    manifest.setdefault("models", {}).update({m.label: m.to_dict() for m in inputs.models})
    manifest.setdefault("engines", {})
    manifest.setdefault("phases", {})
    manifest["reported"] = None
    manifest["environment"] = environment()
    if not begun or directory.table(PROBLEMS.name).n_rows() != len(inputs.problems):
        store_problems(directory, inputs.problems)
    directory.save_manifest()
    return EvaluationContext(
        run=directory,
        protocol=Protocol(engine=inputs.settings.engine),
        seed=inputs.settings.seed,
        problems=inputs.problems,
        student=inputs.models[0].base,
        teacher=inputs.models[0].base,
        engine_name=inputs.engine_name,
        note=reporter.note,
        settings=inputs.settings,
        models=inputs.models,
    )


def _run_stage(context: EvaluationContext, stage: Phase, reporter: Reporter, guard: Guard) -> None:
    directory = context.run
    record = directory.manifest["phases"].setdefault(stage.letter, {})
    record["status"] = "running"
    result = run_phase(context, stage, reporter, guard)
    record.update(
        status="complete" if result.complete else "incomplete",
        failed=result.failed,
        wall_s=round(record.get("wall_s", 0.0) + result.wall_s, 3),
        tokens=record.get("tokens", 0) + result.tokens,
    )
    directory.save_manifest()


def require_complete(outcome: EvaluationOutcome) -> None:
    """Raise where something is owed still, after what could be reported was.

    Raises:
        Incomplete: says how many groups lack samples or grades.
    """
    if outcome.owed:
        raise Incomplete(
            f"{outcome.owed} groups of samples (model x problem x repeat) are not graded; figures "
            "that need them are missing",
            where=str(outcome.path / "errors"),
            fix="the same command tries them again with the same seeds",
        )
