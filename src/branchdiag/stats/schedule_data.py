"""Labelled candidates as the rows of a likelihood, one way for each estimand.

Reads the columns of the `labels` table (and the children's teacher probabilities from
`candidates`) as plain sequences; writes arrays. Knows nothing of curves or fits. What the schedule
is fitted to must be said first, since the answers differ:

- `viability`: E[V | r], the share of the forced children's samples that succeed.
- `relative`: E[V | r] / E[V0 | r], the same over the control arm, from which nothing is forced.
  It asks what forcing costs, whatever is left to go.
- `binary`: P(not real-uncertain | r) among candidates labelled diversity or real-uncertain.
- `teacher-weighted`: sum of q V over the children, q the teacher's probabilities renormalised on
  the graded children.

Each problem weighs 1 in total. Inside a problem, counts weigh by their samples (binomial) and
shares equally (fractional). Arrays: C rows, P problems, A arms, K children.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from branchdiag.stats.arms import CHILD, CONTROL, MIN_CHILDREN, Arms
from branchdiag.stats.auroc import cluster_codes
from branchdiag.stats.estimate import BoolArray, FloatArray, IntArray

Estimand = Literal["viability", "relative", "binary", "teacher-weighted"]
ESTIMANDS: tuple[Estimand, ...] = get_args(Estimand)


@dataclass(frozen=True)
class LabelledCandidates:
    """What Phase F made of each candidate.

    r: (C,) relative position. problem: (C,). arms: (C, A), the control first. label: (C,)
    diversity, real_uncertain, gray or None. teacher_CK: (C, A - 1) the teacher's probability of
    each child, NaN where unknown. n_ungraded_children, n_ungraded_controls: arms without a graded
    sample.
    """

    r: FloatArray
    problem: Any
    arms: Arms
    label: Any
    teacher_CK: FloatArray
    n_ungraded_children: int = 0
    n_ungraded_controls: int = 0

    @staticmethod
    def from_tables(
        labels: Mapping[str, Iterable[Any]], candidates: Mapping[str, Iterable[Any]] | None = None
    ) -> LabelledCandidates:
        """From the columns of the tables; frames will do.

        Args:
            labels: candidate_id, problem_id, r, arms, successes, samples, label.
            candidates: candidate_id, child_ids, child_teacher; without it `teacher-weighted` has
                nothing to stand on.
        """
        names = [[str(arm) for arm in arms] for arms in labels["arms"]]
        successes = [[int(n) for n in row] for row in labels["successes"]]
        samples = [[int(n) for n in row] for row in labels["samples"]]
        arms = Arms.from_lists(names, successes, samples)
        graded = [
            (name, count > 0)
            for row, counts in zip(names, samples, strict=True)
            for name, count in zip(row, counts, strict=True)
        ]
        return LabelledCandidates(
            r=np.array([np.nan if r is None else float(r) for r in labels["r"]], np.float64),
            problem=np.array([str(problem) for problem in labels["problem_id"]]),
            arms=arms,
            label=np.array([v if isinstance(v, str) else None for v in labels["label"]], object),
            teacher_CK=_teacher(list(labels["candidate_id"]), names, arms, candidates),
            n_ungraded_children=sum(n.startswith(CHILD) and not ok for n, ok in graded),
            n_ungraded_controls=sum(n == CONTROL and not ok for n, ok in graded),
        )


@dataclass(frozen=True)
class Observations:
    """Rows of a likelihood and of the test of direction, sorted by problem.

    r, y, share: (C,) position, share of successes, weight (1 in total for each problem). codes:
    (C,) the problem, 0 ... P - 1. is_control: (C,) rows of the control arm (`relative` alone).
    outcome, outcome_r, outcome_codes: one a candidate, whose within-problem slope on r tells the
    direction. For `relative` it is V - rho V0, rho the ratio of the means: if the ratio is the same
    everywhere, its mean is 0 at every r, whatever the control does along the trace. counts: what
    was used and what was left out.
    """

    estimand: Estimand
    r: FloatArray
    y: FloatArray
    share: FloatArray
    codes: IntArray
    is_control: BoolArray
    n_problems: int
    outcome: FloatArray
    outcome_r: FloatArray
    outcome_codes: IntArray
    counts: dict[str, int]

    @property
    def relative(self) -> bool:
        """Whether the curve is a ratio to the control's."""
        return self.estimand == "relative"


