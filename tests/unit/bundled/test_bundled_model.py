"""The packaged model: architecture and size as stated, above its floor, led by the answer."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from branchdiag.bundled import (
    examples,
    measure,
    model_card,
    model_path,
    problems_path,
    prompts,
    protocol_path,
)
from branchdiag.errors import UsageError


@pytest.fixture(scope="module")
def bundled():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in problems_path("evaluate").read_text().splitlines()]


def test_architecture_and_size_are_as_stated(bundled):
    model, tokenizer = bundled
    config = json.loads((model_path() / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config
    assert 1_000_000 <= model.num_parameters() <= 10_000_000
    assert config["vocab_size"] >= len(tokenizer)
    assert config["eos_token_id"] == tokenizer.eos_token_id
    assert config["pad_token_id"] == tokenizer.pad_token_id


def test_weights_are_safetensors_and_the_package_data_is_small():
    assert [path.name for path in model_path().glob("*.safetensors")] == ["model.safetensors"]
    assert not list(model_path().glob("*.bin"))
    files = [p for p in model_path().parent.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) <= 20 * 2**20


def test_student_and_teacher_are_above_their_floors(bundled, rows):
    """Every third problem, fixed: floors well below the card's numbers, far above guessing."""
    model, tokenizer = bundled
    chosen = rows[::3]
    student = measure.accuracy(model, tokenizer, chosen)
    teacher = measure.accuracy(model, tokenizer, chosen, prompts.TEACHER_ANSWER_PROMPT)
    assert 0.4 <= student <= 0.95
    assert teacher >= student
    assert measure.divergence(model, tokenizer, chosen[:15]) > 0.01


def test_the_model_answers_in_both_modes(bundled, rows):
    model, tokenizer = bundled
    for thinking in (True, False):
        ids = [
            examples.prompt_ids(tokenizer, prompts.STUDENT_PROMPT.format(**row), thinking)
            for row in rows[:6]
        ]
        texts = [tokenizer.decode(tokens) for tokens in measure.decode(model, ids)]
        assert sum(measure.boxed_answer(text) is not None for text in texts) >= 5
        assert all(text.startswith("<think>\n") == thinking for text in texts)
        for text in texts:
            assert ("</think>" in text) == thinking


def test_batched_decoding_equals_one_at_a_time_without_a_cache(bundled, rows):
    model, tokenizer = bundled
    ids = [examples.prompt_ids(tokenizer, row["problem"]) for row in rows[:4]]
    for prompt, tokens in zip(ids, measure.decode(model, ids, max_new_tokens=25), strict=True):
        alone = list(prompt)
        for token in tokens:
            with torch.no_grad():
                assert int(model(input_ids=torch.tensor([alone])).logits[0, -1].argmax()) == token
            alone.append(token)


def test_nucleus_keeps_the_smallest_set_that_reaches_its_mass():
    kept = measure.nucleus(torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.96, 0.02, 0.01, 0.01]]), 0.8)
    assert kept.gt(0).tolist() == [[True, False, True, False], [True, False, False, False]]


def test_the_card_states_the_measured_numbers(bundled, rows):
    card = (model_path() / "README.md").read_text()
    assert "python -m branchdiag.bundled.train_model" in card
    assert f"{bundled[0].num_parameters():,} parameters" in card
    model, tokenizer = bundled
    assert f"| student, greedy | {measure.accuracy(model, tokenizer, rows):.1%} |" in card


def test_the_protocol_uses_the_prompts_of_training():
    import tomllib

    protocol = tomllib.loads(protocol_path().read_text())
    assert protocol["spine"]["prompt"] == prompts.STUDENT_PROMPT
    assert protocol["teacher"]["prompts"]["answer"] == prompts.TEACHER_ANSWER_PROMPT
    assert protocol["teacher"]["prompts"]["solution"] == prompts.TEACHER_SOLUTION_PROMPT


def test_naming_the_packaged_files_imports_nothing_heavy():
    code = (
        "import sys; from branchdiag.bundled import model_path, problems_path; model_path();"
        "problems_path('evaluate'); print([m for m in ('torch', 'transformers', 'tokenizers',"
        "'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_an_unknown_set_is_refused_by_name():
    with pytest.raises(UsageError, match="nonsense"):
        problems_path("nonsense")


def test_a_few_steps_of_the_recipe_lower_the_loss_and_write_a_loadable_model(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from branchdiag.bundled import train_model
    from branchdiag.bundled.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(n_problems=300)
    untrained, _ = train_model.train(tokenizer, 0, 0, "cpu")
    model, spent = train_model.train(tokenizer, 24, 0, "cpu", tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").exists()
    source = itertools.islice(examples.examples(tokenizer, 9), 8)
    losses = {"untrained": 0.0, "trained": 0.0}
    for example in source:
        ids = torch.tensor([example.prompt_ids + example.completion_ids])
        targets = torch.full_like(ids, -100)
        start = len(example.prompt_ids)
        targets[0, start - 1 : -1] = ids[0, start:]
        with torch.no_grad():
            for name, one in (("untrained", untrained), ("trained", model)):
                losses[name] += train_model.completion_loss(one, ids, targets).item()
    assert losses["trained"] < 0.8 * losses["untrained"]
    assert spent["steps"] == 24
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert again.num_parameters() == model.num_parameters()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(tokenizer)
    assert model_card.EXAMPLE.endswith("?")


def test_a_finished_checkpoint_is_not_trained_further(tmp_path: Path):
    from branchdiag.bundled import train_model
    from branchdiag.bundled.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(n_problems=300)
    checkpoint = tmp_path / "checkpoint.pt"
    first, _ = train_model.train(tokenizer, 2, 0, "cpu", checkpoint)
    second, spent = train_model.train(tokenizer, 2, 0, "cpu", checkpoint)
    assert spent["steps"] == 2
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_first_layers_heads_start_as_position_heads(rows):
    from branchdiag.bundled import train_model
    from branchdiag.bundled.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(n_problems=300)
    untrained, _ = train_model.train(tokenizer, 0, 0, "cpu")
    untrained.set_attn_implementation("eager")
    ids = torch.tensor([examples.prompt_ids(tokenizer, rows[0]["problem"])])
    attention = untrained(ids, output_attentions=True).attentions[0][0]
    for head in range(untrained.config.num_attention_heads):
        back = attention[head].diagonal(-1 - head)[8:]
        assert (back > 0.8).all()
