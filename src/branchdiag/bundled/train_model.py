"""Trains the bundled model from nothing: `python -m branchdiag.bundled.train_model --out DIR`.

Builds the tokenizer, writes the packaged problem sets, trains a small Qwen3 on examples drawn as it
goes (none of them in the packaged sets), measures it on held-out problems and writes weights, tokenizer
and model card to DIR/model. About an hour on one CPU core; a GPU does more in less.

The loss is the cross-entropy of the completions. Muon (arXiv 2502.16982) for the matrices, AdamW for
the rest; warm-up, then cosine in elapsed time; an exponential average of the weights is what is
written. A curriculum raises the length of the plans: look-ups are learned on short problems first.
Knows nothing of the diagnostic.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from branchdiag.bundled import examples, problem_sets
from branchdiag.bundled.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

BATCH_TOKENS = 3600
"""Padded tokens a batch (about 24 sequences); a GPU takes GPU_FACTOR times as many."""
GPU_FACTOR = 8
POOL = 512
"""Examples that are sorted by length together, so that a batch holds little padding."""
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.02
WARM_UP = 0.01
CURRICULUM_END = 0.3
"""Share of the training time after which plans of every length are drawn."""
AVERAGE_DECAY = 0.998


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The architecture: Qwen3, 5 layers 144 wide, about 1.3 M parameters, tied head."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=144,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=36,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def batches(
    source: Any, pad_id: int, batch_tokens: int, rng: random.Random, progress: Any
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded ids (sequences x tokens) and targets, -100 outside completions, shifted by one.

    `progress()` is the elapsed share of the training time, which sets the curriculum.
    """
    next(source)
    while True:
        share = progress() / CURRICULUM_END
        low, high = examples.LINKS
        most = min(high, 2 + int(share * (high - 1)))
        pool = [source.send(most) for _ in range(POOL)]
        pool.sort(key=lambda e: len(e.prompt_ids) + len(e.completion_ids))
        groups: list[list[examples.Example]] = [[]]
        for example in pool:
            length = len(example.prompt_ids) + len(example.completion_ids)
            if length * (len(groups[-1]) + 1) > batch_tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in group)
            ids = torch.full((len(group), longest), pad_id)
            targets = torch.full((len(group), longest), -100)
            for row, e in enumerate(group):
                start, end = len(e.prompt_ids), len(e.prompt_ids) + len(e.completion_ids)
                ids[row, :end] = torch.tensor(e.prompt_ids + e.completion_ids)
                targets[row, start - 1 : end - 1] = ids[row, start:end]
            yield ids, targets


def completion_loss(
    model: Qwen3ForCausalLM, ids: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy (nats) over completion tokens; the head is applied to those alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    kept = targets != -100
    logits = model.lm_head(hidden[kept]).float()
    return torch.nn.functional.cross_entropy(logits, targets[kept])


def optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices,
            lr=PEAK_LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(share: float) -> float:
    """Warm-up, then cosine to 2% of the peak, over the elapsed `share` of the training time."""
    if share < WARM_UP:
        return PEAK_LEARNING_RATE * max(share, 1e-4) / WARM_UP
    return PEAK_LEARNING_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def train(
    tokenizer: PreTrainedTokenizerFast,
    minutes: float,
    seed: int,
    device: str,
    checkpoint: Path | None = None,
    compiled: bool = False,
) -> tuple[Qwen3ForCausalLM, dict[str, float]]:
    """Train for `minutes`; returns the averaged model (on the CPU) and what was spent.

    With `checkpoint` the state is saved there each minute, and a state found there is gone on from.
    """
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(model_config(tokenizer)).to(device)
    model.train()
    if compiled:
        model.model.compile(dynamic=True)
    average = [p.detach().clone() for p in model.parameters()]
    steppers = optimizers(model)
    spent = {"seconds": 0.0, "steps": 0.0, "tokens": 0.0, "sequences": 0.0, "loss": 0.0}
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        spent = state["spent"]
    source = examples.examples(tokenizer, seed * 1_000_000 + int(spent["steps"]))
    batch_tokens = BATCH_TOKENS * (GPU_FACTOR if device != "cpu" else 1)
    before, started = spent["seconds"], time.monotonic()
    saved_at = started

    def share() -> float:
        return (before + time.monotonic() - started) / (60 * minutes)

    rng = random.Random(seed)
    for ids, targets in batches(source, tokenizer.pad_token_id, batch_tokens, rng, share):
        rate = learning_rate(share())
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = rate
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = completion_loss(model, ids.to(device), targets.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
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
        done = share() >= 1
        if checkpoint and (done or time.monotonic() - saved_at > 60):
            saved_at = time.monotonic()
            state = {
                "model": model.state_dict(),
                "average": average,
                "optimizers": [stepper.state_dict() for stepper in steppers],
                "spent": spent,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
        if done:
            break
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), average, strict=True):
            parameter.copy_(value)
    return model.eval().cpu(), spent


def main() -> None:
    """Read the command line, train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, prog="branchdiag.bundled.train_model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model, spent = train(
        tokenizer,
        arguments.minutes,
        arguments.seed,
        arguments.device,
        arguments.out / "checkpoint.pt",
        arguments.compile,
    )
    tokenizer.save_pretrained(arguments.out / "model")
    model.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
