"""Everything the run holds about one candidate, for a person to read.

Reads the run's tables; the tokenizer only decodes. No torch is imported and nothing is written.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from branchdiag.errors import Incomplete, UsageError
from branchdiag.models import ResolvedModel, load_tokenizer
from branchdiag.phases.arms import CONTROL, child_arm, is_child
from branchdiag.store.run import RunDirectory


def inspect_candidate(path: Path, candidate_id: str, context_tokens: int) -> dict[str, Any]:
    """The spine around a candidate, the teacher's alternatives, every continuation and its answer.

    Args:
        context_tokens: spine tokens shown before and after the position.

    Raises:
        UsageError: no such candidate (the nearest names are given).
        Incomplete: the run has no candidates yet.
    """
    run = RunDirectory.open(path)
    candidates = {row["candidate_id"]: row for row in _rows(run, "candidates")}
    if not candidates:
        raise Incomplete("the run has no candidates yet", where=str(path))
    if candidate_id not in candidates:
        near = difflib.get_close_matches(candidate_id, candidates, n=3) or list(candidates)[:3]
        raise UsageError(
            f"no candidate {candidate_id}", where=str(path), fix="for example: " + ", ".join(near)
        )
    candidate = candidates[candidate_id]
    spine = next(r for r in _rows(run, "spines") if r["problem_id"] == candidate["problem_id"])
    tokenizer = load_tokenizer(
        ResolvedModel.from_dict(run.manifest["inputs"]["student"]),
        trust_remote_code=run.manifest["protocol"]["engine"]["trust_remote_code"],
    )

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=False))

    position, ids = candidate["position"], spine["spine_ids"]
    label = next((r for r in _rows(run, "labels") if r["candidate_id"] == candidate_id), None)
    grades = {(r["arm"], r["sample"]): r for r in _rows(run, "grades", candidate_id)}
    counts = (
        {
            arm: (successes, samples)
            for arm, successes, samples in zip(
                label["arms"], label["successes"], label["samples"], strict=True
            )
        }
        if label
        else {}
    )
    children = {
        child_arm(token_id): {"text": child, "teacher": teacher, "student": student}
        for token_id, child, teacher, student in zip(
            candidate["child_ids"],
            candidate["child_texts"],
            candidate["child_teacher"],
            candidate["child_student"],
            strict=True,
        )
    }
    arms: dict[str, dict[str, Any]] = {}
    for row in _rows(run, "continuations", candidate_id):
        arm = row["arm"]
        entry = arms.setdefault(
            arm,
            {
                "arm": arm,
                "kind": "child" if is_child(arm) else arm,
                "text": children.get(arm, {}).get("text", ""),
                "teacher": children.get(arm, {}).get("teacher"),
                "student": children.get(arm, {}).get("student"),
                "is_spine": arm == child_arm(candidate["spine_token_id"]),
                "successes": counts.get(arm, (None, None))[0],
                "samples": counts.get(arm, (None, None))[1],
                "continuations": [],
            },
        )
        grade = grades.get((arm, row["sample"]), {})
        entry["continuations"].append(
            {
                "sample": row["sample"],
                "text": text(row["token_ids"]),
                "n_tokens": row["n_tokens"],
                "finish_reason": row["finish_reason"],
                "answer": grade.get("answer"),
                "correct": grade.get("correct"),
            }
        )
    order = [*children, CONTROL, "spine"]
    return {
        "candidate_id": candidate_id,
        "run": str(path),
        "problem_id": candidate["problem_id"],
        "problem": spine["problem"],
        "gold_answer": spine["gold_answer"],
        "position": position,
        "n_spine_tokens": spine["n_spine_tokens"],
        "r": candidate["r"],
        "h_trunc": candidate["h_trunc"],
        "label": label["label"] if label else None,
        "before": text(ids[max(0, position - context_tokens) : position]),
        "token": text(ids[position : position + 1]),
        "after": text(ids[position + 1 : position + 1 + context_tokens]),
        "arms": sorted(arms.values(), key=lambda entry: order.index(entry["arm"])),
    }


def _rows(run: RunDirectory, name: str, candidate_id: str | None = None) -> list[dict[str, Any]]:
    table = run.table(name)
    rows = table.rows() if table.exists() else []
    return [r for r in rows if candidate_id is None or r["candidate_id"] == candidate_id]
