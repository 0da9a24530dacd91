"""Alignment over many nodes: means by position and context, with intervals of two levels.

What varies is drawn again at both levels: problems whole with replacement, and inside every arm the
rollouts, binomially about its share of successes (arXiv 2605.10889 asks for both; how its own
intervals are made is not published). Two consequences. Problems that are drawn whole carry their
rollouts' noise with them, so the second level counts it twice: intervals are too wide rather than
too narrow. And noise added to noise pulls cosines to 0 a second time, so the replicates of a mean
cosine are moved to have the estimate as their mean: the interval is that of the mean cosine *at
this number of rollouts*, which is itself biased to 0. How much of the ideal gradient is noise is
measured apart, in `alignment_pooled`.

Reads arrays; knows no table. Dimensions as in `alignment`; S series, J cells, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from branchdiag.stats.alignment_nodes import (
    ADVANTAGE,
    COMPARED,
    Key,
    Nodes,
    node_values,
    share,
    with_differences,
)
from branchdiag.stats.alignment_pooled import Pooled, pool
from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.bootstrap import draw_multiplicities, interval
from branchdiag.stats.estimate import (
    BoolArray,
    Estimate,
    FloatArray,
    IntArray,
    Resampling,
    missing,
    with_enough,
)
from branchdiag.stats.finding import MIN_PROBLEMS
from branchdiag.stats.leaderboard import Compared
from branchdiag.stats.reliability import equal_count_bins
from branchdiag.stats.weighted import CELLS

NO_SPREAD = 1e-12
"""Replicates that spread less than this do not vary."""


@dataclass(frozen=True)
class Cell:
    """A mean over some nodes: mean r of them, how many carry it, and in how many problems.

    n_undefined: nodes of the cell at which the figure is not defined.
    """

    estimate: Estimate
    r: float | None
    n_nodes: int
    n_problems: int
    n_undefined: int


@dataclass(frozen=True)
class Series:
    """A figure under a context: over all nodes, by position, and its change along the trace.

    slope: within-problem slope of the figure on r; of the advantage alone.
    """

    whole: Cell
    by_position: list[Cell]
    slope: Estimate | None


@dataclass(frozen=True)
class Alignment:
    """Everything of one group of nodes.

    series: (figure, context, "") -> its means. differences: (figure, context, other) -> the mean of
    the paired difference, simultaneous over the pairs of the figure; a pair whose nodes lie in
    fewer than 10 problems has no interval. replicates: of the means that groups are compared by.
    """

    series: dict[Key, Series]
    differences: dict[Key, Compared]
    pooled: Pooled
    replicates: dict[Key, FloatArray]
    n_nodes: int
    n_problems: int


def evaluate(nodes: Nodes, *, bins: int, **resampling: Unpack[Resampling]) -> Alignment:
    """All figures of one group of nodes.

    Args:
        nodes: at least one.
        bins: of equal count, by r.
    """
    codes, n_problems = cluster_codes(nodes.problem_id)
    cells = _Cells(nodes.r, codes, bins)
    observed = with_differences(node_values(nodes, nodes.success()))
    keys = list(observed)
    values_SN = np.stack([observed[key] for key in keys])
    point_SJ = cells.means(values_SN, np.ones(nodes.r.size))
    replicates_SJB = _two_levels(nodes, keys, codes, cells, resampling)
    rows = {
        key: [
            _estimate(key, point_SJ[s, j], replicates_SJB[s, j], cells, values_SN[s], j, resampling)
            for j in range(cells.n_cells + 1)
        ]
        for s, key in enumerate(keys)
    }
    series = {
        key: Series(
            whole=own[0],
            by_position=own[1 : cells.n_cells],
            slope=own[cells.n_cells].estimate if key[0] == ADVANTAGE else None,
        )
        for key, own in rows.items()
        if not key[2]
    }
    moved = {key: _moved(point_SJ[s, 0], replicates_SJB[s, 0], key) for s, key in enumerate(keys)}
    differences: dict[Key, Compared] = {}
    for figure in COMPARED:
        family = [key for key in keys if key[2] and key[0] == figure]
        differences |= simultaneous(
            {
                key: (
                    with_enough(rows[key][0].estimate, rows[key][0].n_problems, MIN_PROBLEMS),
                    moved[key],
                )
                for key in family
            },
            resampling["level"],
        )
    return Alignment(
        series=series,
        differences=differences,
        replicates={key: moved[key] for key in series},
        pooled=pool(nodes, **resampling),
        n_nodes=int(nodes.r.size),
        n_problems=n_problems,
    )


class _Cells:
    """Which nodes are averaged together: all, each bin of r, and, last, the slope on r."""

    def __init__(self, r: FloatArray, codes: IntArray, bins: int) -> None:
        filled, index = np.unique(equal_count_bins(r, bins), return_inverse=True)
        self.member_JN = np.concatenate(
            [np.ones((1, r.size)), np.eye(filled.size)[:, index.reshape(-1)]]
        )
        self.n_cells = self.member_JN.shape[0]
        self.r, self.codes = r, codes
        means = np.bincount(codes, r) / np.bincount(codes)
        centred = r - means[codes]
        self.slope_N = np.where(np.abs(centred) > 1e-12, centred, 0.0)

    def means(self, values_SN: FloatArray, weights_N: FloatArray) -> FloatArray:
        """Weighted means (..., S, J + 1) of values (..., S, N) in each cell, the slope last.

        A slope needs the same nodes at every turn: it is meant for what is defined at each node
        (or at none of a problem's), as the advantage is.
        """
        defined = np.isfinite(values_SN)
        weights = np.where(defined, weights_N[..., np.newaxis, :], 0.0)
        weighted = weights * np.where(defined, values_SN, 0.0)
        above = np.concatenate([self.member_JN, self.slope_N[np.newaxis]])
        below = np.concatenate([self.member_JN, self.slope_N[np.newaxis] ** 2])
        numerator, denominator = weighted @ above.T, weights @ below.T
        quotient = np.full(numerator.shape, np.nan)
        np.divide(numerator, denominator, out=quotient, where=denominator > 0)
        return quotient

    def carrying(self, cell: int) -> BoolArray:
        """The nodes (N,) of a cell; of the slope, those of problems that differ in r."""
        if cell < self.n_cells:
            inside: BoolArray = self.member_JN[cell] > 0
            return inside
        carrying: BoolArray = (np.bincount(self.codes, self.slope_N**2) > 0)[self.codes]
        return carrying


def _two_levels(
    nodes: Nodes,
    keys: Sequence[Key],
    codes: IntArray,
    cells: _Cells,
    resampling: Resampling,
) -> FloatArray:
    """Replicates (S, J + 1, B) of every mean: problems drawn whole, and rollouts inside arms."""
    success, samples = nodes.success(), nodes.samples_NK
    generator = np.random.default_rng([resampling["seed"], 1])
    n_problems = int(codes.max()) + 1
    a_block = max(1, CELLS // max(1, samples.size + len(keys) * nodes.r.size))
    blocks = []
    for chunk in draw_multiplicities(
        n_problems, resamples=resampling["resamples"], seed=resampling["seed"]
    ):
        for start in range(0, chunk.shape[0], a_block):
            weights = chunk[start : start + a_block]
            drawn = generator.binomial(samples, success, size=(weights.shape[0], *samples.shape))
            again = with_differences(node_values(nodes, share(drawn, samples)))
            values = np.stack([again[key] for key in keys], axis=-2)
            blocks.append(cells.means(values, weights[:, codes]))
    return np.moveaxis(np.concatenate(blocks), 0, -1)


def _moved(point: float, replicates: FloatArray, key: Key) -> FloatArray:
    """Replicates of a mean cosine moved to have the estimate as their mean; others as they are."""
    kept = replicates[np.isfinite(replicates)]
    if key[0] == ADVANTAGE or not kept.size or not np.isfinite(point):
        return replicates
    furthest = 2.0 if key[2] else 1.0  # a difference of two cosines, or one
    moved: FloatArray = np.clip(replicates - kept.mean() + point, -furthest, furthest)
    return moved


def _estimate(
    key: Key,
    point: float,
    replicates: FloatArray,
    cells: _Cells,
    values_N: FloatArray,
    cell: int,
    resampling: Resampling,
) -> Cell:
    inside = cells.carrying(cell)
    carries = inside & np.isfinite(values_N)
    n_problems = int(np.unique(cells.codes[carries]).size)
    if not np.isfinite(point):
        what = "advantage" if key[0] == ADVANTAGE else "cosine"
        estimate = missing(
            "no problem has nodes at two positions"
            if cell == cells.n_cells
            else f"no node has a defined {what}"
        )
    else:
        estimate = interval(float(point), _moved(point, replicates, key), n_problems, **resampling)
    return Cell(
        estimate=estimate,
        r=float(cells.r[carries].mean()) if carries.any() else None,
        n_nodes=int(carries.sum()),
        n_problems=n_problems,
        n_undefined=int((inside & ~carries).sum()),
    )


def simultaneous(
    family: Mapping[Key, tuple[Estimate, FloatArray]], level: float
) -> dict[Key, Compared]:
    """Differences from 0 with intervals and p-values that hold for the whole family (max-T).

    estimate -+ c x standard error, c the `level` quantile of the largest studentised deviation over
    the family's resamples (Westfall and Young 1993), as on the leaderboard of signals. A difference
    that never varies, or has no interval of its own, takes no part.
    """
    deviations, sds = {}, {}
    for key, (estimate, replicates) in family.items():
        if estimate.value is not None and estimate.has_interval:
            sd = float(np.nanstd(replicates))
            if sd > NO_SPREAD:
                deviations[key], sds[key] = np.abs(replicates - estimate.value) / sd, sd
    if not deviations:
        return {key: Compared(estimate, None, None, None) for key, (estimate, _) in family.items()}
    stacked = np.stack(list(deviations.values()))
    largest = stacked[:, np.isfinite(stacked).all(axis=0)].max(axis=0)
    c = float(np.quantile(largest, level))
    compared = {}
    for key, (estimate, _) in family.items():
        if key not in sds or estimate.value is None:
            compared[key] = Compared(estimate, None, None, None)
            continue
        far = int((largest >= abs(estimate.value) / sds[key]).sum())
        p = (1 + far) / (1 + largest.size)
        reach = c * sds[key]
        compared[key] = Compared(estimate, estimate.value - reach, estimate.value + reach, p)
    return compared


def between_groups(
    first: Alignment, second: Alignment, key: Key, **resampling: Unpack[Resampling]
) -> Estimate:
    """A mean of one group less the same of another, whose problems are others.

    Resamples of the two are drawn apart: give each group a seed of its own. No interval where
    either has fewer than 10 problems.
    """
    own, other = first.series[key].whole, second.series[key].whole
    if own.estimate.value is None or other.estimate.value is None:
        return missing(str(own.estimate.reason or other.estimate.reason))
    fewer = min(own.n_problems, other.n_problems)
    difference = interval(
        own.estimate.value - other.estimate.value,
        first.replicates[key] - second.replicates[key],
        fewer,
        **resampling,
    )
    return with_enough(difference, fewer, MIN_PROBLEMS)
