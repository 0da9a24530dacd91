"""The output head taken from real architectures, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from branchdiag.errors import UsageError
from branchdiag.training.accumulation import MicroBatch, batch_totals, plan
from branchdiag.training.fused_loss import fused_loss
from branchdiag.training.objectives import make_objective
from branchdiag.training.output_head import output_head
from tests.tiny_models import ARCHITECTURES
from tests.unit.training.plain_loss import divergence

VOCABULARY = 60


def tiny(kind, *, tied=False, **settings):
    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=tied,
        **settings,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def hidden_states(model, ids):
    return model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state


def batch():
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=draw)
    teacher_ids = torch.randint(3, VOCABULARY, (2, 9), generator=draw)
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[0, 5:] = False
    return ids, teacher_ids, valid


def fused_step(model, body_model, teacher_hidden):
    """One loss on tokens 1.. of each row, backward into the model's parameters."""
    ids, _, valid = batch()
    objective = make_objective("opsd")
    rows = MicroBatch(valid, valid)
    head = output_head(model)
    result = fused_loss(
        objective,
        plan(objective, rows, batch_totals(objective, [rows], step=0)[0]),
        hidden_states(body_model, ids)[:, :-1],
        teacher_hidden,
        head,
        head,
        ids[:, 1:],
        chunk_tokens=5,
    )
    result.loss.backward()
    return result.loss.detach()


def plain_step(model, teacher_logits):
    ids, _, valid = batch()
    log_p = (model(input_ids=ids, use_cache=False).logits[:, :-1] / 1.1).log_softmax(-1)
    losses = divergence(log_p[valid], (teacher_logits / 1.1).log_softmax(-1)[valid], 0, 0.05)
    loss = losses.mean()
    loss.backward()
    return loss.detach()


def teacher_sides(model):
    _, teacher_ids, _ = batch()
    with torch.no_grad():
        hidden = hidden_states(model, teacher_ids)[:, :-1]
        logits = model(input_ids=teacher_ids, use_cache=False).logits[:, :-1]
    return hidden, logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", [*ARCHITECTURES, "gemma2"])
def test_full_training_gives_every_parameter_the_models_own_gradient(kind, tied):
    model = tiny(kind, tied=tied)
    hidden, logits = teacher_sides(model)
    expected_loss = plain_step(model, logits)
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    loss = fused_step(model, model, hidden)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_lora_training_gives_every_adapter_the_models_own_gradient():
    from peft import LoraConfig, get_peft_model

    base = tiny("qwen3", tied=True)
    hidden, logits = teacher_sides(base)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(2)
    adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert adapters
    with torch.no_grad():
        for parameter in adapters.values():
            parameter.normal_(0, 0.2)
    plain_step(model, logits)
    expected = {name: p.grad.clone() for name, p in adapters.items()}
    model.zero_grad()
    fused_step(model, model.get_base_model(), hidden)
    for name, parameter in adapters.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for n, p in model.named_parameters() if n not in adapters)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_an_adapter_on_the_output_head_is_refused_with_the_reason(settings):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny("qwen3"), LoraConfig(r=2, **settings))
    with pytest.raises(UsageError, match="the adapter would get no part") as caught:
        output_head(model)
    assert "lm_head" in caught.value.fix


def test_an_architecture_that_scales_its_logits_is_refused():
    with pytest.raises(UsageError, match="not its output head's products"):
        output_head(tiny("granite", logits_scaling=4.0))


def test_a_head_that_is_no_plain_matrix_is_refused():
    model = tiny("llama")

    class Packed(torch.nn.Linear):
        """As a quantised layer: linear by its base class, not by its weights."""

    model.set_output_embeddings(Packed(16, VOCABULARY, bias=False))
    with pytest.raises(UsageError, match="Packed, no plain matrix"):
        output_head(model)


def test_taking_the_head_leaves_the_models_mode_alone():
    model = tiny("llama").train()
    model.model.layers[0].eval()
    head = output_head(model)
    assert head.weight_Vd is model.lm_head.weight
    assert model.training
    assert not model.model.layers[0].training