def observe(data: LabelledCandidates, estimand: Estimand) -> Observations:
    """The rows of an estimand; everything left out is counted.

    Raises:
        ValueError: an estimand that is not in the list.
    """
    if estimand not in ESTIMANDS:
        raise ValueError(f"no estimand {estimand!r}: one of {', '.join(ESTIMANDS)}")
    placed = np.isfinite(data.r) & (data.r >= 0.0) & (data.r <= 1.0)
    samples, successes = data.arms.samples, data.arms.successes
    graded_CK = samples[:, 1:] > 0
    forced = graded_CK.sum(axis=1) >= MIN_CHILDREN
    counts = {"candidates": int(data.r.size), "dropped_no_position": int((~placed).sum())}
    if estimand == "binary":
        labelled = np.isin(data.label, ["diversity", "real_uncertain"])
        counts["dropped_gray"] = int((placed & (data.label == "gray")).sum())
        counts["dropped_unlabelled"] = int((placed & ~labelled & (data.label != "gray")).sum())
        used = placed & labelled
        successes_C = (data.label == "diversity").astype(np.float64)
        trials_C = np.ones(data.r.size)
    else:
        counts["dropped_children_without_samples"] = data.n_ungraded_children
        counts["dropped_too_few_children"] = int((placed & ~forced).sum())
        used = placed & forced
        successes_C = successes[:, 1:].sum(axis=1).astype(np.float64)
        trials_C = samples[:, 1:].sum(axis=1).astype(np.float64)
    if estimand == "relative":
        counts["dropped_no_control"] = int((used & (samples[:, 0] == 0)).sum())
        used = used & (samples[:, 0] > 0)
    if estimand == "teacher-weighted":
        share_C = _teacher_weighted(data)
        counts["dropped_no_teacher_probability"] = int((used & ~np.isfinite(share_C)).sum())
        used = used & np.isfinite(share_C)
        successes_C, trials_C = np.nan_to_num(share_C), np.ones(data.r.size)
    codes_C, n_problems = cluster_codes(data.problem[used])
    order = np.argsort(codes_C, kind="stable")
    rows = np.flatnonzero(used)[order]
    codes, r = codes_C[order], data.r[rows]
    k, n = successes_C[rows], trials_C[rows]
    is_control = np.zeros(rows.size, dtype=np.bool_)
    outcome = k / n
    if estimand == "relative":
        k0, n0 = (values[rows, 0].astype(np.float64) for values in (successes, samples))
        outcome = outcome - _ratio(outcome, k0 / n0, codes, n_problems) * (k0 / n0)
        is_control = np.repeat([False, True], rows.size)
        k, n = np.concatenate([k, k0]), np.concatenate([n, n0])
    all_codes = np.tile(codes, 2) if estimand == "relative" else codes
    totals = np.bincount(all_codes, n, n_problems)
    if estimand in ("viability", "relative"):
        counts["child_samples"] = int(n[~is_control].sum())
        counts["child_successes"] = int(k[~is_control].sum())
    if estimand == "relative":
        counts["control_samples"] = int(n[is_control].sum())
        counts["control_successes"] = int(k[is_control].sum())
    if estimand == "binary":
        counts["failing"] = int((k == 0).sum())
        counts["problems_with_failing"] = int(np.unique(codes[k == 0]).size)
    return Observations(
        estimand=estimand,
        r=np.tile(r, 2) if estimand == "relative" else r,
        y=k / n,
        share=n / totals[all_codes],
        codes=all_codes,
        is_control=is_control,
        n_problems=n_problems,
        outcome=outcome,
        outcome_r=r,
        outcome_codes=codes,
        counts={**counts, "used": int(rows.size), "problems": n_problems},
    )


def _ratio(child: FloatArray, control: FloatArray, codes: IntArray, n_problems: int) -> float:
    """Children's mean viability over the control's, problems weighing equally; 0 if undefined."""
    sizes = np.maximum(1, np.bincount(codes, minlength=n_problems))
    below = float((np.bincount(codes, control, n_problems) / sizes).sum())
    above = float((np.bincount(codes, child, n_problems) / sizes).sum())
    return above / below if below > 0 else 0.0


def _teacher_weighted(data: LabelledCandidates) -> FloatArray:
    """Sum of q V (C,), q renormalised on graded children; NaN where the teacher gives no mass."""
    viability = data.arms.viability[:, 1:]
    known = np.isfinite(viability) & np.isfinite(data.teacher_CK)
    q = np.where(known, data.teacher_CK, 0.0)
    mass = q.sum(axis=1)
    weighted = (q * np.where(known, viability, 0.0)).sum(axis=1)
    share = np.full(mass.shape, np.nan)
    np.divide(weighted, mass, out=share, where=mass > 0)
    return share


def _teacher(
    candidate_ids: list[Any],
    names: list[list[str]],
    arms: Arms,
    candidates: Mapping[str, Iterable[Any]] | None,
) -> FloatArray:
    """The teacher's probability of each child (C, A - 1), by token id, NaN where unknown."""
    teacher = np.full((len(names), arms.samples.shape[1] - 1), np.nan)
    if candidates is None:
        return teacher
    columns = (candidates[name] for name in ("candidate_id", "child_ids", "child_teacher"))
    by_id = {
        name: {f"{CHILD}{int(token)}": float(p) for token, p in zip(ids, chances, strict=True)}
        for name, ids, chances in zip(*columns, strict=True)
    }
    for row, (candidate, arm_names) in enumerate(zip(candidate_ids, names, strict=True)):
        children = [name for name in arm_names if name.startswith(CHILD)]
        for column, name in enumerate(children):
            teacher[row, column] = by_id.get(candidate, {}).get(name, np.nan)
    return teacher
