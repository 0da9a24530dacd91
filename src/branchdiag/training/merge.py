"""`merge`: an adapter and its base model as one directory of whole weights, whole or not at all.

Reads an adapter and its base model; writes a new model directory. How the two become one is
`adapters.write_merged`. Knows nothing of how an adapter was made.
"""

from __future__ import annotations

from pathlib import Path

from branchdiag.adapters import base_model_of, write_merged
from branchdiag.errors import UsageError
from branchdiag.models import resolve, resolve_device
from branchdiag.training.checkpoints import write_directory


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
    base = resolve(model or base_model_of(adapter))
    if device != "auto":
        resolve_device(device, "--device")
    if out.exists():
        raise UsageError(
            "there is something here already", where=str(out), fix="a new directory, or remove it"
        )
    write_directory(out, lambda target: write_merged(base, adapter, target, device=device))
    return out
