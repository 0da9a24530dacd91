"""The draw of a token: exact against a slow oracle, right in distribution, alone in its inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from branchdiag.engines.sampling import Filters, draw, uniforms
from tests import decoding_oracle as oracle


def filters(rows: list[tuple[float, float, int]]) -> Filters:
    temperatures, top_ps, top_ks = zip(*rows, strict=True)
    return Filters.of(list(temperatures), list(top_ps), list(top_ks), torch.device("cpu"))


def test_uniforms_equal_the_generator_on_python_integers() -> None:
    seeds = [0, 1, 2, 2**31, 2**63 - 1, 123_456_789_012_345]
    steps = [0, 1, 2, 1000, 16_383]
    for seed in seeds:
        got = uniforms([seed] * len(steps), steps)
        assert got.tolist() == [oracle.uniform(seed, step) for step in steps]


def test_uniforms_keep_their_values_for_ever() -> None:
    # A resumed run must draw as the run that it goes on with, whatever version wrote that.
    got = uniforms([0, 0, 1, 2**62 + 7], [0, 1, 0, 5])
    assert got.tolist() == [
        0.5277580838124728,
        0.9769466985507521,
        0.7100838315082487,
        0.27081963506898765,
    ]


@pytest.mark.parametrize("along", ["seeds", "steps"])
def test_uniforms_are_uniform_and_independent_along_seeds_and_steps(along: str) -> None:
    n = 40_000
    counter = np.arange(n)
    fixed = np.full(n, 3)
    u = uniforms(counter, fixed) if along == "seeds" else uniforms(fixed, counter)
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    for lag in (1, 2, 64):
        pairs = np.histogram2d(u[:-lag], u[lag:], bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_a_seed_walks_a_sequence_of_its_own() -> None:
    steps = np.arange(200)
    walks = np.array([uniforms(np.full(200, seed), steps) for seed in range(300)])
    assert len(np.unique(walks)) == walks.size


# Equal or well apart: what differs by 1e-10 is a tie in float32 and none in the oracle's float64.
LOGITS = st.lists(st.integers(-384, 384).map(lambda i: i / 64), min_size=2, max_size=90)


@settings(max_examples=300, deadline=None)
@given(
    logits=LOGITS,
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.7]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 0.95, 1.0]),
    top_k=st.sampled_from([-1, 1, 2, 5, 40, 500]),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_draw_equals_the_oracle(
    logits: list[float], temperature: float, top_p: float, top_k: int, seed: int
) -> None:
    u = oracle.uniform(seed, 0)
    got = draw(
        torch.tensor([logits]), filters([(temperature, top_p, top_k)]), torch.tensor([u]).double()
    ).item()
    assert got == oracle.draw(logits, temperature, top_p, top_k, u) or _on_an_edge(
        logits, temperature, top_p, top_k, u
    )


def _on_an_edge(
    logits: list[float], temperature: float, top_p: float, top_k: int, u: float
) -> bool:
    """Whether float32 probabilities may rightly decide otherwise: at a boundary to 1e-5."""
    if temperature == 0:
        return False
    edges = np.cumsum(list(oracle.distribution(logits, temperature, top_p, top_k).values()))
    if np.abs(edges - u).min() < 1e-5:
        return True
    ranked = sorted(oracle.distribution(logits, temperature, 1.0, top_k).values(), reverse=True)
    return bool(np.abs(np.cumsum(ranked) - top_p).min() < 1e-5)


def test_wide_nuclei_are_found_at_every_depth_of_the_search() -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.0, 0.5, 2.0, 6.0):  # from every token alike to a few
        logits = torch.randn(60, 2000, generator=generator) * spread
        u = uniforms(np.arange(60), np.zeros(60))
        got = draw(logits, filters([(1.0, 0.95, -1)] * 60), torch.from_numpy(u)).tolist()
        wanted = [
            oracle.draw(row, 1.0, 0.95, -1, value)
            for row, value in zip(logits.tolist(), u.tolist(), strict=True)
        ]
        differing = sum(a != b for a, b in zip(got, wanted, strict=True))
        assert differing <= 1  # one in sixty may sit on a boundary in float32


@pytest.mark.parametrize("top_k", [-1, 20])
def test_of_equal_tokens_those_of_smaller_id_are_kept(top_k: int) -> None:
    n = 400
    for seed in range(5):
        logits = torch.full((1, 1500), -3.0)
        generator = torch.Generator().manual_seed(seed)
        likely = torch.randperm(1500, generator=generator)[:300]
        logits[0, likely] = 5.0  # 300 equals, of which the nucleus holds 45
        u = torch.from_numpy(uniforms(np.arange(n), np.full(n, seed)))
        tokens = draw(logits.expand(n, -1), filters([(1.0, 0.15, top_k)] * n), u)
        size = 46 if top_k < 0 else 3
        assert set(tokens.tolist()) <= set(likely.sort().values[:size].tolist())


def test_the_crossing_token_belongs_to_the_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    for top_p, size in ((0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (0.96, 4)):
        u = torch.from_numpy(uniforms(np.arange(4000), np.zeros(4000)))
        tokens = draw(logits, filters([(1.0, top_p - 1e-6, -1)] * 4000), u)
        assert set(tokens.tolist()) == set(range(size))


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, -1), (1.0, 0.95, -1), (0.7, 0.95, -1), (1.3, 0.8, 20), (1.0, 1.0, 5)],
)
def test_draws_follow_the_distribution(temperature: float, top_p: float, top_k: int) -> None:
    n = 20_000
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1)) * 2
    expected = oracle.distribution(logits.tolist(), temperature, top_p, top_k)
    u = torch.from_numpy(uniforms(np.arange(n), np.full(n, 7)))
    tokens = draw(logits.expand(n, -1), filters([(temperature, top_p, top_k)] * n), u)
    counts = torch.bincount(tokens, minlength=50).tolist()
    assert {token for token, count in enumerate(counts) if count} <= expected.keys()
    common = [token for token, p in expected.items() if p * n >= 5]
    observed = [counts[token] for token in common]
    wanted = [expected[token] * n for token in common]
    rest = n - sum(observed)
    if rest or n - sum(wanted) > 1:
        observed.append(rest)
        wanted.append(n - sum(wanted))
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_a_row_draws_the_same_whatever_is_beside_it() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(40, 300, generator=generator) * 3
    rows = [
        (t, p, k) for t in (0.0, 0.7, 1.0, 1.5) for p in (0.5, 0.95) for k in (-1, 3, 50, 200, 7)
    ]
    u = torch.from_numpy(uniforms(np.arange(40), np.arange(40)))
    together = draw(logits, filters(rows), u).tolist()
    alone = [
        draw(logits[i : i + 1], filters(rows[i : i + 1]), u[i : i + 1]).item() for i in range(40)
    ]
    assert together == alone


def test_several_samples_of_a_row_draw_as_rows_of_their_own() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(12, 300, generator=generator) * torch.tensor([[0.2], [3.0], [9.0]] * 4)
    rows = [(t, 0.9, k) for t in (0.0, 0.7, 1.0) for k in (-1, 3, 50, 200)]
    row = torch.tensor([0, 0, 0, 3, 5, 5, 11, 11, 11, 11, 7, 1, 2])
    u = torch.from_numpy(uniforms(np.arange(13), np.zeros(13)))
    together = draw(logits, filters(rows), u, row)
    apart = draw(logits[row], filters([rows[i] for i in row]), u)
    assert torch.equal(together, apart)


def test_temperature_zero_takes_the_first_of_the_most_likely() -> None:
    logits = torch.tensor([[1.0, 5.0, 5.0, -math.inf], [0.0, 0.0, 0.0, 0.0]])
    tokens = draw(logits, filters([(0.0, 0.95, -1), (0.0, 1.0, -1)]), torch.tensor([0.9, 0.9]))
    assert tokens.tolist() == [1, 0]


def test_logits_that_are_not_finite_give_no_token() -> None:
    bad = torch.tensor(
        [[math.nan, 1.0, 2.0], [math.inf, 1.0, 2.0], [-math.inf] * 3, [-math.inf, 1.0, 0.0]]
    )
    for temperature in (0.0, 1.0):
        tokens = draw(bad, filters([(temperature, 0.95, -1)] * 4), torch.full((4,), 0.2).double())
        assert tokens[:3].tolist() == [-1, -1, -1]
        assert tokens[3].item() in (1, 2)


def test_a_token_without_mass_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]]).repeat(3, 1)
    u = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    for top_p in (0.95, 1.0):
        tokens = draw(logits, filters([(1.0, top_p, -1)] * 3), u)
        assert tokens.tolist() == [1, 3, 3]
