"""Whole small runs in this process: what must give the same gives the same, and files are whole."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from branchdiag import models, problems
from branchdiag.adapters import base_model_of, is_adapter, merged_model
from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.pipeline.signals import Interrupted
from branchdiag.schedule import Schedule
from branchdiag.training import checkpoints
from branchdiag.training import data as training_data
from branchdiag.training.data import load_data
from branchdiag.training.inputs import NamedSchedule, TrainRequest, resolve_model
from branchdiag.training.loop import Loop
from branchdiag.training.lora import merged_weights
from branchdiag.training.metrics import read_lines
from branchdiag.training.processes import Processes
from branchdiag.training.rollouts import evaluation_mode
from branchdiag.training.trainer import train
from tests.tiny_models import tiny_model
from tests.unit.training.tiny_runs import TUNINGS, lines_of, losses, request

STEPS = 4
both_tunings = pytest.mark.parametrize("tuning", TUNINGS)
RESULTS = {"lora": "adapter", "full": "model"}


def make_loop(wanted: TrainRequest) -> Loop:
    from branchdiag.models import load_tokenizer

    settings = wanted.settings
    resolved = resolve_model(wanted.model, settings)
    tokenizer = load_tokenizer(resolved)
    return Loop(
        wanted,
        resolved,
        tokenizer,
        load_data(settings, tokenizer, 512),
        settings.make_objective(),
        Processes("cpu"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """An uninterrupted run."""
    return train(request(folder, f"steps={STEPS}", out="finished")).path


@pytest.fixture(scope="module")
def finished_full(folder: Path) -> Path:
    """An uninterrupted run that trains all weights."""
    changes = (f"steps={STEPS}", *TUNINGS["full"])
    return train(request(folder, *changes, out="finished-full")).path


@pytest.fixture
def whole(tuning: str, request: pytest.FixtureRequest) -> Path:
    """An uninterrupted run of this tuning."""
    found: Path = request.getfixturevalue("finished" if tuning == "lora" else "finished_full")
    return found


def test_a_run_writes_what_it_says(finished: Path) -> None:
    lines = lines_of(finished)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert math.isfinite(line["loss"]) and line["grad_norm"] > 0
        assert line["divergence"] > 0 and 0 < line["weight_mean"] < 1
        assert 0 <= line["clipped_token_share"] <= 1 and line["student_entropy"] > 0
        assert 0 < line["completion_tokens"] <= 12 and 0 <= line["truncated_share"] <= 1
        assert line["tokens_per_s"] > 0 and line["memory_mib"] > 0
        assert line["missing"] == {}
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([1e-2 * (150 - step) / 150 for step in range(STEPS)])
    assert checkpoints.saved_steps(finished) == [2, 4]
    assert is_adapter(finished / "adapter")
    held_out = read_lines(finished / "held_out.jsonl")
    assert [line["step"] for line in held_out] == [0, STEPS]
    assert held_out[0]["divergence"] == held_out[0]["divergence_first_rollouts"] > 0
    card = (finished / "adapter" / "README.md").read_text()
    for words in ("pw-opsd", "moderate", "w_min 0.25", "fingerprint", "fp1:"):
        assert words in card
    manifest = json.loads((finished / "training.json").read_text())
    assert manifest["finished_steps"] == STEPS
    assert (manifest["data"]["problems"], len(manifest["data"]["held_out"])) == (22, 2)


def test_a_full_run_writes_a_whole_model(finished_full: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert not (finished_full / "adapter").exists()
    began, trained = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (tiny_model(), finished_full / "model")
    )
    moved = {name for name, value in trained.items() if not torch.equal(value, began[name])}
    assert moved == set(began)
    assert checkpoints.saved_steps(finished_full) == [2, 4]
    card = (finished_full / "model" / "README.md").read_text()
    for words in ("A whole model", 'library_name: "transformers"', "pw-opsd", "fp1:"):
        assert words in card
    assert "lora" not in card.lower()
    manifest = json.loads((finished_full / "training.json").read_text())
    assert manifest["identity"]["settings"]["tuning"] == "full"
    assert "lora" not in manifest["settings"] and "lora" not in manifest["identity"]["settings"]


@both_tunings
def test_micro_batches_of_one_or_of_all_are_one_batch(
    folder: Path, tuning: str, whole: Path
) -> None:
    changes = (f"steps={STEPS}", *TUNINGS[tuning], "optimizer.micro_batch_size=1")
    path = train(request(folder, *changes, out=f"ones-{tuning}")).path
    assert losses(path) == pytest.approx(losses(whole), abs=1e-5)
    norms = [[line["grad_norm"] for line in lines_of(run)] for run in (path, whole)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@both_tunings
def test_a_signal_is_followed_by_a_checkpoint_and_a_resumed_run_is_an_uninterrupted_one(
    folder: Path, tuning: str, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Loop.update
    changes = (f"steps={STEPS}", *TUNINGS[tuning])
    out = f"stopped-{tuning}"

    def interrupted(self: Loop, *arguments: Any) -> Any:
        line = update(self, *arguments)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return line

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "update", interrupted)
        with pytest.raises(Interrupted):
            train(request(folder, *changes, out=out))
    run = folder / out
    assert checkpoints.saved_steps(run) == [2, 3]
    assert not (run / RESULTS[tuning]).exists()
    with pytest.raises(SettingsConflict, match="unfinished run; its last checkpoint is step 3"):
        train(request(folder, *changes, out=out))
    with (run / "metrics.jsonl").open("a") as file:  # a kill after the line, before the checkpoint
        file.write(json.dumps({"step": 4, "loss": 99.0}) + '\n{"step": 5, "lo')
    train(request(folder, *changes, out=out, resume=True))
    assert [line["step"] for line in lines_of(run)] == list(range(1, STEPS + 1))
    assert losses(run) == losses(whole)  # to the last bit
    assert read_lines(run / "held_out.jsonl") == read_lines(whole / "held_out.jsonl")


def test_a_run_of_the_other_tuning_is_another_run(folder: Path, finished: Path) -> None:
    changes = (f"steps={STEPS}", *TUNINGS["full"])
    with pytest.raises(SettingsConflict, match="tuning"):
        train(request(folder, *changes, out="finished", resume=True))


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(
    folder: Path, finished: Path
) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    assert train(request(folder, f"steps={STEPS}", out="finished")).nothing_to_do
    with pytest.raises(SettingsConflict, match=r"optimizer\.learning_rate"):
        train(request(folder, f"steps={STEPS}", "optimizer.learning_rate=1e-3", out="finished"))
    with pytest.raises(SettingsConflict, match=r"schedule\.w_min: 0\.25 -> 0\.1"):
        train(request(folder, f"steps={STEPS}", out="finished", schedule="sharp"))
    assert (finished / "metrics.jsonl").read_bytes() == before


@both_tunings
def test_a_finished_run_whose_result_is_gone_makes_it_again(folder: Path, tuning: str) -> None:
    changes = ("steps=1", *TUNINGS[tuning])
    result = train(request(folder, *changes, out=f"lost-{tuning}")).result
    before = {path.name: path.read_bytes() for path in result.iterdir()}
    assert train(request(folder, *changes, out=f"lost-{tuning}")).nothing_to_do
    shutil.rmtree(result)
    again = train(request(folder, *changes, out=f"lost-{tuning}", resume=True))
    assert not again.nothing_to_do
    assert {path.name: path.read_bytes() for path in result.iterdir()} == before


def test_a_template_file_that_was_changed_is_another_run(folder: Path) -> None:
    template = folder / "teacher.txt"
    template.write_text("{problem} It is {answer}.")
    changes = (f"teacher.context={template}", "held_out.problems=0")
    train(request(folder, "steps=1", *changes, out="template"))
    template.write_text("{problem} It must be {answer}!")
    with pytest.raises(SettingsConflict, match=r"teacher_file: .*It is.* -> .*It must be"):
        train(request(folder, "steps=2", *changes, out="template", resume=True))


def test_a_resumed_run_stays_at_the_commits_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's branch moves on between the two commands; asking it is all that is stood in for."""
    former = shutil.copytree(tiny_model(), folder / "hub" / "former")
    monkeypatch.setattr(models, "_snapshot", lambda *_, **__: former)
    wanted = request(folder, "steps=1", out="moved", model=Path("Some/Model@main"))
    run = train(wanted).path
    manifest = json.loads((run / "training.json").read_text())
    manifest["data"]["provenance"] = [{"kind": "hub", "repository": "a/b", "revision": "c0"}]
    (run / "training.json").write_text(json.dumps(manifest))

    asked = {}

    def load_problems(*arguments: Any, **settings: Any) -> Any:
        asked.update(settings["recorded_revisions"])
        return problems.load_problems(*arguments, **settings)

    moved = shutil.copytree(former, folder / "hub" / "moved")
    monkeypatch.setattr(models, "_snapshot", lambda *_, **__: moved)
    monkeypatch.setattr(training_data, "load_problems", load_problems)
    wanted = request(folder, "steps=2", out="moved", model=Path("Some/Model@main"), resume=True)
    assert train(wanted).steps == 2
    assert asked == {"a/b": "c0"}
    # The adapter names the hub's model and commit, not the cache of the machine it was made on.
    assert base_model_of(run / "adapter") == "Some/Model@former"
    assert 'base_model: "Some/Model"\n' in (run / "adapter" / "README.md").read_text()


