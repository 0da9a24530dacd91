"""Checkpoints of a training run: whole, and there or not there.

Writes checkpoints/step-000025/ in a training run's directory: the student's weights (an adapter, or
all of them), the teacher's average where there is one, the optimizer, and the states of the random
generators. A checkpoint is written under a name that begins with a dot, flushed and renamed. The
learning rate and the position in the data are functions of the step, which is in the name. Knows no
loss.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch

from branchdiag.errors import UsageError
from branchdiag.store.atomic import flush_directory, temporary_name, user_errors
from branchdiag.training.student import Student

FOLDER = "checkpoints"
STATE = "state.pt"
AVERAGE = "average.safetensors"


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return run / FOLDER / f"step-{step:06d}"


def saved_steps(run: Path) -> list[int]:
    """Steps of which there is a checkpoint, in order."""
    names = (path.name for path in (run / FOLDER).glob("step-*") if path.is_dir())
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))


def save(run: Path, step: int, student: Student, optimizer: Any, average: dict[str, Any]) -> Path:
    """Write the checkpoint after `step` steps; nothing happens where it is there already.

    Raises:
        StorageError: the disk will not take it.
    """
    target = checkpoint_path(run, step)
    if target.is_dir():
        return target

    def fill(directory: Path) -> None:
        from safetensors.torch import save_file

        student.write_checkpoint(directory)
        if average:
            save_file({name: value.contiguous() for name, value in average.items()},
                      directory / AVERAGE)  # fmt: skip
        state = {"step": step, "optimizer": optimizer.state_dict(), "random": _random_states()}
        _save_state(state, directory / STATE)

    write_directory(target, fill)
    return target


def restore(run: Path, step: int, student: Student, optimizer: Any) -> dict[str, Any]:
    """Take up the checkpoint after `step` steps; returns the teacher's average (or nothing).

    Raises:
        UsageError: it cannot be read, or belongs to another model.
    """
    from safetensors.torch import load_file

    directory = checkpoint_path(run, step)
    try:
        student.read_checkpoint(directory)
        state = torch.load(directory / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state["optimizer"])
        _set_random_states(state["random"])
        average = directory / AVERAGE
        return dict(load_file(average)) if average.is_file() else {}
    except Exception as error:
        raise UsageError(
            f"the checkpoint cannot be read: {type(error).__name__}: {error}",
            where=str(directory),
            fix="remove it, and --resume goes on from the one before",
        ) from error


def write_directory(target: Path, fill: Callable[[Path], None]) -> None:
    """Make a directory that is there whole or not at all; one of its name is replaced.

    Raises:
        StorageError: the disk will not take it.
    """
    temporary = target.with_name(temporary_name())
    with user_errors(target), _system_errors():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            fill(temporary)
            for path in temporary.rglob("*"):
                if path.is_file():
                    _flush(path)
            flush_directory(temporary)
            if target.exists():
                former = target.with_name(temporary_name())
                target.rename(former)
                temporary.rename(target)
                shutil.rmtree(former)
            else:
                temporary.rename(target)
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(temporary)
            raise
        flush_directory(target.parent)


@contextmanager
def _system_errors() -> Iterator[None]:
    """What safetensors says of a disk that is full or fails, as the OSError that it was."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


def remove_leftovers(run: Path) -> None:
    """What a killed process left half written."""
    for folder in (run, run / FOLDER):
        for path in folder.glob(".part-*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


class _Remembering:
    """A file that keeps the first error of the system: torch hides it behind one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save_state(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        kept = _Remembering(file)
        try:
            torch.save(state, cast(BinaryIO, kept))
        except RuntimeError as error:
            if kept.error is None:
                raise
            raise kept.error from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _random_states() -> dict[str, Any]:
    kind, words, *rest = np.random.get_state()
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, [int(word) for word in words], *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, numbers, *rest = states["numpy"]
    np.random.set_state((kind, np.array(numbers, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
