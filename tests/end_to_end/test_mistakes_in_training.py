"""Mistakes after the diagnosis: schedules, training, merging, evaluating, and what is printed.

In this process, since each ends before anything heavy: what a process of its own would print.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from branchdiag.bundled import model_path
from branchdiag.cli.main import call

Refused = Callable[..., None]
SHAPE = {"w_min": 0.5, "tau": 0.3, "s": 0.1, "direction": "increasing"}
SCHEDULE = {"schema": "branchdiag.schedule", "version": 1, **SHAPE}
TRAINED = {
    "schema": "branchdiag.training",
    "version": 1,
    "identity": {},
    "finished_steps": None,
    "model": {},
    "data": {"provenance": []},
}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run a command in an empty directory and look at how it ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def check(command: str, status: int, *words: str) -> None:
        ended = call(command.split())
        shown = capsys.readouterr()
        assert ended == status, shown.err
        assert shown.out == ""
        for word in (*words, "fix: "):
            assert word in shown.err, shown.err
        # Rows of a data file stand in the sentence itself, each with its place.
        assert "where: " in shown.err or "the problems cannot be used" in shown.err

    return check


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"[1]", "this is no schedule"),
        (json.dumps(SCHEDULE).encode("utf-16"), "is not JSON"),
        (json.dumps(SCHEDULE | {"version": 2}).encode(), "version 2"),
        (json.dumps(SCHEDULE | {"tau": float("nan")}).encode(), "tau is nan"),
        (json.dumps(SCHEDULE | {"model": "Qwen"}).encode(), "model is 'Qwen'"),
        (json.dumps(SCHEDULE | {"model": {"name": 5}}).encode(), "model is {'name': 5}"),
        (json.dumps(SCHEDULE | {"model": {"name": "./gone"}}).encode(), "no such model"),
    ],
)
def test_a_schedule_that_cannot_be_used(
    tmp_path: Path, refused: Refused, content: bytes, words: str
) -> None:
    (tmp_path / "mine.json").write_bytes(content)
    refused("train --schedule mine.json --steps 1", 2, words)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("--objective opsd --set objective.settings.clip=x", 2, "clip='x'"),
        ("--objective opsd --set objective.settings.clipp=1", 2, "did you mean 'clip'"),
        ("--prefix-fraction 0.5 --suffix-fraction 0.5", 2, "exclude each other"),
        ("--set compute.device=banana", 2, "compute.device"),
        ("--set stepz=3", 2, "did you mean steps"),
        ("--settings latin.toml", 2, "UTF-8"),
        ("--settings torn.toml", 2, "no valid TOML"),
        ("--set teacher.context=latin.toml", 2, "UTF-8"),
        ("--data nocolumns.jsonl", 2, "no such column"),
        ("--engine vllm --data one.jsonl", 5, "vllm"),
    ],
)
def test_a_setting_that_cannot_be_used(
    tmp_path: Path, refused: Refused, options: str, status: int, words: str
) -> None:
    if "vllm" in options and shutil.which("nvidia-smi"):
        pytest.skip("vLLM may run here")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\nsteps = 2\n")
    (tmp_path / "torn.toml").write_text("= =")
    (tmp_path / "nocolumns.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "one.jsonl").write_text('{"problem": "1 + 1?", "answer": "2", "solution": "2"}\n')
    refused(f"train --steps 1 --out out {options}", status, words)


def test_training_never_begins_among_files_that_are_not_its(
    tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    refused("train --steps 1 --out folder", 2, "holds files but no training run (thesis.txt)")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("mine")
    refused("train --steps 1 --out file", 2, "is a file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("{", "this is no training run"),
        ("[]", "this is no training run"),
        (json.dumps(TRAINED | {"version": 9}), "format 9"),
        (json.dumps({k: v for k, v in TRAINED.items() if k != "identity"}), "it lacks identity"),
    ],
)
def test_a_damaged_training_run(
    tmp_path: Path, refused: Refused, manifest: str, words: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json").write_text(manifest)
    refused("train --steps 1 --out run", 2, words, "training.json")


def some_adapter(path: Path, **config: Any) -> Path:
    """A directory that looks like an adapter of the bundled model, its weights torn."""
    path.mkdir(parents=True)
    whole = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model_path()),
        "r": 4,
        "target_modules": ["q_proj"],
    }
    (path / "adapter_config.json").write_text(json.dumps(whole | config))
    (path / "adapter_model.safetensors").write_bytes(b"torn")
    return path


def test_adapters_that_cannot_be_merged(tmp_path: Path, refused: Refused) -> None:
    adapter = some_adapter(tmp_path / "run" / "adapter")
    refused("merge run/adapter --out m", 2, "cut off or damaged", "adapter_model.safetensors")
    refused("merge run --out m", 2, "this is no adapter", "did you mean run/adapter?")
    refused("merge run/adapter --out m --device banana", 2, "--device")
    refused("merge run/adapter --out run", 2, "something here already")
    (adapter / "adapter_model.safetensors").unlink()
    refused("merge run/adapter --out m", 2, "has no adapter_model.safetensors")
    some_adapter(tmp_path / "gone", base_model_name_or_path="/nowhere/model")
    refused("merge gone --out m", 2, "no such model directory")
    some_adapter(tmp_path / "elsewhere", target_modules=["no_such_layer"])
    refused("merge elsewhere --out m", 2, "does not fit the model", "no_such_layer")
    (adapter / "adapter_config.json").write_text("{")
    refused("merge run/adapter --out m", 2, "adapter_config.json cannot be read")
    assert not (tmp_path / "m").exists()


def test_an_adapter_of_another_base_names_the_tensor(tmp_path: Path, refused: Refused) -> None:
    import torch
    from safetensors.torch import save_file

    adapter = some_adapter(tmp_path / "wide")
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {
            f"{prefix}.lora_A.weight": torch.zeros(4, 7),
            f"{prefix}.lora_B.weight": torch.zeros(9, 4),
        },
        adapter / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    refused("merge wide --out m", 2, "does not fit the model", "q_proj.lora_A", "base model is")


@pytest.mark.parametrize("command", ["run-all --model", "train --steps 1 --data x --model"])
def test_a_training_run_in_the_place_of_a_model(
    tmp_path: Path, refused: Refused, command: str
) -> None:
    some_adapter(tmp_path / "run" / "adapter")
    refused(f"{command} ./run", 2, "this is a training run: branchdiag merge", "run/adapter")
    refused(f"{command} ./run/adapter", 2, "this is an adapter", "merge")
    (tmp_path / "full" / "model").mkdir(parents=True)
    (tmp_path / "full" / "training.json").write_text("{}", encoding="utf-8")
    refused(f"{command} ./full", 2, "this is a training run: its model is", "full/model")


def test_regrading_what_is_not_there(refused: Refused) -> None:
    refused("evaluate bundled --regrade --out none", 2, "no samples to grade again")


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "branchdiag", *arguments], stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize("arguments", [("report",), ("report", "--json"), ("protocol", "paper")])
def test_a_reader_that_goes_away_is_no_error(
    finished_run: Path, arguments: tuple[str, ...]
) -> None:
    run = (str(finished_run),) if arguments[0] == "report" else ()
    read, write = os.pipe()
    os.close(read)  # as `| head` does once it has read enough
    process = started(*arguments, *run, stdout=write)
    os.close(write)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [("report",), ("report", "--json")])
def test_output_without_room_is_explained(finished_run: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(*arguments, str(finished_run), stdout=full)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 5
    assert b"standard output cannot be written" in errors
    assert b"Traceback" not in errors


def test_a_terminal_without_utf8_gets_escapes() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = started("protocol", "paper", stdout=subprocess.PIPE, env=environment)
    out, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, b"")
    import tomllib

    from branchdiag.protocol import Protocol

    assert tomllib.loads(out.decode("ascii")) == tomllib.loads(Protocol().to_toml())
