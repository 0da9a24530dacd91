"""The valid-token and junk rules, against a token-by-token reading of them."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from branchdiag.scoring.valid_tokens import is_junk_text, junk_mask, valid_token_mask
from tests.tiny_models import SPECIAL_TOKENS, TAGS, tiny_tokenizer


@pytest.mark.parametrize("pad", ["own", "eos", "none"])
def test_mask_agrees_with_reading_each_token_alone(pad):
    tokenizer = tiny_tokenizer(pad=pad)
    markup = set(tokenizer.convert_tokens_to_ids([*SPECIAL_TOKENS, *TAGS]))
    width = len(tokenizer) + 24
    expected = []
    for token_id in range(width):
        text = tokenizer.decode([token_id]) if token_id < len(tokenizer) else ""
        expected.append(token_id not in markup and text.strip() != "" and "\ufffd" not in text)
    mask = valid_token_mask(tokenizer, width).mask
    assert mask.dtype == np.bool_
    assert mask.tolist() == expected
    assert 50 < mask.sum() < len(tokenizer)


def test_particular_tokens():
    tokenizer = tiny_tokenizer()
    mask = valid_token_mask(tokenizer, len(tokenizer)).mask
    [twelve] = tokenizer.encode("12")
    [newline] = tokenizer.encode("\n")
    first_byte = tokenizer.encode("é")[0]
    assert mask[twelve]
    assert not mask[newline]
    assert not mask[first_byte], "a piece of a character is no text"
    assert not mask[tokenizer.eos_token_id]
    assert not mask[tokenizer.convert_tokens_to_ids("</think>")], "added, though not special"


def test_a_vocabulary_narrower_than_the_tokenizer_is_cut():
    tokenizer = tiny_tokenizer()
    wide, narrow = valid_token_mask(tokenizer, len(tokenizer)), valid_token_mask(tokenizer, 100)
    assert narrow.mask.tolist() == wide.mask[:100].tolist()


def test_end_ids_are_excluded_and_the_hash_tells_masks_apart():
    tokenizer = tiny_tokenizer()
    [twelve] = tokenizer.encode("12")
    plain = valid_token_mask(tokenizer, 330)
    without = valid_token_mask(tokenizer, 330, end_ids=[twelve])
    assert np.flatnonzero(plain.mask != without.mask).tolist() == [twelve]
    assert plain.name == without.name == "valid-v1"
    assert plain.hash == valid_token_mask(tokenizer, 330).hash != without.hash
    assert plain.hash != valid_token_mask(tokenizer, 331).hash
    assert len(plain.hash) == 16


def test_the_mask_cannot_be_written_to():
    mask = valid_token_mask(tiny_tokenizer(), 330).mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True


JUNK = ["", " ", "\n\n", ".", ", ", " +", "=", "$", "\\", "...", "—", "</think>", "<|im_end|>"]
JUNK += ["<tool_call>", "[INST]", "<｜end｜>", "\ufffd", "\u200b", "\x00"]
TEXT = ["a", " so", "12", ".5", "(x", "π", " √", "≤", "²", "中", "<b", "[A]", "a.b", "x>"]


@pytest.mark.parametrize("text", JUNK)
def test_junk(text):
    assert is_junk_text(text)


@pytest.mark.parametrize("text", TEXT)
def test_text_is_not_junk(text):
    assert not is_junk_text(text)


def test_junk_mask_agrees_with_the_rule_on_each_token():
    tokenizer = tiny_tokenizer()
    markup = set(tokenizer.convert_tokens_to_ids([*SPECIAL_TOKENS, *TAGS]))
    width = len(tokenizer) + 24
    mask = junk_mask(tokenizer, width)
    for token_id in range(width):
        beyond = token_id >= len(tokenizer)
        junk = beyond or token_id in markup or is_junk_text(tokenizer.decode([token_id]))
        assert mask[token_id] == junk, token_id
    assert mask.any()
    assert not mask.all()


def test_a_vocabulary_of_qwen3s_size_takes_seconds():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    triples = map("".join, itertools.product(alphabet, repeat=3))
    vocabulary = {text: i for i, text in enumerate(itertools.islice(triples, 151_643))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    start = time.process_time()
    valid = valid_token_mask(tokenizer, 151_936)
    assert time.process_time() - start < 10, "about 1 s of a core, whatever else it does"
    assert valid.mask.shape == (151_936,)
    assert not valid.mask[len(tokenizer) :].any()
