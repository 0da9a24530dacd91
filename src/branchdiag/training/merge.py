"""An adapter and its base model as one directory of whole weights.

Reads an adapter and its base model; writes a model directory, whole or not at all. Weights are
added in float32 and written in the base model's own type. Tokenizer, templates and generation
settings are the base model's files, copied as they are. Knows nothing of how an adapter was made.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from branchdiag.adapters import base_model_of, merged_model
from branchdiag.errors import UsageError
from branchdiag.model_files import text_config
from branchdiag.models import load_model, resolve
from branchdiag.protocol import EngineSettings
from branchdiag.training.checkpoints import write_directory

NOT_COPIED = ("config.json", "README.md", "model.safetensors.index.json")


def merge(adapter: Path, out: Path, *, model: str | None = None, device: str = "auto") -> Path:
    """Write the merged model.

    Args:
        adapter: its directory.
        out: the new directory.
        model: the base model, where it is not where the adapter says.
        device: auto | cpu | cuda | cuda:N.

    Raises:
        UsageError: no adapter, one that does not fit, or `out` is there.
        MissingRequirement: the base model cannot be had, or peft is not installed.
        StorageError: the disk will not take it.
    """
    import torch

    base = resolve(model or base_model_of(adapter))
    if out.exists():
        raise UsageError(
            "there is something here already", where=str(out), fix="a new directory, or remove it"
        )
    loaded = load_model(base, EngineSettings(dtype="float32", device=device))
    merged: Any = merged_model(loaded, adapter)
    config = text_config(base.directory)
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    merged.to(getattr(torch, name.removeprefix("torch.")))

    def fill(target: Path) -> None:
        merged.save_pretrained(str(target))
        for file in sorted(base.directory.iterdir()):
            if file.is_file() and file.name not in NOT_COPIED and file.suffix != ".safetensors":
                shutil.copyfile(file, target / file.name)

    write_directory(out, fill)
    return out
