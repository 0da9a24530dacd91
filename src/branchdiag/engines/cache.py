"""A key-value cache whose rows end at one column, with rows that come and go.

Every row's tokens are right-aligned: the newest token of each row lies in the same column, and an
attention mask hides what is left of its first. So a decoding step writes one column, and a sliding
window measured in columns is right for every row. Memory is taken ahead of the steps: growing by
concatenation, as transformers' dynamic cache does, copies everything at every step (80% of the
time of a step of a small model on a CPU). Sliding layers keep all columns; the mask that the model
makes from its configuration narrows them.

Knows tensors only: no tokens, no requests.

Dimensions: R rows, H key-value heads, T columns, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, (R, H, T, D)."""


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer: a view of the columns in use of a buffer that is longer."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.key_buffer, self.value_buffer, self.used = keys, values, used
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.used + key_states.shape[-2]
        self.key_buffer[:, :, self.used : end] = key_states
        self.value_buffer[:, :, self.used : end] = value_states
        self.used = end
        return self.key_buffer[:, :, :end], self.value_buffer[:, :, :end]

    def get_seq_length(self) -> int:
        return self.used


@dataclass(frozen=True, slots=True)
class Newcomers:
    """Rows that join: how many, and the keys and values of the prefix that they all start from."""

    count: int
    length: int
    layers: Layers
    """(H, T, D) each; T is at least `length`, the rest belongs to longer prefixes."""


class AlignedCache:
    """The cache of the rows being decoded."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.cache: Any = None
        self.mask_RT: torch.Tensor = torch.empty(0, 0, dtype=torch.long)

    @property
    def used(self) -> int:
        """Columns in use; every row's newest token is in the last of them."""
        return int(self.cache.layers[0].used) if self.cache is not None else 0

    @property
    def room(self) -> int:
        """Columns that can still be written before a rebuild."""
        if self.cache is None:
            return 0
        return int(self.cache.layers[0].key_buffer.shape[-2]) - self.used

    def rebuild(self, keep: list[int], newcomers: list[Newcomers], room: int) -> None:
        """Keep some rows, in this order, put the newcomers behind them, and take `room` columns.

        Columns that no kept row uses any more are dropped.
        """
        lengths = [self.lengths[row] for row in keep]
        for group in newcomers:
            lengths.extend([group.length] * group.count)
        width = max(lengths)
        old = self.cache.layers if self.cache is not None else []
        layers: list[Any] = []
        n_layers = len(old) or len(newcomers[0].layers)
        for layer in range(n_layers):
            buffers = []
            for part, name in enumerate(("key_buffer", "value_buffer")):
                before = getattr(old[layer], name) if old else None
                like = before if before is not None else newcomers[0].layers[layer][part]
                shape = (len(lengths), like.shape[-3], width + room, like.shape[-1])
                # Hidden columns hold zeros or old keys, never stale memory: they have weight 0,
                # and 0 x NaN is NaN. The room is written before it is read.
                buffer = like.new_empty(shape)
                if keep and before is not None:
                    columns = min(width, self.used)
                    buffer[: len(keep), :, : width - columns] = 0
                    kept = before[:, :, self.used - columns : self.used]
                    index = torch.tensor(keep, device=kept.device)
                    buffer[: len(keep), :, width - columns : width] = kept.index_select(0, index)
                row = len(keep)
                for group in newcomers:
                    prefix = group.layers[layer][part][:, : group.length]
                    buffer[row : row + group.count, :, : width - group.length] = 0
                    buffer[row : row + group.count, :, width - group.length : width] = prefix
                    row += group.count
                buffers.append(buffer)
            layers.append(_Layer(buffers[0], buffers[1], width))
        device = layers[0].key_buffer.device
        starts_R1 = torch.tensor([width - length for length in lengths], device=device)[:, None]
        self.mask_RT = (torch.arange(width + room, device=device)[None] >= starts_R1).long()
        self.cache, self.lengths = Cache(layers=layers), lengths
