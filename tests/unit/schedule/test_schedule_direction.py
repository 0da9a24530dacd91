"""The permutation within problems, against all orders written out."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from branchdiag.stats.schedule_data import observe
from branchdiag.stats.schedule_direction import direction_test
from tests.unit.schedule.planted_schedules import candidates, horizon, level, plant, shape

SLOPE = {"resamples": 50, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def small(seed=0):
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(3), 3)
    return candidates(generator.random(9), problem, generator.integers(0, 7, size=(9, 4)))


def test_p_is_that_of_all_orders() -> None:
    rows = observe(small(), "viability")
    y, r = rows.outcome.reshape(3, 3), rows.outcome_r.reshape(3, 3)
    r = r - r.mean(axis=1, keepdims=True)
    sums = [
        sum(float(r[p] @ np.array(order)) for p, order in enumerate(orders))
        for orders in product(*(list(permutations(row)) for row in y))
    ]
    exact = np.mean(np.abs(sums) >= abs((r * y).sum()) - 1e-9)
    p = direction_test(rows, permutations=20_000, **SLOPE).p
    assert p == pytest.approx(exact, abs=0.012)


def test_p_is_uniform_where_position_makes_no_difference() -> None:
    p = [
        direction_test(
            observe(plant(level(0.5), level(0.5), seed=seed, n_problems=10), "viability"),
            permutations=199,
            **SLOPE,
        ).p
        for seed in range(200)
    ]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.09
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_the_horizon_is_no_direction_of_the_relative_outcome() -> None:
    found = [
        direction_test(
            observe(plant(horizon(), horizon(), seed=seed), "relative"), permutations=199, **SLOPE
        ).p
        for seed in range(150)
    ]
    assert np.mean(np.array(found) <= 0.05) < 0.11


@pytest.mark.parametrize("falling", [False, True])
def test_a_planted_direction_is_found(falling) -> None:
    child = shape(0.4, 0.5, 0.1, falling=falling)
    for estimand in ("viability", "relative", "teacher-weighted"):
        rows = observe(plant(child, level(0.9), seed=1), estimand)
        test = direction_test(rows, permutations=999, **SLOPE)
        assert test.p == pytest.approx(0.001)
        assert test.sign == (-1 if falling else 1)


def test_one_position_a_problem_has_no_direction() -> None:
    data = candidates([0.1, 0.5, 0.9], [0, 1, 2], [[6, 1, 2, 3]] * 3)
    test = direction_test(observe(data, "viability"), permutations=99, **SLOPE)
    assert test.p is None
    assert test.reason == "no problem has candidates at two positions"
