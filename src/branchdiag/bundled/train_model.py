"""Trains the bundled model from nothing: `python -m branchdiag.bundled.train_model --out DIR`.

Builds the tokenizer, trains a small Qwen3 on examples drawn as it goes (none of them in the
packaged sets), measures it on the packaged `evaluate` problems and writes weights, tokenizer and
model card to DIR/model. About an hour on one CPU core; a GPU does more in less. Run again, it goes
on from the last checkpoint in DIR.

The loss is the cross-entropy of the completions. Muon (arXiv 2502.16982) for the matrices, AdamW
for the rest; warm-up, then cosine in elapsed time; an exponential average of the weights is
written. A curriculum raises the length of the plans: look-ups are learned on short problems first.

Knows nothing of the diagnostic.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from branchdiag.bundled import examples, measure, model_card, wording
from branchdiag.bundled.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

BATCH_TOKENS = 2400
"""Padded tokens a batch (about 24 sequences); a GPU takes GPU_FACTOR times as many."""
GPU_FACTOR = 8
POOL = 512
"""Examples that are sorted by length together, so that a batch holds little padding."""
MATRIX_LEARNING_RATE = 5e-3
"""Muon's peak; an update's root mean square is 0.2 of it, as AdamW's would be."""
LEARNING_RATE = 3e-3
"""AdamW's peak, for embeddings and norms."""
WARM_UP = 0.01
SHARPNESS = 1.25
"""Initial gains of the query and key norms: narrow heads look up sharply from the start."""
CURRICULUM_END = 0.8
"""Elapsed time forces a length evenly up to this share of the training time."""
MASTERED = 0.94
"""Accuracy on names from which the curriculum goes on."""
AVERAGE_DECAY = 0.998


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The architecture: Qwen3, 5 layers 128 wide, about 1.3 M parameters, tied head."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
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


class Curriculum:
    """How long plans may be: one definition more each time those drawn so far are mastered.

    Mastered means that the names of a batch are predicted right, on average, more often than
    MASTERED (free orders keep this below 1). Elapsed time raises the length too, so that a model
    that is slow to learn sees every length.
    """

    def __init__(self) -> None:
        self.most_links = 2
        self.name_accuracy = 0.0
        self.steps_here = 0

    def update(self, name_accuracy: float, share: float) -> None:
        """Take in one step's accuracy on names, at the elapsed `share` of the training time."""
        self.steps_here += 1
        self.name_accuracy += 0.02 * (name_accuracy - self.name_accuracy)
        highest = examples.LINKS[1]
        forced = 2 + int((highest - 1) * share / CURRICULUM_END)
        mastered = self.name_accuracy > MASTERED and self.steps_here >= 100
        if self.most_links < highest and (mastered or forced > self.most_links):
            self.most_links += 1
            self.steps_here = 0


def batches(
    source: Generator[examples.Example, int | None, None],
    pad_id: int,
    batch_tokens: int,
    rng: random.Random,
    curriculum: Curriculum,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded ids (sequences x tokens) and targets, -100 outside completions, shifted by one."""
    next(source)
    while True:
        pool = [source.send(curriculum.most_links) for _ in range(POOL)]
        pool.sort(key=example_length, reverse=True)
        groups: list[list[examples.Example]] = [[]]
        for example in pool:
            if groups[-1] and example_length(groups[-1][0]) * len(groups[-1]) > batch_tokens:
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
    model: Qwen3ForCausalLM, ids: torch.Tensor, targets: torch.Tensor, is_name: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy (nats) over completion tokens, and the accuracy on those that are names.

    The head is applied to completion positions alone.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    kept = targets != -100
    logits, wanted = model.lm_head(hidden[kept]).float(), targets[kept]
    names = is_name[wanted]
    accuracy = (logits.detach().argmax(-1) == wanted)[names].float().mean()
    return torch.nn.functional.cross_entropy(logits, wanted), accuracy


def optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices,
            lr=MATRIX_LEARNING_RATE,
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(share: float) -> float:
    """Warm-up, then cosine to 2%, over the elapsed `share` of the training time."""
    if share < WARM_UP:
        return max(share, 1e-4) / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


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
    model: Any = Qwen3ForCausalLM(model_config(tokenizer))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                parameter.fill_(SHARPNESS)
    if device == "cpu":
        # On a CPU the backward of fused attention costs as much as all else at these lengths.
        model.set_attn_implementation("eager")
    model.to(device)
    model.train()
    if compiled:
        model.model.compile(dynamic=True)
    average = [p.detach().clone() for p in model.parameters()]
    steppers = optimizers(model)
    spent = {"seconds": 0.0, "steps": 0.0, "tokens": 0.0, "sequences": 0.0, "loss": 0.0}
    curriculum = Curriculum()
    if checkpoint and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for stepper, saved in zip(steppers, state["optimizers"], strict=True):
            stepper.load_state_dict(saved)
        spent = state["spent"]
        vars(curriculum).update(state["curriculum"])
    source = examples.examples(tokenizer, seed * 1_000_000 + int(spent["steps"]))
    batch_tokens = BATCH_TOKENS * (GPU_FACTOR if device != "cpu" else 1)
    before, started = spent["seconds"], time.monotonic()
    saved_at = started

    def share() -> float:
        return (before + time.monotonic() - started) / (60 * minutes)

    is_name = torch.zeros(model.config.vocab_size, dtype=torch.bool, device=device)
    is_name[[tokenizer(f" {name}").input_ids[0] for name in wording.NAMES]] = True
    rng = random.Random(seed)
    for ids, targets in batches(source, tokenizer.pad_token_id, batch_tokens, rng, curriculum):
        factor = rate_factor(share())
        for stepper, peak in zip(steppers, (MATRIX_LEARNING_RATE, LEARNING_RATE), strict=True):
            for group in stepper.param_groups:
                group["lr"] = peak * factor
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss, names_right = completion_loss(model, ids.to(device), targets.to(device), is_name)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        decay = min(AVERAGE_DECAY, spent["steps"] / (spent["steps"] + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, list(model.parameters()), 1 - decay)
        curriculum.update(names_right.item(), share())
        spent["steps"] += 1
        spent["tokens"] += ids.numel()
        spent["sequences"] += len(ids)
        spent["loss"] += (loss.item() - spent["loss"]) * (0.02 if spent["steps"] > 50 else 0.2)
        spent["seconds"] = before + time.monotonic() - started
        if spent["steps"] % 50 == 0:
            print(f"links {curriculum.most_links} names {curriculum.name_accuracy:.3f} ", end="")
            print(" ".join(f"{k} {v:,.3f}" for k, v in spent.items()), flush=True)
        done = share() >= 1
        if checkpoint and (done or time.monotonic() - saved_at > 60):
            saved_at = time.monotonic()
            state = {
                "model": model.state_dict(),
                "average": average,
                "optimizers": [stepper.state_dict() for stepper in steppers],
                "spent": spent,
                "curriculum": vars(curriculum),
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
    command = f"python -m branchdiag.bundled.train_model --out DIR --minutes {arguments.minutes:g}"
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
