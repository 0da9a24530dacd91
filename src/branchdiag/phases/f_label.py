"""Phase F: from continuations to grades, viability and labels (arXiv 2605.21606, section 3.2,
appendix B).

Reads `spines`, `candidates` and `continuations`; writes `grades` (a row a sample) and `labels` (a
row a candidate). A child's viability is the share of its samples whose last complete box matches
the answer. A candidate is `diversity` where at least two children are viable, `real_uncertain`
where every child fails, `gray` between. Thresholds are integers of counts, never floats compared.
Beside the paper's label stand one over finished samples alone and one under a stricter answer
rule. A grade that is missing leaves the candidate unlabelled. Knows no model: the tokenizer only
decodes.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from branchdiag.phases.arms import CONTROL, arms_of, is_child
from branchdiag.phases.base import (
    DIVERSITY,
    GRAY,
    REAL_UNCERTAIN,
    Context,
    Done,
    Outcome,
    Phase,
    Unit,
)
from branchdiag.phases.grading import answers_of, grade_row, ungraded
from branchdiag.protocol import ContinuationSettings, LabelSettings

CHUNK_CANDIDATES = 32
CHUNKS_AHEAD = 16
"""Chunks whose answers are read while a grader, which takes a second to start, is at an earlier."""


def viable(successes: int, samples: int, settings: LabelSettings) -> bool:
    """Whether successes >= ceil(diversity_share x samples): 5 of 6 at the paper's 0.75."""
    return successes >= math.ceil(Fraction(str(settings.diversity_share)) * samples)


def failing(successes: int, samples: int, settings: LabelSettings) -> bool:
    """Whether successes / samples < uncertain_share strictly: 2 of 6 at the paper's 0.40."""
    return successes < Fraction(str(settings.uncertain_share)) * samples


def label_of(
    successes: Sequence[int], samples: Sequence[int], settings: LabelSettings
) -> str | None:
    """The label of a candidate from its children's counts, one entry a child.

    None where fewer than two children have a sample: a label needs two.
    """
    counted = [(s, n) for s, n in zip(successes, samples, strict=True) if n > 0]
    if len(counted) < 2:
        return None
    if sum(viable(s, n, settings) for s, n in counted) >= settings.diversity_children:
        return DIVERSITY
    if all(failing(s, n, settings) for s, n in counted):
        return REAL_UNCERTAIN
    return GRAY


def label_finished(grades: Sequence[Mapping[str, Any]], settings: LabelSettings) -> str | None:
    """The label when samples cut off by the budget are dropped.

    None where a child keeps fewer than `min_finished` samples (or all, where it had fewer).
    """
    successes, samples = [], []
    for _, group in _by_arm(grades, children_only=True):
        finished = [row for row in group if not row["truncated"]]
        if len(finished) < min(settings.min_finished, len(group)):
            return None
        successes.append(sum(bool(row["correct"]) for row in finished))
        samples.append(len(finished))
    return label_of(successes, samples, settings)


def label_row(
    candidate: Mapping[str, Any],
    grades: Sequence[Mapping[str, Any]],
    settings: LabelSettings,
) -> dict[str, Any]:
    """The `labels` row of a candidate from its graded samples, arms in the order of `grades`."""
    arms = _by_arm(grades)
    successes = {arm: sum(bool(row["correct"]) for row in group) for arm, group in arms}
    strict = {arm: sum(bool(row["correct_strict"]) for row in group) for arm, group in arms}
    samples = {arm: len(group) for arm, group in arms}
    children = [arm for arm, _ in arms if is_child(arm)]
    control = dict(arms).get(CONTROL)
    mean_child = (
        sum(successes[arm] / samples[arm] for arm in children) / len(children) if children else None
    )
    v0 = successes[CONTROL] / samples[CONTROL] if control else None
    return {
        "candidate_id": candidate["candidate_id"],
        "problem_id": candidate["problem_id"],
        "position": candidate["position"],
        "r": candidate["r"],
        "arms": list(samples),
        "successes": list(successes.values()),
        "samples": list(samples.values()),
        "truncated": [sum(bool(row["truncated"]) for row in group) for _, group in arms],
        "lengths": [
            sum(row["n_tokens"] for row in group) / len(group) + (arm != CONTROL)
            for arm, group in arms
        ],
        "n_children": len(children),
        "mean_child_viability": mean_child,
        "control_viability": v0,
        "control_length": (
            sum(row["n_tokens"] for row in control) / len(control) if control else None
        ),
        "d": mean_child - v0 if mean_child is not None and v0 is not None else None,
        "control_viable": (
            viable(successes[CONTROL], samples[CONTROL], settings) if control else None
        ),
        "label": label_of(
            [successes[arm] for arm in children], [samples[arm] for arm in children], settings
        ),
        "label_finished": label_finished(grades, settings),
        "label_strict": label_of(
            [strict[arm] for arm in children], [samples[arm] for arm in children], settings
        ),
        "share_truncated": sum(bool(row["truncated"]) for row in grades) / len(grades),
    }


