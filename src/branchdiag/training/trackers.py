"""TensorBoard, trackio and wandb: the numbers of metrics.jsonl sent elsewhere, each step once.

Writes tensorboard/ and wandb/ in a training run's directory; trackio has a place of its own. A run
that goes on is the same run there: a tracker first gets those lines of metrics.jsonl that it lacks,
and no step that it has. What trackers print goes to standard error. Their packages are imported
where they are asked for. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import importlib
import json
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from branchdiag.errors import MissingRequirement
from branchdiag.training.metrics import METRICS, read_lines

PROJECT = "branchdiag"
MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}

Send = Callable[[Mapping[str, Any]], None]
"""Takes a line of metrics.jsonl."""


@dataclass(frozen=True)
class TrackedRun:
    """A training run as trackers are told of it."""

    directory: Path
    id: str
    """Of this run alone, the same when it goes on."""
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """Somewhere that numbers go."""

    known: int
    """The last step that it has; 0 for none."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


def new_id() -> str:
    """An id for a run that begins."""
    return secrets.token_hex(4)


def check_installed(names: tuple[str, ...]) -> None:
    """See that the trackers can be imported, before anything takes time.

    Raises:
        MissingRequirement: one cannot.
    """
    for name in names:
        try:
            importlib.import_module(MODULES[name])
        except ImportError as error:
            raise MissingRequirement(
                f"{name} cannot be imported: {error}",
                where="report_to",
                fix=f"pip install -U {name}, or leave it out: metrics.jsonl is always written",
            ) from error


@contextmanager
def opened(names: tuple[str, ...], run: TrackedRun, first: int) -> Iterator[Send]:
    """The trackers as one function, with all lines until step `first` sent; closed in the end.

    Raises:
        MissingRequirement: one does not start, for example because it wants an account.
    """
    with ExitStack() as open_ones:
        trackers = []
        for name in names:
            trackers.append(_start(name, run))
            open_ones.callback(_close, trackers[-1])

        def send(line: Mapping[str, Any]) -> None:
            for tracker in trackers:
                if line["step"] > tracker.known:
                    tracker.log(line["step"], _numbers(line))

        for line in read_lines(run.directory / METRICS):
            if line["step"] <= first:
                send(line)
        yield send


def _start(name: str, run: TrackedRun) -> Tracker:
    try:
        with redirect_stdout(sys.stderr):
            return _KINDS[name](importlib.import_module(MODULES[name]), run)
    except Exception as error:
        raise MissingRequirement(
            f"{name} does not start: {type(error).__name__}: {error}",
            where="report_to",
            fix=_FIXES.get(name, "")
            + "or leave it out of report_to: metrics.jsonl is always written",
        ) from error


def _close(tracker: Tracker) -> None:
    with redirect_stdout(sys.stderr):
        tracker.close()


class _TensorBoard:
    """Event files, written anew when a run goes on: a killed process's lack their end."""

    known = 0

    def __init__(self, module: Any, run: TrackedRun) -> None:
        directory = run.directory / "tensorboard"
        if directory.exists():
            shutil.rmtree(directory)
        self._writer: Any = module.SummaryWriter(str(directory))
        self._writer.add_text("settings", json.dumps(run.settings, indent=2))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    """A run named by directory and id: a name alone may stand for another run in its database."""

    def __init__(self, module: Any, run: TrackedRun) -> None:
        started = module.init(
            project=PROJECT,
            name=f"{run.directory.name}-{run.id}",
            config=dict(run.settings),
            resume="allow",
        )
        self._module = module
        # The step that it would take next: of a run that it does not know, 0.
        self.known = max(0, int(started._next_step) - 1)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        self._module.finish()


class _Wandb:
    """A run of the same id when it goes on; offline, where wandb cannot go on, one written anew."""

    def __init__(self, module: Any, run: TrackedRun) -> None:
        former = list((run.directory / "wandb").glob(f"offline-run-*-{run.id}"))
        started = module.init(
            project=PROJECT,
            name=run.directory.name,
            id=run.id,
            config=dict(run.settings),
            resume="allow",
            dir=str(run.directory),
        )
        self._module = module
        self.known = max(0, int(started.step) - 1)
        if started.offline:
            for directory in former:
                shutil.rmtree(directory, ignore_errors=True)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        self._module.finish()


_KINDS: dict[str, Callable[[Any, TrackedRun], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}
_FIXES = {
    "trackio": "pip install -U trackio, ",
    "wandb": "wandb login, or WANDB_MODE=offline, ",
}


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in line.items()
        if isinstance(value, int | float) and name != "step"
    }
