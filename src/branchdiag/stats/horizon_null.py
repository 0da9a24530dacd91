"""The relative figures with their permuted null: which arm of a candidate is the control?

The null is that forcing one of the children, or nothing, makes no difference: from a given prefix,
all arms are draws from one distribution of outcomes. Then the arms of a candidate are
exchangeable, and taking any of them for the control is as likely as the one that was. Each
permutation picks the control of every candidate anew, independently, and computes the whole figure
again. The observed assignment is one of those draws under the null, so (1 + hits) / (1 +
permutations) is an exact p-value at any number of candidates or problems, and no resample of
problems is needed for it.

What was thought about:

- Unequal sample numbers (an ungraded sample). Shares of 5 and of 6 samples are not exchangeable:
  their spread differs. The control changes places only with children that have as many graded
  samples as it has; a candidate with none stays as observed (counted as fixed). That stays exact.
- Two or three children: every candidate permutes its own arms; nothing is assumed of their number.
- Choice of children. Candidates and children are chosen from teacher probabilities before anything
  is sampled from them, so the choice does not depend on outcomes. Labels do: the figure therefore
  stands on all candidates with a control, never on the binary-labelled ones alone, whose selection
  looks at the children and not at the control.
- Scores measured on the control arm (`control_viability`, `control_length`) belong to whichever
  arm is the control: they are permuted with it. Their null is far from one half (the control's
  viability is part of d), which is why it must be shown. All other scores are fixed by the prefix.
- The null is sharp. Tokens that differ in quality but are no worse on average than the control
  break it too (children spread, the control averages over tokens): a small p says that forcing
  matters, its direction is the figure's.
- A permutation without both classes has no AUROC and is left out; the test is then exact given
  that both classes occur. Two-sided p is twice the smaller tail, at most 1: valid for skewed
  nulls.

Reads arms, scores and problems; writes score results with `null_mean` and `p`. Knows no tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.arms import Arms
from branchdiag.stats.auroc import centre_within, cluster_codes, mid_ranks
from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray, Resampling
from branchdiag.stats.scores import (
    SCORES,
    Score,
    ScoreResult,
    checked_columns,
    evaluate_columns,
    oriented_residuals,
)
from branchdiag.stats.weighted import CELLS

RELATIVE_DROP = 0.4
"""A candidate is positive where its children fall this far below the control, or further."""


@dataclass(frozen=True)
class PermutedNull:
    """Where a figure lies in its permuted null.

    n_fixed: candidates whose control could not change places. n_undefined: permutations without a
    value.
    """

    null_mean: float | None
    p: float | None
    reason: str | None
    n_permutations: int
    n_undefined: int
    n_fixed: int


@dataclass(frozen=True, kw_only=True)
class RelativeScoreResult(ScoreResult):
    """A score against a drop below the control, with its permuted null."""

    null_mean: float | None
    p: float | None
    null_reason: str | None
    n_permutations: int
    n_undefined: int
    n_fixed: int


def evaluate_relative_scores(
    columns: Mapping[str, npt.ArrayLike],
    arms: Arms,
    problem_id: npt.ArrayLike,
    *,
    permutations: int,
    declared: Mapping[str, Score] = SCORES,
    **resampling: Unpack[Resampling],
) -> list[RelativeScoreResult]:
    """Every declared score: candidates with d <= -0.4 against the rest, with the permuted null.

    All candidates with a graded control and two graded children take part, gray ones too; scores
    are centred over those. `control_viability` and `control_length` are taken from the arms; the
    latter from `columns` if the arms have no lengths, and then without a null.

    Args:
        columns: score name -> (C,) raw values, NaN where missing.
        arms: of the same candidates.
        problem_id: (C,) the problems.
        permutations: how many; drawn by `default_rng(seed)`.
        declared: the scores, by name.

    Returns:
        One result a declared score, in the order of `declared`.

    Raises:
        ValueError: a column that is not declared, or lengths that differ.
    """
    arrays, problems = checked_columns(
        columns, problem_id, arms.samples.shape[0], declared=declared
    )
    used = arms.comparable
    arms, problems = arms.rows(used), problems[used]
    per_arm = {
        "control_viability": arms.viability,
        "control_length": _complete(arms.lengths, arms.samples > 0),
    }
    values = {name: column[used] for name, column in arrays.items()}
    for name, table in per_arm.items():
        if name in declared and np.isfinite(table[:, 0]).any():
            values[name] = table[:, 0]
    positive_CA = drops(arms)
    results = evaluate_columns(
        values,
        positive_CA[:, 0],
        problems,
        class_names=("relatively failing", "other"),
        declared=declared,
        **resampling,
    )
    rankings = {
        name: _Ranking(declared[name], column, per_arm.get(name), positive_CA, problems)
        for name, column in values.items()
        if name not in per_arm or np.isfinite(per_arm[name][:, 0]).any()
    }
    replicates: dict[str, list[FloatArray]] = {name: [] for name in rankings}
    for chosen in draw_controls(arms, permutations=permutations, seed=resampling["seed"]):
        for name, ranking in rankings.items():
            replicates[name].append(ranking.aurocs(chosen))
    n_fixed = int((exchangeable_arms(arms).sum(axis=1) < 2).sum())
    relative = []
    for result in results:
        if result.auroc is None:
            null = PermutedNull(None, None, result.reason, permutations, 0, n_fixed)
        elif result.name not in rankings:
            reason = "it is known of the control only, so it cannot change places"
            null = PermutedNull(None, None, reason, permutations, 0, n_fixed)
        else:
            null = _locate(result.auroc, np.concatenate(replicates[result.name]), n_fixed)
        shared = {field.name: getattr(result, field.name) for field in fields(result)}
        relative.append(
            RelativeScoreResult(
                **shared,
                null_mean=null.null_mean,
                p=null.p,
                null_reason=null.reason,
                n_permutations=null.n_permutations,
                n_undefined=null.n_undefined,
                n_fixed=null.n_fixed,
            )
        )
    return relative


def slope_null(
    arms: Arms, r: npt.ArrayLike, clusters: npt.ArrayLike, *, permutations: int, seed: int
) -> PermutedNull:
    """The permuted null of the within-problem slope of d on r: exact where problems are few.

    The slope is a fixed combination of the d, so each permutation is one product.

    Args:
        arms: (C, A).
        r: (C,) relative position.
        clusters: (C,) the problems.
    """
    used = arms.comparable
    arms, position = arms.rows(used), np.asarray(r, dtype=np.float64)[used]
    n_fixed = int((exchangeable_arms(arms).sum(axis=1) < 2).sum())
    centred = centre_within(position, np.asarray(clusters)[used])
    sxx = float((centred**2).sum())
    if sxx == 0.0:
        reason = "no problem has candidates at two positions"
        return PermutedNull(None, None, reason, permutations, 0, n_fixed)
    difference_by_arm, rows = arms.difference_by_arm, np.arange(centred.size)
    slopes = [
        difference_by_arm[rows, chosen] @ centred / sxx
        for chosen in draw_controls(arms, permutations=permutations, seed=seed)
    ]
    return _locate(float(difference_by_arm[:, 0] @ centred / sxx), np.concatenate(slopes), n_fixed)


def drops(arms: Arms) -> BoolArray:
    """Whether d <= -0.4 (C, A), were arm a the control; False where there is no such arm.

    A difference of shares that equals -0.4 exactly may come out a rounding error above it.
    """
    difference = arms.difference_by_arm
    dropped: BoolArray = np.isfinite(difference) & (difference <= -RELATIVE_DROP + 1e-9)
    return dropped


def exchangeable_arms(arms: Arms) -> BoolArray:
    """Arms (C, A) that may change places with the control: as many graded samples as it has."""
    allowed: BoolArray = (arms.samples > 0) & (arms.samples == arms.samples[:, :1])
    return allowed


def draw_controls(arms: Arms, *, permutations: int, seed: int) -> Iterator[IntArray]:
    """Chunks (b, C) of the arm that is taken for each candidate's control, uniform on its own."""
    allowed = exchangeable_arms(arms)
    columns = np.argsort(~allowed, axis=1, kind="stable")  # the allowed ones first
    n_allowed, rows = allowed.sum(axis=1), np.arange(allowed.shape[0])
    generator = np.random.default_rng(seed)
    step = max(1, CELLS // max(1, allowed.shape[0]))
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        picked = (generator.random((size, rows.size)) * n_allowed).astype(np.int64)
        yield columns[rows, picked]


class _Ranking:
    """One score's AUROC under each choice of controls: what does not change is computed once."""

    def __init__(
        self,
        score: Score,
        column: FloatArray,
        per_arm_CA: FloatArray | None,
        positive_CA: BoolArray,
        problems: npt.NDArray[Any],
    ) -> None:
        self.score = score
        self.present = np.isfinite(column)
        self.problems, _ = cluster_codes(problems[self.present])
        self.positive_CA = positive_CA[self.present]
        self.per_arm_CA = None if per_arm_CA is None else per_arm_CA[self.present]
        self.rows = np.arange(self.problems.size)
        self.ranks = self._ranks(column[self.present])

    def _ranks(self, values: FloatArray) -> FloatArray:
        return mid_ranks(oriented_residuals(self.score, values, self.problems))

    def aurocs(self, chosen: IntArray) -> FloatArray:
        """AUROC (b,) for controls (b, C); NaN where a class is empty."""
        chosen = chosen[:, self.present]
        positive = self.positive_CA[self.rows, chosen].astype(np.float64)
        if self.per_arm_CA is None:
            rank_sums = positive @ self.ranks
        else:
            rank_sums = np.array(
                [
                    labels @ self._ranks(self.per_arm_CA[self.rows, arm])
                    for labels, arm in zip(positive, chosen, strict=True)
                ]
            )
        n_positive = positive.sum(axis=1)
        pairs = n_positive * (positive.shape[1] - n_positive)
        won = rank_sums - n_positive * (n_positive + 1.0) / 2.0
        areas = np.full(won.shape, np.nan)
        np.divide(won, pairs, out=areas, where=pairs > 0)
        return areas


def _complete(table_CA: FloatArray, graded: BoolArray) -> FloatArray:
    """Rows with a value for every graded arm; the others become NaN throughout."""
    whole = (np.isfinite(table_CA) | ~graded).all(axis=1, keepdims=True)
    return np.where(whole, table_CA, np.nan)


def _locate(observed: float, replicates: FloatArray, n_fixed: int) -> PermutedNull:
    """Mean and two-sided p. Values within rounding of the observed one count as equal to it."""
    kept = replicates[np.isfinite(replicates)]
    n_undefined = replicates.size - kept.size
    if kept.size == 0:
        reason = "no permutation has both classes"
        return PermutedNull(None, None, reason, replicates.size, n_undefined, n_fixed)
    tolerance = 1e-9
    lower = (1 + int((kept <= observed + tolerance).sum())) / (1 + kept.size)
    upper = (1 + int((kept >= observed - tolerance).sum())) / (1 + kept.size)
    p = min(1.0, 2.0 * min(lower, upper))
    return PermutedNull(float(kept.mean()), p, None, replicates.size, n_undefined, n_fixed)
