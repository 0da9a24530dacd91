"""Trains the bundled model from nothing: `python -m branchdiag.bundled.train_model --out DIR`.

Builds the tokenizer, trains a small Qwen3 on examples drawn as it goes (none of them in the
packaged sets), measures it on the packaged `evaluate` problems and writes weights, tokenizer and
model card to DIR/model. Less than an hour on one CPU core. Run again, it goes on from the last
checkpoint in DIR, with examples not seen before.

The loss is the cross-entropy of the completions, the optimizer AdamW, the learning rate a warm-up
and a cosine; an exponential average of the weights is written. The heads of the first layer start
as position heads (`start_with_position_heads`).

Knows nothing of the diagnostic.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from branchdiag.bundled import examples, measure, model_card
from branchdiag.bundled.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

BATCH_TOKENS = 2400
"""Padded tokens a batch (about 20 sequences): small batches, so that there are many updates."""
POOL = 512
"""Examples that are sorted by length together, so that a batch holds little padding."""
LEARNING_RATE = 2e-3
"""AdamW's peak."""
WARM_UP = 0.01
"""Share of the steps."""
SHARPNESS = 1.25
"""Initial gains of the query and key norms: narrow heads look up sharply from the start."""
POSITION_PAIRS = 6
"""Rotary pairs, the fastest first, that the first layer's position heads start with."""
AVERAGE_DECAY = 0.998


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The architecture: Qwen3, 4 layers 128 wide, about 1.1 M parameters, tied head."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def batches(
    source: Iterator[examples.Example], pad_id: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded ids (sequences x tokens) and targets, -100 outside completions, shifted by one."""
    while True:
        pool = sorted(itertools.islice(source, POOL), key=example_length, reverse=True)
        groups: list[list[examples.Example]] = [[]]
        for example in pool:
            if groups[-1] and example_length(groups[-1][0]) * len(groups[-1]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            longest = max(map(example_length, group))
            ids = torch.full((len(group), longest), pad_id)
            targets = torch.full((len(group), longest), -100)
            for row, example in enumerate(group):
                start, end = len(example.prompt_ids), example_length(example)
                ids[row, :end] = torch.tensor(example.prompt_ids + example.completion_ids)
                targets[row, start - 1 : end - 1] = ids[row, start:end]
            if len(group) > 1:
                yield ids, targets


def example_length(example: examples.Example) -> int:
    """Tokens of an example, prompt and completion."""
    return len(example.prompt_ids) + len(example.completion_ids)


def completion_loss(
    model: Qwen3ForCausalLM, ids: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy (nats) over completion tokens; the head sees their positions alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    kept = targets != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[kept]).float(), targets[kept])


@torch.no_grad()
def start_with_position_heads(model: Any) -> None:
    """Start the first layer's heads attending one, two, three and four tokens back.

    Such heads are what every look-up is built on, and finding them from random weights takes a
    narrow model most of its training. One entry of every embedding starts as a constant; keys are
    made of it alone, queries of it turned back by the head's offset, in the fastest rotary pairs.
    All of it is trained like any other weight.
    """
    for name, parameter in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            parameter.fill_(SHARPNESS)
    model.model.embed_tokens.weight[:, 0] = 0.3
    attention = model.model.layers[0].self_attn
    width, half = attention.head_dim, attention.head_dim // 2
    base = model.config.rope_parameters["rope_theta"]
    frequency = base ** (-torch.arange(POSITION_PAIRS) / half)
    for weight in (attention.q_proj.weight, attention.k_proj.weight):
        weight.mul_(0.25)
        weight[:, 0] = 0
    for head in range(model.config.num_key_value_heads):
        attention.k_proj.weight[head * width : head * width + POSITION_PAIRS, 0] = 1
    for head in range(model.config.num_attention_heads):
        start, turn = head * width, (head + 1) * frequency
        attention.q_proj.weight[start : start + POSITION_PAIRS, 0] = turn.cos()
        attention.q_proj.weight[start + half : start + half + POSITION_PAIRS, 0] = -turn.sin()
    attention.q_norm.weight.mul_(2)


def rate_factor(share: float) -> float:
    """Warm-up, then cosine to 1%, over the `share` of the steps that is done."""
    if share < WARM_UP:
        return share / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))


def train(
    tokenizer: PreTrainedTokenizerFast,
    n_steps: int,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
    compiled: bool = False,
) -> tuple[Qwen3ForCausalLM, dict[str, float]]:
    """Train for `n_steps` updates; returns the averaged model (on the CPU) and what was spent.

    With `checkpoint` the state is saved there each minute, and a state found there is gone on from.
    """
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(seed)
    model: Any = Qwen3ForCausalLM(model_config(tokenizer))  # type: ignore[no-untyped-call]
    start_with_position_heads(model)
    if device == "cpu":
        # On a CPU the backward of fused attention costs as much as all else at these lengths.
        model.set_attn_implementation("eager")
    model.to(device).train()
    if compiled:
        model.model.compile(dynamic=True)
    average = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    spent = {"seconds": 0.0, "steps": 0.0, "tokens": 0.0, "sequences": 0.0, "loss": 0.0}
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, spent = state["average"], state["spent"]
    source = examples.examples(tokenizer, seed * 1_000_000 + int(spent["steps"]))
    before, started = spent["seconds"], time.monotonic()
    saved_at = started
    for ids, targets in batches(source, model.config.pad_token_id, random.Random(seed)):
        if spent["steps"] >= n_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate_factor((spent["steps"] + 1) / n_steps)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = completion_loss(model, ids.to(device), targets.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(AVERAGE_DECAY, spent["steps"] / (spent["steps"] + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, list(model.parameters()), 1 - decay)
        spent["steps"] += 1
        spent["tokens"] += ids.numel()
        spent["sequences"] += len(ids)
        spent["loss"] += (loss.item() - spent["loss"]) * (0.02 if spent["steps"] > 50 else 0.2)
        spent["seconds"] = before + time.monotonic() - started
        if spent["steps"] % 50 == 0:
            print(" ".join(f"{k} {v:,.3f}" for k, v in spent.items()), flush=True)
        if checkpoint and (spent["steps"] == n_steps or time.monotonic() - saved_at > 60):
            saved_at = time.monotonic()
            state = {
                "model": model.state_dict(),
                "average": average,
                "optimizer": optimizer.state_dict(),
                "spent": spent,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), average, strict=True):
            parameter.copy_(value)
    return model.eval().cpu(), spent


def main() -> None:
    """Read the command line, train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, prog="branchdiag.bundled.train_model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model, spent = train(
        tokenizer,
        arguments.steps,
        arguments.seed,
        arguments.device,
        arguments.out / "checkpoint.pt",
        arguments.compile,
    )
    command = f"python -m branchdiag.bundled.train_model --out DIR --steps {arguments.steps}"
    if arguments.device != "cpu":
        command += f" --device {arguments.device}"
    write_model(
        model, tokenizer, spent, arguments.out / "model", f"{command} --seed {arguments.seed}"
    )


def write_model(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    spent: dict[str, float],
    folder: Path,
    command: str,
) -> None:
    """Measure the model and write it with tokenizer and card to `folder`, replacing what was there.

    Written beside `folder` first and renamed, so that `folder` never holds half a model.
    """
    from transformers import GenerationConfig

    numbers = model_card.measured(model, tokenizer)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=measure.MAX_NEW_TOKENS,
    )
    fresh, stale = folder.with_name(f".{folder.name}-new"), folder.with_name(f".{folder.name}-old")
    for left_over in (fresh, stale):
        shutil.rmtree(left_over, ignore_errors=True)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    text = model_card.card(numbers, spent, model.num_parameters(), command)
    (fresh / "README.md").write_text(text, encoding="utf-8")
    if folder.exists():
        folder.replace(stale)
    fresh.replace(folder)
    shutil.rmtree(stale, ignore_errors=True)
    print(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
