"""A small version of the bench: the band holds the truth, and nothing is found where nothing is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.bench_schedule_fit import INTERIOR, NOTHING, concluded, covered

REPLICATES, RESAMPLES = 60, 150


@pytest.mark.slow
@pytest.mark.parametrize("name", list(INTERIOR))
def test_the_band_covers_the_true_marginal_curve(name) -> None:
    results = [covered(name, "viability", RESAMPLES, seed) for seed in range(REPLICATES)]
    way = "decreasing" if INTERIOR[name][3] else "increasing"
    assert all(direction == way for _, direction, *_ in results)
    held = np.array([row for *_, row, _ in results])
    # 60 replicates of nine dependent positions: a standard error of about 2 points in the mean.
    assert 0.89 <= held.mean() <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NOTHING))
def test_no_direction_is_found_where_there_is_none(name) -> None:
    results = [concluded(name, seed) for seed in range(REPLICATES)]
    # At a true rate of 5% more than 7 of 60 come about once in a hundred.
    assert sum(direction != "none" for _, direction, _ in results) <= 7
