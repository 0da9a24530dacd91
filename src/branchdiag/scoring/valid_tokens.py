"""Which token ids count as readable text, and which as junk that no branch starts with.

Reads a tokenizer; knows no model, no distribution and no problem. A *valid* token may be forced as
a child and counts towards the truncated entropy; a *junk* token (white space, punctuation, a
control tag) makes its position none to branch at. arXiv 2605.21606 (appendix A) names both filters
without stating their rules; the rules here are this module's docstrings, and a mask carries a name
and a hash so that two runs can be compared.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RULE = "valid-v1"
"""Name of the rule; a change of the rule is a new name."""

REPLACEMENT = "�"
"""What a byte-level token that is part of a character decodes to."""

_CONTROL_TAG = re.compile(r"<[|｜].*[|｜]>|</?[A-Za-z_][\w:.-]*>|\[/?[A-Z][A-Z_]{2,}\]", re.DOTALL)
"""<|im_end|>, <think>, </tool_call>, [INST] and the like, alone."""


@dataclass(frozen=True, eq=False)
class ValidTokens:
    """The valid tokens of a vocabulary.

    mask: [V] bool, V the width asked for. name: the rule. hash: 16 hex digits over rule and mask.
    """

    mask: NDArray[np.bool_]
    name: str
    hash: str


def valid_token_mask(
    tokenizer: PreTrainedTokenizerBase, vocabulary_size: int, *, end_ids: Collection[int] = ()
) -> ValidTokens:
    """Rule valid-v1 over ids 0 to `vocabulary_size` - 1.

    An id is valid if the tokenizer has it (models pad their vocabulary), it is neither special nor
    EOS nor an added control tag (<think>, <tool_call>, ...), and it decodes to text with a
    character that is not white space and none that is a replacement character (a piece of UTF-8).

    Args:
        tokenizer: of student and teacher.
        vocabulary_size: V, the width of the model's logits (not of the tokenizer).
        end_ids: further ids that end a text, say a generation configuration's.
    """
    texts = _decode_each(tokenizer, vocabulary_size)
    excluded = _control_ids(tokenizer) | set(end_ids)
    mask = np.zeros(vocabulary_size, dtype=np.bool_)
    for token_id, text in enumerate(texts):
        readable = bool(text) and not text.isspace() and REPLACEMENT not in text
        mask[token_id] = readable and token_id not in excluded
    mask.setflags(write=False)
    digest = hashlib.sha256(RULE.encode() + vocabulary_size.to_bytes(8, "little"))
    digest.update(np.packbits(mask).tobytes())
    return ValidTokens(mask, RULE, digest.hexdigest()[:16])


def junk_mask(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> NDArray[np.bool_]:
    """[V] bool: ids whose text is junk (`is_junk_text`), that are control tags, or have no text."""
    texts = _decode_each(tokenizer, vocabulary_size)
    mask = np.ones(vocabulary_size, dtype=np.bool_)
    mask[: len(texts)] = [is_junk_text(text) for text in texts]
    mask[[i for i in _control_ids(tokenizer) if i < vocabulary_size]] = True
    mask.setflags(write=False)
    return mask


def is_junk_text(text: str) -> bool:
    """Whether a token's text is empty, a control tag, or white space and punctuation only.

    Punctuation is Unicode's (categories P*) and ASCII's, so that + and = are junk while signs such
    as √ or ≤ are not. Control, format and replacement characters carry no text and count as space.
    """
    return bool(_CONTROL_TAG.fullmatch(text.strip())) or all(map(_is_junk_character, text))


def _is_junk_character(character: str) -> bool:
    return (
        character.isspace()
        or character == REPLACEMENT
        or character in string.punctuation
        or unicodedata.category(character)[0] in "PC"
    )


def _decode_each(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> list[str]:
    """Each id's text on its own, for the ids that the tokenizer has (0.8 s for 152k ids)."""
    ids = [[token_id] for token_id in range(min(len(tokenizer), vocabulary_size))]
    if not ids:
        return []
    return list(
        tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def _control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Special ids, EOS, and added tokens that read as a tag though they are not special."""
    added = {
        token_id
        for token_id, token in tokenizer.added_tokens_decoder.items()
        if token.special or _CONTROL_TAG.fullmatch(str(token.content).strip())
    }
    return added | set(tokenizer.all_special_ids)
