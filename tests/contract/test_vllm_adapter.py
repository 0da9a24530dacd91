"""vLLM with a LoRA request writes what the transformers engine writes with the merged weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from branchdiag.engines import create_engine
from branchdiag.engines.base import Request, Sampling
from branchdiag.engines.isolation import IsolatedEngine
from branchdiag.engines.transformers_engine import TransformersEngine
from branchdiag.models import resolve
from branchdiag.protocol import EngineSettings
from tests.tiny_models import tiny_model

RANK, ALPHA = 4, 32
GREEDY = Sampling(0.0, 1.0, -1, 16)
PROMPTS = [tuple(range(5 + i, 20 + 2 * i)) for i in range(4)]


def write_adapter(directory: Path, base: Path, seed: int) -> Any:
    """A random adapter by hand, and the model with its products added by hand."""
    import torch
    from safetensors.torch import save_file

    from branchdiag import models

    model = models.load_model(models.resolve(str(base)), EngineSettings(device="cpu"))
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "down_proj")):
            rows, columns = module.weight.shape
            second = 0.2 * torch.randn(rows, RANK, generator=draw)
            first = 0.2 * torch.randn(RANK, columns, generator=draw)
            tensors[f"base_model.model.{name}.lora_A.weight"] = first
            tensors[f"base_model.model.{name}.lora_B.weight"] = second
            module.weight += ALPHA / RANK * second @ first
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA,
              "target_modules": ["q_proj", "down_proj"], "bias": "none",
              "base_model_name_or_path": str(base)}  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return model


@pytest.mark.vllm
def test_an_evaluated_adapter_is_the_merged_model(tmp_path: Path) -> None:
    base = tiny_model()
    model = write_adapter(tmp_path / "adapter", base, 0)
    requests = [Request((i,), prompt, GREEDY, i) for i, prompt in enumerate(PROMPTS)]
    settings = EngineSettings(name="vllm", max_num_seqs=4)
    engines = [
        TransformersEngine(model, stop_ids=(1,), context_length=128, batch_size=4),
        create_engine(settings, resolve(str(base)), max_total_tokens=128, stop_ids=(1,),
                      adapter=str(tmp_path / "adapter"), log_path=tmp_path / "vllm.log"),
    ]  # fmt: skip
    written = []
    for engine in engines:
        written.append({done.key: done.token_ids for done in engine.generate(requests)})
        engine.close()
    assert written[0] == written[1]


@pytest.mark.vllm
def test_an_adapter_passed_along_is_the_merged_model(tmp_path: Path) -> None:
    base = tiny_model()
    requests = [Request((i,), prompt, GREEDY, i) for i, prompt in enumerate(PROMPTS)]

    def written(engine: Any) -> dict[Any, tuple[int, ...]]:
        return {completion.key: completion.token_ids for completion in engine.generate(requests)}

    expected = []
    for seed in (0, 1):
        model = write_adapter(tmp_path / str(seed), base, seed)
        engine = TransformersEngine(model, stop_ids=(1,), context_length=128, batch_size=4)
        expected.append(written(engine))
    vllm = IsolatedEngine(
        "vllm",
        "branchdiag.training.samplers:make_vllm_engine",
        {
            "settings": EngineSettings(name="vllm", max_num_seqs=4),
            "directory": str(base),
            "max_model_len": 128,
            "stop_ids": (1,),
            "adapter_rank": RANK,
        },
        log_path=tmp_path / "vllm.log",
    )
    try:
        plain = written(vllm)
        for number, wanted in enumerate(expected, start=1):
            vllm.use_adapter(str(tmp_path / str(number - 1)), number)
            assert written(vllm) == wanted
            assert wanted != plain
    finally:
        vllm.close()
