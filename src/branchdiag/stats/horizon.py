"""Against the horizon: do forced tokens fail more early than the way still to go explains?

With one chance in twenty of an error that ends all hope at each step, a continuation of h steps
succeeds with probability .95^h whether or not a token was forced: early candidates are
"real-uncertain" and late ones are not, with no teacher in it. So every candidate has a control arm
from the same prefix with nothing forced, and what is reported is

- the within-problem slope of d = mean child viability - control viability on r, whose mean is 0 at
  every r if forcing does nothing. It is the primary figure.
- the AUROC of every score for a drop of 0.4 or more, beside its own permuted null
  (`horizon_null`): a threshold on d lets the horizon in again, since d spreads widest where
  viability is near one half.
- the teacher's advantage, sum over the forced tokens of (q - p) V, by position.

Why a slope with one intercept a problem: L is constant inside a problem, hard problems differ in
both r and viability, and only differences inside a problem are free of that. Failure of the
children has slope -(slope of control viability) - (slope of d), so the absolute pattern splits
exactly into the horizon's part and the teacher's.

Reads arrays over candidates; knows no tables. Resamples are those of `bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.arms import MIN_CHILDREN, Arms
from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.bootstrap import ratio_estimate
from branchdiag.stats.estimate import Estimate, FloatArray, IntArray, Resampling, missing
from branchdiag.stats.horizon_null import PermutedNull, slope_null


@dataclass(frozen=True)
class Slope:
    """A within-problem slope and what it stands on.

    n_candidates, n_problems: those that carry it (problems whose candidates differ in r).
    """

    estimate: Estimate
    n_candidates: int
    n_problems: int


def within_problem_slope(
    y: npt.ArrayLike, r: npt.ArrayLike, clusters: npt.ArrayLike, **resampling: Unpack[Resampling]
) -> Slope:
    """Least-squares slope of y on r with an intercept for each problem, with a cluster interval.

    Sum over problems of Sxy over the sum of Sxx, both within the problem; the same as regression
    on r and one indicator a problem. On a resample it is (w' Sxy) / (w' Sxx): nothing is fitted
    twice. Problems whose candidates share one r (or with one candidate) add nothing to either sum.

    Args:
        y: (C,) the outcome, such as d; rows with NaN are left out.
        r: (C,) relative position, 0 start to 1 end, so the slope is a change over a whole spine.
        clusters: (C,) the problems.
    """
    outcome = np.asarray(y, dtype=np.float64)
    present = np.isfinite(outcome)
    if not present.any():
        return Slope(missing("no candidate has this outcome"), 0, 0)
    outcome, position = outcome[present], np.asarray(r, dtype=np.float64)[present]
    codes, n_problems = cluster_codes(np.asarray(clusters)[present])
    sxy, sxx = slope_sums(outcome, position, codes, n_problems)
    carries = sxx > 0
    n_carrying = int(carries.sum())
    n_candidates = int(carries[codes].sum())
    if n_carrying == 0:
        return Slope(missing("no problem has candidates at two positions"), 0, 0)
    return Slope(ratio_estimate(sxy, sxx, **resampling), n_candidates, n_carrying)


def slope_sums(
    y: npt.ArrayLike, r: npt.ArrayLike, codes: npt.ArrayLike, n_problems: int
) -> tuple[FloatArray, FloatArray]:
    """Sxy and Sxx (P,) within each problem, 0 where a problem carries no slope.

    Args:
        y: (C,) the outcome; rows with NaN are left out.
        r: (C,) relative position.
        codes: (C,) problem of each row, 0 ... P - 1; a problem may have no row.
        n_problems: P.
    """
    outcome = np.asarray(y, dtype=np.float64)
    present = np.isfinite(outcome)
    outcome, position = outcome[present], np.asarray(r, dtype=np.float64)[present]
    kept = np.asarray(codes, dtype=np.int64)[present]
    centred = _centred(position, kept, n_problems)
    sxx = np.bincount(kept, centred**2, n_problems)
    sxy = np.bincount(kept, centred * _centred(outcome, kept, n_problems), n_problems)
    carries = sxx > 1e-12 * float(np.max(position**2, initial=0.0))  # less is rounding
    return np.where(carries, sxy, 0.0), np.where(carries, sxx, 0.0)


@dataclass(frozen=True)
class AgainstControl:
    """Three slopes on r over the same candidates, and the permuted null of the last.

    failure: of 1 - mean child viability. control: of 1 - control viability. difference: of d.
    failure = control - difference, exactly: the horizon's part and the teacher's.
    """

    failure: Slope
    control: Slope
    difference: Slope
    null: PermutedNull


def against_control(
    arms: Arms,
    r: npt.ArrayLike,
    problem_id: npt.ArrayLike,
    *,
    permutations: int,
    **resampling: Unpack[Resampling],
) -> AgainstControl:
    """The pattern over positions, split into what happens anyway and what forcing adds.

    All candidates with a graded control and two graded children, whatever their label. Where no
    candidate has a control, the slope of failure alone is taken over those with two children.

    Args:
        arms: (C, A).
        r: (C,) relative position.
        problem_id: (C,) the problems.
        permutations: of the null.
    """
    paired = arms.comparable
    forced = (arms.samples[:, 1:] > 0).sum(axis=1) >= MIN_CHILDREN
    used = paired if paired.any() else forced
    children = arms.viability[:, 1:]
    totals = np.nansum(children, axis=1) / np.maximum(1, np.isfinite(children).sum(axis=1))
    outcomes = {
        "failure": np.where(used, 1.0 - totals, np.nan),
        "control": np.where(paired, 1.0 - arms.viability[:, 0], np.nan),
        "difference": arms.difference,
    }
    return AgainstControl(
        **{
            name: within_problem_slope(outcome, r, problem_id, **resampling)
            for name, outcome in outcomes.items()
        },
        null=slope_null(arms, r, problem_id, permutations=permutations, seed=resampling["seed"]),
    )


@dataclass(frozen=True)
class ViableControls:
    """Real-uncertain candidates by their control: those no horizon explains are the viable ones.

    n_real_uncertain: all. n_without_control: of them, without a graded control.
    n_control_viable, n_problems_control_viable: of them, with a viable control, and in how many
    problems.
    """

    n_real_uncertain: int
    n_without_control: int
    n_control_viable: int
    n_problems_control_viable: int


def count_viable_controls(
    label: npt.ArrayLike, control_viable: npt.ArrayLike, problem_id: npt.ArrayLike
) -> ViableControls:
    """How many real-uncertain candidates remain where the control is viable.

    Args:
        label: (C,) labels.
        control_viable: (C,) True, False, or None where there is no graded control.
        problem_id: (C,) the problems.
    """
    uncertain = np.asarray(label, dtype=object) == "real_uncertain"
    controls = list(np.asarray(control_viable, dtype=object)[uncertain])
    known = np.array([isinstance(value, bool | np.bool_) for value in controls], dtype=np.bool_)
    viable = np.array([ok and bool(v) for ok, v in zip(known, controls, strict=True)], np.bool_)
    problems = np.asarray(problem_id)[uncertain]
    return ViableControls(
        n_real_uncertain=int(uncertain.sum()),
        n_without_control=int((~known).sum()),
        n_control_viable=int(viable.sum()),
        n_problems_control_viable=int(np.unique(problems[viable]).size),
    )


def teacher_advantage(
    teacher_CK: npt.ArrayLike, student_CK: npt.ArrayLike, viability_CK: npt.ArrayLike
) -> FloatArray:
    """Gain in viability from choosing among the forced tokens as the teacher does, not the
    student.

    Sum over the candidate's children of (q - p) V, with the teacher's q and the student's p each
    renormalised on the children that were graded. Positive where the teacher prefers the better
    branches. It is unbiased in V, since the weights were fixed before any continuation.

    Args:
        teacher_CK, student_CK: (C, K) probabilities, in any normalisation; NaN where no child.
        viability_CK: (C, K) share of successes; NaN where not graded.

    Returns:
        (C,), NaN where fewer than two children are graded or a side gives them no mass.
    """
    teacher, student, viability = (
        np.asarray(values, dtype=np.float64) for values in (teacher_CK, student_CK, viability_CK)
    )
    graded = np.isfinite(teacher) & np.isfinite(student) & np.isfinite(viability)
    q, p = np.where(graded, teacher, 0.0), np.where(graded, student, 0.0)
    usable = (graded.sum(axis=1) >= 2) & (q.sum(axis=1) > 0) & (p.sum(axis=1) > 0)
    advantage = np.full(graded.shape[0], np.nan)
    q, p = q[usable], p[usable]
    shift = q / q.sum(axis=1, keepdims=True) - p / p.sum(axis=1, keepdims=True)
    advantage[usable] = (shift * np.where(graded, viability, 0.0)[usable]).sum(axis=1)
    return advantage


def _centred(values: FloatArray, codes: IntArray, n_clusters: int) -> FloatArray:
    counts = np.maximum(1, np.bincount(codes, minlength=n_clusters))  # a cluster may have no row
    means = np.bincount(codes, values, n_clusters) / counts
    centred: FloatArray = values - means[codes]
    return centred
