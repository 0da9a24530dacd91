"""The cluster bootstrap: how it draws, and whole intervals against the direct way."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.bootstrap import (
    cluster_mean_interval,
    draw_multiplicities,
    ratio_estimate,
    replicate,
)
from branchdiag.stats.weighted import weighted_ratio

SETTINGS = {"resamples": 400, "level": 0.95, "seed": 3, "max_dropped_share": 0.1}


def test_each_resample_draws_as_many_clusters_as_there_are() -> None:
    (weights,) = draw_multiplicities(7, resamples=50, seed=0)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == np.round(weights)).all()


def test_chunks_change_no_draw() -> None:
    whole = np.concatenate(list(draw_multiplicities(11, resamples=100, seed=5)))
    chunked = list(draw_multiplicities(11, resamples=100, seed=5, cells=37))
    assert len(chunked) > 10
    assert (np.concatenate(chunked) == whole).all()
    assert (whole != np.concatenate(list(draw_multiplicities(11, resamples=100, seed=6)))).any()


def test_multiplicities_have_the_moments_of_drawing_with_replacement() -> None:
    weights = np.concatenate(list(draw_multiplicities(20, resamples=20_000, seed=0)))
    assert np.allclose(weights.mean(axis=0), 1.0, atol=0.04)
    assert np.allclose(weights.var(axis=0), 1 - 1 / 20, atol=0.05)
    assert np.cov(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-1 / 20, abs=0.02)


def test_mean_interval_equals_averaging_explicit_copies() -> None:
    generator = np.random.default_rng(0)
    clusters = np.array([f"problem {i}" for i in generator.integers(0, 9, 40)])
    values = generator.normal(size=40)
    values[::7] = np.nan
    result = cluster_mean_interval(values, clusters, **SETTINGS)
    present = ~np.isnan(values)
    names = sorted(set(clusters[present]))
    means = []
    for weights in np.concatenate(list(draw_multiplicities(len(names), resamples=400, seed=3))):
        copies = [
            value
            for name, count in zip(names, weights, strict=True)
            for value in list(values[present & (clusters == name)]) * int(count)
        ]
        means.append(sum(copies) / len(copies))
    assert result.value == pytest.approx(values[present].mean(), abs=1e-12)
    assert [result.ci_low, result.ci_high] == pytest.approx(
        np.quantile(means, [0.025, 0.975]).tolist(), abs=1e-12
    )


def test_mean_interval_is_wider_than_one_that_ignores_clusters() -> None:
    generator = np.random.default_rng(1)
    values = np.repeat(generator.normal(size=40), 10) + 0.01 * generator.normal(size=400)
    clustered = cluster_mean_interval(values, np.repeat(np.arange(40), 10), **SETTINGS)
    apart = cluster_mean_interval(values, np.arange(400), **SETTINGS)
    assert clustered.ci_high - clustered.ci_low > 2.5 * (apart.ci_high - apart.ci_low)


def test_mean_of_nothing_is_missing_with_a_reason() -> None:
    result = cluster_mean_interval([np.nan, np.nan], ["a", "b"], **SETTINGS)
    assert result.value is None and result.reason == "no value to average"


@pytest.mark.parametrize(("n_clusters", "reason"), [(1, "1 problem is"), (2, "2 problems are")])
def test_fewer_than_three_problems_carry_no_interval(n_clusters: int, reason: str) -> None:
    values = np.arange(12.0)
    result = cluster_mean_interval(values, values % n_clusters, **SETTINGS)
    assert result.value == pytest.approx(5.5)
    assert not result.has_interval
    assert result.reason is not None and result.reason.startswith(reason)


def test_resamples_without_the_denominator_are_dropped_and_counted() -> None:
    numerator, denominator = np.array([3.0, 0, 0, 0, 0]), np.array([2.0, 0, 0, 0, 0])
    estimate = ratio_estimate(numerator, denominator, **SETTINGS)
    (replicates,) = replicate([weighted_ratio(numerator, denominator)], 5, resamples=400, seed=3)
    assert np.isnan(replicates).mean() == pytest.approx((4 / 5) ** 5, abs=0.08)
    assert estimate.value == 1.5 and not estimate.has_interval
    with pytest.raises(ZeroDivisionError):
        ratio_estimate(numerator, np.zeros(5), **SETTINGS)


def test_same_seed_and_problems_give_paired_draws() -> None:
    generator = np.random.default_rng(2)
    a, b, ones = generator.normal(size=12), generator.normal(size=12), np.ones(12)
    (first,) = replicate([weighted_ratio(a, ones)], 12, resamples=400, seed=3)
    second, both = replicate(
        [weighted_ratio(b, ones), weighted_ratio(a - b, ones)], 12, resamples=400, seed=3
    )
    np.testing.assert_allclose(first - second, both, atol=1e-12)
