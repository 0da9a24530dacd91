"""Statistics as functions of how often each problem was drawn: what a cluster bootstrap evaluates.

Problems are drawn whole; a problem drawn twice counts as two clusters, each centred by itself.
Centring inside a problem does not depend on the draw, so no residual is ever computed again and
every
statistic is a function of the multiplicities w (B, P) alone:

- AUROC = w' M w / ((w' n1) (w' n0)), with M the problems x problems matrix of pair wins (ties one
  half), n1 and n0 the problems' numbers of positives and negatives. Only rows of problems with a
  positive and columns of problems with a negative are kept. Where even that is large, the same
  sums come from weighted counts along the sorted scores.
- Average precision needs counts at each threshold, which are linear in w as well.
- Ratios of sums (means, slopes, concordance): (w' a) / (w' b).

All counts are multiples of one half below 2^53, so these agree with laying out the copies row by
row up to one final division (the tests hold both to 1e-12). Temporary arrays are bounded. Knows
nothing of drawing, intervals or scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray

CELLS = 2**21
"""Largest number of float64 cells in one temporary array (16 MiB)."""

WeightedStatistic = Callable[[FloatArray], FloatArray]
"""From multiplicities (B, P) to values (B,), NaN where there is none."""


def weighted_auroc(
    scores: FloatArray, positive: BoolArray, codes: IntArray, *, cells: int = CELLS
) -> WeightedStatistic:
    """AUROC as a function of multiplicities; the pair-matrix form where it fits into `cells`.

    Args:
        scores: (C,) finite and already centred; larger means more positive.
        positive: (C,) booleans.
        codes: (C,) cluster of each row, 0 ... P - 1.
        cells: above this many positive/negative pairs the sorted form is used instead.
    """
    n_pairs = int(positive.sum()) * int((~positive).sum())
    if n_pairs == 0:
        return _undefined
    if n_pairs > cells:
        return _sorted_statistics(scores, positive, codes, cells)[0]
    return _pair_matrix_auroc(scores, positive, codes)


def weighted_average_precision(
    scores: FloatArray, positive: BoolArray, codes: IntArray, *, cells: int = CELLS
) -> WeightedStatistic:
    """Average precision as a function of multiplicities; arguments as `weighted_auroc`.

    NaN where a resample lacks a class, as for the AUROC, so both drop the same resamples.
    """
    n_pairs = int(positive.sum()) * int((~positive).sum())
    if n_pairs == 0:
        return _undefined
    if n_pairs > cells:
        return _sorted_statistics(scores, positive, codes, cells)[1]
    return _threshold_average_precision(scores, positive, codes, cells)


def weighted_ratio(numerator: FloatArray, denominator: FloatArray) -> WeightedStatistic:
    """Ratio of weighted sums; NaN where the denominator's is 0.

    Args:
        numerator: (P,) or (P, ...) sums of each cluster.
        denominator: the same shape, not negative.
    """

    def statistic(weights: FloatArray) -> FloatArray:
        return _divide(weights @ numerator, weights @ denominator)

    return statistic


def _undefined(weights: FloatArray) -> FloatArray:
    """One class only: no resample has a value."""
    return np.full(weights.shape[0], np.nan)


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is 0."""
    quotient = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def _sum_rows(values: FloatArray, codes: IntArray) -> tuple[FloatArray, IntArray]:
    """Rows of one cluster added up: (present clusters, columns), and which clusters those are."""
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    return np.add.reduceat(values[order], starts, axis=0), present


def _in_blocks(statistic: WeightedStatistic, width: int, cells: int) -> WeightedStatistic:
    """The same statistic on so few resamples at a time that (resamples x width) <= cells."""
    step = max(1, cells // max(1, width))

    def blocked(weights: FloatArray) -> FloatArray:
        starts = range(0, weights.shape[0], step)
        return np.concatenate([statistic(weights[i : i + step]) for i in starts])

    return blocked


def _pair_matrix_auroc(
    scores: FloatArray, positive: BoolArray, codes: IntArray
) -> WeightedStatistic:
    mine, other = scores[positive][:, np.newaxis], scores[~positive][np.newaxis, :]
    wins = (mine > other) + 0.5 * (mine == other)
    by_row, rows = _sum_rows(wins, codes[positive])
    by_column, columns = _sum_rows(by_row.T, codes[~positive])
    n_positive = np.bincount(codes[positive])[rows].astype(np.float64)
    n_negative = np.bincount(codes[~positive])[columns].astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        w_positive, w_negative = weights[:, rows], weights[:, columns]
        won = np.einsum("br,br->b", w_negative @ by_column, w_positive)
        return _divide(won, (w_positive @ n_positive) * (w_negative @ n_negative))

    return statistic


def _threshold_average_precision(
    scores: FloatArray, positive: BoolArray, codes: IntArray, cells: int
) -> WeightedStatistic:
    """Counts at the thresholds that hold a positive: the others add nothing to the sum."""
    thresholds = np.unique(scores[positive])[::-1]
    hits, rows = _sum_rows(
        (scores[positive][:, np.newaxis] == thresholds).astype(np.float64), codes[positive]
    )
    above, columns = _sum_rows(
        (scores[~positive][:, np.newaxis] >= thresholds).astype(np.float64), codes[~positive]
    )
    n_negative = np.bincount(codes[~positive])[columns].astype(np.float64)

    def statistic(weights: FloatArray) -> FloatArray:
        w_negative = weights[:, columns]
        hit = weights[:, rows] @ hits
        found = np.cumsum(hit, axis=1)
        value = _average_precision(hit, found, w_negative @ above)
        value[w_negative @ n_negative == 0] = np.nan
        return value

    return _in_blocks(statistic, thresholds.size, cells)


def _sorted_statistics(
    scores: FloatArray, positive: BoolArray, codes: IntArray, cells: int
) -> tuple[WeightedStatistic, WeightedStatistic]:
    """AUROC and average precision from cumulative weights down the sorted scores: O(C) a
    resample."""
    order = np.argsort(-scores, kind="stable")
    is_positive, ordered_codes = positive[order], codes[order]
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)  # last row of each tie

    def counts(weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        drawn = weights[:, ordered_codes]
        seen = np.cumsum(drawn, axis=1)[:, ends]
        drawn *= is_positive
        found = np.cumsum(drawn, axis=1)[:, ends]
        return found, seen - found

    def area(weights: FloatArray) -> FloatArray:
        found, false = counts(weights)
        hit, miss = (np.diff(total, axis=1, prepend=0.0) for total in (found, false))
        n_positive, n_negative = found[:, -1], false[:, -1]
        below = n_negative[:, np.newaxis] - false + 0.5 * miss
        return _divide(np.einsum("bg,bg->b", hit, below), n_positive * n_negative)

    def precision(weights: FloatArray) -> FloatArray:
        found, false = counts(weights)
        value = _average_precision(np.diff(found, axis=1, prepend=0.0), found, false)
        value[false[:, -1] == 0] = np.nan
        return value

    width = scores.size
    return _in_blocks(area, width, cells), _in_blocks(precision, width, cells)


def _average_precision(hit: FloatArray, found: FloatArray, false: FloatArray) -> FloatArray:
    """From hits and cumulative hits and false alarms (B, thresholds); NaN without a hit."""
    precision = np.divide(found, found + false, out=np.zeros_like(found), where=found > 0)
    return _divide(np.einsum("bg,bg->b", hit, precision), found[:, -1])
