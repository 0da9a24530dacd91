"""Builds the bundled model's tokenizer: byte-level BPE, one token a digit, Qwen3's chat markup.

Trained on a fixed sample of the task's own text, so that every word of the task is one token; every
other text is spelt in bytes and decodes back exactly. Reads only the task and the prompts; writes
nothing (`transformers` saves it). Knows no model.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from branchdiag.bundled import prompts, task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 640
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"

WORDS = r"""\\boxed\{|'s| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"""
"""Pre-tokenization: a word, a digit or a run of punctuation, each with the space before it."""

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}"
    "{%- endif %}"
)
"""Qwen3's markup and its meaning of `enable_thinking`: False closes an empty think block."""


def build_tokenizer(n_problems: int = 4000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer on `n_problems` problems with their solutions and prompts."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - 5,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(n_problems, seed), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in (PAD, START, END)]
    )
    # As in Qwen3 the think tags are added tokens but not special: decoding keeps them.
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (THINK, END_THINK)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def _sample(n_problems: int, seed: int) -> list[str]:
    """The text that the tokenizer is trained on, one string a message."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n_problems):
        problem = task.make_problem(rng)
        solution = task.write_solution(problem, rng, lean=rng.random() < 0.1)
        fields = {"problem": problem.text, "solution": solution, "answer": str(problem.answer)}
        texts.append("user\n" + prompts.TEACHER_SOLUTION_PROMPT.format(**fields))
        texts.append("\n" + prompts.TEACHER_ANSWER_PROMPT.format(**fields))
        texts.append("assistant\n")
        texts.append(f"{solution}\n\n\\boxed{{{problem.answer}}}")
    return texts
