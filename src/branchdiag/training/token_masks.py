"""Which part of a rollout is trained on: the first or the last fraction of its valid tokens.

Reads and writes boolean masks [B, T]; knows no objective. The 30% experiments of arXiv 2606.22600
(figure 1a: a prefix does as well as the whole rollout, a suffix hardly teaches).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from branchdiag.errors import UsageError


def keep_fraction(
    valid_BT: Tensor, *, prefix_fraction: float | None = None, suffix_fraction: float | None = None
) -> Tensor:
    """The first or last ceil(fraction * L) of each row's L valid tokens, at least one.

    Positions count valid tokens alone, so holes in the mask do not matter; a row with no valid
    token keeps none. Without a fraction the mask itself comes back. Weights are made from the whole
    mask: a token's place in its rollout is the same whether or not the rest is trained on.

    Args:
        valid_BT: boolean mask [B, T].
        prefix_fraction, suffix_fraction: in (0, 1], one of the two at most.

    Raises:
        UsageError: both fractions, or one outside (0, 1].
    """
    if prefix_fraction is not None and suffix_fraction is not None:
        raise UsageError("prefix_fraction and suffix_fraction exclude each other", fix="give one")
    fraction = prefix_fraction if suffix_fraction is None else suffix_fraction
    if fraction is None:
        return valid_BT
    if not 0 < fraction <= 1:
        name = "prefix_fraction" if suffix_fraction is None else "suffix_fraction"
        raise UsageError(f"{name} must lie in (0, 1]", where=f"{name}={fraction}")
    place_BT = valid_BT.cumsum(-1)  # one-based among valid tokens
    lengths_B = place_BT[:, -1] if valid_BT.shape[1] else valid_BT.sum(-1)
    # 0.28 * 25 is a little more than 7 in floating point, and must not become 8.
    kept = [max(1, math.ceil(fraction * length - 1e-9)) for length in lengths_B.tolist()]
    kept_B1 = torch.tensor(kept, dtype=place_BT.dtype, device=valid_BT.device)[:, None]
    if suffix_fraction is not None:
        return valid_BT & (place_BT > lengths_B[:, None] - kept_B1)
    return valid_BT & (place_BT <= kept_B1)
