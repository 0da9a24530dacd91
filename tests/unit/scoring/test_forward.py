"""Passes over a spine: equal to whole forwards with all logits, without ever holding them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from branchdiag.errors import UsageError
from branchdiag.scoring.distributions import position_scores
from branchdiag.scoring.forward import score_spine
from branchdiag.scoring.model_parts import project, run_body
from tests.tiny_models import ARCHITECTURES

VALID = np.arange(330) % 7 != 0
SETTINGS = {"temperature": 1.0, "top_k": 16, "chunk_positions": 16}


def whole_logits(model, prompt, spine):
    """All logits of an ordinary forward, then the rows that predict the spine."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *spine]])).logits[0]
    return logits[len(prompt) - 1 : -1]


def expected_scores(student, teacher, student_prompt, teacher_prompt, spine, temperature=1.0):
    return position_scores(
        whole_logits(teacher, teacher_prompt, spine),
        whole_logits(student, student_prompt, spine),
        spine,
        VALID,
        temperature=temperature,
        top_k=16,
    )


def assert_close(found, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_those_of_whole_forwards(load_tiny, token_ids, architecture, tied):
    model = load_tiny(architecture, tied=tied)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    student_prompt, teacher_prompt, spine = token_ids[:9], token_ids[3:20], token_ids[20:]
    found = score_spine(model, model, student_prompt, teacher_prompt, spine, VALID, **SETTINGS)
    assert_close(found, expected_scores(model, model, student_prompt, teacher_prompt, spine))
    assert found["position"].tolist() == list(range(40))
    assert found["token_id"].tolist() == spine
    assert (found["kl"] > 0).all()


def test_two_models_with_vocabularies_of_different_width(load_tiny, token_ids):
    student = load_tiny("qwen3")
    teacher = load_tiny("llama", seed=1, unused_vocabulary=60)
    assert student.config.vocab_size < teacher.config.vocab_size
    found = score_spine(
        student, teacher, token_ids[:9], token_ids[:4], token_ids[20:], VALID, **SETTINGS
    )
    expected = expected_scores(student, teacher, token_ids[:9], token_ids[:4], token_ids[20:])
    assert_close(found, expected)


def test_temperature_reaches_both_sides(load_tiny, token_ids):
    model = load_tiny("qwen3")
    arguments = (model, model, token_ids[:9], token_ids[:4], token_ids[20:])
    found = score_spine(*arguments, VALID, **(SETTINGS | {"temperature": 2.5}))
    assert_close(found, expected_scores(*arguments, temperature=2.5))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_chunk_size_changes_nothing(load_tiny, token_ids, architecture):
    model = load_tiny(architecture)
    arguments = (model, model, token_ids[:9], token_ids[:4], token_ids[20:], VALID)
    whole = score_spine(*arguments, **(SETTINGS | {"chunk_positions": 1000}))
    for chunk in (1, 7, 40):
        found = score_spine(*arguments, **(SETTINGS | {"chunk_positions": chunk}))
        assert_close(found, whole)


def test_a_bfloat16_model_is_scored_on_its_own_logits(load_tiny, token_ids):
    model = copy.deepcopy(load_tiny("qwen3")).to(torch.bfloat16)
    arguments = (model, model, token_ids[:9], token_ids[:4], token_ids[20:])
    found, expected = score_spine(*arguments, VALID, **SETTINGS), expected_scores(*arguments)
    for name in ("h_full", "h_student", "kl", "jsd", "covered_mass"):
        # A bfloat16 logit of 8 is known to 0.03.
        np.testing.assert_allclose(found[name], expected[name], atol=0.05, err_msg=name)
        assert found[name].dtype == np.float64


def test_a_spine_of_one_token_and_arrays_as_input(load_tiny, token_ids):
    model = load_tiny("olmo3")
    arrays = [np.array(ids, dtype=np.int32) for ids in (token_ids[:9], token_ids[:4], [17])]
    found = score_spine(model, model, *arrays, VALID, **SETTINGS)
    assert_close(found, expected_scores(model, model, token_ids[:9], token_ids[:4], [17]))
    assert found["top_ids"].shape == (1, 16)


def count_blocks(model, function):
    """Calls of the first block's attention while `function` runs."""
    calls = []
    attention = model.model.layers[0].self_attn
    handle = attention.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        function()
    finally:
        handle.remove()
    return len(calls)


def test_a_teacher_without_privilege_costs_no_second_pass(load_tiny, token_ids):
    model = load_tiny("qwen3")

    def run(teacher_prompt):
        score_spine(model, model, token_ids[:9], teacher_prompt, token_ids[20:], VALID, **SETTINGS)

    run(token_ids[:9])  # the head is checked once
    assert count_blocks(model, lambda: run(token_ids[:9])) == 1
    assert count_blocks(model, lambda: run(token_ids[:4])) == 2


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 5.0, "sliding_window": 8}),
        ("granite", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 128}),
        ("gpt2", {"n_embd": 32, "n_layer": 6, "n_head": 4}),
    ],
)
def test_what_an_architecture_does_after_its_head_is_kept(
    build_model, token_ids, model_type, settings
):
    model = build_model(model_type, **settings)
    arguments = (model, model, token_ids[:9], token_ids[:4], token_ids[20:])
    assert_close(score_spine(*arguments, VALID, **SETTINGS), expected_scores(*arguments))
    if model_type == "gemma2":
        assert whole_logits(model, token_ids[:9], token_ids[20:]).abs().max() <= 5


