"""Merged weights on disk are those that evaluation samples from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from branchdiag.adapters import merged_model, rank_of, write_merged
from branchdiag.bundled import model_path
from branchdiag.errors import UsageError
from branchdiag.evaluation.models import resolve_models
from branchdiag.models import load_model, load_tokenizer, stop_token_ids
from branchdiag.protocol import EngineSettings


def test_merged_weights_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_path()),
        LoraConfig(r=2, target_modules=["q_proj", "down_proj"]),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    (model,) = resolve_models([str(tmp_path / "adapter")])
    settings = EngineSettings(device="cpu", dtype="float32")
    ids = torch.arange(20, 60).unsqueeze(0)
    with torch.no_grad():
        base = load_model(model.base, settings)
        plain = base(ids).logits
        expected = merged_model(base, str(model.adapter))(ids).logits
        (tmp_path / "merged").mkdir()
        write_merged(model.base, str(model.adapter), tmp_path / "merged")
        merged = dataclasses.replace(model.base, path=str(tmp_path / "merged"))
        found = load_model(merged, settings)(ids).logits
    tokenizers = [load_tokenizer(resolved) for resolved in (merged, model.base)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert stop_token_ids(merged, tokenizers[0]) == stop_token_ids(model.base, tokenizers[1])
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-2)


def test_the_rank_of_an_adapter_is_its_greatest(tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"
    config.write_text('{"r": 4, "rank_pattern": {"q_proj": 32, "v_proj": 2}}')
    assert rank_of(tmp_path) == 32
    config.write_text('{"peft_type": "LORA"}')
    with pytest.raises(UsageError, match="names no rank"):
        rank_of(tmp_path)
