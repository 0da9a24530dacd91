"""An adapter on disk: told from a model, its base named, merged exactly, refused where it does not
fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from branchdiag import models
from branchdiag.adapters import base_model_of, is_adapter, merged_model, model_with_adapter
from branchdiag.bundled import model_path
from branchdiag.errors import UsageError
from branchdiag.protocol import EngineSettings
from tests.tiny_models import tiny_model

IDS = torch.arange(3, 15)[None]


def load(directory: Path) -> Any:
    return models.load_model(models.resolve(str(directory)), EngineSettings(device="cpu"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def write_adapter(directory: Path, base: Path) -> Any:
    """An adapter with random weights; returns the model that carries it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "down_proj"],
        init_lora_weights=False,
        base_model_name_or_path=str(base),
    )
    adapted = get_peft_model(load(base), config).eval()
    adapted.save_pretrained(directory)
    return adapted


def test_an_adapter_changes_outputs_and_agrees_with_its_merge(tmp_path: Path) -> None:
    base = tiny_model()
    adapted = write_adapter(tmp_path / "adapter", base)
    plain, merged = load(base), merged_model(load(base), tmp_path / "adapter")
    assert (logits(adapted) - logits(plain)).abs().max() > 0.1
    torch.testing.assert_close(logits(merged), logits(adapted), rtol=1e-4, atol=1e-4)
    assert not merged.training
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_a_small_update_of_a_bfloat16_model_is_not_rounded_away(tmp_path: Path) -> None:
    """Updates of the size that 100 steps at 5e-6 can make, against exact sums."""
    base = tiny_model()
    adapted = write_adapter(tmp_path / "whole", base)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=3e-4)
    adapted.save_pretrained(tmp_path / "adapter")
    deltas = {
        name.removeprefix("base_model.model."): module.get_delta_weight("default")
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    kept = model_with_adapter(load(base).bfloat16(), tmp_path / "adapter")
    rounded = merged_model(load(base).bfloat16(), tmp_path / "adapter")
    lost = 0.0
    for name, delta in deltas.items():
        layer, plain = kept.get_submodule(name), load(base).bfloat16().get_submodule(name).weight
        assert torch.equal(layer.get_base_layer().weight, plain)
        torch.testing.assert_close(layer.get_delta_weight("default"), delta)
        change = rounded.get_submodule(name).weight.float() - plain.float()
        lost += float((change == 0).double().mean()) / len(deltas)
    assert lost > 0.3  # why it is not merged
    assert not kept.training and not any(p.requires_grad for p in kept.parameters())
    assert (logits(kept) - logits(load(base).bfloat16())).abs().max() > 0
    whole = model_with_adapter(load(base), tmp_path / "adapter")  # float32: merged, for speed
    assert not any("lora" in name for name, _ in whole.named_parameters())
    torch.testing.assert_close(logits(whole), logits(adapted.eval()), rtol=1e-4, atol=1e-4)


def test_an_adapter_is_told_from_a_model_and_names_its_base(tmp_path: Path) -> None:
    base = tiny_model()
    write_adapter(tmp_path / "adapter", base)
    assert is_adapter(tmp_path / "adapter") and not is_adapter(base)
    assert not is_adapter(tmp_path / "nothing")
    assert base_model_of(tmp_path / "adapter") == str(base)
    with pytest.raises(UsageError, match="no adapter"):
        base_model_of(base)


@pytest.mark.parametrize(
    ("recorded", "revision", "expected"),
    [
        ("Some/Model", None, "Some/Model"),
        ("Some/Model", "abc123", "Some/Model@abc123"),
        ("/elsewhere/lib/branchdiag/bundled/model", None, str(model_path())),
    ],
)
def test_the_base_model_is_named_as_resolve_takes_it(
    tmp_path: Path, recorded: str, revision: str | None, expected: str
) -> None:
    config = {"base_model_name_or_path": recorded, "revision": revision}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert base_model_of(tmp_path) == expected


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", tiny_model())
    with pytest.raises(UsageError, match="does not fit"):
        merged_model(load(tiny_model(layers=2)), tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"base_model_name_or_path"', '"other"'))
    with pytest.raises(UsageError, match="names no base model"):
        base_model_of(tmp_path / "adapter")
