"""Measures scoring: time of short spines, memory of a long one, block passes and speed of dropout.

    python tests/bench/bench_scoring.py

Random models, one thread; prints a line a figure. No test: `tests/unit/scoring` holds the bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from branchdiag.scoring.dropout import dropout_distributions
from branchdiag.scoring.forward import score_spine
from branchdiag.scoring.model_parts import blocks_of

SCORING = {"temperature": 1.0, "top_k": 16}


def random_model(**settings: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(tie_word_embeddings=True, **settings)).eval()


def best_s(*functions: Callable[[], object], repeats: int = 7) -> list[float]:
    """Least seconds of each, run in turn: what else the machine does hits all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [min(own) for own in times]


def peak_bytes(function: Callable[[], object]) -> int:
    """Most bytes that torch held at once while `function` ran, by its own record of allocations."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events]).max())


def bench_short_spines(hidden_size: int, layers: int) -> None:
    model = random_model(
        vocab_size=640,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=hidden_size // 8,
    )
    ids = torch.randint(0, 640, (150,)).tolist()
    valid = np.ones(640, dtype=bool)
    [seconds] = best_s(
        lambda: score_spine(
            model, model, ids[:60], ids[:75], ids[75:145], valid, chunk_positions=128, **SCORING
        )
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"100 spines of 70 tokens, {millions:.1f} M parameters: {100 * seconds:.1f} s")


def bench_memory(n_positions: int, chunk: int) -> None:
    width = 152_000
    model = random_model(
        vocab_size=width,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    ids = torch.randint(0, width, (20 + n_positions,)).tolist()
    valid = np.ones(width, dtype=bool)
    start = time.perf_counter()
    peak = peak_bytes(
        lambda: score_spine(
            model, model, ids[:10], ids[5:20], ids[20:], valid, chunk_positions=chunk, **SCORING
        )
    )
    seconds = time.perf_counter() - start
    print(
        f"{n_positions} positions x {width} tokens, chunks of {chunk}: peak {peak / 1e6:.0f} MB "
        f"({8 * n_positions * width / 1e6:.0f} MB of logits in all), {seconds:.1f} s"
    )


def bench_dropout(layers: int, last: int, samples: int = 5) -> None:
    model = random_model(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    ids = torch.randint(0, 1000, (600,)).tolist()

    def run() -> object:
        return dropout_distributions(
            model, ids[:100], ids[100:], [50, 200, 350, 499],
            layers=last, probability=0.1, samples=samples, seed=0, chunk=128,
        )  # fmt: skip

    def whole_forwards() -> None:
        with torch.inference_mode():
            for _ in range(samples + 1):
                model(input_ids=torch.tensor([ids[:599]]), logits_to_keep=4, use_cache=False)

    run()
    passes: list[int] = []
    handles = [
        block.self_attn.register_forward_pre_hook(lambda *_: passes.append(1))
        for block in blocks_of(model)
    ]
    run()
    for handle in handles:
        handle.remove()
    ideal = layers + samples * (last - 1)
    ours, theirs = best_s(run, whole_forwards)
    print(
        f"dropout, last {last} of {layers} blocks, {samples} samples: {len(passes)} block passes "
        f"(ideal {ideal}, whole {layers * (samples + 1)}), {1000 * ours:.0f} ms against "
        f"{1000 * theirs:.0f} ms for whole forwards without dropout: {theirs / ours:.1f} x"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    bench_short_spines(128, 4)
    bench_short_spines(256, 6)
    bench_dropout(12, 4)
    bench_dropout(36, 4)
    bench_memory(1500, 128)
    bench_memory(1500, 16)
