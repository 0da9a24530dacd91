"""`branchdiag train` and `merge` as processes: killed, divided over two, and misused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from branchdiag.adapters import base_model_of
from branchdiag.training.checkpoints import saved_steps
from tests.command_line import branchdiag
from tests.end_to_end.test_mistakes import refused
from tests.tiny_models import write_tiny_model
from tests.unit.training.tiny_runs import TUNINGS, losses, write_problems, write_settings

STEPS = 5
both_tunings = pytest.mark.parametrize("tuning", TUNINGS)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("train")
    write_tiny_model(path / "model")
    write_problems(path / "problems.jsonl")
    write_settings(path)
    return path


def tuned(tuning: str) -> list[str]:
    return [f"--set={change}" for change in TUNINGS[tuning]]


def arguments(out: str, *more: str) -> list[str]:
    return ["train", "--model=./model", "--settings=tiny.toml", "--data=problems.jsonl",
            f"--steps={STEPS}", f"--out={out}", "--progress=plain", *more]  # fmt: skip


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """An uninterrupted run of one process."""
    ended = branchdiag(*arguments("whole", "--json"), cwd=folder, env=ONE_THREAD)
    assert ended.status == 0, ended.err
    return ended.json


@pytest.fixture(scope="module")
def whole_full(folder: Path) -> dict[str, Any]:
    """One that trains all weights."""
    words = arguments("whole-full", "--json", *tuned("full"))
    ended = branchdiag(*words, cwd=folder, env=ONE_THREAD)
    assert ended.status == 0, ended.err
    assert "weights are trained; the teacher is a second copy of them" in ended.err
    assert "MiB a process" in ended.err
    return ended.json


@pytest.fixture
def whole_run(tuning: str, folder: Path, request: pytest.FixtureRequest) -> Path:
    """The directory of an uninterrupted run of this tuning."""
    return folder / request.getfixturevalue("whole" if tuning == "lora" else "whole_full")["run"]


def test_a_run_says_what_it_came_to(folder: Path, whole: dict[str, Any], in_process: Any) -> None:
    assert whole["steps"] == STEPS and whole["last"]["step"] == STEPS
    assert [line["step"] for line in whole["held_out"]] == [0, STEPS]
    assert Path(folder, whole["adapter"], "adapter_model.safetensors").is_file()
    assert base_model_of(folder / whole["adapter"]) == str((folder / "model").resolve())
    again = in_process(folder, arguments("whole"))
    assert again.status == 0 and "nothing to do" in again.err


@both_tunings
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    folder: Path, tuning: str, whole_run: Path
) -> None:
    run = folder / f"killed-{tuning}"
    words = arguments(run.name, *tuned(tuning))
    process = subprocess.Popen(
        [sys.executable, "-m", "branchdiag", *words],
        cwd=folder,
        env={**os.environ, **ONE_THREAD},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 300
    while not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 in saved_steps(run) and STEPS not in saved_steps(run)
    ended = branchdiag(*words, "--resume", cwd=folder, env=ONE_THREAD)
    assert ended.status == 0, ended.err
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert losses(run) == pytest.approx(losses(whole_run), abs=1e-5)


@both_tunings
def test_two_processes_are_one_with_the_same_batch(
    folder: Path, tuning: str, whole_run: Path
) -> None:
    run = folder / f"two-{tuning}"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         "-m", "branchdiag", *arguments(run.name, "--json", *tuned(tuning))],
        cwd=folder,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == STEPS  # one object: the main process alone speaks
    assert losses(run) == pytest.approx(losses(whole_run), abs=1e-5)


def test_merged_weights_are_a_model(folder: Path, whole: dict[str, Any]) -> None:
    ended = branchdiag("merge", whole["adapter"], "--out=merged", cwd=folder, env=ONE_THREAD)
    assert ended.status == 0, ended.err
    names = {path.name for path in (folder / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names


def test_a_full_run_is_evaluated_beside_its_base_and_is_not_merged(
    folder: Path, whole_full: dict[str, Any], in_process: Any
) -> None:
    run = folder / "evaluating"
    (run / "runs").mkdir(parents=True)
    (run / "runs" / "full").symlink_to(folder / whole_full["run"])
    ended = branchdiag("evaluate", "--problems=../problems.jsonl:2", "--n=1", "--seeds=1", "--json",
                       "--set=sampling.max_new_tokens=8", "--progress=none",
                       cwd=run, env=ONE_THREAD)  # fmt: skip
    assert ended.status == 0, ended.err
    assert [model["label"] for model in ended.json["models"]] == ["model", "full"]
    for given in (whole_full["run"], whole_full["model"]):
        refused(in_process(folder, ["merge", given, "--out=other"]), 2, "nothing to merge")
    assert not (folder / "other").exists()


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--objective=opsd", "--schedule=sharp"], 2, ["opsd takes no schedule"]),
        (["--schedule=modrate"], 2, ["modrate", "moderate"]),
        (["--set=optimizer.lr=1"], 2, ["optimizer.lr", "unknown key"]),
        (["--prefix-fraction=0.3", "--suffix-fraction=0.3"], 2, ["exclude each other"]),
        (["--steps=500"], 2, ["learning rate is 0"]),
        (["--data=none.jsonl"], 2, ["none.jsonl"]),
        (["--model=./nowhere"], 2, ["no such model directory"]),
        (["--engine=vllm"], 5, ["vllm"]),
        (["--set=report_to=wandb", "--out=sinks"], 5, ["wandb", "metrics.jsonl"]),
        (["--set=tuning=full", "--engine=vllm"], 2, ["weights are not passed", "tuning=lora"]),
        (["--set=tuning=full", "--set=lora.r=8"], 2, ["no adapter", "--set lora.r=8"]),
        (["--objective=grpo"], 2, ["grpo"]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_explained(
    folder: Path, more: list[str], status: int, words: list[str], in_process: Any
) -> None:
    out = [] if any("--out" in word for word in more) else ["--out=refused"]
    base = ["train", "--settings=tiny.toml", "--progress=none", *out]
    for default in ("--model=./model", "--data=problems.jsonl"):
        if not any(word.startswith(default.partition("=")[0]) for word in more):
            base.append(default)
    refused(in_process(folder, [*base, *more]), status, *words)


def test_directories_are_not_mixed(folder: Path, whole: dict[str, Any], in_process: Any) -> None:
    changed = in_process(folder, arguments("whole", "--set=optimizer.learning_rate=1e-3"))
    refused(changed, 3, "optimizer.learning_rate", "another --out")
    adapter = in_process(folder, ["train", f"--model={whole['adapter']}", "--out=other"])
    refused(adapter, 2, "this is an adapter", "branchdiag merge")
    model = in_process(folder, ["merge", "model", "--out=other"])
    refused(model, 2, "this is no adapter")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process: what ends before the model is loaded takes no time."""
    from branchdiag.cli.main import call
    from tests.command_line import Ended

    def run(cwd: Path, words: list[str]) -> Ended:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        status = call(words)
        printed = capsys.readouterr()
        return Ended(status, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What 100 steps of the bundled model with its own settings measured, before and after."""
    cwd = tmp_path_factory.mktemp("bundled")
    ended = branchdiag("train", "--progress=plain", "--json", cwd=cwd, env=ONE_THREAD)
    assert ended.status == 0, ended.err
    first, last = ended.json["held_out"]
    assert last["step"] == 100
    return first, last


@pytest.mark.slow
def test_on_the_same_text_the_bundled_model_comes_closer_to_its_teacher(
    held_out: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    first, last = held_out
    assert last["divergence_first_rollouts"] <= 2 / 3 * first["divergence"]


@pytest.mark.slow
@pytest.mark.xfail(
    strict=True,
    reason="it comes 27% closer: the new rollouts hold guesses of the answer, learned from a "
    "teacher that knows it, which that teacher contradicts (docs/bundled_results.md)",
)
def test_on_its_own_new_text_the_bundled_model_comes_closer_to_its_teacher(
    held_out: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    first, last = held_out
    assert last["divergence"] <= 2 / 3 * first["divergence"]
