"""Tiny random models of three architectures, saved to disk as a user's models are.

Writes a configuration, safetensors weights, a byte-level BPE tokenizer with a chat template and a
generation configuration into a directory. The weights are random but wide enough in scale that the
distributions have a few likely tokens, as a trained model's have. Knows no
engine and no phase.

    directory = tiny_model("olmo3", thinking="force")        # cached for the session
    directory = write_tiny_model(tmp_path / "m", "llama", pad="eos")

What varies: the architecture (qwen3, llama, olmo2, olmo3 with a sliding window shorter than the
tests' texts), the chat template (honours, ignores or forces thinking), tied or untied output head,
a model vocabulary larger than the tokenizer's, the pad token (its own, equal to EOS, or none).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

Architecture = Literal["qwen3", "llama", "olmo2", "olmo3"]
Thinking = Literal["honour", "ignore", "force"]
Pad = Literal["own", "eos", "none"]

ARCHITECTURES: tuple[Architecture, ...] = ("qwen3", "llama", "olmo3")
"""The three that contracts are tested on (olmo3: full and sliding attention in turn)."""

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PADDING = "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, PADDING)
TAGS = ("<think>", "</think>")
"""Added tokens that are not special, as Qwen3's: skip_special_tokens leaves them in the text."""

HEAD_SIZE = 32
"""The smallest that the CPU build of vLLM has kernels for."""

TEXT = (
    "Plan: find 12 by 12 . Then 3 + 4 = 7 . So the answer is \\boxed{12} and 112 is 12 more "
    "than 100 . Wait, check that again: Mia has 12 stamps, Leo has 4 fewer than Mia. Therefore "
    "\\boxed{8}."
)
"""What the merges are learned from; "12" becomes one token, so text round trips change ids."""

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
CHAT_TEMPLATES: dict[Thinking, str] = {
    "honour": _TURNS
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}",
    "ignore": "{{ bos_token }}" + _TURNS + "{% endif %}",
    "force": _TURNS + "<think>\n{% endif %}",
}


@cache
def tiny_model(
    architecture: Architecture = "qwen3",
    *,
    thinking: Thinking = "honour",
    tied: bool = False,
    pad: Pad = "own",
    unused_vocabulary: int = 24,
    layers: int = 4,
    seed: int = 0,
) -> Path:
    """The directory of such a model, written once a process and removed when it ends."""
    directory = Path(tempfile.mkdtemp(prefix=f"tiny-{architecture}-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return write_tiny_model(
        directory,
        architecture,
        thinking=thinking,
        tied=tied,
        pad=pad,
        unused_vocabulary=unused_vocabulary,
        layers=layers,
        seed=seed,
    )


def write_tiny_model(
    directory: Path,
    architecture: Architecture = "qwen3",
    *,
    thinking: Thinking = "honour",
    tied: bool = False,
    pad: Pad = "own",
    unused_vocabulary: int = 24,
    layers: int = 4,
    hidden_size: int = 32,
    sliding_window: int = 12,
    context_length: int = 512,
    initializer_range: float = 0.4,
    seed: int = 0,
) -> Path:
    """Write a random model and its tokenizer into `directory` and return it.

    The model's vocabulary is the tokenizer's length plus `unused_vocabulary`; these last ids have
    weights and probability, but no token. `sliding_window` concerns olmo3 alone (3 layers of 4).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = tiny_tokenizer(thinking=thinking, pad=pad)
    stop_ids = sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END_OF_TEXT)})
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer) + unused_vocabulary,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": context_length,
        "initializer_range": initializer_range,
        "tie_word_embeddings": tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }
    if architecture == "olmo3":
        settings["sliding_window"] = sliding_window
    config = AutoConfig.for_model(architecture, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=stop_ids,
        pad_token_id=tokenizer.pad_token_id,
        # Settings that an engine must not inherit.
        do_sample=True,
        temperature=0.6,
        top_k=20,
        top_p=0.95,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def tiny_tokenizer(*, thinking: Thinking = "honour", pad: Pad = "own") -> Any:
    """A byte-level BPE tokenizer of about 300 tokens that writes every text; EOS `<|im_end|>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    names: dict[str, str] = {"eos_token": TURN_END}
    if thinking == "ignore":
        names["bos_token"] = END_OF_TEXT
    if pad != "none":
        names["pad_token"] = PADDING if pad == "own" else TURN_END
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = CHAT_TEMPLATES[thinking]
    return tokenizer
