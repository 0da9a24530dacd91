"""Tiny models for the scoring tests, loaded once a session."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.tiny_models import tiny_model


@cache
def load(architecture, tied=False, layers=4, seed=0, unused_vocabulary=24):
    from transformers import AutoModelForCausalLM

    directory = tiny_model(
        architecture, tied=tied, layers=layers, seed=seed, unused_vocabulary=unused_vocabulary
    )
    return AutoModelForCausalLM.from_pretrained(directory)


@pytest.fixture(scope="session")
def load_tiny():
    """A function (architecture, **settings of tiny_model) -> model in evaluation mode."""
    return load


@pytest.fixture
def token_ids():
    """60 tokens that every tiny tokenizer has."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 300, (60,), generator=generator).tolist()


@pytest.fixture
def build_model():
    """A function (model type, **configuration) -> a random model of that type with 6 blocks."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def build(model_type, **settings):
        values = {
            "vocab_size": 330,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "initializer_range": 0.4,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        config = AutoConfig.for_model(model_type, **(values | settings))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModelForCausalLM.from_config(config).eval().float()

    return build
