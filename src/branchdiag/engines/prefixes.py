"""Keys and values of the prompts' prefixes: computed once each, copied into rows or shared by them.

Reads a causal language model and token ids; keeps tensors; writes nothing. Knows nothing of
samples: `decode` says which prefixes are needed, and until when.

Dimensions: F prefixes, K key-value heads, P columns of a prefix, D head size, R rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from branchdiag.engines.attention import Layers, StepPrefixes
from branchdiag.engines.plan import Prefix

PREFILL_TOKENS = 8192
"""Tokens of one prefill pass, padding included (one longer prefix is still one pass)."""


class Prefixes:
    """The prefixes of a group of requests.

    Args:
        model: a causal language model in evaluation mode.
        longest: the prefixes, by their numbers.
        stacked: whether rows share them where they lie (`step`); else rows take copies.
    """

    def __init__(self, model: Any, longest: Sequence[Prefix], *, stacked: bool) -> None:
        self.model = model
        self.longest = longest
        self.stacked = stacked
        self.held: dict[int, Layers] = {}
        """Keys and values by number, (K, P, D) a layer."""

    def compute(self, numbers: Collection[int]) -> None:
        """Have these prefixes, in passes of about `PREFILL_TOKENS`."""
        todo = sorted(set(numbers) - self.held.keys(), key=lambda i: (len(self.longest[i]), i))
        while todo:
            width = max(1, len(self.longest[todo[-1]]))
            now = todo[-max(1, PREFILL_TOKENS // width) :]
            del todo[-len(now) :]
            # Padded on the right: a causal model's prefix does not see what follows it.
            ids = [[*self.longest[i], *[0] * (width - len(self.longest[i]))] for i in now]
            cache: Any = DynamicCache()
            self.model(
                input_ids=torch.tensor(ids, device=self.model.device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            for row, number in enumerate(now):
                length = len(self.longest[number])
                self.held[number] = [
                    (layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone())
                    for layer in cache.layers
                ]

    def keep(self, numbers: Collection[int]) -> None:
        """Let go of all others."""
        for number in self.held.keys() - set(numbers):
            del self.held[number]

    def step(
        self, numbers: Sequence[int], lengths: Sequence[int], position_R: torch.Tensor
    ) -> StepPrefixes:
        """What attention needs of the prefixes in one step.

        Args:
            numbers: each row's prefix.
            lengths: how much of it is the row's.
            position_R: position of each row's newest token.
        """
        present = sorted(set(numbers))
        order_R = np.argsort(np.array(numbers), kind="stable")
        place_R = np.argsort(order_R)
        device = position_R.device
        return StepPrefixes(
            [self.held[number] for number in present],
            [numbers.count(number) for number in present],
            order_R=torch.from_numpy(order_R).to(device),
            place_R=torch.from_numpy(place_R).to(device),
            length_R=torch.tensor(lengths, device=device),
            position_R=position_R,
        )
