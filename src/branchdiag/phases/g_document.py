"""The report document of Phase G: counts, attrition and provenance beside the statistics.

Reads the run's tables as frames and the statistics of `g_report`; returns the document that the
page, the terminal and `--json` show. Computes counts and shares alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from branchdiag.phases.base import DIVERSITY, GRAY, REAL_UNCERTAIN, Context
from branchdiag.report.caveats import caveats
from branchdiag.report.document import (
    DOCUMENT_VERSION,
    Agreement,
    Control,
    Counts,
    OverallEffect,
    Report,
    Sensitivity,
    Slope,
    SourceCounts,
    Stage,
    relative_entry,
    score_entry,
)

if TYPE_CHECKING:
    import pandas as pd

    from branchdiag.phases.g_report import Analysis
    from branchdiag.report.candidate import CandidateView
    from branchdiag.stats.estimate import Estimate
    from branchdiag.stats.overall import Overall

SENSITIVITY = {
    "label": "as the paper: a sample cut off by the budget counts as a failure",
    "label_finished": "samples cut off by the budget are dropped",
    "label_strict": "only an answer after closed thinking counts",
    "control_viable": "only candidates whose control is viable",
}


def make_document(
    context: Context, frames: Mapping[str, pd.DataFrame], analysis: Analysis
) -> Report:
    """The whole document of a run."""
    from branchdiag.phases.g_leaderboard import group_document
    from branchdiag.phases.g_report import REPORT_PAGE

    manifest = context.run.manifest
    entries = {
        figure: [row for row in analysis.scores if row["figure"] == figure]
        for figure in ("absolute", "relative", *SENSITIVITY)
    }
    document: Report = {
        "version": DOCUMENT_VERSION,
        "run": {
            "name": context.run.path.name,
            "directory": str(context.run.path),
            "command": manifest["command"],
            "seed": context.seed,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "model": model_info(context),
        "counts": counts_of(context, frames),
        "per_source": per_source(context, frames),
        "scores": [score_entry(row) for row in entries["absolute"]],
        "scores_relative": [relative_entry(row) for row in entries["relative"]],
        "leaderboard": [group_document(group) for group in analysis.groups],
        "slope": estimate_entry(analysis.slopes.difference.estimate),
        "overall": overall_of(analysis.overall, context.protocol.report.level),
        "finding": analysis.finding.sentence,
        "finding_status": analysis.finding.status,
        "control": control_of(context, frames["labels"]),
        "sensitivity": sensitivity_of(frames["labels"], entries),
        "attrition": attrition_of(context, frames),
        "truncation": {
            "samples": len(frames["continuations"]),
            "truncated": int((frames["continuations"]["finish_reason"] == "length").sum()),
        },
        "agreement": agreement_of(context, frames),
        "caveats": [],
        "settings": context.protocol.model_dump(mode="json"),
        "versions": manifest["environment"]["versions"],
        "backend": backend_of(manifest),
        "timing": [
            {"phase": letter, "seconds": record["wall_s"]}
            for letter, record in manifest["phases"].items()
            if "wall_s" in record
        ],
        "report": str(context.run.path / REPORT_PAGE),
        "errors": errors_of(context),
    }
    document["caveats"] = caveats(document)
    return document


def overall_of(means: Overall, level: float) -> OverallEffect:
    """What the teacher's tokens are worth wherever they stand."""
    from branchdiag.stats.overall import sentence

    return {
        "d": estimate_entry(means.difference),
        "advantage": estimate_entry(means.advantage),
        "sentence": sentence(means, level),
    }


def estimate_entry(estimate: Estimate) -> Slope:
    """An estimate as the document holds it."""
    return {
        "estimate": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "reason": estimate.reason,
    }


def model_info(context: Context) -> Any:
    """Whose traces and whose tokens."""
    from branchdiag.bundled import model_path

    return {
        "student": context.student.name,
        "student_revision": context.student.revision,
        "teacher": context.teacher.name,
        "teacher_revision": context.teacher.revision,
        "bundled": str(context.student.path) == str(model_path()),
    }


