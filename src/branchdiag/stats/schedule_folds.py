"""Leave-one-problem-out fits of many resamples: what each of them weighs, and what it leaves out.

Reads rows, their weights in each draw of the problems and their folds; writes arrays. A fold's
likelihood is its draw's less a few rows, so neither weights nor derivatives are made for each fold
in full: the totals of a draw are kept, and the rows that a fit leaves out are taken off where it is
worked on. Knows nothing of searches or of the choice between models.

N draws, B fits (one for each draw and fold with weight in it, in order), E entries (rows with weight
in a draw, in the order of the fits that leave them out), L pooled rows, K parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray
from branchdiag.stats.schedule_curve import Curve
from branchdiag.stats.schedule_likelihood import Derivatives, Outcomes, add_up, pool

CELLS = 2**18
"""Entries times derivatives that are held at once (2 MiB)."""


@dataclass(frozen=True)
class Folds:
    """Fits that each leave one fold of a draw out.

    rows: the curve over all rows. curve: over pooled rows. totals: of each draw with all its folds,
    and weighed: (N, U) the positions with weight in it. draw: (B,). entries: (B + 1,) where each
    fit's begin. entry_row: (E,) among all rows. entry_pooled: (E,) among pooled rows.
    """

    rows: Curve
    curve: Curve
    totals: Outcomes
    weighed: BoolArray
    draw: IntArray
    entries: IntArray
    entry_row: IntArray
    entry_pooled: IntArray
    entry_weight: FloatArray
    entry_y: FloatArray

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
        draw, row = draw[order], row[order]
        fits, first = np.unique(fit[order], return_index=True)
        weight, shape = weights[draw, row], (weights.shape[0], pooled.n_rows)
        parts = (y[row], 1.0 - y[row])
        totals = Outcomes(*(add_up(draw, place[row], weight * part, shape) for part in parts))
        weighed = np.zeros((shape[0], pooled.r.size), dtype=np.bool_)
        weighed[draw, place[row] % pooled.r.size] = True
        return Folds(
            rows=curve,
            curve=pooled,
            totals=totals,
            weighed=weighed,
            draw=fits // n_folds,
            entries=np.append(first, row.size),
            entry_row=row,
            entry_pooled=place[row],
            entry_weight=weight,
            entry_y=y[row],
        )

    @property
    def n_rows(self) -> int:
        """Of a draw, on average."""
        arms = 2 if self.curve.has_control else 1
        return arms * int(np.ceil(self.weighed.sum() / self.weighed.shape[0]))

    def weight(self) -> FloatArray:
        """(B,) of all rows that each fit keeps."""
        left = np.add.reduceat(self.entry_weight, self.entries[:-1])
        return np.asarray(np.bincount(self.draw, left)[self.draw] - left)

    def some(self, fits: IntArray) -> tuple[Curve, Outcomes]:
        """The curve over positions that some of the fits' draws weigh, and the fits' outcomes."""
        mine, n_positions = self.draw[fits], self.curve.r.size
        draws = slice(int(mine[0]), int(mine[-1]) + 1)
        positions = np.flatnonzero(self.weighed[draws].any(axis=0))
        rows, place = positions, np.empty(self.curve.n_rows, dtype=np.int64)
        if self.curve.has_control:
            rows = np.concatenate([positions, positions + n_positions])
        place[rows] = np.arange(rows.size)
        counts = self.entries[fits + 1] - self.entries[fits]
        ends = np.cumsum(counts)
        entry = np.arange(ends[-1]) + np.repeat(self.entries[fits] - ends + counts, counts)
        cell = np.repeat(rows.size * np.arange(fits.size), counts) + place[self.entry_pooled[entry]]
        weight, y = self.entry_weight[entry], self.entry_y[entry]
        kept = []
        for total, share in ((self.totals.successes, y), (self.totals.failures, 1.0 - y)):
            if positions.size < n_positions:
                kept.append(np.take(total[draws], rows, axis=1)[mine - draws.start])
            else:
                kept.append(total[mine])
            np.subtract.at(kept[-1].reshape(-1), cell, weight * share)
        return self.curve.only(positions), Outcomes(*kept)

    def at(self, theta: FloatArray) -> tuple[FloatArray, Derivatives]:
        """Losses (B,) and derivatives where the fits of each draw stand at one point.

        Args:
            theta: (N, K).
        """
        i, j = np.tril_indices(self.curve.n_parameters)
        losses = np.empty(self.draw.size)
        slopes = Derivatives.empty(self.draw.size, self.curve.n_parameters)
        step = max(1, CELLS // (self.rows.n_rows * (i.size + i[-1] + 2)))
        for first in range(0, theta.shape[0], step):
            fits = slice(*np.searchsorted(self.draw, [first, first + step]))
            begin, end = self.entries[fits.start], self.entries[fits.stop]
            mean, slope = self.rows.mean_and_slopes(theta[first : first + step])
            n_left = np.diff(self.entries[fits.start : fits.stop + 1])
            cell = np.repeat(self.draw[fits] - first, n_left), self.entry_row[begin:end]
            m, slope = mean[cell], slope[cell[0], :, cell[1]]
            weight, y = self.entry_weight[begin:end], self.entry_y[begin:end]
            known = weight / (m * (1.0 - m))
            sums = np.concatenate(
                [
                    (weight * _loss(m, y))[:, np.newaxis],
                    (known * (y - m))[:, np.newaxis] * slope,
                    (known[:, np.newaxis] * slope)[:, i] * slope[:, j],
                ],
                axis=1,
            )
            left = np.add.reduceat(sums, self.entries[fits] - begin)
            mine = self.draw[fits] - first
            whole = np.add.reduceat(left, np.searchsorted(mine, np.arange(mine[-1] + 1)))
            kept = whole[mine] - left
            losses[fits], slopes.gradient[fits] = kept[:, 0], kept[:, 1 : i[-1] + 2]
            slopes.information[fits, i, j] = kept[:, i[-1] + 2 :]
            slopes.information[fits, j, i] = kept[:, i[-1] + 2 :]
        return losses, slopes

    def left_out(self, theta: FloatArray) -> FloatArray:
        """Loss (N,) of all rows of each draw, each under the fit (B, K) that left it out."""
        fit = np.repeat(np.arange(self.draw.size), np.diff(self.entries))
        mean = self.rows.mean_at(theta[fit], self.entry_row)
        losses = self.entry_weight * _loss(mean, self.entry_y)
        return np.bincount(self.draw[fit], losses, self.weighed.shape[0])


def _loss(mean: FloatArray, y: FloatArray) -> FloatArray:
    return -(y * np.log(mean) + (1.0 - y) * np.log1p(-mean))
