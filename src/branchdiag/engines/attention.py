"""Attention of a decoding step that reads each shared prefix once, and each key-value head once.

The samples of an arm, the arms of a candidate and the candidates of a spine share a long prefix.
Copied into every row's cache, its keys and values are most of what a step reads from memory, and a
step is bound by that. Here they lie beside the cache once: the scores of all rows on all prefixes
are one batched matrix product, joined with the scores on the row's own tokens before the softmax.
Likewise the heads of a group (grouped-query attention) stand where rows stand, instead of repeating
keys and values for every query head as transformers does where a mask is given.

Takes part in the model's own forward by transformers' attention interface; prompts longer than one
token go to transformers' own function. Knows tensors only.

Dimensions: R rows, H query heads, K key-value heads,
G heads a group, T columns (own tokens), P columns of a prefix, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

NAME = "branchdiag_grouped_sdpa"

SHARING_MODELS = frozenset({"llama", "mistral", "olmo2", "olmo3", "qwen2", "qwen3"})
"""Model types whose attention is a plain softmax, with a sliding window at most."""

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer."""


@dataclass(slots=True)
class StepPrefixes:
    """What `grouped_attention` needs beside the cache in one step; a keyword argument of it.

    Attributes:
        prefixes: keys and values of each prefix, (K, P, D) a layer.
        counts: rows of each prefix.
        order_R: the rows, those of the first prefix first.
        place_R: where a row stands in that order.
        length_R: columns of its prefix that are the row's.
        position_R: position of each row's newest token.
    """

    prefixes: list[Layers]
    counts: list[int]
    order_R: torch.Tensor
    place_R: torch.Tensor
    length_R: torch.Tensor
    position_R: torch.Tensor
    _hidden: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def ranges(self) -> Iterator[tuple[Layers, int, int]]:
        """Each prefix, and which rows in that order are its own."""
        last = 0
        for layers, count in zip(self.prefixes, self.counts, strict=True):
            first, last = last, last + count
            yield layers, first, last

    @property
    def columns(self) -> int:
        """Columns of the longest prefix."""
        return max(layers[0][0].shape[1] for layers in self.prefixes)

    def hidden(self, window: int | None) -> torch.Tensor:
        """(R, P), in order: what a row does not see, as it is not its own or outside the window."""
        if window not in self._hidden:  # once a step for all layers
            column_P = torch.arange(self.columns, device=self.length_R.device)
            hidden_RP = column_P >= self.length_R[self.order_R, None]
            if window is not None:
                hidden_RP |= column_P <= self.position_R[self.order_R, None] - window
            self._hidden[window] = hidden_RP
        return self._hidden[window]


def use_grouped_attention(model: Any) -> None:
    """Let a model that attends by SDPA decode by `grouped_attention`; leave others alone."""
    if model.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def can_share_prefixes(model: Any) -> bool:
    """Whether `prefixes` reaches this model's attention and is all there is to know."""
    return bool(
        model.config._attn_implementation == NAME and model.config.model_type in SHARING_MODELS
    )


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    prefixes: StepPrefixes | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers' `sdpa_attention_forward`: (R, H, T, D) in, (R, T, H, D) out."""
    rows, heads, length, size = query.shape
    if length > 1 or kwargs.get("position_bias") is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    query_RKGD = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    if prefixes is None:
        output_RKGD = torch.nn.functional.scaled_dot_product_attention(
            query_RKGD, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
    else:
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        query_RKGD = query_RKGD * (size**-0.5 if scaling is None else scaling)
        output_RKGD = _attend_with_prefixes(
            query_RKGD, key, value, attention_mask, prefixes, layer, kwargs.get("sliding_window")
        )
    return output_RKGD.reshape(rows, 1, heads, value.shape[-1]), None


def _attend_with_prefixes(
    query_RKGD: torch.Tensor,
    key_RKTD: torch.Tensor,
    value_RKTD: torch.Tensor,
    mask_R11T: torch.Tensor | None,
    prefixes: StepPrefixes,
    layer: int,
    window: int | None,
) -> torch.Tensor:
    """One softmax over a shared prefix and the row's own tokens. Every row has one prefix."""
    own_RKGT = query_RKGD @ key_RKTD.transpose(2, 3)
    if mask_R11T is not None:
        own_RKGT.masked_fill_(~mask_R11T, -torch.inf)
    rows, heads, group, _ = query_RKGD.shape
    # Rows in the order of their prefixes, and heads before them: a prefix is a matrix product.
    query_KRGD = query_RKGD[prefixes.order_R].transpose(0, 1).contiguous()
    score_KRGP = query_KRGD.new_empty(heads, rows, group, prefixes.columns)
    for layers, first, last in prefixes.ranges():
        key_KPD, _ = layers[layer]
        torch.bmm(
            query_KRGD[:, first:last].flatten(1, 2),
            key_KPD.transpose(1, 2),
            out=score_KRGP[:, first:last, :, : key_KPD.shape[1]].flatten(1, 2),
        )
    score_KRGP.masked_fill_(prefixes.hidden(window)[:, None], -torch.inf)
    scores = torch.cat([score_KRGP, own_RKGT[prefixes.order_R].transpose(0, 1)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value_RKTD.dtype)
    columns = prefixes.columns
    part_KRGD = torch.empty_like(query_KRGD)
    for layers, first, last in prefixes.ranges():
        _, value_KPD = layers[layer]
        torch.bmm(
            weights[:, first:last, :, : value_KPD.shape[1]].flatten(1, 2),
            value_KPD,
            out=part_KRGD[:, first:last].flatten(1, 2),
        )
    own_RKGT = weights[..., columns:].transpose(0, 1)[prefixes.place_R]
    return part_KRGD.transpose(0, 1)[prefixes.place_R] + own_RKGT @ value_RKTD
