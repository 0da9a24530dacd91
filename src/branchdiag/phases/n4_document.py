"""The document of the gradient alignment: everything that page, terminal and `--json` show.

Takes what N4 found; writes a plain tree that JSON can hold. A number that could not be computed is
null beside a reason. Computes counts and means of what is left out, and no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import Context
from branchdiag.report.wording import plural, teacher_sees

if TYPE_CHECKING:
    from branchdiag.phases.n4_alignment import Group, Measured
    from branchdiag.stats.alignment_estimates import Alignment, Cell, Series
    from branchdiag.stats.estimate import Estimate

FORMAT, VERSION = "branchdiag.alignment", 1
BY_POSITION = ("advantage", "cosine_forward_kl")
CONTEXT_SETTINGS = ("rollouts", "budget", "student_tokens", "min_student_probability")
LOSS_NAMES = {
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "jsd": "JSD, beta 0.5",
    "clipped_forward_kl": "clipped forward KL",
}


def make_document(
    context: Context, known: Measured, contexts: Sequence[str], groups: Sequence[Group]
) -> dict[str, Any]:
    """The document of a run.

    Args:
        contexts: those that at least one measured node has.
    """
    align, report = context.protocol.align, context.protocol.report
    words = {name: teacher_sees(name) for name in align.contexts}
    return {
        "schema": FORMAT,
        "version": VERSION,
        "contexts": [
            {
                "context": name,
                "words": words[name],
                "n_nodes": sum(name in row["views"] for row in known.nodes),
                "is_the_runs": name == context.protocol.teacher.context,
            }
            for name in align.contexts
        ],
        "counts": {
            **known.counts,
            "problems": len({row["problem_id"] for row in known.nodes}),
        },
        "settings": {
            **{name: getattr(align, name) for name in CONTEXT_SETTINGS},
            "level": report.level,
            "resamples": report.resamples,
            "temperature": context.protocol.continuation.temperature,
            "top_p": context.protocol.continuation.top_p,
        },
        "stands_on": _stands_on(known),
        "groups": [group_document(group, contexts, words, report.level) for group in groups],
        "between": between_documents(context, groups, contexts, words),
        "notes": notes(context, known, contexts, words),
    }


def _stands_on(known: Measured) -> str:
    """In one line, what everything stands on."""
    counts = known.counts
    problems = len({row["problem_id"] for row in known.nodes})
    return (
        f"{plural(counts['measured'], 'node')} in {plural(problems, 'problem')}, "
        f"{plural(counts['arms'], 'arm')}, {plural(counts['new_samples'], 'new sample')} beside "
        f"{counts['samples_of_phase_e']:,} of Phase E"
    )


def group_document(
    group: Group, contexts: Sequence[str], words: Mapping[str, str], level: float
) -> dict[str, Any]:
    """One group of nodes."""
    from branchdiag.stats.alignment_sentences import best_context

    made: dict[str, Any] = {
        "group": group.name,
        "description": group.description,
        "n_nodes": len(group.nodes),
        "n_problems": len({row["problem_id"] for row in group.nodes}),
        "reason": None,
        "contexts": [],
        "differences": [],
        "noise": None,
        "has_cosine": False,
        "status": None,
        "best": None,
        "sentences": [],
    }
    if group.found is None:
        made["reason"] = "no node of this group was measured"
        return made
    verdict = best_context(group.found, words, level)
    pooled = group.found.pooled
    return made | {
        "support": {
            "mean_tokens": _mean([len(row["support_ids"]) for row in group.nodes]),
            "n_two_tokens": sum(len(row["support_ids"]) == 2 for row in group.nodes),
            "student_excluded": _outside([row["student_excluded"] for row in group.nodes]),
        },
        "contexts": [_context_document(group, name, words) for name in contexts],
        "differences": [
            {
                "figure": figure,
                "context": first,
                "against": second,
                **estimate_document(pair.estimate),
                "low": pair.low,
                "high": pair.high,
                "p": pair.p,
            }
            for (figure, first, second), pair in group.found.differences.items()
        ],
        "noise": {
            "split_half": estimate_document(pooled.split_half),
            "signal_share": estimate_document(pooled.signal_share),
        },
        "has_cosine": any(
            series.whole.estimate.value is not None
            for (figure, _, _), series in group.found.series.items()
            if figure != "advantage"
        ),
        "status": verdict.status,
        "best": verdict.best,
        "sentences": [verdict.sentence, *_sentences(group.found, contexts, words, level)],
    }


def _sentences(
    found: Alignment, contexts: Sequence[str], words: Mapping[str, str], level: float
) -> list[str]:
    from branchdiag.stats import alignment_sentences as say

    made = [say.against_student(found, name, words, level) for name in contexts]
    along = [say.along_the_trace(found, name, words, level) for name in contexts]
    made += [sentence for sentence in along if sentence is not None]
    made += [say.of_cosines(found, name, words, level) for name in contexts]
    return [*made, say.of_noise(found, level)]


def _context_document(group: Group, name: str, words: Mapping[str, str]) -> dict[str, Any]:
    from branchdiag.stats.alignment import LOSSES

    assert group.found is not None
    series, pooled = group.found.series, group.found.pooled
    views = [row["views"][name] for row in group.nodes if name in row["views"]]
    advantage = series["advantage", name, ""]
    assert advantage.slope is not None
    return {
        "context": name,
        "words": words[name],
        "n_nodes": len(views),
        "n_without": len(group.nodes) - len(views),
        "teacher_excluded": _outside([view["teacher_excluded"] for view in views]),
        "forward_kl": _mean([v["forward_kl"] for v in views if v["forward_kl"] is not None]),
        "advantage": cell_document(advantage.whole),
        "slope": estimate_document(advantage.slope),
        "losses": [
            {
                "loss": loss,
                "name": LOSS_NAMES[loss],
                "cosine": cell_document(series[f"cosine_{loss}", name, ""].whole),
                "pooled": estimate_document(pooled.cosines[loss, name]),
                "corrected": estimate_document(pooled.corrected[loss, name]),
            }
            for loss in LOSSES
        ],
        "by_position": {figure: _points(series[figure, name, ""]) for figure in BY_POSITION},
    }


def _points(series: Series) -> list[dict[str, Any]]:
    return [cell_document(cell) for cell in series.by_position]


def estimate_document(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON holds it."""
    return asdict(estimate)


