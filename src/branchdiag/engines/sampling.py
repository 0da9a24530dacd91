"""The draw of a token: a function of the logits and of (request seed, step), nothing else.

Reads logits, writes token ids; holds no state and no generator. The uniform number of a draw is a
hash of the request's seed and the step (SplitMix64's finaliser, Steele et al. 2014, as a
counter-based generator), so a row's draws depend neither on the rows beside it nor on the device,
and a batch that is run again draws the same. Temperature, then top-k, then the nucleus (Holtzman
et al. 2020: the smallest set of most likely tokens whose mass reaches top_p, the crossing token
included), then the inverse of the cumulative distribution in the order of token ids: rounding
moves a boundary by a hair but never reorders tokens.

Dimensions: R rows, S samples (several may be drawn from one row), V vocabulary, K most likely
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0xD1B54A32D192ED03)

LIKELIEST = (32, 512)
"""Most likely tokens looked at before a row's whole vocabulary is sorted. Nearly every nucleus is
smaller, and sorting 1,000 numbers costs a CPU ten times what finding the largest 32 does."""


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64 bits in which every bit depends on every bit."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


def uniforms(seeds: npt.ArrayLike, steps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), one for each (seed, step); 53 random bits each.

    The seed is mixed before the step is added, so that neighbouring seeds do not walk through one
    sequence at a distance.
    """
    with np.errstate(over="ignore"):
        seed = _mix(np.asarray(seeds, dtype=np.uint64) + _GOLDEN)
        step = np.asarray(steps, dtype=np.uint64) * _STEP
        bits = _mix(_mix(seed + step + _GOLDEN) ^ seed)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Filters:
    """Sampling parameters of R rows: tensors of shape (R,) on the logits' device."""

    temperature: torch.Tensor
    top_p: torch.Tensor
    top_k: torch.Tensor
    """-1 is off."""

    @staticmethod
    def of(
        temperatures: list[float], top_ps: list[float], top_ks: list[int], device: torch.device
    ) -> Filters:
        """From one value a row."""
        import torch

        return Filters(
            torch.tensor(temperatures, dtype=torch.float32, device=device),
            torch.tensor(top_ps, dtype=torch.float64, device=device),
            torch.tensor(top_ks, dtype=torch.long, device=device),
        )

    def rows(self, index: torch.Tensor) -> Filters:
        """Those of some rows."""
        return Filters(self.temperature[index], self.top_p[index], self.top_k[index])


def draw(
    logits_RV: torch.Tensor,
    filters: Filters,
    uniform_S: torch.Tensor,
    row_S: torch.Tensor | None = None,
) -> torch.Tensor:
    """One token id a sample. Temperature 0 takes the most likely token (the first of equals).

    Args:
        logits_RV: float of any precision; computed with in float32.
        filters: the rows' sampling parameters.
        uniform_S: float64 in [0, 1), on the same device.
        row_S: the row that each sample is drawn from; None: one sample a row, in order.

    Returns:
        Token ids of shape (S,), int64. Rows whose logits are not finite give -1.
    """
    import torch

    logits_RV = logits_RV.float()
    if row_S is None:
        row_S = torch.arange(len(logits_RV), device=logits_RV.device)
    greedy_R = filters.temperature == 0
    best_R = logits_RV.argmax(dim=-1)
    broken_R = ~torch.isfinite(logits_RV.gather(1, best_R[:, None]))[:, 0]
    certain_R = best_R.masked_fill(broken_R, -1)
    if bool(greedy_R.all()):
        return certain_R[row_S]
    warmth_R1 = filters.temperature.masked_fill(greedy_R, 1.0)[:, None]
    probability_RV = torch.softmax(logits_RV / warmth_R1, dim=-1)
    # A nucleus of one token needs no draw; of a sharp model most are.
    alone_R = probability_RV.gather(1, best_R[:, None])[:, 0] >= filters.top_p
    token_S = certain_R[row_S]
    open_R = ~(greedy_R | broken_R | alone_R)
    vocabulary = logits_RV.shape[-1]
    for k in (*LIKELIEST, vocabulary):
        rows = open_R.nonzero()[:, 0]
        if not len(rows):
            break
        samples = open_R[row_S].nonzero()[:, 0]
        place_R = torch.zeros_like(best_R)
        place_R[rows] = torch.arange(len(rows), device=rows.device)
        token_S[samples], settled = _draw_among_likeliest(
            probability_RV[rows],
            filters.rows(rows),
            uniform_S[samples],
            place_R[row_S[samples]],
            min(k, vocabulary),
        )
        open_R[rows] = ~settled
    return token_S


def _draw_among_likeliest(
    probability_RV: torch.Tensor,
    filters: Filters,
    uniform_S: torch.Tensor,
    row_S: torch.Tensor,
    k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw from each row's filtered set; also whether its k likeliest settle that set, (R,)."""
    import torch

    vocabulary = probability_RV.shape[-1]
    whole = k == vocabulary
    if whole:  # stable: of equals, the smaller id comes first
        sorted_RK, id_RK = torch.sort(probability_RV, dim=-1, descending=True, stable=True)
    else:
        sorted_RK, id_RK = torch.topk(probability_RV, k, dim=-1)
    sorted_RK = sorted_RK.double()
    before_RK = sorted_RK.cumsum(-1) - sorted_RK
    rank_K = torch.arange(k, device=id_RK.device)
    limit_R1 = torch.where(filters.top_k > 0, filters.top_k, vocabulary)[:, None]
    # The nucleus is one of what top-k leaves, renormalised.
    left_R1 = torch.where(
        limit_R1 <= k, (sorted_RK * (rank_K < limit_R1)).sum(-1, keepdim=True), 1.0
    )
    keep_RK = (rank_K < limit_R1) & (before_RK < filters.top_p[:, None] * left_R1)
    by_id_RK, order_RK = torch.sort(id_RK, dim=-1)
    mass_RK = (sorted_RK * keep_RK).gather(1, order_RK)
    token_S = by_id_RK[row_S].gather(1, _invert(mass_RK, uniform_S, row_S)[:, None])[:, 0]
    if whole:
        return token_S, torch.ones_like(limit_R1[:, 0], dtype=torch.bool)
    # The set is settled where it ends before the k likeliest do, its last token having no equal
    # after it; a top-k beyond k leaves the mass to be shared unknown.
    size_R1 = keep_RK.sum(-1, keepdim=True)
    last_R1 = sorted_RK.gather(1, size_R1 - 1)
    next_R1 = sorted_RK.gather(1, size_R1.clamp(max=k - 1))
    known_R1 = (limit_R1 <= k) | (filters.top_k[:, None] <= 0)
    return token_S, ((last_R1 > next_R1) & known_R1)[:, 0]


def _invert(mass_RK: torch.Tensor, uniform_S: torch.Tensor, row_S: torch.Tensor) -> torch.Tensor:
    """The first column at which a row's cumulative mass exceeds the sample's share of all of it."""
    import torch

    cumulative_RK = mass_RK.cumsum(-1)
    total_R1 = cumulative_RK[:, -1:]
    # Rounding may bring the target to the total itself; the last column with mass is meant then.
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))
    target_S1 = torch.minimum(uniform_S[:, None] * total_R1[row_S], below_R1[row_S])
    return torch.searchsorted(cumulative_RK[row_S], target_S1, right=True)[:, 0]