def counts_of(context: Context, frames: Mapping[str, pd.DataFrame]) -> Counts:
    """How many of what."""
    spines, labels = frames["spines"], frames["labels"]
    correct = spines["correct"].eq(True)
    label = labels["label"]
    binary = label.isin([DIVERSITY, REAL_UNCERTAIN])
    return {
        "problems": len(context.problems),
        "correct_spines": int(correct.sum()),
        "incorrect_spines": int(spines["correct"].eq(False).sum()),
        "ungraded_spines": int(spines["correct"].isna().sum()),
        "fallback_spines": int((correct & spines["spine_mode"].eq("fallback")).sum()),
        "truncated_spines": int(spines["finish_reason"].eq("length").sum()),
        "usable_problems": int(labels.loc[binary, "problem_id"].nunique()),
        "problems_with_real_uncertain": int(
            labels.loc[label.eq(REAL_UNCERTAIN), "problem_id"].nunique()
        ),
        "candidates": len(frames["candidates"]),
        "diversity": int(label.eq(DIVERSITY).sum()),
        "real_uncertain": int(label.eq(REAL_UNCERTAIN).sum()),
        "gray": int(label.eq(GRAY).sum()),
        "unlabelled": len(frames["candidates"]) - int(label.notna().sum()),
    }


def per_source(context: Context, frames: Mapping[str, pd.DataFrame]) -> list[SourceCounts]:
    """The counts of each problem set, in the run's order."""
    spines, labels, candidates = frames["spines"], frames["labels"], frames["candidates"]
    source = {problem.problem_id: problem.source for problem in context.problems}
    label_source = labels["problem_id"].map(source)
    rows: list[SourceCounts] = []
    for name in dict.fromkeys(source.values()):
        own = labels[label_source == name]
        binary = own["label"].isin([DIVERSITY, REAL_UNCERTAIN])
        mine = spines[spines["source"] == name]
        rows.append(
            {
                "source": name,
                "problems": sum(value == name for value in source.values()),
                "correct_spines": int(mine["correct"].eq(True).sum()),
                "usable_problems": int(own.loc[binary, "problem_id"].nunique()),
                "candidates": int((candidates["problem_id"].map(source) == name).sum()),
                "diversity": int(own["label"].eq(DIVERSITY).sum()),
                "real_uncertain": int(own["label"].eq(REAL_UNCERTAIN).sum()),
                "gray": int(own["label"].eq(GRAY).sum()),
            }
        )
    return rows


def control_of(context: Context, labels: pd.DataFrame) -> Control | None:
    """What is left of a finding where the student succeeds unforced; None without a control arm."""
    import math
    from fractions import Fraction

    known = labels[labels["control_viability"].notna()]
    if known.empty:
        return None
    viable = known["control_viable"].eq(True)
    rollouts = context.protocol.continuation.rollouts
    share = Fraction(str(context.protocol.label.diversity_share))
    return {
        "candidates": len(known),
        "viable": int(viable.sum()),
        "real_uncertain_where_control_viable": int(
            (viable & known["label"].eq(REAL_UNCERTAIN)).sum()
        ),
        "mean_child_viability": float(known["mean_child_viability"].mean()),
        "mean_control_viability": float(known["control_viability"].mean()),
        "threshold": f"{math.ceil(share * rollouts)} of {rollouts}",
    }


def sensitivity_of(
    labels: pd.DataFrame, entries: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Sensitivity]:
    """Counts and the AUROC of 1 - r under each way to label."""
    from branchdiag.phases.g_report import labels_under

    rows: list[Sensitivity] = []
    for name, description in SENSITIVITY.items():
        figure = "absolute" if name == "label" else name
        found = next((row for row in entries[figure] if row["name"] == "one_minus_r"), None)
        varied = labels_under(labels, name).tolist()
        rows.append(
            {
                "name": name,
                "description": description,
                "diversity": varied.count(DIVERSITY),
                "real_uncertain": varied.count(REAL_UNCERTAIN),
                "gray": varied.count(GRAY),
                "unlabelled": len(varied)
                - sum(varied.count(label) for label in (DIVERSITY, REAL_UNCERTAIN, GRAY)),
                "auroc": found["auroc"] if found else None,
                "ci_low": found["ci_low"] if found else None,
                "ci_high": found["ci_high"] if found else None,
                "reason": found["reason"] if found else "not computed",
            }
        )
    return rows


