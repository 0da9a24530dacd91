"""Everything the run holds about one candidate, for a person to read.

Reads the run's tables; the tokenizer only decodes. No torch is imported and nothing is written.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from branchdiag.errors import Incomplete, UsageError
from branchdiag.models import ResolvedModel, load_tokenizer
from branchdiag.report.candidate import CandidateView, candidate_view
from branchdiag.store.run import RunDirectory


def inspect_candidate(path: Path, candidate_id: str, context_tokens: int) -> CandidateView:
    """The spine around a candidate, the teacher's alternatives, every continuation and its answer.

    Args:
        context_tokens: spine tokens shown before the position, and half as many after it.

    Raises:
        UsageError: no such candidate (the nearest names are given).
        Incomplete: the run has no candidates yet.
    """
    run = RunDirectory.open(path)
    candidates = {row["candidate_id"]: row for row in run.table("candidates").rows()}
    if not candidates:
        raise Incomplete("the run has no candidates", where=str(path))
    if candidate_id not in candidates:
        near = difflib.get_close_matches(candidate_id, candidates, n=3) or list(candidates)[:3]
        raise UsageError(
            f"no candidate {candidate_id}", where=str(path), fix="for example " + ", ".join(near)
        )
    candidate = candidates[candidate_id]
    tokenizer = load_tokenizer(ResolvedModel.from_dict(run.manifest["inputs"]["student"]))

    def decode(token_ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def own(name: str) -> list[dict[str, Any]]:
        return [row for row in run.table(name).rows() if row["candidate_id"] == candidate_id]

    spines = run.table("spines").rows()
    return candidate_view(
        candidate,
        next(row for row in spines if row["problem_id"] == candidate["problem_id"]),
        decode,
        label=next(iter(own("labels")), None),
        grades=own("grades"),
        continuations=own("continuations"),
        context_tokens=context_tokens,
    )
