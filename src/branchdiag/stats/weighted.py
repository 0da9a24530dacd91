"""Statistics as functions of how often each problem was drawn: what a cluster bootstrap evaluates.

Problems are drawn whole; a problem drawn twice counts as two clusters, each centred by itself.
Centring inside a problem does not depend on the draw, so no residual is ever computed again and
every statistic is a function of the multiplicities w (B, P) alone:

- AUROC = w' M w / ((w' n1) (w' n0)), with M the problems x problems matrix of pair wins (ties one
  half), n1 and n0 the problems' numbers of positives and negatives. Only rows of problems with a
  positive and columns of problems with a negative are kept.
- Counts at a threshold are linear in w. From those at the scores of positives come the average
  precision and, where the pairs are too many for M, the same AUROC: one addition a candidate.
- Ratios of sums (means, slopes, concordance): (w' a) / (w' b).

All counts are multiples of one half below 2^53, so these agree with laying out the copies row by
row up to one final division (the tests hold both to 1e-12). Temporary arrays are bounded. Knows
nothing of drawing, intervals or scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        codes: (C,) cluster of each row, 0 ... P - 1, each at least once.
        cells: above this many positive/negative pairs the threshold form is used instead.
    """
    n_pairs = int(positive.sum()) * int((~positive).sum())
    if n_pairs == 0:
        return _undefined
    if n_pairs <= cells:
        return _pair_matrix_auroc(scores, positive, codes)
    counts = _Thresholds(scores, positive, codes)

    def statistic(weights: FloatArray) -> FloatArray:
        hit, false, tied, n_negative = counts.drawn(weights)
        won = np.einsum("kb,kb->b", hit, n_negative - false + 0.5 * tied)
        return _divide(won, hit.sum(axis=0) * n_negative)

    return _in_blocks(statistic, counts.width, cells)


def weighted_average_precision(
    scores: FloatArray, positive: BoolArray, codes: IntArray, *, cells: int = CELLS
) -> WeightedStatistic:
    """Average precision as a function of multiplicities; arguments as `weighted_auroc`.

    NaN where a resample lacks a class, as for the AUROC, so both drop the same resamples.
    """
    if not positive.any() or positive.all():
        return _undefined
    counts = _Thresholds(scores, positive, codes)

    def statistic(weights: FloatArray) -> FloatArray:
        hit, false, _, n_negative = counts.drawn(weights)
        found = np.cumsum(hit, axis=0)
        precision = np.divide(found, found + false, out=np.zeros_like(hit), where=found > 0)
        value = _divide(np.einsum("kb,kb->b", hit, precision), found[-1])
        value[n_negative == 0] = np.nan
        return value

    return _in_blocks(statistic, counts.width, cells)


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


class _Thresholds:
    """Counts at the k distinct scores of positives, from the highest down, as sparse (k, P).

    Only these thresholds matter: between them recall does not change and no pair is won. A row of
    the data is one entry, so a resample costs C additions whatever P is.
    """

    def __init__(self, scores: FloatArray, positive: BoolArray, codes: IntArray) -> None:
        thresholds, hit = np.unique(-scores[positive], return_inverse=True)
        negative, negative_codes = -scores[~positive], codes[~positive]
        # The first threshold, going down, at which a negative is a false alarm; k if at none.
        reached = np.searchsorted(thresholds, negative, side="left")
        alarm = reached < thresholds.size
        tied = np.isin(negative, thresholds)
        shape = (thresholds.size, int(codes.max()) + 1)
        self.hits = _counts(hit.reshape(-1), codes[positive], shape)
        self.alarms = _counts(reached[alarm], negative_codes[alarm], shape)
        self.ties = _counts(reached[tied], negative_codes[tied], shape)
        self.n_negative = np.bincount(negative_codes, minlength=shape[1]).astype(np.float64)
        self.width = max(shape)

    def drawn(self, weights: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Hits at, false alarms from, and ties with each threshold (k, b); negatives (b,)."""
        by_cluster = np.ascontiguousarray(weights.T)
        alarms: FloatArray = self.alarms @ by_cluster
        np.cumsum(alarms, axis=0, out=alarms)
        return self.hits @ by_cluster, alarms, self.ties @ by_cluster, weights @ self.n_negative


def _counts(rows: IntArray, columns: IntArray, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(rows.size), (rows, columns)), shape=shape)
