"""Point values of the ranking statistics against oracles in exact fractions, pair by pair."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.stats.auroc import (
    auroc,
    average_precision,
    centre_within,
    centred_ranks,
    mid_ranks,
    prevalence,
    stratified_auroc,
)


def pairs_auroc(scores, positive):
    """Every positive against every negative, in exact halves."""
    wins = [
        Fraction((p > n) * 2 + (p == n), 2)
        for p, is_p in zip(scores, positive, strict=True)
        if is_p
        for n, is_n in zip(scores, positive, strict=True)
        if not is_n
    ]
    return sum(wins) / len(wins) if wins else None


def pairs_stratified(scores, positive, clusters):
    """The same, skipping pairs across clusters."""
    rows = list(zip(scores, positive, clusters, strict=True))
    wins = [
        Fraction((p > n) * 2 + (p == n), 2)
        for p, is_p, c in rows
        if is_p
        for n, is_n, d in rows
        if not is_n and c == d
    ]
    return (sum(wins) / len(wins) if wins else None), len(wins)


def stepwise_precision(scores, positive):
    """Walk down the distinct scores and add precision times the recall gained."""
    total = sum(positive)
    if total in (0, len(positive)):
        return None
    area, recall = Fraction(0), Fraction(0)
    for threshold in sorted(set(scores), reverse=True):
        kept = [is_p for s, is_p in zip(scores, positive, strict=True) if s >= threshold]
        gained = Fraction(sum(kept), total) - recall
        area += Fraction(sum(kept), len(kept)) * gained
        recall += gained
    return area


def exact_residuals(scores, clusters):
    """Fractions: means without rounding."""
    values = [Fraction(s) for s in scores]
    out = []
    for value, cluster in zip(values, clusters, strict=True):
        mates = [v for v, c in zip(values, clusters, strict=True) if c == cluster]
        out.append(value - sum(mates) / len(mates))
    return out


def random_case(generator):
    """Few distinct scores (ties), clusters from singletons to one, any number of positives."""
    n = int(generator.integers(1, 13))
    scores = generator.integers(0, generator.integers(1, 8) + 1, n)
    positive = generator.random(n) < generator.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    clusters = generator.integers(0, generator.integers(1, n + 1), n)
    return scores, positive, clusters


def test_point_values_equal_exact_pairs_on_1000_random_cases() -> None:
    generator = np.random.default_rng(0)
    n_undefined = 0
    for _ in range(1000):
        scores, positive, clusters = random_case(generator)
        ranked = [int(s) for s in scores], [bool(p) for p in positive]
        expected = pairs_auroc(*ranked)
        assert auroc(scores, positive) == (None if expected is None else float(expected))
        precision = stepwise_precision(*ranked)
        if precision is None:
            n_undefined += 1
            assert average_precision(scores, positive) is None
        else:
            assert average_precision(scores, positive) == pytest.approx(float(precision), abs=1e-14)
        share, n_pairs = pairs_stratified(*ranked, clusters.tolist())
        within = stratified_auroc(scores, positive, clusters)
        assert within.value == (None if share is None else float(share))
        assert within.n_pairs == n_pairs
        assert (within.reason is None) == (n_pairs > 0)
    assert 100 < n_undefined < 900  # both kinds of case were met


def test_centred_scores_keep_exact_order_and_ties_on_1000_random_cases() -> None:
    generator = np.random.default_rng(1)
    n_ties_across = 0
    for _ in range(1000):
        n = int(generator.integers(1, 14))
        scores = generator.integers(0, 7, n) / generator.choice([1.0, 3.0, 6.0, 7.0])
        scores = scores + generator.choice([0.0, 100.0])
        clusters = generator.integers(0, generator.integers(1, n + 1), n)
        centred = centre_within(scores, clusters)
        # The oracle sees the rationals that the floats stand for.
        rationals = [Fraction(s).limit_denominator(1000) for s in scores.tolist()]
        exact = exact_residuals(rationals, clusters.tolist())
        assert np.allclose(centred, [float(e) for e in exact], atol=1e-9)
        order = np.unique([exact.index(e) for e in exact])
        assert np.unique(centred).size == order.size == len(set(exact))
        assert mid_ranks(centred).tolist() == _exact_ranks(exact)
        n_ties_across += len(set(exact)) < n
    assert n_ties_across > 500


def _exact_ranks(values):
    return [
        float(Fraction(2 * sum(o < v for o in values) + sum(o == v for o in values) + 1, 2))
        for v in values
    ]


def test_ranks_of_many_rows_at_once_are_exact_on_1000_random_cases() -> None:
    generator = np.random.default_rng(2)
    n_ties_across = 0
    for _ in range(1000):
        n_rows, n = int(generator.integers(1, 5)), int(generator.integers(1, 14))
        scale = generator.choice([1.0, 3.0, 6.0, 7.0], (n_rows, 1))
        scores = generator.integers(0, 7, (n_rows, n)) / scale
        scores += generator.choice([0.0, 100.0], (n_rows, 1))
        scores[generator.random(n_rows) < 0.1] = 0.0  # a row without any size to round by
        names = generator.integers(0, generator.integers(1, n + 1), n)
        codes = np.unique(names, return_inverse=True)[1]
        ranks = centred_ranks(scores, codes)
        for row, found in zip(scores.tolist(), ranks.tolist(), strict=True):
            rationals = [Fraction(s).limit_denominator(1000) for s in row]
            exact = exact_residuals(rationals, codes.tolist())
            assert found == _exact_ranks(exact)
            n_ties_across += len(set(exact)) < n
    assert n_ties_across > 500


def test_ranks_of_no_rows_and_of_no_columns_are_empty() -> None:
    assert centred_ranks(np.empty((0, 3)), np.array([0, 0, 1])).shape == (0, 3)
    assert centred_ranks(np.empty((4, 0)), np.array([], dtype=np.int64)).shape == (4, 0)


def test_rows_do_not_share_their_rounding() -> None:
    below, above = 0.5e-12 * (1 - 1e-9), 0.5e-12 * (1 + 1e-9)
    scores = np.array([[1.0, -1.0, below, above, -below, -above], [0, 0, below, above, 0, 0]])
    ranks = centred_ranks(scores, np.zeros(6, dtype=np.int64))
    assert ranks[0, 2] == ranks[0, 3]  # noise beside 1
    assert ranks[1, 2] < ranks[1, 3]  # beside nothing larger they differ


def test_rounding_noise_does_not_break_ties() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.1 + 0.7, 0.2 + 0.7, 0.3 + 0.7])
    clusters = np.array([0, 0, 0, 1, 1, 1])
    raw = scores - np.repeat([scores[:3].mean(), scores[3:].mean()], 3)
    assert np.unique(raw).size > 3  # noise is there
    assert np.unique(centre_within(scores, clusters)).size == 3


def test_neighbours_on_both_sides_of_a_half_grain_stay_tied() -> None:
    below, above = 0.5e-12 * (1 - 1e-9), 0.5e-12 * (1 + 1e-9)  # the grain is 1e-12 here
    scores = np.array([1.0, -1.0, below, above, -below, -above])
    assert np.round(below / 1e-12) != np.round(above / 1e-12)  # rounding alone would part them
    centred = centre_within(scores, np.zeros(6))
    assert centred[2] == centred[3]


def test_a_cluster_of_one_centres_to_exactly_zero() -> None:
    centred = centre_within([0.3, 5.1, 5.3, 1e9], ["a", "b", "b", "c"])
    assert centred[0] == 0.0 and centred[3] == 0.0
    assert not np.signbit(centred[[0, 3]]).any()


def test_empty_and_constant_scores_centre_without_error() -> None:
    assert centre_within([], []).size == 0
    assert centre_within([0.0, 0.0], [1, 1]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        auroc([0.0, bad], [True, False])
    with pytest.raises(ValueError, match="finite"):
        centre_within([0.0, bad], [0, 0])


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        auroc([0.0, 1.0], [True])
    with pytest.raises(ValueError, match="differ in shape"):
        centre_within([0.0, 1.0], [0])
    with pytest.raises(ValueError, match="differ in shape"):
        stratified_auroc([0.0, 1.0], [True, False], [0])


def test_prevalence() -> None:
    assert prevalence([True, False, False, False]) == 0.25
    assert prevalence([]) is None


rows = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30)


@given(rows)
def test_auroc_of_the_negative_score_is_the_complement(case) -> None:
    scores = np.array([s for s, _ in case], dtype=float)
    positive = np.array([p for _, p in case])
    area = auroc(scores, positive)
    if area is not None:
        assert auroc(-scores, positive) == pytest.approx(1.0 - area, abs=1e-15)
        assert auroc(scores, ~positive) == pytest.approx(1.0 - area, abs=1e-15)


@given(rows, st.randoms())
def test_ranking_statistics_ignore_order_of_rows_and_monotone_rescaling(case, random) -> None:
    shuffled = list(case)
    random.shuffle(shuffled)
    for statistic in (auroc, average_precision):
        plain = statistic([s for s, _ in case], [p for _, p in case])
        other = statistic([np.exp(s) for s, _ in shuffled], [p for _, p in shuffled])
        assert plain == (other if plain is None else pytest.approx(other, abs=1e-12))


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.booleans(), st.integers(0, 4)), min_size=1),
    st.lists(st.integers(-50, 50), min_size=5, max_size=5),
)
def test_a_shift_of_each_cluster_changes_no_centred_statistic(case, shifts) -> None:
    scores = np.array([s for s, _, _ in case], dtype=float)
    positive = np.array([p for _, p, _ in case])
    clusters = np.array([c for _, _, c in case])
    shifted = scores + np.array(shifts)[clusters]
    plain, moved = centre_within(scores, clusters), centre_within(shifted, clusters)
    assert auroc(plain, positive) == auroc(moved, positive)
    assert stratified_auroc(plain, positive, clusters) == stratified_auroc(
        shifted, positive, clusters
    )
