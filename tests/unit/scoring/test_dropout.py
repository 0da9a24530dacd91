"""Dropout distributions against M whole forwards with plain hooks, and what is left behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from branchdiag.errors import UsageError
from branchdiag.scoring.dropout import dropout_distributions, dropout_keep
from branchdiag.scoring.model_parts import blocks_of
from tests.tiny_models import ARCHITECTURES

POSITIONS = [3, 17, 41]
SETTINGS = {"layers": 2, "probability": 0.1, "samples": 5, "seed": 7, "chunk": 128}


def oracle(model, prompt, spine, positions, *, layers, probability, samples, seed, **_):
    """Full forwards with all logits, the masks multiplied in by hooks. Returns (plain, samples)."""
    blocks = blocks_of(model)
    ids = torch.tensor([[*prompt, *spine[: max(positions)]]])
    rows = [len(prompt) - 1 + position for position in positions]

    def run():
        with torch.no_grad():
            return torch.softmax(model(input_ids=ids).logits[0, rows].double(), -1).numpy()

    def perturb(m, index):
        def hook(_module, _arguments, output):
            states = output[0] if isinstance(output, tuple) else output
            keep = dropout_keep(states.shape, probability, (seed, m, index), states.device)
            states = torch.where(keep, states / (1 - probability), 0.0)
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    plain, perturbed = run(), []
    for m in range(samples):
        handles = [
            blocks[index].register_forward_hook(perturb(m, index))
            for index in range(len(blocks) - layers, len(blocks))
        ]
        perturbed.append(run())
        for handle in handles:
            handle.remove()
    return plain, np.stack(perturbed)


def draw(model, token_ids, positions=POSITIONS, **changes):
    return dropout_distributions(
        model, token_ids[:15], token_ids[15:], positions, **(SETTINGS | changes)
    )


def assert_equals_oracle(model, token_ids, **changes):
    found = draw(model, token_ids, **changes)
    plain, perturbed = oracle(
        model, token_ids[:15], token_ids[15:], POSITIONS, **(SETTINGS | changes)
    )
    np.testing.assert_allclose(found.plain_CV, plain, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.samples_MCV, perturbed, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.samples_MCV.sum(-1), 1, atol=1e-12)
    # Had the dropout done nothing, the comparison would show nothing.
    assert np.abs(found.samples_MCV - found.plain_CV).max(axis=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_equal_those_of_whole_forwards(load_tiny, token_ids, architecture, layers):
    assert_equals_oracle(load_tiny(architecture), token_ids, layers=layers)


def test_bfloat16(load_tiny, token_ids):
    model = copy.deepcopy(load_tiny("olmo3")).to(torch.bfloat16)
    found = draw(model, token_ids)
    plain, perturbed = oracle(model, token_ids[:15], token_ids[15:], POSITIONS, **SETTINGS)
    np.testing.assert_allclose(found.plain_CV, plain, atol=0.02)
    np.testing.assert_allclose(found.samples_MCV, perturbed, atol=0.02)


def test_as_many_experts_as_blocks_are_no_blocks(load_tiny):
    model = copy.deepcopy(load_tiny("llama"))
    blocks = list(model.model.layers)
    for block in blocks:
        block.mlp.experts = torch.nn.ModuleList(torch.nn.Identity() for _ in blocks)
    assert blocks_of(model) == blocks


def test_tied_head(load_tiny, token_ids):
    assert_equals_oracle(load_tiny("qwen3", tied=True), token_ids)


def test_blocks_that_return_tuples(build_model, token_ids):
    model = build_model("bloom")
    outputs = []
    handle = blocks_of(model)[0].register_forward_hook(lambda *a: outputs.append(a[2]))
    assert_equals_oracle(model, token_ids, layers=3)
    handle.remove()
    assert all(isinstance(output, tuple) for output in outputs)


def test_blocks_that_share_keys_and_values_fall_back_to_whole_forwards(build_model, token_ids):
    model = build_model(
        "gemma3n_text",
        vocab_size_per_layer_input=330,
        hidden_size_per_layer_input=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 3,
        activation_sparsity_pattern=[0.0] * 6,
        laurel_rank=4,
        sliding_window=8,
    )
    assert_equals_oracle(model, token_ids)


def test_a_block_that_uses_an_earlier_ones_output_falls_back_too(load_tiny, token_ids):
    """It raises nothing where the short cut is tried: the numbers tell."""
    model = copy.deepcopy(load_tiny("llama"))
    first, last = model.model.layers[0], model.model.layers[-1]
    first_forward, last_forward = first.forward, last.forward
    seen = {}
    model.model.register_forward_pre_hook(lambda *_: seen.clear())

    def remembering(*arguments, **keywords):
        seen["states"] = first_forward(*arguments, **keywords)
        return seen["states"]

    def adding(*arguments, **keywords):
        return last_forward(*arguments, **keywords) + seen.get("states", 0)

    first.forward, last.forward = remembering, adding
    assert_equals_oracle(model, token_ids)


@pytest.mark.parametrize("layers", [1, 3, 12])
def test_block_passes_are_the_ideal_number(load_tiny, token_ids, layers):
    model = load_tiny("qwen3", layers=12)
    draw(model, token_ids, layers=layers)  # the short cut is tried once a model
    passes = []
    handles = [
        block.self_attn.register_forward_pre_hook(lambda *_: passes.append(1))
        for block in model.model.layers
    ]
    draw(model, token_ids, layers=layers)
    for handle in handles:
        handle.remove()
    assert len(passes) == 12 + 5 * (layers - 1)


def test_only_the_candidates_go_through_the_head(load_tiny, token_ids):
    model = load_tiny("llama")
    draw(model, token_ids)
    rows = []
    handle = model.lm_head.register_forward_hook(lambda *a: rows.append(a[2].shape[-2]))
    draw(model, token_ids, chunk=2)
    handle.remove()
    assert rows == [2, 1] * 6


def test_chunks_and_the_order_of_candidates_change_nothing(load_tiny, token_ids):
    model = load_tiny("olmo3")
    found = draw(model, token_ids)
    chunked = draw(model, token_ids, positions=POSITIONS[::-1], chunk=1)
    np.testing.assert_allclose(chunked.plain_CV[::-1], found.plain_CV, atol=1e-6)
    np.testing.assert_allclose(chunked.samples_MCV[:, ::-1], found.samples_MCV, atol=1e-6)


def test_draws_neither_read_nor_move_the_global_state(load_tiny, token_ids):
    model = load_tiny("qwen3")
    torch.manual_seed(1)
    first = draw(model, token_ids)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = draw(model, token_ids)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first.samples_MCV, second.samples_MCV)
    other = draw(model, token_ids, seed=8)
    assert np.abs(other.samples_MCV - first.samples_MCV).max() > 1e-3
    assert len(np.unique(first.samples_MCV[:, 0, 0])) == 5


def test_temperature(load_tiny, token_ids):
    model = load_tiny("qwen3")
    cold = draw(model, token_ids).plain_CV
    warm = draw(model, token_ids, temperature=2.0).plain_CV
    expected = np.sqrt(cold) / np.sqrt(cold).sum(-1, keepdims=True)
    np.testing.assert_allclose(warm, expected, rtol=1e-9)


def test_keep_masks_are_bernoulli_and_each_their_own():
    shape, cpu = (400, 500), torch.device("cpu")
    masks = [
        dropout_keep(shape, 0.1, key, cpu).numpy()
        for key in ((1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0))
    ]
    for mask in masks:  # five standard errors
        assert abs(mask.mean() - 0.9) < 5 * (0.09 / mask.size) ** 0.5
        assert abs(mask.mean(0) - 0.9).max() < 5.5 * (0.09 / 400) ** 0.5
    for first in range(4):
        for second in range(first):
            covariance = (masks[first] & masks[second]).mean() - 0.81
            assert abs(covariance) < 5 * (0.81 * 0.19 / 200_000) ** 0.5
    np.testing.assert_array_equal(masks[0], dropout_keep(shape, 0.1, (1, 0, 0), cpu).numpy())


def test_inverted_dropout_keeps_the_residual_mean(load_tiny, token_ids):
    """Over many samples the perturbed output averages to the plain one."""
    states = []
    model = load_tiny("qwen3")
    model.model.norm.register_forward_pre_hook(lambda _, a: states.append(a[0][0]))
    draw(model, token_ids, layers=1, samples=400)
    model.model.norm._forward_pre_hooks.clear()
    plain, perturbed = states[-401], torch.stack(states[-400:])
    error = (perturbed.mean(0) - plain).abs()
    # An entry's standard error is |x| sqrt(p / (1 - p) / M).
    assert (error <= 6 * plain.abs() * (0.1 / 0.9 / 400) ** 0.5 + 1e-6).all()
    zeros = (perturbed == 0).float().mean()
    assert abs(float(zeros) - 0.1) < 0.002


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("failing_call", [1, 2, 4])
def test_an_exception_leaves_no_hook_and_no_short_cut(
    load_tiny, token_ids, architecture, failing_call
):
    model = copy.deepcopy(load_tiny(architecture))
    expected = draw(model, token_ids)
    before = {name: set(module.__dict__) for name, module in model.named_modules()}
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == failing_call:
            raise KeyboardInterrupt

    handle = model.model.layers[-1].self_attn.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        draw(model, token_ids)
    handle.remove()
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())
    np.testing.assert_array_equal(draw(model, token_ids).samples_MCV, expected.samples_MCV)


def test_more_layers_than_the_model_has_is_the_users_error(load_tiny, token_ids):
    with pytest.raises(UsageError, match="last 5 blocks of a model that has 4") as raised:
        draw(load_tiny("qwen3"), token_ids, layers=5)
    assert raised.value.where == "dropout.layers"
    assert raised.value.fix


def test_misuse_is_an_error(load_tiny, token_ids):
    model = load_tiny("qwen3")
    for positions in ([], [-1], [45]):
        with pytest.raises(ValueError, match="inside the spine"):
            draw(model, token_ids, positions=positions)
    with pytest.raises(ValueError, match="empty prompt"):
        dropout_distributions(model, [], token_ids, [2], **SETTINGS)
