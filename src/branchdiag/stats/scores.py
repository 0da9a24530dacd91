"""Which score tells real-uncertain candidates from diversity ones: one row a score, with
intervals.

Reads columns over candidates (NaN where a score is missing), their labels and problems; writes
`ScoreResult` rows. Knows nothing of how a score was measured. ArXiv 2605.21606, section 3.2 and
appendix B (Phase G): scores centred in each problem, Mann-Whitney AUROC, 2,000 resamples of
problems.

The sign of a score is declared before any data are seen and the AUROC is not folded: max(a, 1 - a)
moves a score of no information well above one half when positives are few (with 8 positives among
279 its interval is about [.51, .77], unfolded about [.32, .71]). The folded figure stands beside it
as `paper_compat`, from the same resamples, for comparison with the paper's table alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt

from branchdiag.stats.auroc import (
    auroc,
    average_precision,
    centre_within,
    cluster_codes,
    concordance_by_cluster,
    mid_ranks,
    prevalence,
    stratified_auroc,
)
from branchdiag.stats.bootstrap import interval, replicate
from branchdiag.stats.estimate import (
    BoolArray,
    FloatArray,
    Resampling,
    missing,
)
from branchdiag.stats.weighted import weighted_auroc, weighted_average_precision, weighted_ratio

LABELS = ("diversity", "real_uncertain", "gray")


@dataclass(frozen=True)
class Score:
    """A score: its name in every table, the sign that points to real-uncertain, what it is."""

    name: str
    sign: Literal[1, -1]
    meaning: str


_DECLARED = (
    Score("one_minus_r", 1, "Earliness: 1 - (position + 0.5) / length of the spine."),
    Score("h_trunc", 1, "Entropy of the teacher's top valid tokens, renormalised."),
    Score("h_full", 1, "Teacher's entropy over the whole vocabulary, without dropout."),
    Score("h_mc", 1, "Entropy of the teacher's mean distribution under dropout."),
    Score("mi", 1, "Mutual information between the token and the dropout mask."),
    Score("log_kappa", -1, "Log of the Dirichlet concentration matched to the dropout samples."),
    Score("h_student", 1, "Student's entropy over the whole vocabulary."),
    Score("log_ratio", -1, "ln(teacher / student) at the spine's own token."),
    Score("kl", 1, "KL divergence of the teacher from the student, KL(q || p)."),
    Score("margin", -1, "Probability of the teacher's first token less that of its second."),
    Score("control_viability", -1, "Share of continuations that succeed with nothing forced."),
    Score("control_length", 1, "Mean length of the continuations with nothing forced, tokens."),
    Score("position", -1, "Absolute position, tokens."),
)
SCORES: Mapping[str, Score] = {score.name: score for score in _DECLARED}
"""Every score, in the order of every table. Positive class: real-uncertain."""


@dataclass(frozen=True)
class PaperCompat:
    """The paper's folded figure max(a, 1 - a), folded inside the bootstrap too."""

    auroc: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """How one score ranks positives above negatives.

    `reason` says why the AUROC or its interval is missing, `auprc_reason` and `stratified_reason`
    the same of theirs. `alias_of` names an earlier score whose centred values rank all candidates
    the same way (or exactly the other way round): the row then says nothing new. `aliases` are the
    names that point here. `n_missing` rows had a class but no such score.
    """

    name: str
    sign: int
    auroc: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None
    auprc: float | None
    auprc_ci_low: float | None
    auprc_ci_high: float | None
    auprc_reason: str | None
    prevalence: float | None
    stratified_auroc: float | None
    stratified_ci_low: float | None
    stratified_ci_high: float | None
    stratified_reason: str | None
    n_pairs: int
    n_problems_mixed: int
    n_positive: int
    n_negative: int
    n_problems: int
    n_problems_positive: int
    n_dropped_resamples: int
    n_missing: int
    paper_compat: PaperCompat
    alias_of: str | None = None
    aliases: tuple[str, ...] = ()


def evaluate_scores(
    columns: Mapping[str, npt.ArrayLike],
    label: npt.ArrayLike,
    problem_id: npt.ArrayLike,
    *,
    declared: Mapping[str, Score] = SCORES,
    **resampling: Unpack[Resampling],
) -> list[ScoreResult]:
    """Every declared score against the labels: real-uncertain positive, diversity negative.

    Gray candidates (and those without a label) are left out before anything is centred, so that a
    residual is relative to the problem's binary-labelled candidates. A row whose score is missing
    is left out for that score and counted.

    Args:
        columns: score name -> (C,) raw values, not oriented; NaN or infinite where missing. A
            declared score that is not here gets a row that says so.
        label: (C,) of `LABELS`, or None or "" where a candidate was not graded.
        problem_id: (C,) the clusters.
        declared: the scores, by name.

    Returns:
        One result a declared score, in the order of `declared`.

    Raises:
        ValueError: a column that is not declared, a label that is not known, or lengths that
        differ.
    """
    labels, used = binary_labels(label)
    arrays, problems = checked_columns(columns, problem_id, labels.size, declared=declared)
    return evaluate_columns(
        {name: values[used] for name, values in arrays.items()},
        labels[used] == "real_uncertain",
        problems[used],
        class_names=("real-uncertain", "diversity"),
        declared=declared,
        **resampling,
    )


def binary_labels(label: npt.ArrayLike) -> tuple[npt.NDArray[Any], BoolArray]:
    """Labels (C,) as strings, "" where there is none, and which rows have one of the two classes.

    Raises:
        ValueError: a label that is not known.
    """
    labels = np.array([v if isinstance(v, str) else "" for v in np.asarray(label, dtype=object)])
    unknown = sorted(set(labels.tolist()) - {*LABELS, ""})
    if unknown:
        raise ValueError(f"unknown labels: {', '.join(map(str, unknown))}")
    return labels, np.isin(labels, ("real_uncertain", "diversity"))


