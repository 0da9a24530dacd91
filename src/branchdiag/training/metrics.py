"""metrics.jsonl: one line a step, flushed, never twice; and the same numbers sent elsewhere.

Writes metrics.jsonl in a training run's directory. A number that cannot be computed is null, and
the line's `missing` says why. TensorBoard, trackio and wandb are imported where they are asked for.
Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from branchdiag.errors import MissingRequirement
from branchdiag.store.atomic import user_errors, write_text

METRICS = "metrics.jsonl"
HELD_OUT = "held_out.jsonl"


class Sink(Protocol):
    """Somewhere else that numbers go."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, in order; none where there is no file. A torn last line is no
    line."""
    if not path.is_file():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in whole if line.strip()]


def keep_until(path: Path, step: int) -> None:
    """Take out the lines of steps beyond `step`, which a resumed run writes again."""
    if path.is_file():
        lines = [line for line in read_lines(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Write one line and flush it.

    Raises:
        StorageError: the disk will not take it.
    """
    with user_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def make_sinks(names: tuple[str, ...], run: Path, config: Mapping[str, Any]) -> list[Sink]:
    """The trackers asked for.

    Raises:
        MissingRequirement: one is not installed.
    """
    return [_SINKS[name](run, config) for name in names]


class _TensorBoard:
    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _absent("tensorboard") from error
        self._writer: Any = SummaryWriter(str(run / "tensorboard"))
        self._writer.add_text("settings", json.dumps(config, indent=2))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Tracker:
    """trackio and wandb, whose interfaces agree in what is used here."""

    def __init__(self, name: str, run: Path, config: Mapping[str, Any]) -> None:
        import importlib

        try:
            self._module: Any = importlib.import_module(name)
        except ImportError as error:
            raise _absent(name) from error
        self._module.init(project="branchdiag", name=run.name, config=dict(config))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        self._module.finish()


_SINKS: dict[str, Any] = {
    "tensorboard": _TensorBoard,
    "trackio": lambda run, config: _Tracker("trackio", run, config),
    "wandb": lambda run, config: _Tracker("wandb", run, config),
}


def _absent(name: str) -> MissingRequirement:
    return MissingRequirement(
        f"{name} is not installed",
        where="report_to",
        fix=f"pip install {name}, or leave it out: metrics.jsonl is always written",
    )
