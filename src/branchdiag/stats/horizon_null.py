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
- The slope of d is permuted in its own standard errors between problems. Children that differ much
  from one another spread the plain permuted slopes wide and hide an observed one that is sharp.
- A permutation without both classes has no AUROC and is left out; the test is then exact given
  that both classes occur. Two-sided p is twice the smaller tail, at most 1: valid for skewed
  nulls.

Reads arms, scores and problems; writes score results with `null_mean` and `p`. Knows no tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.arms import Arms
from branchdiag.stats.auroc import centre_within, centred_ranks, cluster_codes, mid_ranks
from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray, Resampling
from branchdiag.stats.scores import (
    SCORES,
    Score,
    ScoreResult,
    checked_columns,
    evaluate_columns,
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
    replicates = _permuted_aurocs(
        {
            name: (declared[name].sign, per_arm.get(name, column))
            for name, column in values.items()
            if name not in per_arm or np.isfinite(per_arm[name][:, 0]).any()
        },
        positive_CA,
        problems,
        draw_controls(arms, permutations=permutations, seed=resampling["seed"]),
    )
    n_fixed = int((exchangeable_arms(arms).sum(axis=1) < 2).sum())
    relative = []
    for result in results:
        if result.auroc is None:
            null = PermutedNull(None, None, result.reason, permutations, 0, n_fixed)
        elif result.name not in replicates:
            reason = "it is known of the control only, so it cannot change places"
            null = PermutedNull(None, None, reason, permutations, 0, n_fixed)
        else:
            null = _locate(result.auroc, replicates[result.name], n_fixed)
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

    The p-value is of the slope over its own standard error between problems. Any statistic is exact
    here, but tokens that differ in quality spread the permuted slopes wider than the observed one
    is spread: measured in its own spread each time, the slope keeps its power (Janssen 1997).

    Args:
        arms: (C, A).
        r: (C,) relative position.
        clusters: (C,) the problems.

    Returns:
        `null_mean` is the mean of the permuted slopes themselves.
    """
    used = arms.comparable
    arms, position = arms.rows(used), np.asarray(r, dtype=np.float64)[used]
    n_fixed = int((exchangeable_arms(arms).sum(axis=1) < 2).sum())
    problems = np.asarray(clusters)[used]
    centred = centre_within(position, problems)
    sxx = float((centred**2).sum())
    if sxx == 0.0:
        reason = "no problem has candidates at two positions"
        return PermutedNull(None, None, reason, permutations, 0, n_fixed)
    codes, n_problems = cluster_codes(problems)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(n_problems))
    centred = centred[order]
    sxx_P = np.add.reduceat(centred**2, starts)
    difference_by_arm, rows = arms.difference_by_arm[order], np.arange(centred.size)

    def slopes_of(chosen_BC: IntArray) -> tuple[FloatArray, FloatArray]:
        """The slope (B,), and what it is in standard errors, under each choice of controls."""
        sxy_BP = np.add.reduceat(difference_by_arm[rows, chosen_BC] * centred, starts, axis=1)
        slope = sxy_BP.sum(axis=1) / sxx
        spread = np.sqrt(((sxy_BP - slope[:, np.newaxis] * sxx_P) ** 2).sum(axis=1)) / sxx
        if (sxx_P > 0).sum() < 2:  # one problem has no spread between problems
            return slope, slope
        least = 1e-6  # where problems agree, rounding must not be magnified beyond a tie
        return slope, np.asarray(slope / np.maximum(spread, least))

    draws = [
        slopes_of(chosen[:, order])
        for chosen in draw_controls(arms, permutations=permutations, seed=seed)
    ]
    slopes, ratios = (np.concatenate(parts) for parts in zip(*draws, strict=True))
    _, observed = slopes_of(np.zeros((1, centred.size), dtype=np.int64))
    located = _locate(float(observed[0]), ratios, n_fixed)
    return replace(located, null_mean=float(slopes.mean()))


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


def _permuted_aurocs(
    scores: Mapping[str, tuple[int, FloatArray]],
    positive_CA: BoolArray,
    problems: npt.NDArray[Any],
    draws: Iterable[IntArray],
) -> dict[str, FloatArray]:
    """Each score's AUROC (B,) under every choice of controls; NaN where a class is empty.

    Args:
        scores: name -> its sign, and its values: (C,) where the prefix fixes them, (C, A) where
            they are measured on whichever arm is the control.
        positive_CA: whether a candidate is positive, were arm a the control.
        problems: (C,).
        draws: chunks (b, C) of `draw_controls`.
    """
    fixed = {name: entry for name, entry in scores.items() if entry[1].ndim == 1}
    ranks_CS = np.zeros((problems.size, len(fixed)))  # 0 where a candidate lacks the score
    present_CS = np.zeros_like(ranks_CS)
    for column, (sign, values) in enumerate(fixed.values()):
        present = np.isfinite(values)
        centred = centre_within(sign * values[present], problems[present])
        ranks_CS[present, column] = mid_ranks(centred)
        present_CS[present, column] = 1.0
    moving = {name: entry for name, entry in scores.items() if name not in fixed}
    rows = np.arange(problems.size)
    chunks: dict[str, list[FloatArray]] = {name: [] for name in scores}
    for chosen in draws:
        positive = positive_CA[rows, chosen].astype(np.float64)
        # Sums of halves are exact, so one product serves every score that does not move.
        areas_BS = _areas(positive @ ranks_CS, positive @ present_CS, present_CS.sum(axis=0))
        for column, name in enumerate(fixed):
            chunks[name].append(areas_BS[:, column])
        for name, (sign, table_CA) in moving.items():
            present = np.isfinite(table_CA[:, 0])
            codes, _ = cluster_codes(problems[present])
            drawn = sign * table_CA[rows, chosen][:, present]
            own = positive[:, present]
            rank_sums = np.einsum("bc,bc->b", own, centred_ranks(drawn, codes))
            chunks[name].append(_areas(rank_sums, own.sum(axis=1), codes.size))
    return {name: np.concatenate(areas) for name, areas in chunks.items()}


def _areas(
    rank_sums: FloatArray, n_positive: FloatArray, n_present: FloatArray | int
) -> FloatArray:
    """Mann-Whitney's U as a share of the pairs; NaN where there is none."""
    pairs = n_positive * (n_present - n_positive)
    areas = np.full(rank_sums.shape, np.nan)
    np.divide(rank_sums - n_positive * (n_positive + 1.0) / 2.0, pairs, out=areas, where=pairs > 0)
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
