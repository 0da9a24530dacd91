"""A disk that is full while a checkpoint is written: the system's own error; nothing is left."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from branchdiag.store.atomic import StorageError
from branchdiag.training.checkpoints import _save_state, write_directory


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("size", [1, 10_000, 1_000_000])
def test_torch_does_not_hide_a_full_disk(size: int) -> None:
    with pytest.raises(OSError) as caught:
        _save_state({"tensor": torch.zeros(size)}, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_a_state_is_written_as_torch_reads_it(tmp_path: Path) -> None:
    state = {"step": 3, "tensor": torch.arange(100_000.0)}
    _save_state(state, tmp_path / "state.pt")
    read = torch.load(tmp_path / "state.pt", weights_only=True)
    assert read["step"] == 3
    assert torch.equal(read["tensor"], state["tensor"])


def test_a_full_disk_under_safetensors_is_a_storage_error(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(StorageError, match="No space left"):
        write_directory(tmp_path / "step-000001", fill)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_safetensors_stay_what_they_are(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        raise SafetensorError("invalid tensor")

    with pytest.raises(SafetensorError, match="invalid tensor"):
        write_directory(tmp_path / "step-000001", fill)