def test_an_architecture_whose_head_needs_more_than_the_body_is_refused(load_tiny, token_ids):
    model = copy.deepcopy(load_tiny("qwen3"))

    class Peculiar(type(model)):
        """Adds to the logits something of the input tokens."""

        def forward(self, input_ids, **arguments):
            output = super().forward(input_ids, **arguments)
            output.logits = output.logits + input_ids[..., None] / 10
            return output

    model.__class__ = Peculiar
    with pytest.raises(UsageError, match=r"cannot be scored.*apart from its body"):
        score_spine(model, model, token_ids[:9], token_ids[:4], token_ids[20:], VALID, **SETTINGS)


def peak_bytes(function):
    """Most bytes that torch held at once while `function` ran, by its own record of allocations."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        function()
    events = profile.profiler.kineto_results.events()
    events = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return int(np.cumsum([event.nbytes() for event in events]).max())


@pytest.mark.parametrize("chunk", [16, 32])
def test_at_most_one_chunk_of_logits_a_side_is_held(build_model, chunk):
    """A 152k vocabulary: the peak is two chunks and a few float64 rows, whatever the length."""
    width, n_positions = 152_000, 96
    model = build_model("qwen3", vocab_size=width, hidden_size=64, tie_word_embeddings=True)
    teacher = copy.deepcopy(model)
    rows: list[int] = []
    for side in (model, teacher):
        side.lm_head.register_forward_hook(lambda *a: rows.append(a[2].shape[-2]))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, width, (20 + n_positions,), generator=generator).tolist()
    arguments = (model, teacher, ids[:10], ids[10:20], ids[20:], np.ones(width, dtype=bool))
    settings = SETTINGS | {"chunk_positions": chunk}

    peak = peak_bytes(lambda: score_spine(*arguments, **settings))

    chunk_bytes = 4 * chunk * width
    assert 2 * chunk_bytes < peak < 2 * chunk_bytes + 12e6
    assert max(rows) == chunk
    probes = 2 * 2 * 8  # each head is checked once on 8 tokens, in two ways
    assert sum(rows) == 2 * n_positions + probes


def test_an_exception_leaves_the_model_as_it_was(load_tiny, token_ids):
    model = load_tiny("llama")
    before = {name: set(module.__dict__) for name, module in model.named_modules()}

    def fail(*_):
        raise KeyboardInterrupt

    with torch.inference_mode():
        output = run_body(model, token_ids)
        handle = model.lm_head.register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            project(model, output)
        handle.remove()
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == before
    arguments = (model, model, token_ids[:9], token_ids[:4], token_ids[20:])
    assert_close(score_spine(*arguments, VALID, **SETTINGS), expected_scores(*arguments))


def test_a_forward_that_was_put_on_the_instance_comes_back(load_tiny, token_ids):
    """As accelerate does for a device map."""
    model = copy.deepcopy(load_tiny("qwen3"))
    original = model.model.forward
    calls = []

    def moved(*arguments, **keywords):
        calls.append(1)
        return original(*arguments, **keywords)

    model.model.forward = moved
    score_spine(model, model, token_ids[:9], token_ids[:4], token_ids[20:], VALID, **SETTINGS)
    assert model.model.__dict__["forward"] is moved
    assert calls


def test_misuse_is_an_error(load_tiny, token_ids):
    model = load_tiny("qwen3")
    with pytest.raises(ValueError, match="empty spine"):
        score_spine(model, model, [1], [1], [], VALID, **SETTINGS)
    with pytest.raises(ValueError, match="empty prompt"):
        score_spine(model, model, [1], [], [1, 2], VALID, **SETTINGS)
    with pytest.raises(ValueError, match="beyond the model's 330 embeddings"):
        score_spine(model, model, [1], [330], [1, 2], VALID, **SETTINGS)
    training = copy.deepcopy(model).train()
    with pytest.raises(ValueError, match="training mode"):
        score_spine(training, training, [1], [1], token_ids, VALID, **SETTINGS)
