"""Curves: failure against position, the control beside it, and failure sorted by each local score.

Reads arrays over candidates; writes plain rows (series, bin, x, y, lo, hi, n, reason) for a table
and the figures. Draws nothing. Figure 1 of arXiv 2605.21606, whose binning is not given: here ten
bins of equal count, an isotonic fit in both directions, and bands from drawing problems whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.auroc import cluster_codes, mid_ranks
from branchdiag.stats.bootstrap import interval, replicate
from branchdiag.stats.estimate import FloatArray, IntArray, Resampling
from branchdiag.stats.horizon import teacher_advantage
from branchdiag.stats.scores import SCORES
from branchdiag.stats.weighted import weighted_ratio


class CurveRow(TypedDict):
    """One point: x and y are means in the bin, lo and hi the band, n candidates.

    reason: why there is no band.
    """

    series: str
    bin: int
    x: float
    y: float
    lo: float | None
    hi: float | None
    n: int
    reason: str | None


def equal_count_bins(x: npt.ArrayLike, bins: int) -> IntArray:
    """Bin (C,) of each row, 0 ... bins - 1, as equal in count as ties allow.

    Rows with equal x share a bin (they share a mid-rank), so the order of rows changes nothing;
    with many ties some bins stay empty.
    """
    ranks = mid_ranks(x)
    return ((ranks - 0.5) / max(1, ranks.size) * bins).astype(np.int64)


def binned_curve(
    series: str,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    bins: int,
    **resampling: Unpack[Resampling],
) -> list[CurveRow]:
    """Mean of y in bins of x, with a pointwise band from drawing problems whole.

    The bins are those of the data and stay as they are in every resample: the band is that of the
    mean failure between two given positions.

    Args:
        series: name of the curve.
        x, y: (C,); rows where either is NaN are left out.
        clusters: (C,) the problems.
        bins: of equal count.
    """
    abscissa, outcome = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    present = np.isfinite(abscissa) & np.isfinite(outcome)
    if not present.any():
        return []
    abscissa, outcome = abscissa[present], outcome[present]
    codes, n_problems = cluster_codes(np.asarray(clusters)[present])
    filled, index = np.unique(equal_count_bins(abscissa, bins), return_inverse=True)
    cells, n_cells = codes * filled.size + index.reshape(-1), n_problems * filled.size
    sums = np.bincount(cells, outcome, n_cells).reshape(n_problems, -1).astype(np.float64)
    counts = np.bincount(cells, minlength=n_cells).reshape(sums.shape).astype(np.float64)
    (replicates,) = replicate(
        [weighted_ratio(sums, counts)],
        n_problems,
        resamples=resampling["resamples"],
        seed=resampling["seed"],
    )
    sizes = counts.sum(axis=0)
    x_means = np.bincount(index.reshape(-1), abscissa) / sizes
    rows: list[CurveRow] = []
    for column, size in enumerate(sizes):
        mean = float(sums[:, column].sum() / size)
        band = interval(mean, replicates[:, column], n_problems, **resampling)
        rows.append(
            _row(series, column, x_means[column], mean, size)
            | {"lo": band.ci_low, "hi": band.ci_high, "reason": band.reason}
        )
    return rows


def isotonic_curve(
    series: str, x: npt.ArrayLike, y: npt.ArrayLike, *, increasing: bool
) -> list[CurveRow]:
    """Least-squares monotone step function: two rows a step, at its first and last x.

    Rows with equal x are averaged first, so that a step never parts them. Without a band: both
    directions are drawn over the binned curve, and the one that is flat does not fit.
    """
    from scipy.optimize import isotonic_regression

    abscissa, outcome = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    present = np.isfinite(abscissa) & np.isfinite(outcome)
    if not present.any():
        return []
    levels, index = np.unique(abscissa[present], return_inverse=True)
    counts = np.bincount(index)
    means = np.bincount(index, outcome[present]) / counts
    fit = isotonic_regression(means, weights=counts, increasing=increasing)
    rows: list[CurveRow] = []
    for first, after in zip(fit.blocks[:-1], fit.blocks[1:], strict=True):
        size = float(counts[first:after].sum())
        for edge in sorted({int(first), int(after) - 1}):
            rows.append(_row(series, len(rows), levels[edge], float(fit.x[first]), size))
    return rows


def failure_curves(
    r: npt.ArrayLike,
    failure: npt.ArrayLike,
    control_failure: npt.ArrayLike,
    scores: Mapping[str, npt.ArrayLike],
    clusters: npt.ArrayLike,
    *,
    bins: int,
    **resampling: Unpack[Resampling],
) -> list[CurveRow]:
    """All failure curves of a run.

    Series: `failure_by_r` and `control_by_r` (1 - viability against r, figure 1A),
    `failure_by_r_increasing` and `failure_by_r_decreasing` (isotonic), and `failure_by_<score>`
    for each local score (figure 1B). There x is the score's rank as a share of all candidates,
    turned by its declared sign so that the right-hand end is what the score holds for the least
    reliable; scores of different units then share an axis. 1 - r is drawn that way too, as
    `failure_by_one_minus_r`.

    Args:
        r: (C,) relative position.
        failure: (C,) 1 - mean child viability.
        control_failure: (C,) 1 - control viability, NaN without a control.
        scores: name -> (C,) raw values of declared scores.
        clusters: (C,) the problems.
    """
    position = np.asarray(r, dtype=np.float64)
    rows = binned_curve("failure_by_r", r, failure, clusters, bins=bins, **resampling)
    rows += binned_curve("control_by_r", r, control_failure, clusters, bins=bins, **resampling)
    rows += isotonic_curve("failure_by_r_increasing", r, failure, increasing=True)
    rows += isotonic_curve("failure_by_r_decreasing", r, failure, increasing=False)
    for name, values in {"one_minus_r": 1.0 - position, **scores}.items():
        x = rank_share(SCORES[name].sign * np.asarray(values, dtype=np.float64))
        rows += binned_curve(f"failure_by_{name}", x, failure, clusters, bins=bins, **resampling)
    return rows


def advantage_curve(
    r: npt.ArrayLike,
    teacher_CK: npt.ArrayLike,
    student_CK: npt.ArrayLike,
    viability_CK: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    bins: int,
    **resampling: Unpack[Resampling],
) -> list[CurveRow]:
    """Series `teacher_advantage_by_r`: the teacher's advantage over the forced tokens by
    position."""
    advantage = teacher_advantage(teacher_CK, student_CK, viability_CK)
    return binned_curve("teacher_advantage_by_r", r, advantage, clusters, bins=bins, **resampling)


def rank_share(values: FloatArray) -> FloatArray:
    """Mid-rank as a share of the finite rows, in (0, 1); NaN stays NaN."""
    share = np.full(values.shape, np.nan)
    present = np.isfinite(values)
    share[present] = (mid_ranks(values[present]) - 0.5) / max(1, int(present.sum()))
    return share


def _row(series: str, index: int, x: float, y: float, size: float) -> CurveRow:
    return CurveRow(
        series=series,
        bin=index,
        x=float(x),
        y=y,
        lo=None,
        hi=None,
        n=int(size),
        reason="no band is drawn for this series",
    )
