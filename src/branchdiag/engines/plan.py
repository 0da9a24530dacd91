"""Which requests are decoded together, and which prompt prefixes they share.

Pure functions of the requests and the batch size: what is owed, how many workers there are and what
finished before have no part in it, so that an interrupted run forms the groups of an uninterrupted
one. Knows no torch and no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from branchdiag.engines.base import Request

Prefix = tuple[int, ...]

GROUPS_A_RUN = 8
"""Groups that a small set of requests is divided into, so that a few workers share it evenly."""
LEAST_GROUP = 64
"""Smaller groups are not made for their sake: they leave a batch half empty."""
BATCHES_A_GROUP = 4
"""A group is at most this many batches: rows that finish make room for the group's next ones, and
an interruption costs at most one group a worker."""


def plan_groups(requests: Sequence[Request], batch_size: int) -> list[list[int]]:
    """Indices of the requests, group by group, in the order in which they are decoded.

    Long prompts come first (a lack of memory shows at once) and prompts of about one length
    together (padding); within that, prompts in lexicographic order, so that those which share a
    prefix meet.
    """
    order: dict[Prefix, int] = {
        prompt: rank
        for rank, prompt in enumerate(
            sorted({request.prompt_ids for request in requests}, key=lambda p: (-_octave(p), p))
        )
    }
    indices = sorted(
        range(len(requests)),
        key=lambda i: (order[requests[i].prompt_ids], [str(part) for part in requests[i].key]),
    )
    if not indices:
        return []
    fewest = math.ceil(len(indices) / (BATCHES_A_GROUP * batch_size))
    size = math.ceil(len(indices) / max(fewest, min(GROUPS_A_RUN, len(indices) // LEAST_GROUP)))
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _octave(prompt: Prefix) -> int:
    """Lengths within a factor of the square root of two share a number."""
    return int(2 * math.log2(max(1, len(prompt))))


def share_prefixes(prefixes: Sequence[Prefix]) -> tuple[list[Prefix], list[int]]:
    """The prefixes that are no prefix of another, and for each prefix the one that contains it.

    In a causal model the keys and values of a prefix do not depend on what follows it, so only the
    longest need a forward pass. In lexicographic order the extensions of a prefix follow it
    directly, which makes one look at the next enough.

    Returns:
        (longest, holder): `prefixes[i]` is a prefix of `longest[holder[i]]`.
    """
    longest: list[Prefix] = []
    holder_of: dict[Prefix, int] = {}
    for prefix in sorted(set(prefixes), reverse=True):
        if not longest or longest[-1][: len(prefix)] != prefix:
            longest.append(prefix)
        holder_of[prefix] = len(longest) - 1
    return longest, [holder_of[prefix] for prefix in prefixes]
