"""A key-value cache whose rows end at one column, with rows that come, part and go.

Every row's tokens are right-aligned: the newest token of each row lies in the same column, and an
attention mask hides what is left of its first. So a decoding step writes one column, and a sliding
window measured in columns is right for every row. Rows stand without a gap, and memory is taken
ahead of rows and of steps: growing by concatenation, as transformers' dynamic cache does, copies
everything at every step, and a row that ends, joins or parts moves no other. Sliding layers keep
all columns; the mask that the model makes from its configuration narrows them.

Knows tensors only: no tokens, no requests.

Dimensions: R rows, H key-value heads, T columns, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from branchdiag.engines.attention import Layers


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer: a view of the rows and columns in use of buffers that hold more of both."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.key_buffer, self.value_buffer, self.used = keys, values, used
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, end = len(key_states), self.used + key_states.shape[-2]
        self.key_buffer[:rows, :, self.used : end] = key_states
        self.value_buffer[:rows, :, self.used : end] = value_states
        self.used = end
        return self.key_buffer[:rows, :, :end], self.value_buffer[:rows, :, :end]

    def get_seq_length(self) -> int:
        return self.used


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A row that joins: how many columns it brings, and where its keys and values are."""

    length: int
    layers: Layers
    """(H, T, D) each; T is at least `length`, the rest belongs to longer rows."""


class AlignedCache:
    """The cache of the rows being decoded."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        """Columns of each row; the rows in use are the first of the buffers."""
        self.cache: Any = Cache(layers=[])
        self._starts_R = torch.empty(0, dtype=torch.long)
        """First column of each row."""

    @property
    def used(self) -> int:
        """Columns in use; every row's newest token is in the last of them."""
        return int(self.cache.layers[0].used) if self.cache.layers else 0

    @property
    def room(self) -> int:
        """Columns that can still be written."""
        return int(self.cache.layers[0].key_buffer.shape[2]) - self.used if self.cache.layers else 0

    @property
    def mask(self) -> torch.Tensor:
        """(R, T + 1): 1 where a column is a row's own, or will be with the next step."""
        columns = torch.arange(self.used + 1, device=self._starts_R.device)
        return (columns >= self._starts_R[: len(self.lengths), None]).long()

    def reserve(self, rows: int, columns: int, room: int, like: Layers | None = None) -> None:
        """Take memory for `rows`, and for `room` columns behind the longest row or `columns`.

        Columns that no row uses any more are dropped.

        Args:
            like: keys and values of each layer, (H, T, D), for their shape, type and device; needed
                where nothing was reserved before.
        """
        if like is None:
            like = [(x.key_buffer[0], x.value_buffer[0]) for x in self.cache.layers]
        width = max([columns, *self.lengths])
        kept, taken = min(width, self.used), len(self.lengths)
        layers: list[Any] = []
        for i, parts in enumerate(like):
            buffers = []
            for part, name in zip(parts, ("key_buffer", "value_buffer"), strict=True):
                buffer = part.new_empty((rows, part.shape[0], width + room, part.shape[2]))
                buffer[:taken, :, : width - kept] = 0  # see `_clean`
                if taken:
                    old = getattr(self.cache.layers[i], name)
                    kept_columns = old[:taken, :, self.used - kept : self.used]
                    buffer[:taken, :, width - kept : width] = kept_columns
                buffers.append(buffer)
            layers.append(_Layer(buffers[0], buffers[1], width))
        self.cache = Cache(layers=layers)
        self._starts_R = torch.zeros(rows, dtype=torch.long, device=like[0][0].device)
        self._start(range(taken))

    def append(self, newcomers: Sequence[Newcomer]) -> None:
        """Put rows behind the others; there must be rows and columns for them."""
        first = len(self.lengths)
        self.lengths += [newcomer.length for newcomer in newcomers]
        self._clean(first, len(self.lengths))
        for row, newcomer in enumerate(newcomers, first):
            if not newcomer.length:
                continue
            columns = slice(self.used - newcomer.length, self.used)
            for layer, (keys, values) in zip(self.cache.layers, newcomer.layers, strict=True):
                layer.key_buffer[row, :, columns] = keys[:, : newcomer.length]
                layer.value_buffer[row, :, columns] = values[:, : newcomer.length]
        self._start(range(first, len(self.lengths)))

    def advance(self) -> None:
        """Count the column that a step has written."""
        self.lengths = [length + 1 for length in self.lengths]

    def arrange(self, sources: Sequence[int]) -> None:
        """Let row i be what row `sources[i]` was; a row may be taken several times, or not."""
        moved = [i for i, source in enumerate(sources) if i != source]
        taken = len(self.lengths)
        self.lengths = [self.lengths[source] for source in sources]
        if not moved:
            return
        self._clean(taken, len(sources))
        device = self._starts_R.device
        to = torch.tensor(moved, device=device)
        of = torch.tensor([sources[i] for i in moved], device=device)
        columns = slice(self.used - max(self.lengths), self.used)
        for layer in self.cache.layers:
            for buffer in (layer.key_buffer, layer.value_buffer):
                buffer[to, :, columns] = buffer[of, :, columns]
        self._start(moved)

    def row(self, index: int) -> Layers:
        """A copy of a row's keys and values, (H, T, D) each."""
        columns = slice(self.used - self.lengths[index], self.used)
        return [
            (keys[index, :, columns].clone(), values[index, :, columns].clone())
            for keys, values in ((x.key_buffer, x.value_buffer) for x in self.cache.layers)
        ]

    def _clean(self, first: int, last: int) -> None:
        """Leave no stale memory in hidden columns: they have weight 0, and 0 x NaN is NaN."""
        for layer in self.cache.layers:
            layer.key_buffer[first:last, :, : self.used] = 0
            layer.value_buffer[first:last, :, : self.used] = 0

    def _start(self, rows: Sequence[int]) -> None:
        """Note where some rows begin."""
        if rows:
            starts = [self.used - self.lengths[row] for row in rows]
            self._starts_R[list(rows)] = torch.tensor(starts, device=self._starts_R.device)
