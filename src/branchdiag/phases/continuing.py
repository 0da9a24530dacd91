"""From requests to rows of sampled tokens: the one way of every phase that continues a prefix.

Shared by the phases that sample; each says which requests it has and what names a row. Knows
nothing of prefixes or answers. An engine's error leaves its unit owed and is never a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

from branchdiag.engines.base import Key, Request
from branchdiag.phases.base import Context, Done, Failed, Outcome
from branchdiag.store.fingerprint import tokens_hash


def completed(
    context: Context,
    requests: Sequence[Request],
    owed: Collection[Key],
    table: str,
    named: Callable[[Key], dict[str, Any]],
    *,
    max_total_tokens: int,
    teacher: bool = False,
) -> Generator[Outcome]:
    """Complete the owed requests; each row is handed over as its completion finishes.

    Args:
        requests: all of the phase, owed or not: they decide what is decoded together.
        table: where the rows go.
        named: key of a request -> the columns that say what the row is.
        max_total_tokens: prompt and completion together never exceed it.
        teacher: whether the teacher's weights write.

    Raises:
        AssertionError: two requests share a seed. A bug.
    """
    by_key = {request.key: request for request in requests}
    if len({request.seed for request in requests}) != len(requests):
        raise AssertionError("two requests share a seed")
    engine = context.open_engine(max_total_tokens, teacher=teacher)
    try:
        for completion in engine.generate(requests, owed=set(owed)):
            if completion.finish_reason == "error":
                yield Failed(completion.key, "EngineError", completion.error or "no message")
                continue
            request = by_key[completion.key]
            row = {
                **named(completion.key),
                "seed": request.seed,
                "prompt_hash": tokens_hash(request.prompt_ids),
                "n_prompt_tokens": len(request.prompt_ids),
                "token_ids": list(completion.token_ids),
                "n_tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
            }
            yield Done(completion.key, {table: [row]}, tokens=len(completion.token_ids))
    finally:
        engine.close()


def named_by_arm(problem_of: dict[str, str]) -> Callable[[Key], dict[str, Any]]:
    """What names a row whose key is (candidate, arm, sample)."""

    def named(key: Key) -> dict[str, Any]:
        candidate, arm, sample = key
        return {
            "candidate_id": candidate,
            "problem_id": problem_of[str(candidate)],
            "arm": arm,
            "sample": sample,
        }

    return named
