"""What a training run works on: schedule, model and settings, from what the user gave.

Reads schedule files and settings; loads no weights and no torch. The model is the one that was
named, else the one that the schedule was fitted for, else the bundled one with its own settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag.errors import UsageError
from branchdiag.models import ModelReference, ResolvedModel, resolve
from branchdiag.schedule import PRESETS, Schedule
from branchdiag.training.objectives import objective_class
from branchdiag.training.settings import TrainSettings

BUNDLED = "bundled"
DEFAULT_SCHEDULE = "moderate"
"""The default of arXiv 2605.21606, for an objective that takes one."""


@dataclass(frozen=True)
class NamedSchedule:
    """A schedule and what to call it: a preset's name, uniform, or the file's."""

    name: str
    schedule: Schedule

    def document(self) -> dict[str, Any]:
        """For the manifest."""
        return {"name": self.name, **self.schedule.document}

    def shape(self) -> dict[str, Any]:
        """The part that changes results."""
        return {key: getattr(self.schedule, key) for key in ("w_min", "tau", "s", "direction")}


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for."""

    model: str | None
    """None: the bundled one."""
    schedule: NamedSchedule | None
    settings: TrainSettings
    out: Path
    resume: bool = False
    progress: str = "auto"
    command: str = "branchdiag train"


def read_schedule(text: str | None, objective: str) -> NamedSchedule | None:
    """The schedule of `--schedule`: a preset, uniform or a file; None without one.

    Raises:
        UsageError: no such objective or file, or the objective takes no schedule.
    """
    takes_one = objective_class(objective).takes_schedule
    if text is None:
        if not takes_one:
            return None
        return NamedSchedule(DEFAULT_SCHEDULE, Schedule.preset(DEFAULT_SCHEDULE))
    if not takes_one:
        objective_class(objective)().check_schedule(given=True)
    if text == "uniform":
        return NamedSchedule(text, Schedule.uniform())
    if text in PRESETS:
        return NamedSchedule(text, Schedule.preset(text))
    path = Path(text).expanduser()
    return NamedSchedule(path.stem, Schedule.load(path))


def schedule_model(named: NamedSchedule | None) -> str | None:
    """The model that a schedule's file records, as `models.resolve` takes it: a hub model at the
    commit that was diagnosed, not at the branch it was named by."""
    recorded = (named.schedule.provenance or {}).get("model") if named else None
    if not recorded or not recorded.get("name") or recorded["name"] == BUNDLED:
        return None
    name, revision = str(recorded["name"]), recorded.get("revision")
    return f"{name.partition('@')[0]}@{revision}" if revision else name


def schedule_remark(named: NamedSchedule | None, model: ResolvedModel) -> str | None:
    """What to say where a schedule was fitted to other weights than those that are trained."""
    recorded = (named.schedule.provenance or {}).get("model") if named else None
    fitted_to = recorded.get("content_id") if recorded else None
    if not named or not recorded or not fitted_to or fitted_to == model.content_id:
        return None
    return (
        f"the schedule {named.name} was fitted to other weights: {recorded.get('name')} "
        f"({_short(fitted_to)}), not {model.name} ({_short(model.content_id)})"
    )


def _short(content_id: str) -> str:
    """The beginning of a hash: of a hub model's identity, which is NAME@COMMIT, of the commit."""
    return content_id.rpartition("@")[2][:12]


def load_settings(
    source: str | None, model: str | None, data: Sequence[str], overrides: Sequence[str]
) -> TrainSettings:
    """The settings: a source where one is named, else the bundled model's own or the paper's.

    Raises:
        UsageError: as `TrainSettings.load`.
    """
    settings = TrainSettings.load(source or ("paper" if model else BUNDLED), overrides)
    return settings.model_copy(update={"data": tuple(data)}) if data else settings


def resolve_model(
    name: str | None, settings: TrainSettings, recorded: ResolvedModel | None = None
) -> ResolvedModel:
    """The model's files; those of `recorded` where that is a hub model of this name.

    Raises:
        UsageError, MissingRequirement: as `models.resolve`; also for an adapter.
    """
    if name is None:
        from branchdiag.bundled import model_path

        return dataclasses.replace(resolve(ModelReference.parse(str(model_path()))), name=BUNDLED)
    from branchdiag.adapters import is_adapter

    if is_adapter(name):
        raise UsageError(
            "this is an adapter, and training begins from a whole model",
            where=name,
            fix=f"branchdiag merge {name} --out DIR, then --model DIR",
        )
    return resolve(name, recorded=recorded, trust_remote_code=settings.compute.trust_remote_code)