def evaluate_columns(
    columns: Mapping[str, FloatArray],
    positive: BoolArray,
    problem_id: npt.NDArray[Any],
    *,
    class_names: tuple[str, str],
    declared: Mapping[str, Score] = SCORES,
    **resampling: Unpack[Resampling],
) -> list[ScoreResult]:
    """As `evaluate_scores`, for any two classes; `class_names` are used in reasons."""
    results = []
    first_of: dict[bytes, str] = {}
    for score in declared.values():
        values = columns.get(score.name, np.full(positive.size, np.nan))
        present = np.isfinite(values)
        residuals = oriented_residuals(score, values[present], problem_id[present])
        result = _evaluate(
            score, residuals, positive[present], problem_id[present], class_names, resampling
        )
        result = replace(result, n_missing=int((~present).sum()))
        if score.name not in columns:
            result = replace(result, **_reasons("this run did not measure it"))
        if np.unique(residuals).size > 1:  # constant scores are empty, not aliases
            result = replace(result, alias_of=_alias(first_of, score.name, residuals, present))
        results.append(result)
    aliases = {
        name: tuple(r.name for r in results if r.alias_of == name) for name in first_of.values()
    }
    return [replace(result, aliases=aliases.get(result.name, ())) for result in results]


def checked_columns(
    columns: Mapping[str, npt.ArrayLike],
    problem_id: npt.ArrayLike,
    n_candidates: int,
    *,
    declared: Mapping[str, Score] = SCORES,
) -> tuple[dict[str, FloatArray], npt.NDArray[Any]]:
    """Columns and problems as arrays.

    Raises:
        ValueError: a score that is not declared, or a length other than `n_candidates`.
    """
    undeclared = sorted(set(columns) - set(declared))
    if undeclared:
        raise ValueError(f"scores that are not declared: {', '.join(undeclared)}")
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    problems = np.asarray(problem_id)
    sizes = {name: values.size for name, values in arrays.items()} | {"problems": problems.size}
    wrong = {name: size for name, size in sizes.items() if size != n_candidates}
    if wrong:
        raise ValueError(f"{n_candidates} candidates and {wrong} differ in length")
    return arrays, problems


def oriented_residuals(score: Score, values: FloatArray, clusters: npt.ArrayLike) -> FloatArray:
    """A score (C,), turned so that larger means more positive, less its problem's mean."""
    return centre_within(score.sign * values, clusters)


def _alias(
    first_of: dict[bytes, str], name: str, residuals: FloatArray, present: BoolArray
) -> str | None:
    """The earlier score that ranks the same rows the same way or the other way round; notes it."""
    ranks = mid_ranks(residuals)
    for oriented in (ranks, ranks.size + 1.0 - ranks):
        earlier = first_of.get(present.tobytes() + oriented.tobytes())
        if earlier is not None:
            return earlier
    first_of[present.tobytes() + ranks.tobytes()] = name
    return None


def _reasons(reason: str) -> dict[str, Any]:
    return dict.fromkeys(("reason", "auprc_reason", "stratified_reason"), reason)


def _evaluate(
    score: Score,
    residuals: FloatArray,
    positive: BoolArray,
    clusters: npt.NDArray[Any],
    class_names: tuple[str, str],
    resampling: Resampling,
) -> ScoreResult:
    """One row from oriented residuals of the rows that have the score."""
    codes, n_problems = cluster_codes(clusters)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    point, step = auroc(residuals, positive), average_precision(residuals, positive)
    within = stratified_auroc(residuals, positive, codes)
    areas = np.array([])
    if point is None or step is None:
        lacking = class_names[1] if n_positive else class_names[0]
        area = precision = missing(f"no {lacking} candidate with this score")
        stratified = missing(str(within.reason))
        compat = PaperCompat(None, None, None)
    else:
        statistics = [
            weighted_auroc(residuals, positive, codes),
            weighted_average_precision(residuals, positive, codes),
            weighted_ratio(*concordance_by_cluster(residuals, positive, codes)),
        ]
        areas, precisions, shares = replicate(
            statistics, n_problems, resamples=resampling["resamples"], seed=resampling["seed"]
        )
        area = interval(point, areas, n_problems, **resampling)
        precision = interval(step, precisions, n_problems, **resampling)
        folded = interval(
            max(point, 1.0 - point), np.maximum(areas, 1.0 - areas), n_problems, **resampling
        )
        compat = PaperCompat(folded.value, folded.ci_low, folded.ci_high)
        stratified = (
            missing(str(within.reason))
            if within.value is None
            else interval(within.value, shares, n_problems, **resampling)
        )
    return ScoreResult(
        name=score.name,
        sign=score.sign,
        auroc=area.value,
        ci_low=area.ci_low,
        ci_high=area.ci_high,
        reason=area.reason,
        auprc=precision.value,
        auprc_ci_low=precision.ci_low,
        auprc_ci_high=precision.ci_high,
        auprc_reason=precision.reason,
        prevalence=prevalence(positive),
        stratified_auroc=stratified.value,
        stratified_ci_low=stratified.ci_low,
        stratified_ci_high=stratified.ci_high,
        stratified_reason=stratified.reason,
        n_pairs=within.n_pairs,
        n_problems_mixed=within.n_problems_mixed,
        n_positive=n_positive,
        n_negative=n_negative,
        n_problems=n_problems,
        n_problems_positive=int(np.unique(codes[positive]).size),
        n_dropped_resamples=int(np.isnan(areas).sum()),
        n_missing=0,
        paper_compat=compat,
    )
