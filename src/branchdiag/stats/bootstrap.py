"""The cluster bootstrap: problems are drawn whole with replacement, multiplicity kept.

Candidates of one problem rise and fall together, so the problems are what was sampled (arXiv
2605.21606, appendix B: 2,000 resamples of problems, 95% percentile interval). A resample is how
often each problem was drawn; `weighted` turns that into a statistic without touching a
candidate again. Resamples are drawn and used in chunks of a bounded size, and the chunk changes no
draw. Equal seed and number of problems mean equal draws, so statistics of the same problems are
paired.

What a percentile interval can carry is limited by the number of problems that inform it, not by
candidates or resamples. @@COVERAGE@@

Reads arrays, writes replicates (B,), NaN where a resample has no value. Knows no score.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.estimate import (
    Estimate,
    FloatArray,
    Resampling,
    missing,
    percentile_estimate,
)
from branchdiag.stats.weighted import CELLS, WeightedStatistic, weighted_ratio

MIN_CLUSTERS = 3
"""With fewer problems than this there is no interval, whatever the resamples say."""


def draw_multiplicities(
    n_clusters: int, *, resamples: int, seed: int, cells: int = CELLS
) -> Iterator[FloatArray]:
    """Chunks (b, P) of how often each cluster was drawn; each row sums to P.

    P clusters are drawn with replacement from P, by `default_rng(seed).integers`.
    """
    generator = np.random.default_rng(seed)
    step = max(1, cells // max(1, n_clusters))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(n_clusters, size=(size, n_clusters))
        drawn += n_clusters * np.arange(size)[:, np.newaxis]
        counts = np.bincount(drawn.reshape(-1), minlength=size * n_clusters)
        yield counts.reshape(size, n_clusters).astype(np.float64)


def replicate(
    statistic: WeightedStatistic, n_clusters: int, *, resamples: int, seed: int
) -> FloatArray:
    """The statistic (B,) on every resample of the clusters."""
    draws = draw_multiplicities(n_clusters, resamples=resamples, seed=seed)
    return np.concatenate([statistic(weights) for weights in draws])


def bootstrap_estimate(
    value: float,
    statistic: WeightedStatistic,
    n_clusters: int,
    **resampling: Unpack[Resampling],
) -> tuple[Estimate, FloatArray]:
    """A value with its percentile interval, and the replicates (B,) behind it.

    Args:
        value: the statistic on the data themselves.
        statistic: the same of multiplicities.
        n_clusters: P; below `MIN_CLUSTERS` the interval is missing.
    """
    replicates = replicate(
        statistic, n_clusters, resamples=resampling["resamples"], seed=resampling["seed"]
    )
    if n_clusters < MIN_CLUSTERS:
        problems = "1 problem is" if n_clusters == 1 else f"{n_clusters} problems are"
        return Estimate(value, None, None, f"{problems} too few to resample"), replicates
    estimate = percentile_estimate(
        value,
        replicates,
        level=resampling["level"],
        max_dropped_share=resampling["max_dropped_share"],
    )
    return estimate, replicates


def ratio_estimate(
    numerator: FloatArray, denominator: FloatArray, **resampling: Unpack[Resampling]
) -> tuple[Estimate, FloatArray]:
    """Sum over sum of clusters (P,), with its interval and replicates (B,).

    Clusters that add nothing to either sum are drawn like the others: what was sampled is the
    study's problems, and how many of them are informative is part of the luck of the draw.

    Raises:
        ZeroDivisionError: the denominators sum to 0 (the caller knows the reason to give).
    """
    if float(denominator.sum()) == 0.0:
        raise ZeroDivisionError("the denominators sum to 0")
    value = float(numerator.sum() / denominator.sum())
    statistic = weighted_ratio(numerator, denominator)
    return bootstrap_estimate(value, statistic, numerator.size, **resampling)


def cluster_mean_interval(
    values: npt.ArrayLike, clusters: npt.ArrayLike, **resampling: Unpack[Resampling]
) -> Estimate:
    """Mean over all rows, with an interval from drawing clusters whole.

    For paired differences (two backends, two checkpoints) `values` are the differences: rows of
    one problem rise and fall together, so the problems are what was sampled. Rows, not clusters,
    weigh the same. NaN rows are left out.

    Args:
        values: (C,), NaN where missing.
        clusters: (C,) any type.
    """
    rows = np.asarray(values, dtype=np.float64)
    present = np.isfinite(rows)
    if not present.any():
        return missing("no value to average")
    codes, n_clusters = cluster_codes(np.asarray(clusters)[present])
    sums = np.bincount(codes, rows[present], n_clusters).astype(np.float64)
    counts = np.bincount(codes, minlength=n_clusters).astype(np.float64)
    return ratio_estimate(sums, counts, **resampling)[0]