def test_a_run_stopped_while_it_measures_has_every_measurement_in_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = (f"steps={STEPS}", "held_out.every=2")
    whole = train(request(folder, *changes, out="measured")).path
    measure = Loop.measure

    def interrupted(self: Loop) -> Any:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "measure", interrupted)
        with pytest.raises(Interrupted):
            train(request(folder, *changes, out="measuring"))
    train(request(folder, *changes, out="measuring", resume=True))
    lines = [read_lines(run / "held_out.jsonl") for run in (whole, folder / "measuring")]
    assert [line["step"] for line in lines[0]] == [0, 2, 4]
    assert lines[0] == lines[1]


def test_more_steps_go_on_from_a_finished_run(folder: Path) -> None:
    train(request(folder, "steps=1", out="longer"))
    assert train(request(folder, "steps=2", out="longer", resume=True)).steps == 2
    assert len(lines_of(folder / "longer")) == 2


def test_a_reversed_schedule_trains_another_adapter(folder: Path, finished: Path) -> None:
    falling = NamedSchedule("reversed", Schedule(0.25, 0.3, 0.1, "decreasing"))
    run = train(request(folder, "steps=1", out="reversed", schedule=falling)).path
    other, one = lines_of(run)[0], lines_of(finished)[0]
    assert other["divergence"] == one["divergence"]  # the same rollouts of the same student
    assert other["loss"] != one["loss"] and other["grad_norm"] != one["grad_norm"]


