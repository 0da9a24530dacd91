"""Attention of a decoding step that reads each shared prefix once, and each key-value head once.

The samples of an arm, the arms of a candidate and the candidates of a spine share a long prefix.
Copied into every row's cache, its keys and values are most of what a step reads from memory, and a
step is bound by that. Here they lie beside the cache once: the scores of all rows on a prefix are
one matrix product, joined with the scores on the row's own tokens before the softmax. Likewise the
heads of a group (grouped-query attention) stand where rows stand, instead of repeating keys and
values for every query head as transformers does where a mask is given.

Takes part in the model's own forward by transformers' attention interface; prompts longer than one
token go to transformers' own function. Knows tensors only.

Dimensions: R rows, N rows of one prefix, H query heads, K key-value heads, G heads a group,
T columns (own tokens), P columns of a prefix, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

NAME = "branchdiag_grouped_sdpa"

SHARING_MODELS = frozenset({"llama", "mistral", "olmo2", "olmo3", "qwen2", "qwen3"})
"""Model types whose attention is a plain softmax, with a sliding window at most."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A prefix and the rows that start with it, or with a part of it.

    Attributes:
        rows: (N,) indices into the batch.
        layers: keys and values of each layer, (K, P, D).
        lengths: (N,) columns of the prefix that are the row's.
    """

    rows: torch.Tensor
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    lengths: torch.Tensor

    def visible(self, positions: torch.Tensor, window: int | None) -> torch.Tensor:
        """(N, P): each row's own part, within a sliding window where there is one."""
        columns_P = torch.arange(self.layers[0][0].shape[1], device=self.lengths.device)
        visible_NP = columns_P < self.lengths[:, None]
        if window is not None:
            visible_NP &= columns_P > positions[self.rows][:, None] - window
        return visible_NP


@dataclass(frozen=True, slots=True)
class StepPrefixes:
    """What `grouped_attention` needs beside the cache in one step; a keyword argument of it."""

    shared: list[SharedPrefix]
    positions: torch.Tensor
    """(R,) position of each row's newest token."""


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
        own_RKGT = own_RKGT.masked_fill(~mask_R11T, -torch.inf)
    output_RKGD = torch.empty_like(query_RKGD)
    for prefix in prefixes.shared:
        key_KPD, value_KPD = prefix.layers[layer]
        query_KND = query_RKGD[prefix.rows].transpose(0, 1).flatten(1, 2)  # N stands for N x G
        score_KNP = query_KND @ key_KPD.transpose(1, 2)
        score_NKGP = _by_rows(score_KNP, len(prefix.rows))
        hidden_NP = ~prefix.visible(prefixes.positions, window)
        score_NKGP = score_NKGP.masked_fill(hidden_NP[:, None, None], -torch.inf)
        scores = torch.cat([score_NKGP, own_RKGT[prefix.rows]], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value_RKTD.dtype)
        columns = key_KPD.shape[1]
        own_RKGT[prefix.rows] = weights[..., columns:]
        part_KND = weights[..., :columns].transpose(0, 1).flatten(1, 2) @ value_KPD
        output_RKGD[prefix.rows] = _by_rows(part_KND, len(prefix.rows))
    return output_RKGD + own_RKGT @ value_RKTD


def _by_rows(stacked: torch.Tensor, rows: int) -> torch.Tensor:
    """(K, N x G, X) -> (N, K, G, X)."""
    heads, stacked_rows, width = stacked.shape
    # Not -1: the prefix of a prompt of one token is empty, and says nothing of the other sizes.
    return stacked.view(heads, rows, stacked_rows // rows, width).transpose(0, 1)
