"""Grouped attention equals transformers' own, which repeats keys for every query head."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from branchdiag.engines.attention import NAME, grouped_attention, use_grouped_attention
from tests.tiny_models import tiny_model


@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (6, 1)])
@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("masked", [True, False])
def test_grouped_attention_equals_the_repeating_one(
    heads: tuple[int, int], length: int, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    module: Any = SimpleNamespace(num_key_value_groups=heads[0] // heads[1], is_causal=True)
    query = normal(3, heads[0], length, 16)
    key, value = normal(3, heads[1], 9, 16), normal(3, heads[1], 9, 16)
    mask = None
    if masked:
        mask = torch.rand(3, 1, length, 9, generator=generator) < 0.6
        mask[..., -1] = True
    ours, _ = grouped_attention(module, query, key, value, mask, scaling=0.2)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.2)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_model_takes_it_in_place_of_sdpa_and_of_nothing_else() -> None:
    for attention, expected in (("sdpa", NAME), ("eager", "eager")):
        model = AutoModelForCausalLM.from_pretrained(
            tiny_model("olmo3"), attn_implementation=attention
        )
        ids = torch.arange(40)[None]
        before = model(ids).logits
        use_grouped_attention(model)
        assert model.config._attn_implementation == expected
        torch.testing.assert_close(model(ids).logits, before)
