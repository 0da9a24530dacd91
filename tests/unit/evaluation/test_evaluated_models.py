"""Which models are meant, what they are called, and that a changed one is noticed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from branchdiag.bundled import model_path
from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.evaluation.directory import default_directory
from branchdiag.evaluation.models import (
    BUNDLED,
    EvaluatedModel,
    default_names,
    is_bundled,
    resolve_models,
)
from branchdiag.training.results import newest_result


def write_adapter(path: Path, weights: bytes = b"weights", written: int = 1) -> Path:
    """An adapter's files, as far as naming it goes."""
    path.mkdir(parents=True)
    config = {"base_model_name_or_path": str(model_path()), "peft_type": "LORA"}
    (path / "adapter_config.json").write_text(json.dumps(config))
    (path / "adapter_model.safetensors").write_bytes(weights)
    os.utime(path / "adapter_model.safetensors", (written, written))
    return path


def write_trained_model(run: Path, written: int = 1, name: str = BUNDLED) -> Path:
    """The result of a run that trained all weights of the bundled model."""
    shutil.copytree(model_path(), run / "model")
    weights = run / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # a weight that moved
    weights.write_bytes(data)
    os.utime(weights, (written, written))
    base = {"name": name, "path": str(model_path()), "revision": None, "content_id": "0"}
    (run / "training.json").write_text(json.dumps({"model": base}))
    return run / "model"


def test_the_newest_result_is_an_adapter_or_a_whole_model(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a" / "adapter", written=10)
    model = write_trained_model(tmp_path / "b", written=20)
    shutil.copytree(model_path(), tmp_path / "c" / "model")  # of no training run
    assert newest_result(tmp_path) == model
    os.utime(adapter / "adapter_model.safetensors", (30, 30))
    assert newest_result(tmp_path) == adapter


@pytest.mark.parametrize("name", [BUNDLED, "./elsewhere"])
def test_a_trained_model_stands_beside_the_one_it_began_from(tmp_path: Path, name: str) -> None:
    model = write_trained_model(tmp_path / "run-full", name=name)
    base, trained = resolve_models(default_names(tmp_path))
    assert (base.label, trained.label) == (BUNDLED, "run-full")
    assert (trained.adapter, trained.base.path) == (None, str(model))
    assert trained.base.content_id != base.base.content_id
    assert is_bundled(base)
    assert is_bundled(trained) == (name == BUNDLED)
    assert resolve_models([str(tmp_path / "run-full")]) == resolve_models([str(model)])
    assert resolve_models([str(model)], recorded((trained,)))[0] == trained


def test_an_evaluation_from_before_whole_models_goes_on(tmp_path: Path) -> None:
    (model,) = resolve_models([str(write_adapter(tmp_path / "opsd"))])
    former = {key: value for key, value in model.to_dict().items() if key != "began_from"}
    assert EvaluatedModel.from_dict(former) == model


def test_the_newest_whole_adapter_is_found_and_checkpoints_are_not(tmp_path: Path) -> None:
    assert newest_result(tmp_path / "nothing") is None
    old = write_adapter(tmp_path / "train-opsd", b"a", written=10)
    write_adapter(old / "checkpoint-25", b"b", written=99)
    new = write_adapter(tmp_path / "train-pw" / "adapter", b"c", written=20)
    write_adapter(tmp_path / "train-torn" / "checkpoint-50", b"d", written=99)
    torn = write_adapter(tmp_path / "train-now", b"e", written=99)
    (torn / "adapter_model.safetensors").unlink()
    assert newest_result(tmp_path) == new


def test_without_names_the_base_stands_beside_its_newest_result(tmp_path: Path) -> None:
    assert default_names(tmp_path) == ["bundled"]
    adapter = write_adapter(tmp_path / "opsd")
    base, named = resolve_models(default_names(tmp_path))
    assert (base.label, named.label) == ("bundled", "opsd")
    assert (base.adapter, named.adapter) == (None, str(adapter))
    assert is_bundled(base)
    assert is_bundled(named)
    assert base.content_id != named.content_id


def test_labels_are_the_shortest_that_tell_models_apart(tmp_path: Path) -> None:
    names = [
        str(write_adapter(tmp_path / run / "final", run.encode())) for run in ("opsd", "pw-opsd")
    ]
    labels = [model.label for model in resolve_models(["bundled", *names])]
    assert labels == ["bundled", "opsd/final", "pw-opsd/final"]
    assert [m.label for m in resolve_models(names[:1])] == ["final"]
    assert default_directory(labels) == Path("runs/evaluate-bundled+opsd-final+pw-opsd-final")


def test_a_training_run_is_named_by_its_directory_and_stands_for_its_adapter(
    tmp_path: Path,
) -> None:
    adapter = write_adapter(tmp_path / "train-pw" / "adapter")
    by_run, by_adapter = (
        resolve_models([str(path)])[0] for path in (tmp_path / "train-pw", adapter)
    )
    assert by_run == by_adapter
    assert (by_run.label, by_run.adapter) == ("train-pw", str(adapter))


def recorded(models: tuple[EvaluatedModel, ...]) -> dict[str, dict[str, object]]:
    return {model.label: json.loads(json.dumps(model.to_dict())) for model in models}


def test_a_label_stays_when_models_are_added(tmp_path: Path) -> None:
    first = str(write_adapter(tmp_path / "a" / "final", b"a"))
    second = str(write_adapter(tmp_path / "b" / "final", b"b"))
    before = resolve_models([first])
    after = resolve_models([second, first], recorded(before))
    assert [model.label for model in after] == ["b/final", "final"]


def test_a_moved_model_is_the_same_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "opsd")
    before = resolve_models([str(adapter)])
    moved = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert resolve_models([str(moved)], recorded(before))[0].label == "opsd"
    (adapter / "adapter_model.safetensors").write_bytes(b"trained on")
    with pytest.raises(SettingsConflict, match="not what it was") as refused:
        resolve_models([str(adapter)], recorded(before))
    assert str(adapter) in str(refused.value)


def test_one_model_twice_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "opsd")
    with pytest.raises(UsageError, match="named twice"):
        resolve_models([str(adapter), str(shutil.copytree(adapter, tmp_path / "copy"))])


def test_a_torn_adapter_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "opsd")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(UsageError, match="adapter_model"):
        resolve_models([str(adapter)])
