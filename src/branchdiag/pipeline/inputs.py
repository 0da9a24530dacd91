"""What a run works on: models and problems, resolved once and then taken from the run itself.

A run keeps its problems in a table and its models' resolved revisions in the manifest, so that
going on with it asks no hub and a source that has since moved changes nothing. Loads no weights,
no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag.errors import UsageError
from branchdiag.models import ModelReference, ResolvedModel, estimate, resolve
from branchdiag.problems import (
    Problem,
    ProblemSet,
    data_identity,
    load_problems,
    recorded_revisions,
)
from branchdiag.prompts import require_solutions, student_template, teacher_template
from branchdiag.protocol import Protocol
from branchdiag.store.run import RunDirectory

BUNDLED = "bundled"


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for, before anything is resolved."""

    model: str | None
    teacher: str | None
    problems: tuple[str, ...]
    limit: int | None
    protocol: Protocol
    seed: int
    out: Path
    restart_from: str | None = None
    phases: tuple[str, ...] = ("A", "B", "C", "D", "E", "F", "S", "G")
    progress: str = "auto"
    command: str = "branchdiag run-all"


@dataclass(frozen=True)
class Inputs:
    """Resolved models and problems."""

    student: ResolvedModel
    teacher: ResolvedModel
    engine_name: str
    problems: tuple[Problem, ...]
    data_id: str
    source: Mapping[str, Any]

    def to_manifest(self) -> dict[str, Any]:
        """What the manifest keeps of them."""
        return {
            "student": self.student.to_dict(),
            "teacher": self.teacher.to_dict(),
            "engine_name": self.engine_name,
            "data_id": self.data_id,
            "problems": dict(self.source),
        }


def resolve_inputs(request: RunRequest, run: RunDirectory | None) -> Inputs:
    """Resolve models, engine and problems; what the run has recorded is not asked for again.

    Raises:
        BranchdiagError: a model, a data set or an engine is not there or cannot be used.
    """
    from branchdiag.engines import resolve_engine_name

    recorded = run.manifest.get("inputs", {}) if run else {}
    trust = request.protocol.engine.trust_remote_code
    student = _resolve_model(request.model, recorded.get("student"), trust)
    teacher = (
        _resolve_model(request.teacher, recorded.get("teacher"), trust)
        if request.teacher
        else student
    )
    problems, data_id, source = _resolve_problems(request, run, recorded)
    student_template(request.protocol.spine)
    template = teacher_template(request.protocol.teacher, request.protocol.spine.prompt)
    require_solutions(template, problems)
    _check_layers(request.protocol, teacher)
    return Inputs(
        student=student,
        teacher=teacher,
        engine_name=resolve_engine_name(request.protocol.engine),
        problems=problems,
        data_id=data_id,
        source=source,
    )


def _check_layers(protocol: Protocol, teacher: ResolvedModel) -> None:
    layers = estimate(teacher, protocol.engine.dtype).layers
    if protocol.dropout.layers > layers:
        raise UsageError(
            f"dropout on {protocol.dropout.layers} blocks, and the teacher has {layers}",
            where="dropout.layers",
            fix=f"--set dropout.layers={max(1, min(4, layers - 1))}",
        )


def _resolve_model(
    name: str | None, recorded: Mapping[str, Any] | None, trust_remote_code: bool
) -> ResolvedModel:
    if name is None:
        from branchdiag.bundled import model_path

        bundled = resolve(ModelReference.parse(str(model_path())))
        return dataclasses.replace(bundled, name=BUNDLED)
    former = ResolvedModel.from_dict(recorded) if recorded else None
    return resolve(ModelReference.parse(name), recorded=former, trust_remote_code=trust_remote_code)


def _resolve_problems(
    request: RunRequest, run: RunDirectory | None, recorded: Mapping[str, Any]
) -> tuple[tuple[Problem, ...], str, Mapping[str, Any]]:
    asked = {"sources": list(request.problems), "limit": request.limit, "seed": request.seed}
    source = recorded.get("problems", {})
    same = source.get("asked") == asked
    provenance = source.get("provenance", []) if same else []
    if run and provenance and all(entry["kind"] == "hub" for entry in provenance):
        # A hub data set at a commit cannot change: the run's own copy stands for it.
        problems = stored_problems(run)
        if problems and data_identity(ProblemSet(problems, [])) == recorded["data_id"]:
            return problems, recorded["data_id"], source
    loaded = load_problems(
        request.problems,
        limit=request.limit,
        seed=request.seed,
        recorded_revisions=recorded_revisions(provenance),
    )
    return (
        loaded.problems,
        data_identity(loaded),
        {"asked": asked, "provenance": loaded.provenance},
    )


def inputs_of_run(run: RunDirectory, protocol: Protocol) -> Inputs:
    """The models and problems that a run was made with; no source and no hub is asked.

    Raises:
        BranchdiagError: a model is not where it was, or an engine is missing.
    """
    from branchdiag.engines import resolve_engine_name

    recorded = run.manifest["inputs"]
    return Inputs(
        student=_resolve_recorded(recorded["student"]),
        teacher=_resolve_recorded(recorded["teacher"]),
        engine_name=resolve_engine_name(protocol.engine),
        problems=stored_problems(run),
        data_id=recorded["data_id"],
        source=recorded["problems"],
    )


def _resolve_recorded(recorded: Mapping[str, Any]) -> ResolvedModel:
    """The model as it lies there now; a changed content shows in the fingerprints."""
    former = ResolvedModel.from_dict(recorded)
    if former.name == BUNDLED:
        return _resolve_model(None, None, former.trust_remote_code)
    reference = ModelReference.parse(former.name if former.revision else former.path)
    found = resolve(reference, recorded=former, trust_remote_code=former.trust_remote_code)
    return dataclasses.replace(found, name=former.name)


def stored_problems(run: RunDirectory) -> tuple[Problem, ...]:
    """The problems that the run keeps, in their order."""
    table = run.table("problems")
    if not table.exists():
        return ()
    rows = sorted(table.rows(), key=lambda row: row["index"])
    names = ("problem_id", "source", "problem", "answer", "solution")
    return tuple(Problem(**{name: row[name] for name in names}) for row in rows)


def store_problems(run: RunDirectory, problems: Sequence[Problem]) -> None:
    """Keep the problems in the run, so that it stands by itself."""
    table = run.table("problems")
    table.remove()
    table.append(
        [{"index": index, **dataclasses.asdict(problem)} for index, problem in enumerate(problems)]
    )
