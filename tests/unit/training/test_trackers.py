"""Trackers get every step once, also of a run that was killed and goes on.

With the real packages, where they are installed: pip install tensorboard trackio wandb.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from branchdiag.errors import MissingRequirement
from branchdiag.training.trackers import MODULES, TrackedRun, check_installed, opened
from tests.tiny_models import tiny_model
from tests.unit.training.tiny_runs import lines_of, write_problems, write_settings

STEPS = 5
KINDS = tuple(MODULES)
Series = list[tuple[int, float]]


def of_tensorboard(folder: Path) -> Series:
    """(step, loss) as they lie in the event files, with nothing purged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "run" / "tensorboard"), purge_orphaned_data=False)
    events.Reload()
    assert {"loss", "divergence", "grad_norm", "learning_rate"} <= set(events.Tags()["scalars"])
    return [(event.step, event.value) for event in events.Scalars("loss")]


def of_trackio(folder: Path) -> Series:
    import sqlite3

    (database,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    assert len({name for name, _, _ in rows}) == 1
    return [(step, json.loads(metrics)["loss"]) for _, step, metrics in rows]


def log_records(data: bytes) -> list[bytes]:
    """The records of a LevelDB log with wandb's header: blocks of 32 KiB, records in pieces."""
    block, header, last_kinds = 32768, 7, (1, 4)
    records, pieces, place = [], b"", header  # the file's own header is as long as a piece's
    while place + header <= len(data):
        if block - place % block < header:  # a block's rest is too short for a piece
            place += block - place % block
            continue
        length = int.from_bytes(data[place + 4 : place + 6], "little")
        kind = data[place + 6]
        place += header
        pieces += data[place : place + length]
        place += length
        if kind in last_kinds:
            records.append(pieces)
            pieces = b""
    return records


def of_wandb(folder: Path) -> Series:
    from wandb.proto import wandb_internal_pb2

    (file,) = (folder / "run" / "wandb").glob("offline-run-*/*.wandb")
    found = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json)
                     for i in record.history.item}  # fmt: skip
            found.append((items["_step"], items["loss"]))
    return found


READERS: dict[str, Any] = {
    "tensorboard": of_tensorboard,
    "trackio": of_trackio,
    "wandb": of_wandb,
}


def start(folder: Path, name: str, *more: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "branchdiag", "train", f"--model={tiny_model()}", "--json",
         f"--settings={write_settings(folder)}", f"--data={folder / 'problems.jsonl'}",
         f"--steps={STEPS}", f"--out={folder / 'run'}", "--progress=plain",
         "--set=held_out.problems=0", f"--set=report_to={name}", *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true",
             "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"},
        text=True,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_run_is_there_once_with_every_step_once(tmp_path: Path, name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed here")
    write_problems(tmp_path / "problems.jsonl")
    process = start(tmp_path, name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    if name == "wandb":  # its own process outlives ours, and writes what it was sent
        time.sleep(5)
    again = start(tmp_path, name, "--resume", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert json.loads(out)["steps"] == STEPS  # what a tracker prints does not stand among it
    expected = [(line["step"], line["loss"]) for line in lines_of(tmp_path / "run")]
    found = READERS[name](tmp_path)
    assert Counter(step for step, _ in found) == Counter(range(1, STEPS + 1))
    assert sorted(found) == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in expected]
    assert not (tmp_path / "wandb").exists()  # nothing beside the run's directory


@pytest.mark.parametrize("name", KINDS)
def test_a_tracker_that_is_not_installed_is_said_at_once(name: str) -> None:
    try:
        __import__(MODULES[name])
    except ImportError:
        with pytest.raises(MissingRequirement, match=f"{name} cannot be imported") as refused:
            check_installed((name,))
        assert f"pip install -U {name}" in str(refused.value)
    else:
        check_installed((name,))


def test_a_tracker_that_wants_an_account_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed here")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    run = TrackedRun(tmp_path, "0a1b2c3d", {})
    with (
        pytest.raises(MissingRequirement, match="wandb does not start") as refused,
        opened(("wandb",), run, 0),
    ):
        pass
    assert "WANDB_MODE=offline" in str(refused.value)
