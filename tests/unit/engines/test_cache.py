"""The aligned cache against lists: what a row sees is its own history, whoever came, left or
parted.
"""

from __future__ import annotations

import random

import pytest
import torch

from branchdiag.engines.attention import Layers
from branchdiag.engines.cache import AlignedCache, Newcomer

LAYERS, HEADS, SIZE = 2, 3, 4


def prefix(rng: random.Random, length: int) -> list[float]:
    return [rng.random() for _ in range(length)]


def states(tokens: list[float], layer: int) -> torch.Tensor:
    """(H, T, D) keys that identify token, layer and head; values are their negatives."""
    base = torch.tensor(tokens)[None, :, None].expand(HEADS, -1, SIZE)
    return base + 10 * layer + 100 * torch.arange(HEADS)[:, None, None]


def newcomer(tokens: list[float], length: int) -> Newcomer:
    layers = [(states(tokens, layer), -states(tokens, layer)) for layer in range(LAYERS)]
    return Newcomer(length, layers)


EMPTY: Layers = newcomer([], 0).layers


def write(cache: AlignedCache, new: list[float]) -> None:
    """What a forward pass does: a column of keys and values for every row."""
    for layer, held in enumerate(cache.cache.layers):
        step = torch.stack([states([token], layer) for token in new])
        keys, values = held.update(step, -step)
        assert keys.shape == values.shape == (len(new), HEADS, cache.used, SIZE)
    cache.advance()


def check(cache: AlignedCache, rows: list[list[float]]) -> None:
    assert cache.lengths == [len(tokens) for tokens in rows]
    mask = cache.mask
    assert mask.shape == (len(rows), cache.used + 1) and mask[:, -1].all()
    for layer, held in enumerate(cache.cache.layers):
        for row, tokens in enumerate(rows):
            visible = mask[row, :-1].bool()
            keys = held.key_buffer[row, :, : cache.used][:, visible]
            values = held.value_buffer[row, :, : cache.used][:, visible]
            assert torch.equal(keys, states(tokens, layer))
            assert torch.equal(values, -keys)
            assert not visible[: cache.used - len(tokens)].any()  # right-aligned
            assert torch.equal(cache.row(row)[layer][0], keys)
            assert held.key_buffer[row, :, : cache.used].isfinite().all()
            assert held.value_buffer[row, :, : cache.used].isfinite().all()


@pytest.fixture(autouse=True)
def _memory_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote holds NaN: it must never be read, not with weight 0 either."""

    def new_empty(self: torch.Tensor, *size: object, **options: object) -> torch.Tensor:
        return self.new_full(*size, torch.nan, **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)


@pytest.mark.parametrize("seed", range(20))
def test_rows_keep_their_history(seed: int) -> None:
    rng = random.Random(seed)
    cache = AlignedCache()
    rows: list[list[float]] = []
    capacity = 0
    for _ in range(25):
        joining = [
            prefix(rng, rng.choice([0, 0, rng.randrange(9)])) for _ in range(rng.randrange(4))
        ]
        joining = joining if rows else [*joining, prefix(rng, 2)]
        longest = max(map(len, joining), default=0)
        room = rng.randrange(1, 4)
        if longest > cache.used or not cache.room or len(rows) + len(joining) > capacity:
            capacity = len(rows) + len(joining) + rng.randrange(4)
            cache.reserve(capacity, longest, room, EMPTY)
            assert cache.used == max([longest, *map(len, rows)]) and cache.room == room
        cache.append([newcomer([*tokens, 0.5, 0.5], len(tokens)) for tokens in joining])
        rows += joining
        check(cache, rows)
        for _ in range(rng.randrange(0, cache.room + 1)):
            new = [rng.random() for _ in rows]
            write(cache, new)
            rows = [[*tokens, token] for tokens, token in zip(rows, new, strict=True)]
        check(cache, rows)
        # Rows end, part and take each other's places.
        sources = [rng.randrange(len(rows)) for _ in range(rng.randrange(1, capacity + 1))]
        cache.arrange(sources)
        rows = [rows[source] for source in sources]
        check(cache, rows)


def test_columns_that_no_row_uses_are_dropped() -> None:
    cache = AlignedCache()
    cache.reserve(3, 50, room=4, like=EMPTY)
    cache.append([newcomer([0.1] * 50, 50), newcomer([0.2] * 5, 5), newcomer([0.3] * 5, 5)])
    assert cache.used == 50
    cache.arrange([1, 2])
    cache.reserve(2, 0, room=2)
    assert cache.used == 5 and cache.room == 2
    check(cache, [[0.2] * 5, [0.3] * 5])


def test_nothing_is_moved_where_every_row_stays() -> None:
    cache = AlignedCache()
    cache.reserve(2, 3, room=1, like=EMPTY)
    cache.append([newcomer([0.5] * 3, 3), newcomer([0.25] * 2, 2)])
    before = cache.cache.layers[0].key_buffer.clone()
    cache.arrange([0, 1])
    assert torch.equal(before.nan_to_num(), cache.cache.layers[0].key_buffer.nan_to_num())
    cache.arrange([0])
    check(cache, [[0.5] * 3])
