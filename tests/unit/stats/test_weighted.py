"""Statistics of multiplicities against laying the drawn copies out row by row in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.auroc import centre_within
from branchdiag.stats.weighted import weighted_auroc, weighted_average_precision, weighted_ratio


def copied_rows(scores, positive, codes, weights):
    """Each drawn copy as a cluster of its own, centred anew: the direct way."""
    rows = []
    for cluster, copies in enumerate(weights):
        mine = [(s, p) for s, p, c in zip(scores, positive, codes, strict=True) if c == cluster]
        mean = sum(s for s, _ in mine) / len(mine) if mine else 0.0
        for _ in range(int(copies)):
            rows += [(round(s - mean, 9), p) for s, p in mine]
    return rows


def direct_auroc(rows):
    wins = [(p > n) + 0.5 * (p == n) for p, y in rows if y for n, z in rows if not z]
    return sum(wins) / len(wins) if wins else float("nan")


def direct_precision(rows):
    total = sum(y for _, y in rows)
    if total in (0, len(rows)):
        return float("nan")
    area, before = 0.0, 0
    for threshold in sorted({s for s, _ in rows}, reverse=True):
        kept = [y for s, y in rows if s >= threshold]
        area += sum(kept) / len(kept) * (sum(kept) - before) / total
        before = sum(kept)
    return area


def random_case(generator):
    n_clusters = int(generator.integers(1, 6))
    n = int(generator.integers(1, 13))
    codes = generator.integers(0, n_clusters, n)
    codes[: min(n, n_clusters)] = np.arange(min(n, n_clusters))  # singletons among them
    n_clusters = int(codes.max()) + 1
    scores = generator.integers(0, 5, n).astype(float)
    positive = generator.random(n) < generator.choice([0.0, 0.2, 0.5, 1.0])
    weights = generator.multinomial(n_clusters, [1 / n_clusters] * n_clusters, 2)
    return scores, positive, codes, weights.astype(float)


@pytest.mark.parametrize("cells", [2**21, 0, 7])
def test_fast_forms_equal_the_direct_copies_on_1000_random_cases(cells: int) -> None:
    """cells = 0 and 7 force the sorted form and tiny blocks."""
    generator = np.random.default_rng(0)
    n_defined = 0
    for _ in range(1000):
        scores, positive, codes, weights = random_case(generator)
        centred = centre_within(scores, codes)
        area = weighted_auroc(centred, positive, codes, cells=cells)(weights)
        precision = weighted_average_precision(centred, positive, codes, cells=cells)(weights)
        for drawn, fast_area, fast_precision in zip(weights, area, precision, strict=True):
            rows = copied_rows(scores.tolist(), positive.tolist(), codes.tolist(), drawn)
            np.testing.assert_allclose(fast_area, direct_auroc(rows), rtol=0, atol=1e-12)
            np.testing.assert_allclose(fast_precision, direct_precision(rows), rtol=0, atol=1e-12)
            n_defined += not np.isnan(fast_area)
    assert 300 < n_defined < 1900


def test_pair_matrix_and_sorted_form_agree_on_a_larger_case() -> None:
    generator = np.random.default_rng(1)
    codes = np.sort(generator.integers(0, 80, 600))
    codes = np.unique(codes, return_inverse=True)[1]
    positive = generator.random(600) < 0.1
    scores = centre_within(np.round(generator.normal(size=600) + positive, 1), codes)
    n_clusters = int(codes.max()) + 1
    weights = generator.multinomial(n_clusters, [1 / n_clusters] * n_clusters, 50).astype(float)
    for form in (weighted_auroc, weighted_average_precision):
        small = form(scores, positive, codes, cells=0)(weights)
        np.testing.assert_allclose(form(scores, positive, codes)(weights), small, atol=1e-12)


def test_ratio_of_weighted_sums() -> None:
    generator = np.random.default_rng(2)
    numerator, denominator = generator.normal(size=(4, 3)), generator.integers(0, 2, (4, 3))
    weights = generator.integers(0, 3, (50, 4)).astype(float)
    fast = weighted_ratio(numerator, denominator.astype(float))(weights)
    n_missing = 0
    for drawn, values in zip(weights, fast, strict=True):
        for column in range(3):
            below = sum(w * d for w, d in zip(drawn, denominator[:, column], strict=True))
            above = sum(w * d for w, d in zip(drawn, numerator[:, column], strict=True))
            if below == 0:
                n_missing += 1
                assert np.isnan(values[column])
            else:
                assert values[column] == pytest.approx(above / below, abs=1e-12)
    assert n_missing > 0
