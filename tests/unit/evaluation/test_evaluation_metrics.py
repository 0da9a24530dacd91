"""Avg@N, Pass@N, pass@k and their means, against enumeration and plain loops."""

from __future__ import annotations

import math
import statistics
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.evaluation.metrics import (
    Counts,
    Figure,
    benchmark_figure,
    mean_figure,
    pass_at_k,
    problem_values,
)

SAMPLES = st.lists(st.booleans(), min_size=1, max_size=8)


@given(SAMPLES, st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(
    samples: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(samples)))
    subsets = list(combinations(samples, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(samples), sum(samples), k) == pytest.approx(share, abs=1e-12)


@given(SAMPLES)
def test_its_ends_are_the_mean_and_whether_any_is_correct(samples: list[bool]) -> None:
    n = len(samples)
    assert pass_at_k(n, sum(samples), 1) == pytest.approx(sum(samples) / n)
    assert float(pass_at_k(n, sum(samples), n)) == float(any(samples))


def test_pass_at_k_keeps_the_missing_missing_and_refuses_what_cannot_be() -> None:
    assert np.isnan(pass_at_k(4, [np.nan, 2.0], 2)[0])
    for n, correct, k in ((4, 2, 0), (4, 2, 5), (4, 5, 2), (4, -1, 2)):
        with pytest.raises(ValueError):
            pass_at_k(n, correct, k)


def counts(correct: list[list[float]], n: int = 4) -> Counts:
    array = np.array(correct, dtype=float)
    return Counts(n, array, array * 0 + n, array * 0, array * 0 + 10 * n, (array > n / 2) * 1.0)


def test_every_metric_of_every_problem() -> None:
    values = problem_values(counts([[0, 1, 4], [2, 0, 4]]))
    assert values["avg@4"].tolist() == [[0, 0.25, 1], [0.5, 0, 1]]
    assert values["pass@4"].tolist() == [[0, 1, 1], [1, 0, 1]]
    assert values["pass@2"][0, 1] == pytest.approx(0.5)  # one of 4: half of the pairs hold it
    assert values["pass@1"].tolist() == values["avg@4"].tolist()
    assert values["maj@4"].tolist() == [[0, 0, 1], [0, 0, 1]]
    assert values["tokens"].tolist() == [[10] * 3] * 2
    assert {f"pass@{k}" for k in (1, 2, 3, 4)} <= values.keys()


@given(
    st.integers(2, 5).flatmap(
        lambda size: st.lists(
            st.lists(st.floats(0, 1), min_size=size, max_size=size), min_size=2, max_size=5
        )
    )
)
def test_the_deviation_over_repeats_is_bessel_corrected(values: list[list[float]]) -> None:
    figure = benchmark_figure(np.array(values))
    means = [math.fsum(row) / len(row) for row in values]
    assert figure.mean == pytest.approx(statistics.fmean(means))
    assert figure.deviation == pytest.approx(statistics.stdev(means), abs=1e-12)


def test_one_repeat_has_no_deviation_and_says_so() -> None:
    figure = benchmark_figure(np.array([[1.0, 0.0]]))
    assert (figure.mean, figure.deviation) == (0.5, None)
    assert figure.reason


def test_a_missing_grade_leaves_the_figure_missing_never_the_mean_of_the_rest() -> None:
    figure = benchmark_figure(np.array([[1.0, np.nan], [1.0, 1.0]]))
    assert figure.per_seed == (None, 1.0)
    assert figure.mean is None
    assert figure.deviation is None
    assert figure.reason == "1 of 4 problems x repeats have no value"


def test_benchmarks_weigh_the_same_whatever_their_size() -> None:
    large = benchmark_figure(np.array([[1.0] * 500, [0.0] * 500]))
    small = benchmark_figure(np.array([[0.0] * 30, [0.0] * 30]))
    mean = mean_figure({"math": large, "aime": small})
    assert mean.per_seed == (0.5, 0.0)
    assert mean.mean == 0.25
    assert mean.deviation == pytest.approx(statistics.stdev([0.5, 0.0]))


def test_the_mean_over_benchmarks_names_the_one_that_lacks_a_value() -> None:
    whole, torn = benchmark_figure(np.ones((2, 3))), benchmark_figure(np.full((2, 3), np.nan))
    mean = mean_figure({"math": whole, "aime": torn})
    assert mean.mean is None
    assert mean.reason == "a value is missing in aime"


def test_a_figure_is_never_nan_nor_missing_without_a_reason() -> None:
    with pytest.raises(ValueError):
        Figure((float("nan"),), 1.0, None, "why")
    with pytest.raises(ValueError):
        Figure((1.0,), 1.0, None)
