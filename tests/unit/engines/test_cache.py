"""The aligned cache against lists: what a row sees is its own history, whoever joined or left."""

from __future__ import annotations

import random

import pytest
import torch

from branchdiag.engines.cache import AlignedCache, Newcomers

LAYERS, HEADS, SIZE = 2, 3, 4


def prefix(rng: random.Random, length: int) -> list[float]:
    return [rng.random() for _ in range(length)]


def states(tokens: list[float], layer: int) -> torch.Tensor:
    """(H, T, D) keys that identify token, layer and head; values are their negatives."""
    base = torch.tensor(tokens)[None, :, None].expand(HEADS, -1, SIZE)
    return base + 10 * layer + 100 * torch.arange(HEADS)[:, None, None]


def newcomers(tokens: list[float], length: int, count: int) -> Newcomers:
    layers = [(states(tokens, layer), -states(tokens, layer)) for layer in range(LAYERS)]
    return Newcomers(count, length, layers)


def check(cache: AlignedCache, rows: list[list[float]]) -> None:
    for layer, held in enumerate(cache.cache.layers):
        for row, tokens in enumerate(rows):
            visible = cache.mask_RT[row, : cache.used].bool()
            keys = held.key_buffer[row, :, : cache.used][:, visible]
            values = held.value_buffer[row, :, : cache.used][:, visible]
            assert torch.equal(keys, states(tokens, layer))
            assert torch.equal(values, -keys)
            assert not visible[: cache.used - len(tokens)].any()  # right-aligned


@pytest.mark.parametrize("seed", range(12))
def test_rows_keep_their_history_through_rebuilds(seed: int) -> None:
    rng = random.Random(seed)
    cache = AlignedCache()
    rows: list[list[float]] = []
    for _ in range(12):
        keep = [i for i in range(len(rows)) if rng.random() < 0.6]
        joining, joined = [], []
        for _ in range(rng.randrange(0 if keep else 1, 4)):
            tokens = prefix(rng, rng.randrange(0, 9))
            length, count = rng.randrange(0, len(tokens) + 1), rng.randrange(1, 4)
            joining.append(newcomers(tokens, length, count))
            joined += [tokens[:length] for _ in range(count)]
        if not keep and not joining:
            continue
        room = rng.randrange(1, 4)
        cache.rebuild(keep, joining, room)
        rows = [list(rows[i]) for i in keep] + [list(tokens) for tokens in joined]
        assert cache.lengths == [len(tokens) for tokens in rows]
        assert cache.room == room
        for _ in range(rng.randrange(0, room + 1)):
            new = [rng.random() for _ in rows]
            for layer, held in enumerate(cache.cache.layers):
                step = torch.stack([states([token], layer) for token in new])
                held.update(step, -step)
            cache.lengths = [length + 1 for length in cache.lengths]
            rows = [[*tokens, token] for tokens, token in zip(rows, new, strict=True)]
        check(cache, rows)


def test_columns_that_no_row_uses_are_dropped() -> None:
    cache = AlignedCache()
    cache.rebuild([], [newcomers([0.1] * 50, 50, 1), newcomers([0.2] * 5, 5, 2)], room=4)
    assert cache.used == 50
    cache.rebuild([1, 2], [], room=2)
    assert cache.used == 5 and cache.room == 2


def test_hidden_columns_hold_finite_numbers() -> None:
    cache = AlignedCache()
    cache.rebuild([], [newcomers([0.5] * 3, 3, 2), newcomers([], 0, 1)], room=3)
    cache.rebuild([1], [newcomers([0.5] * 7, 7, 1), newcomers([], 0, 1)], room=3)
    for held in cache.cache.layers:
        for buffer in (held.key_buffer, held.value_buffer):
            hidden = ~cache.mask_RT[:, : cache.used].bool()
            assert (buffer[:, :, : cache.used].transpose(1, 2)[hidden] == 0).all()
