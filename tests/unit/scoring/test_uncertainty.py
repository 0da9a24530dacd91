"""Entropy, mutual information and kappa against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr

from branchdiag.scoring.dropout import uncertainty as reexported
from branchdiag.scoring.uncertainty import uncertainty


def oracle(plain, samples):
    """One candidate and one token at a time."""
    n_samples, n_candidates, _ = samples.shape
    rows = []
    for c in range(n_candidates):
        columns = samples[:, c].T
        mean = np.array([column.mean() for column in columns])
        trace = sum(np.var(column, ddof=1) for column in columns)
        kappa = 1e12 if trace == 0 else min((1 - mean @ mean) / trace - 1, 1e12)
        entropies = [entr(samples[m, c]).sum() for m in range(n_samples)]
        h_mc = entr(mean).sum()
        mi = max(h_mc - sum(entropies) / n_samples, 0)
        rows.append((entr(plain[c]).sum(), h_mc, mi, kappa, trace))
    return dict(zip(("h_full", "h_mc", "mi", "kappa", "trace"), np.array(rows).T, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    n_samples=st.integers(2, 7),
    concentration=st.sampled_from([0.01, 0.3, 5.0, 1000.0]),
)
def test_every_figure_agrees_with_the_oracle(seed, n_samples, concentration):
    rng = np.random.default_rng(seed)
    samples = rng.dirichlet(np.full(12, concentration), size=(n_samples, 3))
    plain = rng.dirichlet(np.full(12, concentration), size=3)
    found, expected = uncertainty(plain, samples), oracle(plain, samples)
    assert set(found) == set(expected)
    # A sharp position leaves 1 - |mean|^2 with the rounding of numbers near 1, over a small trace.
    rounding = 1e-14 / np.maximum(expected["trace"], 1e-30)
    for name, values in expected.items():
        allowed = 1e-8 * np.abs(values) + (rounding if name == "kappa" else 1e-12)
        assert (np.abs(found[name] - values) <= allowed).all(), (name, found[name], values)
    assert (found["mi"] <= np.log(n_samples) + 1e-9).all()


@pytest.mark.parametrize("concentration", [0.5, 20.0, 3000.0])
def test_kappa_recovers_the_concentration_of_a_dirichlet(concentration):
    base = np.array([0.5, 0.3, 0.15, 0.05])
    samples = np.random.default_rng(0).dirichlet(concentration * base, size=(20_000, 1))
    kappa = uncertainty(base[None], samples)["kappa"][0]
    assert kappa == pytest.approx(concentration, rel=0.05)


def test_equal_samples_have_no_information_and_the_capped_kappa():
    plain = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
    found = uncertainty(plain, np.stack([plain] * 4))
    assert found["mi"].tolist() == [0.0, 0.0]
    assert found["trace"].tolist() == [0.0, 0.0]
    assert found["kappa"].tolist() == [1e12, 1e12]
    np.testing.assert_allclose(found["h_mc"], found["h_full"], rtol=1e-15)
    assert found["h_full"][1] == 0


def test_disjoint_samples_make_kappa_negative_and_information_full():
    samples = np.eye(2)[:, None, :]  # two samples, each sure of another token
    found = uncertainty(np.array([[0.5, 0.5]]), samples)
    assert found["trace"][0] == pytest.approx(1.0)
    assert found["kappa"][0] == pytest.approx(-0.5)
    assert found["mi"][0] == pytest.approx(np.log(2))


def test_a_sharp_position_keeps_its_variance():
    """Differences of 1e-9 beside a probability of 1: float32 sums would give zero."""
    small = np.array([1e-9, 3e-9])
    samples = np.stack([1 - small, small], axis=-1)[:, None, :]
    found = uncertainty(samples[0], samples)
    assert found["trace"][0] == pytest.approx(4e-18, rel=1e-3)
    assert found["kappa"][0] == pytest.approx(4e-9 / 4e-18 - 1, rel=1e-3)


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="two samples"):
        uncertainty(np.ones((1, 1)), np.ones((1, 1, 1)))


def test_it_is_offered_beside_the_passes():
    assert reexported is uncertainty