def _by_arm(
    grades: Sequence[Mapping[str, Any]], *, children_only: bool = False
) -> list[tuple[str, list[Mapping[str, Any]]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in grades:
        if not children_only or is_child(row["arm"]):
            groups.setdefault(row["arm"], []).append(row)
    return list(groups.items())


def texts_of(
    tokenizer: Any,
    candidate: Mapping[str, Any],
    spine: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    settings: ContinuationSettings,
) -> tuple[str, list[str]]:
    """The decoded prefix of a candidate and the decoded forced token + continuation of each
    sample.
    """
    forced = dict(arms_of(candidate, settings))
    prefix = tokenizer.decode(
        [*spine["prompt_ids"], *spine["spine_ids"][: candidate["position"]]],
        skip_special_tokens=False,
    )
    new = [
        tokenizer.decode([*forced[row["arm"]], *row["token_ids"]], skip_special_tokens=False)
        for row in samples
    ]
    return prefix, new


def units(context: Context) -> list[Unit]:
    """One unit a candidate whose every sample is there."""
    continuations = context.run.table("continuations").read(["candidate_id"])["candidate_id"]
    present = Counter(continuations.to_pylist())
    settings = context.protocol.continuation
    return [
        (row["candidate_id"],)
        for row in context.run.table("candidates").rows()
        if present[row["candidate_id"]] == len(arms_of(row, settings)) * settings.rollouts
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Grade and label the owed candidates, a few at a time so that the graders stay busy."""
    from branchdiag.answers.pool import GradingPool

    settings = context.protocol.label
    wanted = {str(unit[0]) for unit in owed}
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    candidates = {
        row["candidate_id"]: row
        for row in context.run.table("candidates").rows()
        if row["candidate_id"] in wanted
    }
    samples = _samples_in_arm_order(context, candidates)
    names = [str(unit[0]) for unit in owed]
    with GradingPool(settings.grading_workers, settings.grading_timeout_s) as pool:

        def labelled(chunk: _Chunk) -> Iterator[Outcome]:
            grades = iter(pool.grade_many(chunk.pairs))
            for name, answers in chunk.answers.items():
                graded = [
                    grade_row(row, loose, next(grades), next(grades))
                    for row, (loose, _) in zip(samples[name], answers, strict=True)
                ]
                yield _outcome(candidates[name], graded, settings)

        waiting: deque[_Chunk] = deque()
        for start in range(0, len(names), CHUNK_CANDIDATES):
            answers = {
                name: _answers(context, candidates[name], spines, samples[name])
                for name in names[start : start + CHUNK_CANDIDATES]
            }
            pairs = [
                (answer, spines[candidates[name]["problem_id"]]["gold_answer"])
                for name, of_samples in answers.items()
                for both in of_samples
                for answer in both
            ]
            pool.begin(pairs)
            waiting.append(_Chunk(answers, pairs))
            while waiting and (len(waiting) > CHUNKS_AHEAD or pool.has(waiting[0].pairs)):
                yield from labelled(waiting.popleft())
        for chunk in waiting:
            yield from labelled(chunk)


@dataclass(frozen=True)
class _Chunk:
    """Candidates whose answers are read: name -> answers of each sample, and what is to grade."""

    answers: dict[str, list[tuple[str | None, str | None]]]
    pairs: list[tuple[str | None, str]]


def _samples_in_arm_order(
    context: Context, candidates: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """The continuations of each candidate, children in the teacher's order, then the others."""
    settings = context.protocol.continuation
    order = {
        (name, arm): index
        for name, row in candidates.items()
        for index, (arm, _) in enumerate(arms_of(row, settings))
    }
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    for row in context.run.table("continuations").rows():
        if row["candidate_id"] in candidates:
            samples[row["candidate_id"]].append(row)
    for group in samples.values():
        group.sort(key=lambda row: (order[row["candidate_id"], row["arm"]], row["sample"]))
    return samples


def _answers(
    context: Context,
    candidate: Mapping[str, Any],
    spines: Mapping[str, Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> list[tuple[str | None, str | None]]:
    prefix, texts = texts_of(
        context.tokenizer,
        candidate,
        spines[candidate["problem_id"]],
        samples,
        context.protocol.continuation,
    )
    return [answers_of(text, prefix) for text in texts]


def _outcome(
    candidate: Mapping[str, Any], graded: Sequence[Mapping[str, Any]], settings: LabelSettings
) -> Outcome:
    unit = (candidate["candidate_id"],)
    failed = ungraded(unit, graded, lambda row: str(row["arm"]))
    if failed is not None:
        return failed
    return Done(unit, {"grades": graded, "labels": [label_row(candidate, graded, settings)]})


PHASE = Phase(
    letter="F",
    name="label",
    question="Which branches reach the answer, and what does that make of each candidate?",
    reads=("A", "C", "E"),
    writes=("grades", "labels"),
    unit=("candidate_id",),
    settings=("label",),
    inputs=(),
    version=1,
    needs_model=False,
    units=units,
    work=work,
)
