"""Leave-one-problem-out fits of many resamples: what each of them weighs, and what it leaves out.

Reads rows, their weights in each draw of the problems and their folds; writes arrays. A fold's
likelihood is its draw's less a few rows, so neither weights nor first derivatives are made for each
fold in full: the totals of a draw are kept, and what a fit leaves out is taken off where it is
worked on. Knows nothing of searches or of the choice between models.

N draws, B fits (one for each draw and fold with weight in it, in order), E entries (rows with
weight in a draw, in the order of the fits that leave them out), C rows, L rows after adding up, U
positions, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray
from branchdiag.stats.schedule_curve import Curve
from branchdiag.stats.schedule_likelihood import Derivatives, Outcomes, loss_of_rows, pool

CELLS = 2**18
"""Rows times derivatives that are held at once (2 MiB)."""


@dataclass(frozen=True)
class Folds:
    """A batch of fits that each leave one fold of a draw out.

    rows, curve: over all rows, and over those that were added up. totals: (N, L) of each draw with
    all its folds. weighed: (N, U) the positions with weight in it. draw: (B,). first: (B + 1,)
    where each fit's entries begin. row, place: (E,) among all rows, and among those added up.
    weight_of_entry, y: (E,).
    """

    rows: Curve
    curve: Curve
    totals: Outcomes
    weighed: BoolArray
    draw: IntArray
    first: IntArray
    row: IntArray
    place: IntArray
    weight_of_entry: FloatArray
    y: FloatArray

    @staticmethod
    def of(curve: Curve, y: FloatArray, weights: FloatArray, folds: IntArray) -> Folds:
        """Every fold of every draw.

        Args:
            y, folds: (C,).
            weights: (N, C), each draw with some weight.
        """
        pooled, place = pool(curve)
        n_folds = int(folds.max()) + 1
        draw, row = np.nonzero(weights)
        fit = draw * n_folds + folds[row]
        order = np.argsort(fit, kind="stable")
        draw, row, fit = draw[order], row[order], fit[order]
        fits, first = np.unique(fit, return_index=True)
        weight, shape = weights[draw, row], (weights.shape[0], pooled.n_rows)
        cell = draw * shape[1] + place[row]
        totals = (
            np.bincount(cell, weight * part, shape[0] * shape[1]).astype(np.float64).reshape(shape)
            for part in (y[row], 1.0 - y[row])
        )
        weighed = np.zeros((shape[0], pooled.r.size), dtype=np.bool_)
        weighed[draw, place[row] % pooled.r.size] = True
        return Folds(
            rows=curve,
            curve=pooled,
            totals=Outcomes(*totals),
            weighed=weighed,
            draw=fits // n_folds,
            first=np.append(first, row.size),
            row=row,
            place=place[row],
            weight_of_entry=weight,
            y=y[row],
        )

    @property
    def n_rows(self) -> int:
        """How many rows a draw weighs, on average."""
        arms = self.curve.n_rows // self.curve.r.size
        return arms * int(np.ceil(self.weighed.sum() / self.weighed.shape[0]))

    def weight(self) -> FloatArray:
        """(B,) of all rows that each fit keeps."""
        left = np.add.reduceat(self.weight_of_entry, self.first[:-1])
        return np.asarray(np.bincount(self.draw, left)[self.draw] - left)

    def some(self, fits: IntArray) -> tuple[Curve, Outcomes]:
        """The curve over positions that some of the fits' draws weigh, and the fits' outcomes."""
        draw, n_positions = self.draw[fits], self.curve.r.size
        near = slice(int(draw[0]), int(draw[-1]) + 1)
        positions = np.flatnonzero(self.weighed[near].any(axis=0))
        every = np.arange(self.curve.n_rows).reshape(-1, n_positions)
        rows = every[:, positions].reshape(-1)
        column = np.empty(self.curve.n_rows, dtype=np.int64)
        column[rows] = np.arange(rows.size)
        counts = self.first[fits + 1] - self.first[fits]
        left = _ranges(self.first[fits], counts)
        cell = np.repeat(rows.size * np.arange(fits.size), counts) + column[self.place[left]]
        weight, y = self.weight_of_entry[left], self.y[left]
        kept = []
        for total, part in ((self.totals.successes, y), (self.totals.failures, 1.0 - y)):
            # All positions: a gather of rows. Otherwise the few draws are narrowed first.
            whole = rows.size == total.shape[1]
            mine = total[draw] if whole else total[near].take(rows, axis=1)[draw - near.start]
            np.subtract.at(mine.reshape(-1), cell, weight * part)
            kept.append(mine)
        return self.curve.only(positions), Outcomes(*kept)

    def at(self, theta: FloatArray) -> tuple[FloatArray, Derivatives]:
        """Losses (B,) and derivatives where the fits of each draw stand at its point (N, K)."""
        n_parameters = self.curve.n_parameters
        losses, slopes = np.empty(self.draw.size), Derivatives.empty(self.draw.size, n_parameters)
        i, j = np.tril_indices(n_parameters)
        step = max(1, CELLS // (self.rows.n_rows * i.size))
        for first in range(0, theta.shape[0], step):
            fits = slice(*np.searchsorted(self.draw, [first, first + step]))
            sums = self._less_each_fold(theta[first : first + step], fits)
            losses[fits], slopes.gradient[fits] = sums[:, 0], sums[:, 1 : 1 + n_parameters]
            for one, other in ((i, j), (j, i)):
                slopes.information[fits, one, other] = sums[:, 1 + n_parameters :]
        return losses, slopes

    def _less_each_fold(self, theta: FloatArray, fits: slice) -> FloatArray:
        """Loss, gradient and lower triangle of the information of consecutive draws' fits."""
        draw, bounds = self.draw[fits], self.first[fits.start : fits.stop + 1]
        entries = slice(int(bounds[0]), int(bounds[-1]))
        mean, slopes = self.rows.mean_and_slopes(theta)
        mine, row = np.repeat(draw - draw[0], np.diff(bounds)), self.row[entries]
        m, slope = mean[mine, row], slopes[mine, :, row]
        weight, y = self.weight_of_entry[entries], self.y[entries]
        known = (weight / (m * (1.0 - m)))[:, np.newaxis]
        i, j = np.tril_indices(self.curve.n_parameters)
        of_entry = [
            (weight * loss_of_rows(m, y))[:, np.newaxis],
            known * (y - m)[:, np.newaxis] * slope,
            (known * slope)[:, i] * slope[:, j],
        ]
        left = np.add.reduceat(np.concatenate(of_entry, axis=1), bounds[:-1] - bounds[0])
        begins = np.flatnonzero(np.diff(draw, prepend=draw[0] - 1))
        return np.asarray(np.add.reduceat(left, begins)[draw - draw[0]] - left)

    def left_out(self, theta: FloatArray) -> FloatArray:
        """Loss (N,) of all rows of each draw, each under the fit (B, K) that left it out."""
        fit = np.repeat(np.arange(self.draw.size), np.diff(self.first))
        mean = self.rows.mean_at(theta[fit], self.row)
        losses = self.weight_of_entry * loss_of_rows(mean, self.y)
        return np.bincount(self.draw[fit], losses, self.weighed.shape[0]).astype(np.float64)


def _ranges(first: IntArray, counts: IntArray) -> IntArray:
    """first[0], first[0] + 1, ... as many as counted, then first[1], ..."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1]) + np.repeat(first - ends + counts, counts)
