"""Groups and shared prefixes depend on the requests and the batch size alone."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.engines.base import Request, Sampling
from branchdiag.engines.plan import plan_groups, share_prefixes

SAMPLING = Sampling(temperature=1.0, top_p=0.95, top_k=-1, max_new_tokens=8)
PREFIXES = st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=30)


def requests_of(prompts: list[tuple[int, ...]]) -> list[Request]:
    return [Request(("p", i), prompt, SAMPLING, seed=i) for i, prompt in enumerate(prompts)]


def arms(n_problems: int, samples: int = 6) -> list[tuple[int, ...]]:
    """Prompts as Phase E makes them: arms of candidates of spines, each several times."""
    rng = random.Random(0)
    prompts = []
    for _ in range(n_problems):
        spine = tuple(rng.randrange(500) for _ in range(rng.randrange(40, 120)))
        for cut in (10, 20, 30):
            prompts += [(*spine[:cut], child) for child in (1, 2, 3) for _ in range(samples)]
    return prompts


@pytest.mark.parametrize("batch_size", [1, 16, 64])
@pytest.mark.parametrize("count", [0, 1, 5, 33, 1000])
def test_every_request_is_in_one_group_of_bounded_size(count: int, batch_size: int) -> None:
    requests = requests_of(arms(20)[:count])
    groups = plan_groups(requests, batch_size)
    assert sorted(i for group in groups for i in group) == list(range(len(requests)))
    assert all(0 < len(group) <= 4 * batch_size for group in groups)


def test_the_order_of_the_requests_does_not_matter() -> None:
    requests = requests_of(arms(10))
    shuffled = random.Random(1).sample(requests, len(requests))
    as_keys = [[requests[i].key for i in group] for group in plan_groups(requests, 16)]
    assert as_keys == [[shuffled[i].key for i in group] for group in plan_groups(shuffled, 16)]


def test_keys_of_mixed_types_can_be_ordered() -> None:
    keys = [("p", 1, "control", 0), ("p", 1, 7, 0), ("p", "x", 7, 0)]
    requests = [Request(key, (1, 2), SAMPLING, 0) for key in keys]
    assert len(plan_groups(requests, 4)[0]) == 3


def test_long_prompts_come_first_and_samples_of_a_prompt_stay_together() -> None:
    requests = requests_of(arms(30))
    flat = [requests[i].prompt_ids for group in plan_groups(requests, 64) for i in group]
    runs = sum(a != b for a, b in itertools.pairwise(flat)) + 1
    assert runs == len(set(flat))
    assert len(flat[0]) >= max(map(len, flat)) / 1.5


@pytest.mark.parametrize(("count", "groups"), [(40, 1), (150, 2), (540, 8)])
def test_a_small_set_makes_several_even_groups(count: int, groups: int) -> None:
    sizes = [len(group) for group in plan_groups(requests_of(arms(10)[:count]), 256)]
    assert len(sizes) == groups and max(sizes) - min(sizes) < groups


@given(PREFIXES)
def test_only_prefixes_that_no_other_contains_are_computed(prefixes: list[tuple[int, ...]]) -> None:
    longest, holder = share_prefixes(prefixes)
    for prefix, index in zip(prefixes, holder, strict=True):
        assert longest[index][: len(prefix)] == prefix
    maximal = {p for p in prefixes if not any(q != p and q[: len(p)] == p for q in prefixes)}
    assert sorted(longest) == sorted(maximal)
