"""The graded arms of each candidate as arrays, and what is taken against the control arm.

Reads counts; knows nothing of tables, positions or problems. An arm is a way of going on from one
prefix: a forced child, or the control, from which nothing is forced. Arrays are (C, A): column 0
is the control, then the children; 0 samples means that the candidate has no such arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray

CONTROL = "control"
CHILD = "child:"
MIN_CHILDREN = 2
"""Children with graded samples that a candidate needs, as for its label."""


@dataclass(frozen=True)
class Arms:
    """Successes and graded samples (C, A) of each arm, and its mean length in tokens.

    A length counts the forced token too, so that child and control are measured from the same
    prefix. `lengths` is NaN where unknown.

    Raises:
        ValueError: shapes differ, or counts that no arm can have.
    """

    successes: IntArray
    samples: IntArray
    lengths: FloatArray

    def __post_init__(self) -> None:
        shapes = {self.successes.shape, self.samples.shape, self.lengths.shape}
        if len(shapes) != 1 or self.samples.ndim != 2:
            raise ValueError(f"arms need equal shapes (candidates, arms), not {shapes}")
        if (self.successes < 0).any() or (self.successes > self.samples).any():
            raise ValueError("an arm has between 0 successes and its number of samples")

    @staticmethod
    def from_lists(
        arms: Sequence[Sequence[str]],
        successes: Sequence[Sequence[int]],
        samples: Sequence[Sequence[int]],
        lengths: Sequence[Sequence[float]] | None = None,
    ) -> Arms:
        """From ragged lists, one a candidate, whose arms are named `control` or `child:<id>`.

        Arms of any other name (the spine's own token) are no part of the comparison and left out.
        """
        width = 1 + max((sum(n.startswith(CHILD) for n in names) for names in arms), default=0)
        shape = (len(arms), width)
        successes_CA, samples_CA = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        lengths_CA = np.full(shape, np.nan)
        for row, names in enumerate(arms):
            children = [index for index, name in enumerate(names) if name.startswith(CHILD)]
            columns = dict(enumerate(children, start=1))
            if CONTROL in names:
                columns[0] = names.index(CONTROL)
            for column, index in columns.items():
                successes_CA[row, column] = successes[row][index]
                samples_CA[row, column] = samples[row][index]
                if lengths is not None:
                    lengths_CA[row, column] = lengths[row][index]
        return Arms(successes_CA, samples_CA, lengths_CA)

    def rows(self, kept: BoolArray) -> Arms:
        """The candidates in `kept` (C,)."""
        return Arms(self.successes[kept], self.samples[kept], self.lengths[kept])

    @property
    def comparable(self) -> BoolArray:
        """Candidates (C,) with a graded control and at least two graded children."""
        graded = self.samples > 0
        enough: BoolArray = graded[:, 0] & (graded[:, 1:].sum(axis=1) >= MIN_CHILDREN)
        return enough

    @property
    def viability(self) -> FloatArray:
        """Successes / samples (C, A), NaN where there is no arm."""
        viability = np.full(self.samples.shape, np.nan)
        np.divide(self.successes, self.samples, out=viability, where=self.samples > 0)
        return viability

    @property
    def difference_by_arm(self) -> FloatArray:
        """(C, A): mean viability of the other arms less that of arm a, were a the control.

        Column 0 is d = mean child viability - control viability as it was observed. Over the arms
        of a candidate the columns have mean 0: that is what the horizon null says of d. NaN where
        there is no arm a or no other.
        """
        viability = self.viability
        n_arms = (self.samples > 0).sum(axis=1, keepdims=True)
        total = np.nansum(viability, axis=1, keepdims=True)
        others = np.full_like(viability, np.nan)
        np.divide(total - viability, n_arms - 1, out=others, where=n_arms > 1)
        difference: FloatArray = others - viability
        return difference

    @property
    def difference(self) -> FloatArray:
        """d (C,): mean child viability - control viability; NaN where not comparable."""
        return np.where(self.comparable, self.difference_by_arm[:, 0], np.nan)
