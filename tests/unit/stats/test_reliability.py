"""Curves against loops over bins, an isotonic oracle by its min-max formula, and their rows."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.reliability import (
    CurveRow,
    advantage_curve,
    binned_curve,
    equal_count_bins,
    failure_curves,
    isotonic_curve,
    rank_share,
)

SETTINGS = {"resamples": 300, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def test_bins_are_equal_in_count_without_ties() -> None:
    bins = equal_count_bins(np.random.default_rng(0).random(103), 10)
    assert set(np.bincount(bins).tolist()) == {10, 11}


def test_tied_rows_share_a_bin_and_bins_rise_with_x_on_1000_random_cases() -> None:
    generator = np.random.default_rng(1)
    for _ in range(1000):
        x = generator.integers(0, 8, generator.integers(1, 30))
        n_bins = int(generator.integers(2, 12))
        bins = equal_count_bins(x, n_bins)
        assert bins.min() >= 0 and bins.max() < n_bins
        for value in set(x.tolist()):
            assert len(set(bins[x == value].tolist())) == 1
        assert (np.diff(bins[np.argsort(x)]) >= 0).all()


def test_curve_and_band_equal_explicit_copies_on_random_cases() -> None:
    generator = np.random.default_rng(2)
    n_bands = 0
    for _ in range(100):
        n_problems = int(generator.integers(1, 8))
        clusters = np.append(np.arange(n_problems), generator.integers(0, n_problems, 15))
        x = generator.integers(0, 6, clusters.size) / 5
        y = generator.integers(0, 7, clusters.size) / 6
        settings = SETTINGS | {"resamples": 40}
        rows = binned_curve("s", x, y, clusters, bins=3, **settings)
        (draws,) = draw_multiplicities(n_problems, resamples=40, seed=0)
        bins = equal_count_bins(x, 3)
        assert len(rows) == len(set(bins.tolist()))
        for row, bin_index in zip(rows, sorted(set(bins.tolist())), strict=True):
            inside = bins == bin_index
            assert row["n"] == inside.sum()
            assert row["x"] == pytest.approx(np.mean(x[inside]))
            assert row["y"] == pytest.approx(np.mean(y[inside]))
            means = []
            for weights in draws:
                copies = [
                    value
                    for value, cluster in zip(y[inside], clusters[inside], strict=True)
                    for _ in range(int(weights[cluster]))
                ]
                means.append(np.mean(copies) if copies else np.nan)
            if row["lo"] is None:
                assert row["hi"] is None and row["reason"]
                ends = np.nanquantile(means, [0.025, 0.975])
                dropped = np.isnan(means).mean() > 0.1
                assert dropped or n_problems < 3 or np.ptp(ends) < 1e-12
            else:
                n_bands += 1
                assert [row["lo"], row["hi"]] == pytest.approx(
                    np.nanquantile(means, [0.025, 0.975]).tolist(), abs=1e-12
                )
    assert 50 < n_bands < 290


def test_rows_with_missing_values_are_left_out_of_the_curve() -> None:
    x, y = [0.1, np.nan, 0.3, 0.4], [0.0, 1.0, np.nan, 1.0]
    rows = binned_curve("s", x, y, ["a", "b", "c", "d"], bins=2, **SETTINGS)
    assert [(row["x"], row["y"], row["n"]) for row in rows] == [(0.1, 0.0, 1), (0.4, 1.0, 1)]
    assert binned_curve("s", [np.nan], [1.0], ["a"], bins=2, **SETTINGS) == []


def min_max_isotonic(levels, means, weights):
    """max over starts of the min over ends of the weighted mean between: the definition."""

    def mean(a, b):
        total = sum(weights[a : b + 1])
        return sum(m * w for m, w in zip(means[a : b + 1], weights[a : b + 1], strict=True)) / total

    n = len(levels)
    return [max(min(mean(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


def test_isotonic_steps_equal_the_min_max_formula_on_1000_random_cases() -> None:
    generator = np.random.default_rng(3)
    for _ in range(1000):
        n = int(generator.integers(1, 10))
        x, y = generator.integers(0, 6, n) / 5, generator.integers(0, 4, n).astype(float)
        levels = sorted(set(x.tolist()))
        means = [float(np.mean(y[x == level])) for level in levels]
        weights = [int((x == level).sum()) for level in levels]
        rising = min_max_isotonic(levels, means, weights)
        falling = [-v for v in min_max_isotonic(levels, [-m for m in means], weights)]
        for increasing, expected in ((True, rising), (False, falling)):
            rows = isotonic_curve("s", x, y, increasing=increasing)
            at = {row["x"]: row["y"] for row in rows}
            steps = np.interp(levels, [row["x"] for row in rows], [row["y"] for row in rows])
            assert steps == pytest.approx(expected, abs=1e-12)
            assert set(at) <= set(levels)
            starts = [row for row in rows if row["bin"] == 0]
            assert len(starts) == 1 and starts[0]["x"] == levels[0]


def planted(seed, n_problems=40):
    generator = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n_problems), 5)
    r = generator.random(clusters.size)
    failure = np.clip(0.8 - 0.7 * r + 0.1 * generator.normal(size=r.size), 0, 1)
    control = np.clip(0.5 - 0.4 * r + 0.1 * generator.normal(size=r.size), 0, 1)
    control[:7] = np.nan
    return r, failure, control, {"h_trunc": generator.random(r.size), "margin": r}, clusters


def test_all_failure_curves_of_a_run() -> None:
    r, failure, control, scores, clusters = planted(4)
    rows = failure_curves(r, failure, control, scores, clusters, bins=10, **SETTINGS)
    series: dict[str, list[CurveRow]] = {}
    for row in rows:
        assert set(row) == {"series", "bin", "x", "y", "lo", "hi", "n", "reason"}
        assert (row["lo"] is None) == (row["reason"] is not None)
        series.setdefault(row["series"], []).append(row)
    assert list(series) == [
        "failure_by_r",
        "control_by_r",
        "failure_by_r_increasing",
        "failure_by_r_decreasing",
        "failure_by_one_minus_r",
        "failure_by_h_trunc",
        "failure_by_margin",
    ]
    for curve in series.values():
        assert [row["bin"] for row in curve] == list(range(len(curve)))
    assert sum(row["n"] for row in series["failure_by_r"]) == 200
    assert sum(row["n"] for row in series["control_by_r"]) == 193
    first, last = series["failure_by_r"][0], series["failure_by_r"][-1]
    assert first["lo"] > last["hi"]  # the planted fall is seen
    turned = series["failure_by_one_minus_r"]
    assert turned[0]["y"] < turned[-1]["y"]  # the right-hand end is the least reliable
    assert [row["y"] for row in series["failure_by_margin"]] == pytest.approx(
        [row["y"] for row in turned]
    )  # sign -1 turns r into earliness
    flat = series["failure_by_r_increasing"]
    assert max(row["y"] for row in flat) - min(row["y"] for row in flat) < 0.2


def test_rank_share_is_in_the_unit_interval_and_keeps_missing_rows() -> None:
    share = rank_share(np.array([3.0, np.nan, 1.0, 1.0, 7.0]))
    assert np.isnan(share[1])
    assert share[[2, 3, 0, 4]] == pytest.approx([0.25, 0.25, 0.625, 0.875])


def test_advantage_curve_is_binned_by_position() -> None:
    generator = np.random.default_rng(5)
    r, clusters = generator.random(200), np.repeat(np.arange(40), 5)
    viability = np.column_stack([np.ones(200), np.zeros(200), np.full(200, np.nan)])
    teacher = np.tile([0.6, 0.2, 0.1], (200, 1))
    student = np.where(r[:, None] < 0.5, [0.6, 0.2, 0.1], [0.2, 0.6, 0.1])
    rows = advantage_curve(r, teacher, student, viability, clusters, bins=4, **SETTINGS)
    assert {row["series"] for row in rows} == {"teacher_advantage_by_r"}
    assert rows[0]["y"] == pytest.approx(0.0) and rows[-1]["y"] == pytest.approx(0.5)
