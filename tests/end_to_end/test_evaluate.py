"""`evaluate` as a user runs it, on the bundled model and a random adapter of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from branchdiag.cli.main import call
from branchdiag.evaluation.directory import EvaluationDirectory
from branchdiag.store.evaluation_schemas import EVALUATION_TABLES
from branchdiag.store.fingerprint import derive_seed
from tests.command_line import branchdiag

FEW = ("--limit=6", "--n=2", "--seeds=2", "--progress=none", "--set=comparison.resamples=500")
GROUPS = 2 * 6 * 2  # models x problems x seed sets
EVERY_UNIT = "--set=engine.checkpoint_seconds=0"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the bundled model, strong enough to change what it writes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from branchdiag.bundled import model_path

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path())
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("adapters") / "random"
    adapted.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def evaluation(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation. Read only: tests that change it copy it."""
    out = tmp_path_factory.mktemp("evaluation") / "done"
    assert call(["evaluate", "bundled", str(adapter), *FEW, f"--out={out}"]) == 0
    return out


@pytest.fixture
def again(
    evaluation: Path, adapter: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The same command in a copy of the evaluation, with more arguments."""
    copy = shutil.copytree(evaluation, tmp_path / "copy")

    def run(*arguments: str, models: tuple[str, ...] | None = None) -> tuple[int, str, str]:
        capfd.readouterr()
        named = ("bundled", str(adapter)) if models is None else models
        status = call(["evaluate", *named, *FEW, f"--out={copy}", *arguments])
        return status, *capfd.readouterr()

    return run


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    directory = EvaluationDirectory.open(path)
    return {name: directory.table(name).rows() for name in EVALUATION_TABLES}


def test_the_report_agrees_with_the_grades(evaluation: Path) -> None:
    report = json.loads((evaluation / "report.json").read_text())
    assert [model["label"] for model in report["models"]] == ["bundled", "random"]
    assert report["main_metric"] == "avg@2"
    grades = pd.read_parquet(evaluation / "grades")
    samples = pd.read_parquet(evaluation / "samples")
    found = {(f["model"], f["benchmark"], f["metric"]): f for f in report["metrics"]}
    for model in ("bundled", "random"):
        mine = grades[grades["model"] == model]
        by_problem = mine.groupby(["seed_set", "problem_id"])["correct"]
        expected = {
            "avg@2": by_problem.mean(),
            "pass@2": by_problem.max().astype(float),
            "maj@2": mine[mine["sample"] == 0].set_index(["seed_set", "problem_id"])["correct"],
        }
        for metric, values in expected.items():
            per_seed = values.groupby("seed_set").mean()
            for benchmark in (report["benchmarks"][0]["name"], "mean"):
                figure = found[model, benchmark, metric]
                assert figure["per_seed"] == pytest.approx(per_seed.tolist())
                assert figure["value"] == pytest.approx(per_seed.mean())
                assert figure["deviation"] == pytest.approx(per_seed.std(ddof=1))
        length = samples[samples["model"] == model]["n_tokens"].mean()
        assert found[model, "mean", "tokens"]["value"] == pytest.approx(length)
    (main,) = [
        d for d in report["differences"] if d["metric"] == "avg@2" and d["benchmark"] == "mean"
    ]
    value = {m: found[m, "mean", "avg@2"]["value"] for m in ("bundled", "random")}
    assert main["difference"] == pytest.approx(value["random"] - value["bundled"])
    assert report["sentences"] == [main["sentence"]]
    assert any("training run" in note for note in report["notes"])


def test_models_share_prompts_and_seeds_and_no_seed_is_used_twice(evaluation: Path) -> None:
    samples = pd.read_parquet(evaluation / "samples")
    key = ["problem_id", "seed_set", "sample"]
    base, adapted = (
        samples[samples["model"] == m].set_index(key).sort_index() for m in ("bundled", "random")
    )
    assert len(base) == len(adapted) == 6 * 2 * 2
    assert base["seed"].is_unique
    assert base["seed"].equals(adapted["seed"])
    assert base["prompt_hash"].equals(adapted["prompt_hash"])
    problem, seed_set, sample = base.index[0]
    assert base["seed"].iloc[0] == derive_seed(
        0, "evaluation", int(seed_set), str(problem), int(sample)
    )
    # An adapter that was silently not applied would look like its base.
    assert not base["text"].equals(adapted["text"])


def test_a_finished_evaluation_is_left_as_it_is(
    again: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    status, out, err = again("--json")
    assert status == 0, err
    assert "nothing to do" in err
    report = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert report == json.loads((tmp_path / "copy" / "report.json").read_text())
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert before == after


def test_other_settings_are_a_conflict_that_names_them(
    again: Callable[..., tuple[int, str, str]],
) -> None:
    status, _, err = again("--set=sampling.temperature=0.6")
    assert status == 3
    assert "sampling.temperature: 1 -> 0.6" in err
    status, _, err = again("--set=grading.answer_rule=after_thinking")
    assert status == 3
    assert "--regrade" in err
    status, _, err = again("--set=sampling.temprature=1")
    assert status == 2
    assert "did you mean sampling.temperature?" in err


def test_models_are_taken_out_and_put_back_without_sampling(
    again: Callable[..., tuple[int, str, str]], evaluation: Path, tmp_path: Path
) -> None:
    status, out, err = again("--json", models=("bundled",))
    assert status == 0, err
    assert [model["label"] for model in json.loads(out)["models"]] == ["bundled"]
    assert json.loads(out)["differences"] == []
    status, out, err = again("--json")
    assert status == 0, err
    assert len(json.loads(out)["models"]) == 2
    assert rows(tmp_path / "copy") == rows(evaluation)


def test_regrade_takes_no_sample_and_needs_no_model(
    again: Callable[..., tuple[int, str, str]], evaluation: Path, tmp_path: Path
) -> None:
    manifest = json.loads((tmp_path / "copy" / "evaluation.json").read_text())
    for model in manifest["models"].values():
        if model["adapter"]:
            model["adapter"] = model["name"] = str(tmp_path / "gone")
    (tmp_path / "copy" / "evaluation.json").write_text(json.dumps(manifest))
    status, out, err = again("--regrade", "--json", models=())
    assert status == 0, err
    before, after = rows(evaluation), rows(tmp_path / "copy")
    assert before == after
    assert len(json.loads(out)["models"]) == 2
    status, _, err = again("--regrade", "--set=grading.answer_rule=after_thinking", models=())
    assert status == 0, err
    assert rows(tmp_path / "copy")["samples"] == before["samples"]
    manifest = json.loads((tmp_path / "copy" / "evaluation.json").read_text())
    assert manifest["content"]["G"]["grading"]["answer_rule"] == "after_thinking"


def test_a_kill_while_old_grades_are_removed_leaves_none_under_the_new_rule(
    again: Callable[..., tuple[int, str, str]],
    evaluation: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = "--set=grading.answer_rule=after_thinking"
    table = type(EvaluationDirectory.open(evaluation).table("grades"))
    with monkeypatch.context() as patch:
        patch.setattr(table, "remove", lambda self: os.kill(os.getpid(), signal.SIGTERM))
        assert again("--regrade", strict)[0] == 143
    status, _, err = again(strict)
    assert status == 3, err  # the grades that are there are those of the old rule
    assert again()[0] == 0
    assert rows(tmp_path / "copy") == rows(evaluation)
    assert again("--regrade", strict)[0] == 0
    assert again(strict)[0] == 0


def test_a_damaged_part_is_made_again(
    again: Callable[..., tuple[int, str, str]], evaluation: Path, tmp_path: Path
) -> None:
    part = EvaluationDirectory.open(tmp_path / "copy").table("outcomes").part_paths()[0]
    part.write_bytes(part.read_bytes()[:-20])
    # Another level asks for the report anew, and so finds the damage.
    status, _, err = again("--set=comparison.level=0.9")
    assert status == 0, err
    assert "cannot be read" in err
    assert rows(tmp_path / "copy") == rows(evaluation)


def test_killed_at_samples_and_at_grades_it_ends_as_one_that_never_was(
    adapter: Path, evaluation: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", "bundled", str(adapter), *FEW, EVERY_UNIT, "--out=killed"]
    for table, moment, count in (("samples", "after", 30), ("grades", "after", 5)):
        words = (table, moment, str(count), *arguments)
        status = branchdiag(*words, cwd=tmp_path, program="tests.crash.killed_evaluation").status
        assert status == -signal.SIGKILL
    directory = EvaluationDirectory.open(tmp_path / "killed")
    assert 0 < directory.table("outcomes").n_rows() < GROUPS
    assert not (tmp_path / "killed" / "report.json").exists()
    ended = branchdiag(*arguments, cwd=tmp_path)
    assert ended.status == 0, ended.err
    assert rows(tmp_path / "killed") == rows(evaluation)
    reports = [
        json.loads((p / "report.json").read_text()) for p in (tmp_path / "killed", evaluation)
    ]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert reports[0]["differences"] == reports[1]["differences"]
