"""Attention of a decoding step without copying keys and values for every query head.

In grouped-query attention several query heads share a key-value head. transformers repeats the
cache for each of them where a mask is given, at every step and layer: the largest cost of a step
with long prompts. One query position makes the copy needless: the heads of a group can stand where
query positions stand, for they see the same keys under the same mask. Everything else goes to
transformers' own function. Knows tensors only.

Dimensions: R rows, H query heads, K key-value heads, G heads a group, T columns, D head size.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "branchdiag_grouped_sdpa"


def use_grouped_attention(model: Any) -> None:
    """Let a model that attends by SDPA decode by `grouped_attention`; leave others alone."""
    if model.config._attn_implementation != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
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
    output_RKGD = torch.nn.functional.scaled_dot_product_attention(
        query_RKGD, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output_RKGD.reshape(rows, 1, heads, value.shape[-1]), None