def attrition_of(context: Context, frames: Mapping[str, pd.DataFrame]) -> list[Stage]:
    """What each phase was left with, in order."""
    spines, positions, labels = frames["spines"], frames["positions"], frames["labels"]
    correct = spines["correct"].eq(True)
    candidates = frames["candidates"]
    with_candidate = candidates["problem_id"].nunique()
    label = labels["label"]
    limit = context.protocol.candidates.max_per_problem
    stages: list[tuple[str, str, int, str]] = [
        ("A", "problems", len(context.problems), "as the sources gave them"),
        (
            "A",
            "correct spines",
            int(correct.sum()),
            f"{int(spines['correct'].eq(False).sum())} wrong, "
            f"{int(spines['correct'].isna().sum())} not gradable",
        ),
        ("B", "positions scored", len(positions), "both templates"),
        (
            "B",
            "plausible positions",
            int(positions["plausible"].sum()),
            "the teacher's second token is a real alternative",
        ),
        (
            "C",
            "candidates",
            len(candidates),
            f"in {with_candidate} problems, at most {limit} each",
        ),
        (
            "E",
            "continuations",
            len(frames["continuations"]),
            f"{int(frames['continuations']['arm'].eq('control').sum())} of them controls",
        ),
        (
            "F",
            "labelled candidates",
            int(label.notna().sum()),
            f"{len(candidates) - int(label.notna().sum())} without a label",
        ),
        (
            "G",
            "diversity or real-uncertain",
            int(label.isin([DIVERSITY, REAL_UNCERTAIN]).sum()),
            f"{int(label.eq(GRAY).sum())} gray, left out of the AUROC",
        ),
    ]
    whole = {"correct spines": len(context.problems), "plausible positions": len(positions)}
    rows: list[Stage] = []
    for letter, unit, n, note in stages:
        row: Stage = {"phase": letter, "unit": unit, "n": n, "note": note}
        if unit in whole:
            row["of"] = whole[unit]
        rows.append(row)
    return rows


def agreement_of(context: Context, frames: Mapping[str, pd.DataFrame]) -> Agreement | None:
    """Share of positions of greedy spines where the scoring pass has the spine's token on top.

    1 where the engine and the forward pass of Phase B agree in every argmax; less shows how far
    two backends (or two precisions) differ.
    """
    spines, positions = frames["spines"], frames["positions"]
    greedy = spines.loc[spines["spine_mode"] == "greedy", "problem_id"]
    rows = positions[positions["problem_id"].isin(greedy)]
    backends = [context.engine_name, "transformers (scoring)"]
    if rows.empty:
        return {
            "argmax": None,
            "n_positions": 0,
            "backends": backends,
            "reason": "no greedy spine was scored",
        }
    agree = rows["token_id"] == rows["student_top_id"]
    return {
        "argmax": float(agree.mean()),
        "n_positions": len(rows),
        "backends": backends,
        "reason": None,
    }


def backend_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Who wrote tokens, as each phase described it."""
    engines = {
        letter: record["described"]["engine"]
        for letter, record in manifest["phases"].items()
        if record.get("described", {}).get("engine")
    }
    return {"engine": manifest["inputs"]["engine_name"], **engines}


def errors_of(context: Context) -> dict[str, int]:
    """Units that failed and are still owed, by phase."""
    return {
        letter: record["failed"]
        for letter, record in context.run.manifest["phases"].items()
        if record.get("failed")
    }


def examples(context: Context, among: Collection[str]) -> list[CandidateView]:
    """A few candidates with the spine around them, for the page."""
    from branchdiag.report.candidate import candidate_view, pick_examples

    wanted = set(among)
    chosen = pick_examples(
        row for row in context.run.table("labels").rows() if row["candidate_id"] in wanted
    )
    tables = {
        name: [row for row in context.run.table(name).rows() if row["candidate_id"] in chosen]
        for name in ("candidates", "labels", "grades")
    }
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    by_id = {row["candidate_id"]: row for row in tables["candidates"]}
    label_of = {row["candidate_id"]: row for row in tables["labels"]}
    return [
        candidate_view(
            by_id[name],
            spines[by_id[name]["problem_id"]],
            context.decode,
            label=label_of[name],
            grades=[row for row in tables["grades"] if row["candidate_id"] == name],
        )
        for name in chosen
    ]
