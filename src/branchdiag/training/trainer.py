"""The training run: rollouts, loss, update, checkpoint, step after step.

Puts the parts together and holds the loop; every number is made elsewhere. Reads a request; writes
a run's directory (`directory`). With several processes each works on its share of the batch and the
main one writes. A signal stops between two updates, and the last update is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag.adapters import needs_training_packages
from branchdiag.errors import UsageError
from branchdiag.models import ResolvedModel, context_length, load_tokenizer
from branchdiag.pipeline.progress import Reporter, create_reporter
from branchdiag.pipeline.signals import Guard, Interrupted
from branchdiag.problems import recorded_revisions
from branchdiag.training import checkpoints, directory, metrics, trackers
from branchdiag.training.card import model_card
from branchdiag.training.data import TrainingData, load_data
from branchdiag.training.inputs import TrainRequest, resolve_model, schedule_remark
from branchdiag.training.loop import Loop
from branchdiag.training.processes import Processes
from branchdiag.training.results import FOLDERS, has_weights
from branchdiag.training.settings import TrainSettings


@dataclass(frozen=True)
class Outcome:
    """What a command came to: the run's directory, and the adapter or the model in it."""

    path: Path
    result: Path
    steps: int
    nothing_to_do: bool = False
    is_main: bool = True
    """Whether this process is the one that speaks."""

    def lines(self) -> list[str]:
        """For people: the result, and what it came to."""
        said = [str(self.result)]
        measured = metrics.read_lines(self.path / metrics.HELD_OUT)
        if len(measured) > 1 and measured[0]["divergence"] and measured[-1]["divergence"]:
            before, after = measured[0]["divergence"], measured[-1]["divergence"]
            same = measured[-1]["divergence_first_rollouts"]
            said.append(
                f"divergence from the teacher on {measured[0]['problems']} held-out problems, nats "
                f"a token: {before:.4f} before, {same:.4f} after on the same rollouts "
                f"({same / before - 1:+.0%}), {after:.4f} on the trained student's own "
                f"({after / before - 1:+.0%})"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        lines = metrics.read_lines(self.path / metrics.METRICS)
        held_out = metrics.read_lines(self.path / metrics.HELD_OUT)
        return {
            "run": str(self.path),
            self.result.name: str(self.result),
            "steps": self.steps,
            "nothing_to_do": self.nothing_to_do,
            "last": lines[-1] if lines else None,
            "held_out": held_out,
        }


@dataclass(frozen=True)
class Stage:
    """What a progress bar calls this."""

    letter: str
    name: str


def train(request: TrainRequest) -> Outcome:
    """Train, or go on training, and write the adapter or the model.

    Raises:
        BranchdiagError: what the user can mend.
        Interrupted: a signal came; the last update is written.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise needs_training_packages(error) from error
    settings = request.settings
    trackers.check_installed(settings.report_to)
    objective = settings.make_objective()
    objective.check_schedule(request.schedule is not None)
    processes = Processes(settings.compute.device)
    try:
        model, revisions = _recorded(directory.read_manifest(request.out))
        resolved = resolve_model(request.model, settings, model)
        tokenizer = load_tokenizer(resolved)
        data = load_data(settings, tokenizer, context_length(resolved), revisions)
        identity = {
            "settings": settings.result_settings(),
            "model": resolved.content_id,
            "data": data.data_id,
            "schedule": None if request.schedule is None else request.schedule.shape(),
            **({} if data.teacher_file is None else {"teacher_file": data.teacher_file}),
        }
        with ExitStack() as held:
            if processes.is_main:
                held.enter_context(directory.locked(request.out))
            manifest = directory.read_manifest(request.out)
            result = request.out / FOLDERS[settings.tuning]
            if has_weights(result) and _is_finished(manifest, identity, settings):
                return Outcome(request.out, result, settings.steps, True, processes.is_main)
            processes.wait()
            first = directory.check(
                request.out, manifest, identity, steps=settings.steps, resume=request.resume
            )
            if manifest is None:
                described = _described(request, resolved.to_dict(), data)
                manifest = directory.new_manifest(identity, described, request.command)
            loop = Loop(request, resolved, tokenizer, data, objective, processes)
            try:
                return _run(request, loop, manifest, first, processes)
            finally:
                loop.close()
    finally:
        processes.close()


def _run(
    request: TrainRequest,
    loop: Loop,
    manifest: dict[str, Any],
    first: int,
    processes: Processes,
) -> Outcome:
    settings, out = request.settings, request.out
    if first:
        loop.restore(first)
    processes.wait()  # nobody writes before everybody has read
    reporter = create_reporter(request.progress if processes.is_main else "none")
    manifest |= {"settings": settings.document(), "finished_steps": None}
    tracked = trackers.TrackedRun(
        out, manifest.setdefault("tracking_id", trackers.new_id()), manifest["settings"]
    )
    if processes.is_main:
        directory.save_manifest(out, manifest)
        for name in (metrics.METRICS, metrics.HELD_OUT):
            metrics.keep_until(out / name, first)
        _say(reporter, loop, request)
    names = settings.report_to if processes.is_main else ()
    with trackers.opened(names, tracked, first) as send:
        reporter.start(Stage("", "train"), settings.steps, first)  # type: ignore[arg-type]
        try:
            _take_steps(loop, settings, manifest, out, processes, reporter, send)
        finally:
            reporter.finish()
    result = out / FOLDERS[settings.tuning]
    return Outcome(out, result, settings.steps, is_main=processes.is_main)


def _take_steps(
    loop: Loop,
    settings: TrainSettings,
    manifest: dict[str, Any],
    out: Path,
    processes: Processes,
    reporter: Reporter,
    send: trackers.Send,
) -> None:
    """All steps that are left, and the result; on a signal a checkpoint."""
    every = settings.held_out.every
    guard = Guard()
    try:
        with guard.installed():
            while loop.step < settings.steps:
                # Before the step, not after the one that came there: a run that is stopped in a
                # measurement and resumed from the checkpoint beside it takes it again.
                if loop.step == 0 or (every and loop.step % every == 0):
                    _measure(loop, out, processes)
                began = time.monotonic()
                prepared = loop.prepare()
                with guard.shielded():
                    line = loop.update(prepared, began)
                    if processes.is_main:
                        metrics.append_line(out / metrics.METRICS, line)
                        send(line)
                        if loop.step % settings.save_every == 0 or loop.step == settings.steps:
                            loop.save()
                reporter.advance(1, int(line["tokens"]))
            _measure(loop, out, processes)
            if processes.is_main:
                with guard.shielded():
                    _finish(loop, out, manifest, FOLDERS[settings.tuning])
    except Interrupted:
        if processes.is_main and loop.step > 0:
            loop.save()
        raise


def _measure(loop: Loop, out: Path, processes: Processes) -> None:
    """One line of held_out.jsonl."""
    line = loop.measure()
    if line is not None and processes.is_main:
        metrics.keep_until(out / metrics.HELD_OUT, loop.step - 1)
        metrics.append_line(out / metrics.HELD_OUT, line)


def _finish(loop: Loop, out: Path, manifest: dict[str, Any], folder: str) -> None:
    """The result, its card, and the word that the run is finished."""
    card = model_card(
        manifest,
        metrics.read_lines(out / metrics.METRICS),
        metrics.read_lines(out / metrics.HELD_OUT),
    )

    def fill(target: Path) -> None:
        loop.student.write(target)
        (target / "README.md").write_text(card, encoding="utf-8")

    checkpoints.write_directory(out / folder, fill)
    directory.save_manifest(out, manifest | {"finished_steps": loop.step})


def _recorded(
    manifest: Mapping[str, Any] | None,
) -> tuple[ResolvedModel | None, dict[str, str]]:
    """The model and the data sets' commits that the run began with: the hub may have moved on."""
    if manifest is None:
        return None, {}
    return (
        ResolvedModel.from_dict(manifest["model"]),
        recorded_revisions(manifest["data"]["provenance"]),
    )


def _is_finished(
    manifest: Mapping[str, Any] | None, identity: Mapping[str, Any], settings: TrainSettings
) -> bool:
    return manifest is not None and (
        manifest["finished_steps"] == settings.steps and manifest["identity"] == identity
    )


def _described(request: TrainRequest, model: dict[str, Any], data: TrainingData) -> dict[str, Any]:
    if not data.prompts:
        raise UsageError("no problem is left to train on", where="data")
    return {
        "model": model,
        "schedule": None if request.schedule is None else request.schedule.document(),
        "data": {
            "problems": len(data.prompts),
            "held_out": [pair.problem_id for pair in data.held_out],
            "too_long": data.too_long,
            "provenance": data.provenance,
        },
        "settings": request.settings.document(),
    }


def _say(reporter: Reporter, loop: Loop, request: TrainRequest) -> None:
    settings = request.settings
    named = request.schedule
    reporter.note(
        f"{loop.resolved.name}: {settings.objective.name}"
        + (f", schedule {named.name}" if named else "")
        + f", {len(loop.data.prompts)} problems, batch {settings.optimizer.batch_size}"
        + f" -> {request.out}"
    )
    remark = schedule_remark(named, loop.resolved)
    if remark:
        reporter.note(remark)
    trained = loop.student.remark(settings.teacher.kind)
    if trained:
        reporter.note(trained)
    if loop.data.too_long:
        reporter.note(f"{loop.data.too_long} problems are left out: too long for max_length")
