"""How well a score ranks positives above negatives: AUROC, stratified AUROC, average precision.

Point values only, on arrays of candidates; intervals are in `bootstrap`. Knows neither the scores'
names nor their signs: larger means more positive here. Implements the ranking statistics of arXiv
2605.21606, section 3.2 and appendix B: Mann-Whitney with mid-ranks on scores centred in each
problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray

NOISE = 1e-12
"""Differences below this share of a score's largest magnitude are rounding, not information."""


def cluster_codes(clusters: npt.ArrayLike) -> tuple[IntArray, int]:
    """Clusters (C,) of any type as integers 0 ... P - 1 in sorted order, and P."""
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    return codes.astype(np.int64).reshape(-1), int(names.size)


def mid_ranks(values: npt.ArrayLike) -> FloatArray:
    """Ranks from 1, tied values sharing the mean of their ranks (multiples of one half)."""
    _, group, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    ranks: FloatArray = (last - (counts - 1) / 2.0)[group.reshape(-1)]
    return ranks


def auroc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float | None:
    """Chance that a positive scores above a negative, ties counting one half.

    Mann-Whitney's U over mid-ranks, divided by the number of pairs. Ranks are multiples of one
    half, so the sum is exact.

    Args:
        scores: (C,) finite; larger means more positive.
        positive: (C,) booleans.

    Returns:
        A value in [0, 1], or None when a class is empty.

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    values, is_positive = _checked(scores, positive)
    n_positive = int(is_positive.sum())
    n_negative = is_positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    rank_sum = float(mid_ranks(values)[is_positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative)


def centre_within(scores: npt.ArrayLike, clusters: npt.ArrayLike) -> FloatArray:
    """Scores less their cluster's mean, with ties that rounding would break put together again.

    Subtracting a mean leaves noise in the last digits: two candidates with equal residuals come
    out 1e-17 apart, and a ranking would count a win where there is a tie. Residuals closer than
    1e-12 of the largest magnitude among the scores become one value, a multiple of that grain.
    They are joined by their gaps, not by rounding alone, since rounding separates neighbours that
    lie on either side of a half. A cluster of one gives exactly 0.

    Args:
        scores: (C,) finite.
        clusters: (C,) any type.

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    values = _finite(scores)
    codes, n_clusters = cluster_codes(clusters)
    if codes.shape != values.shape:
        raise ValueError(f"scores {values.shape} and clusters {codes.shape} differ in shape")
    if values.size == 0:
        return values
    means = np.bincount(codes, values, n_clusters) / np.bincount(codes, minlength=n_clusters)
    residuals = values - means[codes]
    grain = NOISE * float(np.abs(values).max())
    if grain == 0.0:
        return np.zeros_like(values)
    order = np.argsort(residuals, kind="stable")
    ordered = residuals[order]
    starts = np.concatenate([[True], np.diff(ordered) > grain])
    first = ordered[starts][np.cumsum(starts) - 1]
    centred = np.empty_like(values)
    centred[order] = np.round(first / grain) * grain + 0.0  # no negative zero
    return centred


def centred_ranks(scores_BC: FloatArray, codes: IntArray) -> FloatArray:
    """`mid_ranks` of `centre_within` of each row, (B, C): thousands of redrawn scores at once.

    Rows are ranked where they lie sorted, so that each is sorted once and none in a loop.

    Args:
        scores_BC: finite.
        codes: (C,) cluster of each column, 0 ... P - 1, each at least once.
    """
    n_rows, n_columns = scores_BC.shape
    if scores_BC.size == 0:
        return np.zeros(scores_BC.shape)
    sizes = np.bincount(codes)
    cells = codes + sizes.size * np.arange(n_rows)[:, np.newaxis]
    sums = np.bincount(cells.reshape(-1), scores_BC.reshape(-1), n_rows * sizes.size)
    residuals = scores_BC - (sums.reshape(n_rows, -1) / sizes)[:, codes]
    grain = NOISE * np.abs(scores_BC).max(axis=1, keepdims=True)
    order = np.argsort(residuals, axis=1)
    ordered = np.take_along_axis(residuals, order, axis=1)
    starts = np.ones(ordered.shape, dtype=np.bool_)
    np.greater(np.diff(ordered, axis=1), grain, out=starts[:, 1:])
    first = ordered[starts][np.cumsum(starts.reshape(-1)) - 1].reshape(ordered.shape)
    grains = np.round(np.divide(first, grain, out=np.zeros_like(first), where=grain > 0))
    np.not_equal(grains[:, 1:], grains[:, :-1], out=starts[:, 1:])
    group = np.cumsum(starts.reshape(-1)) - 1
    counts = np.bincount(group)
    last = (np.cumsum(counts) - (counts - 1) / 2.0)[group].reshape(ordered.shape)
    ranks = np.empty_like(ordered)
    np.put_along_axis(ranks, order, last - n_columns * np.arange(n_rows)[:, np.newaxis], axis=1)
    return ranks