def cell_document(cell: Cell) -> dict[str, Any]:
    """A mean with what it stands on."""
    return {
        **estimate_document(cell.estimate),
        "r": cell.r,
        "n_nodes": cell.n_nodes,
        "n_problems": cell.n_problems,
        "n_undefined": cell.n_undefined,
    }


def between_documents(
    context: Context, groups: Sequence[Group], contexts: Sequence[str], words: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Incorrect spines against correct ones, where both were diagnosed; never pooled."""
    from branchdiag.phases.groups import PRIMARY
    from branchdiag.stats.alignment_estimates import between_groups
    from branchdiag.stats.alignment_sentences import between

    found = {group.name: group.found for group in groups}
    incorrect, correct = found.get("incorrect_spines"), found.get(PRIMARY)
    if incorrect is None or correct is None:
        return []
    report = context.protocol.report
    rows = []
    for figure in BY_POSITION:
        for name in contexts:
            estimate = between_groups(
                incorrect,
                correct,
                (figure, name, ""),
                resamples=report.resamples,
                level=report.level,
                seed=report.seed,
                max_dropped_share=report.max_dropped_share,
            )
            what = "Advantage" if figure == "advantage" else "Forward KL's cosine"
            rows.append(
                {
                    "figure": figure,
                    "context": name,
                    **estimate_document(estimate),
                    "sentence": between(
                        estimate,
                        "incorrect spines",
                        "correct ones",
                        f"{what} of the teacher {words[name]}",
                        report.level,
                    ),
                }
            )
    return rows


def notes(
    context: Context, known: Measured, contexts: Sequence[str], words: Mapping[str, str]
) -> list[str]:
    """What the reader has to know: what is ours, what was left out, what cannot be read off."""
    align, counts = context.protocol.align, known.counts
    made = [
        "The ideal gradient, the losses' gradients, cosine and advantage are those of arXiv "
        "2605.10889. The support (forced tokens, the student's own likeliest and the spine's), the "
        "shares renormalised on it and the intervals are our reconstruction. Forced are the "
        "likeliest tokens of the run's own context; another's may lie outside the support.",
        "The advantage is primary: it is unbiased however few the rollouts, and defined at every "
        "node. A cosine is undefined where every token succeeds equally often or teacher and "
        "student agree, and is 1 or -1 where a support has two tokens.",
        "Intervals draw problems whole and, inside every arm, rollouts again. That counts the "
        "rollouts' noise twice, so they are too wide rather than too narrow.",
    ]
    lacking = [name for name in align.contexts if name not in contexts]
    for name in lacking:
        made.append(
            f"The context {name} was left out: no problem has what its prompt shows (a solution)."
        )
    for name in contexts:
        without = sum(name not in row["views"] for row in known.nodes)
        if without:
            made.append(
                f"{plural(without, 'node')} of {len(known.nodes):,} have no teacher "
                f"{words[name]}: their problems lack a solution. Contexts are compared at the "
                "nodes that have both."
            )
    if align.budget:
        made.append(
            f"A budget of {align.budget:,} samples was spread over windows of depth that double in "
            "width, one node of a window at a time: our reconstruction of the paper's exponential "
            "depth windows, whose law is not published. Means over all positions weigh the nodes "
            f"that it chose; {plural(counts['beyond_budget'], 'node')} it did not pay for."
        )
    for name, words_of in (
        ("not_graded", "could not be graded whole and were left out"),
        ("too_few_samples", "have too few samples in some arm and were left out"),
    ):
        if counts[name]:
            made.append(f"{plural(counts[name], 'node')} {words_of}.")
    return made


def _outside(masses: Sequence[float]) -> dict[str, float | None]:
    """Mean and largest mass outside the support."""
    return {"mean": _mean(masses), "max": max(masses) if masses else None}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
