"""Phase E: what follows a forced token, and what follows when nothing is forced?

Reads `spines` and `candidates`; writes `continuations`. At each candidate the student's own prefix
is kept, one of the teacher's tokens is forced after it, and the student goes on by itself (arXiv
2605.21606, section 3.2: 6 samples a child, T = 1.0, top-p 0.95). The control arm starts from the
same prefix with nothing forced: without it, "early tokens fail more" may only mean that there is a
long way to go. Knows nothing of answers: it keeps tokens, and Phase F grades them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from branchdiag.engines.base import Request
from branchdiag.phases.arms import arms_of, forced_request
from branchdiag.phases.base import Context, Outcome, Phase, Unit
from branchdiag.phases.continuing import completed, named_by_arm
from branchdiag.protocol import ContinuationSettings
from branchdiag.store.fingerprint import derive_seed


def requests_of(
    candidate: Mapping[str, Any],
    spine: Mapping[str, Any],
    settings: ContinuationSettings,
    run_seed: int,
) -> list[Request]:
    """Every request of a candidate: arms x samples, each with a seed of its own.

    A request's prompt is student prompt + spine[:position] + forced token, as token ids.
    """
    prefix = (*spine["prompt_ids"], *spine["spine_ids"][: candidate["position"]])
    requests = []
    for arm, forced in arms_of(candidate, settings):
        for sample in range(settings.rollouts):
            key = (candidate["candidate_id"], arm, sample)
            seed = derive_seed(run_seed, "continuation", *key)
            requests.append(forced_request(key, (*prefix, *forced), settings, seed))
    return requests


def plan(context: Context) -> list[Request]:
    """The whole phase's requests, in the order of the candidates."""
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    return [
        request
        for candidate in context.run.table("candidates").rows()
        for request in requests_of(
            candidate,
            spines[candidate["problem_id"]],
            context.protocol.continuation,
            context.seed,
        )
    ]


def units(context: Context) -> list[Unit]:
    """One unit a sample: (candidate, arm, sample)."""
    settings = context.protocol.continuation
    return [
        (candidate["candidate_id"], arm, sample)
        for candidate in context.run.table("candidates").rows()
        for arm, _ in arms_of(candidate, settings)
        for sample in range(settings.rollouts)
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Complete the owed requests; each row is handed over as its completion finishes."""
    rows = context.run.table("candidates").read(["candidate_id", "problem_id"]).to_pylist()
    problem_of = {row["candidate_id"]: row["problem_id"] for row in rows}
    yield from completed(
        context,
        plan(context),
        owed,
        "continuations",
        named_by_arm(problem_of),
        max_total_tokens=context.protocol.continuation.max_total_tokens,
    )


PHASE = Phase(
    letter="E",
    name="continue",
    question="Forced onto each of the teacher's tokens, does the student still reach the answer?",
    reads=("A", "C"),
    writes=("continuations",),
    unit=("candidate_id", "arm", "sample"),
    settings=("continuation",),
    inputs=("student", "seed", "engine", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
)
