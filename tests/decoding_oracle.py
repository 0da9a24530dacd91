"""Slow decoding that shares no code with the engines: one row, no cache, plain Python draws.

`decode` runs the whole sequence through the model for every token. `draw` is temperature, top-k,
nucleus and inverse distribution over a sorted list. `uniform` is the counter-based generator on
Python integers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from branchdiag.engines.base import Request

MASK = 2**64 - 1


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def uniform(seed: int, step: int) -> float:
    """The number in [0, 1) of a request's seed and a step."""
    golden = 0x9E3779B97F4A7C15
    mixed = _mix((seed + golden) & MASK)
    bits = _mix(_mix((mixed + step * 0xD1B54A32D192ED03 + golden) & MASK) ^ mixed)
    return (bits >> 11) / 2**53


def distribution(
    logits: Sequence[float], temperature: float, top_p: float, top_k: int
) -> dict[int, float]:
    """Token -> probability after temperature, top-k and nucleus; token ids in order."""
    largest = max(logits)
    weights = [math.exp((x - largest) / temperature) for x in logits]
    ranked = sorted(range(len(logits)), key=lambda token: (-weights[token], token))
    if top_k > 0:
        ranked = ranked[:top_k]
    total = math.fsum(weights[token] for token in ranked)
    kept: list[int] = []
    reached = 0.0
    for token in ranked:
        if kept and reached / total >= top_p:
            break
        kept.append(token)
        reached += weights[token]
    mass = math.fsum(weights[token] for token in kept)
    return {token: weights[token] / mass for token in sorted(kept)}


def draw(logits: Sequence[float], temperature: float, top_p: float, top_k: int, u: float) -> int:
    """The token of a uniform number; the most likely one at temperature 0."""
    if temperature == 0:
        return max(range(len(logits)), key=lambda token: (logits[token], -token))
    cumulative = 0.0
    chosen = -1
    for token, probability in distribution(logits, temperature, top_p, top_k).items():
        cumulative += probability
        chosen = token
        if u < cumulative:
            break
    return chosen


def decode(
    model: Any, request: Request, stop_ids: Collection[int], context_length: int = 10**9
) -> tuple[tuple[int, ...], str]:
    """The completion of a request and why it ended."""
    import torch

    sampling = request.sampling
    ids, written = list(request.prompt_ids), []
    budget = min(sampling.max_new_tokens, context_length - len(ids))
    for step in range(budget):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()
        token = draw(
            logits,
            sampling.temperature,
            sampling.top_p,
            sampling.top_k,
            uniform(request.seed, step),
        )
        if token in stop_ids:
            return tuple(written), "stop"
        written.append(token)
        ids.append(token)
    return tuple(written), "length"