@dataclass(frozen=True)
class Concordance:
    """The stratified AUROC, or why there is none, and what it stands on.

    n_pairs: positive/negative pairs inside problems. n_problems_mixed: problems that hold both.
    """

    value: float | None
    n_pairs: int
    n_problems_mixed: int
    reason: str | None = None


def stratified_auroc(
    scores: npt.ArrayLike, positive: npt.ArrayLike, clusters: npt.ArrayLike
) -> Concordance:
    """Share of positive/negative pairs inside a problem in which the positive scores higher.

    The AUROC of centred scores still compares residuals of one problem with those of another;
    this one never does. Ties count one half; each pair, not each problem, weighs the same.

    Args:
        scores: (C,) finite, centred or not (a shift of a cluster changes nothing but rounding).
        positive: (C,) booleans.
        clusters: (C,) any type.

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    wins, pairs = concordance_by_cluster(scores, positive, clusters)
    n_pairs = int(pairs.sum())
    if n_pairs == 0:
        return Concordance(None, 0, 0, "no problem holds both a positive and a negative candidate")
    return Concordance(float(wins.sum()) / n_pairs, n_pairs, int((pairs > 0).sum()))


def concordance_by_cluster(
    scores: npt.ArrayLike, positive: npt.ArrayLike, clusters: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Wins and pairs (P,) of each cluster: its own Mann-Whitney U and its number of pairs."""
    values, is_positive = _checked(scores, positive)
    codes, n_clusters = cluster_codes(clusters)
    if codes.shape != values.shape:
        raise ValueError(f"scores {values.shape} and clusters {codes.shape} differ in shape")
    n_positive = np.bincount(codes[is_positive], minlength=n_clusters).astype(np.float64)
    sizes = np.bincount(codes, minlength=n_clusters)
    n_negative = sizes - n_positive
    # Dense ranks of all scores made distinct between clusters: one ranking serves every cluster.
    _, dense = np.unique(values, return_inverse=True)
    ranks = mid_ranks(codes * (values.size + 1) + dense.reshape(-1))
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    own_ranks = ranks - before[codes]
    rank_sums = np.bincount(codes[is_positive], own_ranks[is_positive], n_clusters)
    return rank_sums - n_positive * (n_positive + 1) / 2.0, n_positive * n_negative


def average_precision(scores: npt.ArrayLike, positive: npt.ArrayLike) -> float | None:
    """Area under the precision-recall curve, step form: sum of precision x gain in recall.

    Tied scores are one threshold, so the order of rows changes nothing. Its value without any
    information is about the prevalence; the two are to be shown together.

    Args:
        scores: (C,) finite; larger means more positive.
        positive: (C,) booleans.

    Returns:
        A value in (0, 1], or None when a class is empty (without a negative it would be 1 for
        every score, without a positive it is undefined).

    Raises:
        ValueError: shapes differ or a score is not finite.
    """
    values, is_positive = _checked(scores, positive)
    n_positive = int(is_positive.sum())
    if n_positive == 0 or n_positive == is_positive.size:
        return None
    _, threshold = np.unique(-values, return_inverse=True)
    threshold = threshold.reshape(-1)
    hits = np.bincount(threshold, is_positive.astype(np.float64))
    found, seen = np.cumsum(hits), np.cumsum(np.bincount(threshold))
    return float((hits * found / seen).sum() / n_positive)


def prevalence(positive: npt.ArrayLike) -> float | None:
    """Share of positives: the average precision of a score without information."""
    is_positive: BoolArray = np.asarray(positive, dtype=np.bool_)
    return float(is_positive.mean()) if is_positive.size else None


def _finite(scores: npt.ArrayLike) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("scores must be one-dimensional and finite: leave out missing rows first")
    return values


def _checked(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    values, is_positive = _finite(scores), np.asarray(positive, dtype=np.bool_)
    if is_positive.shape != values.shape:
        raise ValueError(f"scores {values.shape} and labels {is_positive.shape} differ in shape")
    return values, is_positive
