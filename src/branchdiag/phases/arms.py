"""The arms of a candidate: which tokens are forced before the student goes on.

Shared by the phases that continue and those that grade; knows nothing of any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from branchdiag.engines.base import Key, Request, Sampling
from branchdiag.protocol import ContinuationSettings

CONTROL, SPINE = "control", "spine"


def child_arm(token_id: int) -> str:
    """The name of the arm that forces this token."""
    return f"child:{token_id}"


def is_child(arm: str) -> bool:
    """Whether an arm forces one of the teacher's tokens."""
    return arm.startswith("child:")


def arms_of(
    candidate: Mapping[str, Any], settings: ContinuationSettings
) -> list[tuple[str, tuple[int, ...]]]:
    """The arms of a candidate with the tokens each forces: children, then control and spine if
    set.
    """
    arms: list[tuple[str, tuple[int, ...]]] = [
        (child_arm(token_id), (token_id,)) for token_id in candidate["child_ids"]
    ]
    if settings.control:
        arms.append((CONTROL, ()))
    if settings.spine:
        arms.append((SPINE, (candidate["spine_token_id"],)))
    return arms


def forced_request(
    key: Key, prompt: tuple[int, ...], settings: ContinuationSettings, seed: int
) -> Request:
    """The request to go on from a prompt that ends in the forced token, if any.

    The budget is what the prompt leaves of `max_total_tokens`.
    """
    return Request(
        key=key,
        prompt_ids=prompt,
        sampling=Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            max_new_tokens=max(settings.max_total_tokens - len(prompt), 0),
        ),
        seed=seed,
    )