@both_tunings
@pytest.mark.parametrize("objective", ["opsd", "eopd", "reopold", "iw-opd"])
def test_every_objective_trains(folder: Path, objective: str, tuning: str) -> None:
    changes = ["steps=2", f"objective.name={objective}", "held_out.problems=0", *TUNINGS[tuning]]
    if tuning == "lora":
        changes.append("lora.dropout=0.1")
    if objective == "reopold":
        changes.append("objective.settings.switch_step=1")
    run = train(request(folder, *changes, out=f"{objective}-{tuning}", schedule=None)).path
    lines = lines_of(run)
    assert all(math.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    if objective == "reopold":
        assert lines[1]["counted_share"] < 0.5
    if objective == "iw-opd":
        assert 1 < lines[0]["weight_mean"] < 1.5
        assert lines[0]["missing"]["clipped_token_share"] == "the objective clips nothing"


@both_tunings
def test_gradient_checkpointing_changes_memory_alone(
    folder: Path, tuning: str, whole: Path
) -> None:
    changes = ("steps=2", *TUNINGS[tuning], "compute.gradient_checkpointing=true")
    run = train(request(folder, *changes, out=f"recomputed-{tuning}")).path
    assert losses(run) == pytest.approx(losses(whole)[:2], abs=1e-6)


def test_a_bfloat16_model_carries_a_float32_adapter(folder: Path) -> None:
    run = train(request(folder, "steps=2", "compute.dtype=bfloat16", out="half")).path
    assert all(line["grad_norm"] > 0 for line in lines_of(run))
    from safetensors.torch import load_file

    tensors = load_file(run / "adapter" / "adapter_model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert any(tensor.any() for tensor in tensors)


def test_a_bfloat16_model_is_trained_by_a_float32_copy(folder: Path) -> None:
    changes = ("tuning=full", "optimizer.learning_rate=1e-5", "compute.dtype=bfloat16")
    run = train(request(folder, "steps=3", *changes, out="half-full")).path
    assert all(line["grad_norm"] > 0 for line in lines_of(run))
    from safetensors.torch import load_file

    kept = load_file(checkpoints.checkpoint_path(run, 3) / "weights.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    result = load_file(run / "model" / "model.safetensors")
    for name, value in kept.items():
        assert torch.equal(result[name], value.bfloat16())
        assert not torch.equal(value, value.bfloat16().float())  # what the type would have lost
    straight = train(request(folder, "steps=3", *changes, out="half-again")).path
    shutil.rmtree(checkpoints.checkpoint_path(straight, 3))
    train(request(folder, "steps=3", *changes, out="half-again", resume=True))
    assert losses(straight) == losses(run)


def test_a_run_beyond_the_steps_asked_for_is_not_cut(folder: Path, finished: Path) -> None:
    with pytest.raises(SettingsConflict, match="at step 4 already"):
        train(request(folder, "steps=3", out="finished", resume=True))


@both_tunings
def test_teachers_differ_after_the_first_step_alone(folder: Path, tuning: str, whole: Path) -> None:
    series = {"fixed": losses(whole)}
    for kind in ("current", "ema"):
        changes = ("steps=2", *TUNINGS[tuning], f"teacher.kind={kind}", "teacher.ema_decay=0.5")
        out = f"{kind}-{tuning}"
        series[kind] = losses(train(request(folder, *changes, out=out)).path)
    firsts = [values[0] for values in series.values()]
    assert firsts == pytest.approx([firsts[0]] * 3, abs=1e-7)
    assert len({round(values[1], 7) for values in series.values()}) == 3
    assert (checkpoints.checkpoint_path(folder / out, 2) / "average.safetensors").is_file()
    run = train(request(folder, "steps=3", *changes[1:], out=out, resume=True)).path
    straight = train(request(folder, "steps=3", *changes[1:], out=f"{out}3")).path
    assert losses(run) == losses(straight)
    # What the untrained student wrote is the same, though none of its weights are left.
    held_out = [read_lines(path / "held_out.jsonl")[-1] for path in (run, straight)]
    assert held_out[0] == held_out[1]


def test_rollouts_are_of_the_current_weights_and_the_model_is_as_it_was(folder: Path) -> None:
    loop = make_loop(request(folder, out="loop"))
    prompts = loop.data.batch(0, 4, 0)
    before = loop._draw(prompts, "train", 0)
    assert loop._draw(prompts, "train", 0) == before
    with torch.no_grad():
        for name, parameter in loop.student.adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    adapted: Any = loop.student.adapted  # type: ignore[attr-defined]
    kept = {name: value.clone() for name, value in adapted.state_dict().items()}
    after = loop._draw(prompts, "train", 0)
    assert after != before
    assert all(torch.equal(value, kept[name]) for name, value in adapted.state_dict().items())
    # Drawn one by one with the adapter beside the weights: the most likely token is the same.
    ids = torch.tensor([prompts[0][1].student_ids])
    base = loop.student.adapted.get_base_model()
    with torch.no_grad(), evaluation_mode(loop.student.adapted):
        beside = base(input_ids=ids).logits
        with merged_weights(loop.student.adapted):
            inside = base(input_ids=ids).logits
    torch.testing.assert_close(inside, beside, rtol=1e-4, atol=1e-4)


@both_tunings
def test_forked_decoders_see_the_current_weights(folder: Path, tuning: str) -> None:
    loop = make_loop(request(folder, *TUNINGS[tuning], out="loop"))
    engine: Any = loop._sampler._engine  # type: ignore[attr-defined]
    prompts = [(epoch, pair) for epoch in range(40) for _, pair in loop.data.batch(0, 4, 0)]
    engine.n_workers = 1
    before = loop._draw(prompts, "train", 0)
    with torch.no_grad():
        for name, parameter in loop.student.trained.items():
            if "lora_B" in name or "q_proj" in name:
                parameter.normal_(0, 0.5)
    engine.n_workers = 2
    forked = loop._draw(prompts, "train", 0)
    assert forked != before
    engine.n_workers = 1
    assert forked == loop._draw(prompts, "train", 0)


def test_a_trained_adapter_agrees_with_its_merge(folder: Path, finished: Path) -> None:
    from branchdiag.training.merge import merge

    loop = make_loop(request(folder, f"steps={STEPS}", out="finished"))
    loop.restore(STEPS)
    merged_path = merge(finished / "adapter", folder / "merged", device="cpu")
    plain = make_loop(request(folder, out="loop")).student.model
    from branchdiag.models import load_model, load_tokenizer, resolve
    from branchdiag.protocol import EngineSettings

    whole = load_model(resolve(str(merged_path)), EngineSettings(device="cpu"))
    also = merged_model(
        load_model(loop.resolved, EngineSettings(device="cpu")), finished / "adapter"
    )
    ids = torch.arange(3, 20)[None]
    with torch.no_grad(), evaluation_mode(loop.student.adapted):
        trained = loop.student.adapted(input_ids=ids).logits
        assert (trained - plain.eval()(input_ids=ids).logits).abs().max() > 1e-2
        torch.testing.assert_close(whole(input_ids=ids).logits, trained, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(also(input_ids=ids).logits, trained, rtol=1e-4, atol=1e-4)
    text = "Solve 12 + 3"
    tokenizers = [load_tokenizer(resolve(str(path))) for path in (merged_path, loop.resolved.path)]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    with pytest.raises(UsageError, match="something here already"):
        merge(finished / "adapter", folder / "merged", device="cpu")


@both_tunings
def test_a_checkpoint_is_there_or_not_there(folder: Path, tuning: str, monkeypatch: Any) -> None:
    loop = make_loop(request(folder, *TUNINGS[tuning], out=f"torn-{tuning}"))
    loop.step = 7

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(Exception, match="No space left"):
        loop.save()
    assert checkpoints.saved_steps(folder / f"torn-{tuning}") == []
    assert list((folder / f"torn-{tuning}" / "checkpoints").iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(folder: Path, finished_full: Path) -> None:
    shutil.copytree(finished_full / "checkpoints", folder / "tied" / "checkpoints")
    loop = make_loop(request(folder, *TUNINGS["full"], out="tied", model=tiny_model(tied=True)))
    with pytest.raises(UsageError, match=r"tensors differ: lm_head\.weight") as refused:
        loop.restore(STEPS)
    assert "--resume goes on from the one before" in str(refused.value)


def test_an_adapter_on_the_output_head_or_on_no_layer_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="output head"):
        train(request(folder, 'lora.targets=["q_proj", "lm_head"]', out="head"))
    with pytest.raises(UsageError, match="no layer named q_porj"):
        train(request(folder, 'lora.targets=["q_porj"]', out="slip"))
