"""The bundled tokenizer: any text survives it, digits stand alone, the template follows Qwen3's."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchdiag.bundled import model_path, task, wording
from branchdiag.bundled.tokenizer import END_THINK, THINK, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path())


TOKENIZER = None


def shared():
    global TOKENIZER
    if TOKENIZER is None:
        from transformers import AutoTokenizer

        TOKENIZER = AutoTokenizer.from_pretrained(model_path())
    return TOKENIZER


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_encoding_and_decoding(text):
    tokenizer = shared()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    "text", ["  a  b\n\n\tc ", "x=12345.678", "日本 \U0001f600 é", "don't", "\\boxed{42}"]
)
def test_awkward_texts_survive(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_every_digit_is_a_token_of_its_own(tokenizer):
    for text in ("2026", " 17", "a42b", "1,000", "\\boxed{99}"):
        tokens = [tokenizer.decode([i]) for i in tokenizer(text).input_ids]
        assert all(sum(c.isdigit() for c in token) <= 1 for token in tokens)


def test_words_of_the_task_are_one_token(tokenizer):
    for word in (
        *wording.NAMES,
        *wording.TRAVEL_VERBS,
        *wording.STEP_OPENERS,
        "forward",
        "backward",
        "split",
        "plus",
    ):
        assert len(tokenizer(f" {word}").input_ids) == 1
    assert len(tokenizer("\\boxed{").input_ids) == 1
    rng = random.Random(0)
    text = task.make_problem(rng).text
    assert len(tokenizer(text).input_ids) <= 1.8 * len(text.split())


def test_size_and_special_tokens(tokenizer):
    assert 512 <= len(tokenizer) <= 1024
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    for tag in (THINK, END_THINK):
        ids = tokenizer(tag).input_ids
        assert len(ids) == 1
        assert ids[0] not in tokenizer.all_special_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == tag


def render(tokenizer, **options):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {x}"}]
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_the_template_opens_or_closes_thinking_as_qwen3_does(tokenizer):
    turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi {x}<|im_end|>\n"
    assert render(tokenizer) == turns
    assistant = turns + "<|im_start|>assistant\n"
    assert render(tokenizer, add_generation_prompt=True) == assistant
    assert render(tokenizer, add_generation_prompt=True, enable_thinking=True) == assistant
    assert (
        render(tokenizer, add_generation_prompt=True, enable_thinking=False)
        == assistant + "<think>\n\n</think>\n\n"
    )


def test_rendered_text_and_rendered_tokens_agree(tokenizer):
    text = render(tokenizer, add_generation_prompt=True)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {x}"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer(text).input_ids == list(ids)


def test_the_packaged_tokenizer_is_the_one_the_recipe_builds(tokenizer):
    built = build_tokenizer()
    assert built.get_vocab() == tokenizer.get_vocab()
    assert built.chat_template == tokenizer.chat_template
    rng = random.Random(1)
    problem = task.make_problem(rng)
    for text in (problem.text, task.write_solution(problem, rng)):
        assert built(text).input_ids == tokenizer(text).input_ids
