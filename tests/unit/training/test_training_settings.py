"""Settings of a training run: the paper's defaults, and slips that are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchdiag.engines.base import Sampling
from branchdiag.errors import BranchdiagError, UsageError
from branchdiag.models import ResolvedModel
from branchdiag.schedule import Schedule
from branchdiag.training.inputs import (
    NamedSchedule,
    load_settings,
    read_schedule,
    schedule_model,
    schedule_remark,
)
from branchdiag.training.model import learning_rate
from branchdiag.training.objectives import OBJECTIVE_NAMES
from branchdiag.training.settings import TrainSettings


def test_the_defaults_are_the_papers() -> None:
    """arXiv 2605.21606, appendix I, and its released launchers."""
    paper = TrainSettings()
    assert (paper.steps, paper.save_every, paper.max_length) == (100, 25, 20000)
    optimizer, lora = paper.optimizer, paper.lora
    assert (optimizer.learning_rate, optimizer.horizon_steps) == (5e-6, 150)
    assert (optimizer.max_grad_norm, optimizer.batch_size) == (0.1, 32)
    assert (lora.r, lora.alpha, lora.dropout, len(lora.targets)) == (64, 128, 0.05, 7)
    assert paper.sampling() == Sampling(1.1, 0.95, 20, 1024)
    assert (paper.teacher.kind, paper.teacher.context, paper.teacher.thinking) == (
        "fixed", "solution", True,
    )  # fmt: skip
    assert not paper.student.thinking and paper.student.prompt.startswith("Problem: {problem}")
    objective = paper.make_objective()
    assert (objective.name, objective.temperature) == ("pw-opsd", 1.1)
    rates = [learning_rate(paper, step) for step in (0, 75, 100, 150)]
    assert rates == pytest.approx([5e-6, 2.5e-6, 5e-6 / 3, 0])


def test_a_method_samples_as_its_own_paper_unless_told_otherwise() -> None:
    own = TrainSettings.load("paper", ["objective.name=iw-opd"])
    assert own.sampling() == Sampling(1.0, 1.0, -1, 1024)
    assert own.make_objective().temperature == 1.0
    common = TrainSettings.load("paper", ["objective.name=iw-opd", "rollout.sampling=common"])
    assert common.sampling() == Sampling(1.1, 0.95, 20, 1024)
    assert common.make_objective().temperature == 1.1
    mixed = TrainSettings.load("paper", ["objective.name=iw-opd", "rollout.top_k=5"])
    assert mixed.sampling() == Sampling(1.0, 1.0, 5, 1024)


def test_a_methods_own_settings_reach_it() -> None:
    clipped = TrainSettings.load("paper", ["objective.settings.clip=0.06"]).make_objective()
    free = TrainSettings.load("paper", ["objective.settings.clip=none"]).make_objective()
    assert (clipped.clip, free.clip) == (0.06, None)  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="did you mean 'clip'"):
        TrainSettings.load("paper", ["objective.settings.clop=1"]).make_objective()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["optimizer.learn_rate=1"], "did you mean optimizer.learning_rate"),
        (["batch_size=8"], "did you mean rollout.batch_size"),
        (["optimizer.learning_rate=-1"], "optimizer.learning_rate"),
        (["teacher.kind=frozen"], "teacher.kind"),
        (["steps=200"], "learning rate is 0 from step 150"),
        (["objective.prefix_fraction=0.3", "objective.suffix_fraction=0.3"], "exclude each other"),
        (["report_to=mlflow"], "report_to"),
        (["optimizer"], "section.key=value"),
        (["tuning=half"], "tuning"),
        (["tuning=full", "rollout.engine=vllm"], "--engine transformers"),
        (["tuning=full", "lora.r=8"], "no adapter for lora's settings"),
        (["lora.dropout=0", "tuning=full"], "--set lora.dropout=0"),
    ],
)
def test_a_wrong_setting_is_explained(changes: list[str], words: str) -> None:
    with pytest.raises(BranchdiagError) as refused:
        TrainSettings.load("paper", changes)
    assert words in str(refused.value)


def test_transport_changes_no_identity() -> None:
    plain = TrainSettings().result_settings()
    moved = TrainSettings.load(
        "paper", ["optimizer.micro_batch_size=1", "steps=50", "compute.device=cpu"]
    )
    assert moved.result_settings() == plain
    assert TrainSettings.load("paper", ["lora.r=8"]).result_settings() != plain


def test_full_training_has_no_settings_of_an_adapter(tmp_path: Path) -> None:
    """Those of a file concern its runs that have one, unless the file asks for both."""
    full = TrainSettings.load("bundled", ["tuning=full"])
    assert full.tuning == "full" and TrainSettings.load("bundled").lora.r == 16
    assert "lora" not in full.result_settings() and "lora" not in full.document()
    assert full.result_settings()["tuning"] == "full"
    lora = TrainSettings.load("bundled", ["tuning=lora", "lora.r=4"])
    assert lora.lora.r == 4 and lora.document()["lora"]["r"] == 4
    assert "tuning" not in lora.result_settings()  # runs from before it was a setting go on
    (tmp_path / "both.toml").write_text('tuning = "full"\n[lora]\nr = 8\n')
    with pytest.raises(UsageError, match="no adapter"):
        TrainSettings.load(tmp_path / "both.toml")
    assert TrainSettings.load(tmp_path / "both.toml", ["tuning=lora"]).lora.r == 8


def test_the_bundled_models_settings_load_and_name_its_own_data() -> None:
    bundled = load_settings(None, None, [], [])
    assert bundled.name == "bundled" and bundled.data == ("bundled:distill",)
    assert load_settings(None, "some/model", [], []).name == "paper"
    assert load_settings(None, None, ["a.jsonl"], []).data == ("a.jsonl",)


def test_a_files_method_settings_concern_the_methods_that_have_them() -> None:
    """The bundled settings take the clip of opsd and pw-opsd off; the others have none."""
    for name in OBJECTIVE_NAMES:
        objective = TrainSettings.load("bundled", [f"objective.name={name}"]).make_objective()
        assert getattr(objective, "clip", None) is None
    with pytest.raises(UsageError, match="eopd has no setting 'clip'"):
        TrainSettings.load(
            "bundled", ["objective.name=eopd", "objective.settings.clip=0.1"]
        ).make_objective()


def test_a_schedule_is_a_preset_uniform_or_a_file(tmp_path: Path) -> None:
    Schedule.preset("sharp").save(tmp_path / "mine.json")
    named = read_schedule(str(tmp_path / "mine.json"), "pw-opsd")
    assert named is not None and named.name == "mine"
    assert named.schedule == Schedule.preset("sharp")
    uniform = read_schedule("uniform", "pw-opsd")
    assert uniform is not None and uniform.schedule.is_uniform
    default = read_schedule(None, "pw-opsd")
    assert default is not None and default.name == "moderate"
    assert read_schedule(None, "opsd") is None
    with pytest.raises(UsageError, match="opsd takes no schedule"):
        read_schedule("uniform", "opsd")
    with pytest.raises(UsageError, match="cannot be read"):
        read_schedule("modrate", "pw-opsd")


@pytest.mark.parametrize(
    ("recorded", "model"),
    [
        ({"name": "bundled", "revision": None}, None),
        ({"name": "Some/Model", "revision": "abc"}, "Some/Model@abc"),
        ({"name": "Some/Model@main", "revision": "abc"}, "Some/Model@abc"),  # main may have moved
        ({"name": "/here/model", "revision": None}, "/here/model"),
        (None, None),
    ],
)
def test_the_model_is_the_one_that_the_schedule_records(
    recorded: dict[str, str | None] | None, model: str | None
) -> None:
    schedule = Schedule(1.0, None, None, "none", {"model": recorded})
    assert schedule_model(NamedSchedule("fitted", schedule)) == model
    assert schedule_model(None) is None


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ({"name": "bundled", "content_id": "a" * 32}, None),
        ({"name": "bundled", "content_id": "b" * 32}, "was fitted to other weights: bundled (bbbb"),
        ({"name": "Some/Model", "content_id": "Some/Model@0f1e"}, "Some/Model (0f1e), not"),
        ({"name": "bundled"}, None),
        (None, None),
    ],
)
def test_a_schedule_of_other_weights_is_said(
    recorded: dict[str, str] | None, words: str | None
) -> None:
    named = NamedSchedule("fitted", Schedule(1.0, None, None, "none", {"model": recorded}))
    said = schedule_remark(named, ResolvedModel("bundled", "/here", None, "a" * 32))
    assert (said is None) if words is None else words in str(said)
    assert schedule_remark(None, ResolvedModel("bundled", "/here", None, "a" * 32)) is None
