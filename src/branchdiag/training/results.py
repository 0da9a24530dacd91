"""What a training run came to: an adapter or a whole model, and the model that it began from.

Reads names of directories, training.json and adapters' configurations; writes nothing. Loads no
torch. A result is written whole or not at all (`checkpoints.write_directory`), so one that has
weights is finished.
"""

from __future__ import annotations

from pathlib import Path

from branchdiag.adapters import base_model_of, is_adapter
from branchdiag.errors import UsageError
from branchdiag.model_files import read_json
from branchdiag.models import ResolvedModel
from branchdiag.training.inputs import BUNDLED

MANIFEST = "training.json"
ADAPTER = "adapter"
MODEL = "model"
FOLDERS = {"lora": ADAPTER, "full": MODEL}
"""Where the result of each kind of tuning lies, in a run's directory."""
SEARCH_DEPTH = 3
"""How far below a directory of runs a result is looked for."""


def has_weights(directory: Path) -> bool:
    """Whether a result is there."""
    return any(directory.glob("*.safetensors"))


def is_trained_model(directory: Path) -> bool:
    """Whether a directory is the whole model that a training run came to."""
    return (
        directory.name == MODEL
        and (directory / "config.json").is_file()
        and (directory.parent / MANIFEST).is_file()
    )


def result_in(run: Path) -> Path | None:
    """The result in a training run's directory; None where that is none, or has no result yet."""
    adapter, model = run / ADAPTER, run / MODEL
    if is_adapter(adapter):
        return adapter
    return model if is_trained_model(model) else None


def run_of(result: Path) -> Path:
    """The training run's directory, by whose name a result is known; else the result's own."""
    of_a_run = result.name == ADAPTER if is_adapter(result) else is_trained_model(result)
    return result.parent if of_a_run else result


def began_from(result: Path) -> str:
    """The model that a result was trained from: `bundled`, a path, or a hub id with its commit.

    Raises:
        UsageError: an adapter or a training.json that names no base model, or cannot be read.
    """
    if is_adapter(result):
        return base_model_of(result)
    file = result.parent / MANIFEST
    try:
        base = ResolvedModel.from_dict(read_json(file)["model"])
    except (KeyError, TypeError):
        raise UsageError("the training run names no base model", where=str(file)) from None
    if base.revision:
        return f"{base.name.partition('@')[0]}@{base.revision}"
    return base.name if base.name == BUNDLED else base.path


def newest_result(root: Path) -> Path | None:
    """The result written last below `root`; those of checkpoints inside another do not count."""
    dated = [
        (max(file.stat().st_mtime_ns for file in result.glob("*.safetensors")), result)
        for result in _results(root, SEARCH_DEPTH)
        if has_weights(result)
    ]
    return max(dated)[1] if dated else None


def _results(directory: Path, depth: int) -> list[Path]:
    if is_adapter(directory) or is_trained_model(directory):
        return [directory]
    if depth == 0 or not directory.is_dir():
        return []
    return [
        path
        for entry in sorted(directory.iterdir())
        if entry.is_dir() and not entry.name.startswith((".", "checkpoint"))
        for path in _results(entry, depth - 1)
    ]
