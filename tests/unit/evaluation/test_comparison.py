"""Paired differences: intervals against a direct bootstrap, verdicts, sentences."""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.evaluation.comparison import Difference, differences, multiplicity_note, sentence
from branchdiag.stats.estimate import Estimate
from branchdiag.store.fingerprint import derive_seed


def compared(*paired: dict[str, np.ndarray], n_pairs: int = 1, seed: int = 3) -> list[Difference]:
    return differences(list(paired), n_pairs=n_pairs, resamples=400, level=0.9, seed=seed)


def slow_interval(
    entry: dict[str, np.ndarray], resamples: int, level: float, seed: int
) -> tuple[float, float]:
    """One resample after another, problem by problem; the quantile by sorting."""
    generators = {
        name: np.random.default_rng(derive_seed(seed, "comparison", name)) for name in entry
    }
    means = []
    for _ in range(resamples):
        benchmarks = []
        for name, values in entry.items():
            drawn = generators[name].integers(len(values), size=len(values))
            benchmarks.append(sum(float(values[i]) for i in drawn) / len(values))
        means.append(sum(benchmarks) / len(benchmarks))
    means.sort()

    def quantile(share: float) -> float:
        place = share * (len(means) - 1)
        low = int(place)
        high = min(low + 1, len(means) - 1)
        return means[low] + (place - low) * (means[high] - means[low])

    tail = (1 - level) / 2
    return quantile(tail), quantile(1 - tail)


def planted(shift: float, sizes: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(shift, 0.3, size) for name, size in sizes.items()}


def test_intervals_agree_with_a_direct_bootstrap() -> None:
    entries = [
        planted(0.1, {"math": 23, "aime": 7}, 1),
        planted(-0.2, {"math": 23}, 2),
        planted(0.0, {"aime": 7}, 4),
    ]
    for entry, found in zip(entries, compared(*entries, n_pairs=3), strict=True):
        for estimate, level in ((found.estimate, 0.9), (found.together, 1 - 0.1 / 3)):
            expected = slow_interval(entry, 400, level, 3)
            assert (estimate.ci_low, estimate.ci_high) == pytest.approx(expected, abs=1e-12)
        assert found.estimate.value == pytest.approx(np.mean([v.mean() for v in entry.values()]))
        assert found.n_problems == sum(map(len, entry.values()))


def test_a_pair_has_the_same_interval_whatever_it_is_compared_beside() -> None:
    one, other = planted(0.1, {"math": 30}, 1), planted(0.3, {"aime": 5}, 2)
    assert compared(one)[0].estimate == compared(other, one)[1].estimate


def test_benchmarks_weigh_the_same_in_the_difference() -> None:
    entry = {"math": np.full(500, 0.2), "aime": np.full(30, -0.2)}
    assert compared(entry)[0].estimate.value == pytest.approx(0.0)


def test_no_effect_is_told_apart_as_rarely_as_the_level_says() -> None:
    entries = [planted(0.0, {"math": 60}, seed) for seed in range(400)]
    found = differences(entries, n_pairs=1, resamples=1000, level=0.95, seed=0)
    told = sum(d.verdict in ("better", "worse") for d in found) / len(found)
    assert 0.02 <= told <= 0.10


def test_effects_are_seen_with_their_sign() -> None:
    up, down = compared(planted(0.3, {"math": 60}, 1), planted(-0.3, {"math": 60}, 2))
    assert (up.verdict, down.verdict) == ("better", "worse")


def test_the_interval_that_holds_for_all_pairs_is_wider() -> None:
    (found,) = compared(planted(0.1, {"math": 40}, 1), n_pairs=6)
    alone, together = found.estimate, found.together
    assert together.ci_low is not None
    assert alone.ci_low is not None
    assert together.ci_low < alone.ci_low


def test_a_missing_value_leaves_the_difference_missing() -> None:
    (found,) = compared({"math": np.array([0.1, np.nan, 0.2]), "aime": np.zeros(9)})
    assert found.verdict == "not compared"
    assert found.estimate.reason == "problems without a value: 1 in math"


def test_equal_outcomes_and_too_few_problems_have_no_interval_but_a_reason() -> None:
    (same,) = compared({"math": np.zeros(40)})
    (few,) = compared({"math": np.array([0.5, 0.5])})
    assert same.verdict == few.verdict == "not told apart"
    assert same.estimate.reason == "no problem came out differently"
    assert "too few to resample" in str(few.estimate.reason)


def difference(low: float | None, value: float | None, high: float | None) -> Difference:
    estimate = Estimate(value, low, high, None if low is not None else "why")
    return Difference(estimate, estimate, 100)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            difference(0.004, 0.021, 0.039),
            "new is better than old: Avg@8 is 2.1 points higher (95% interval +0.4 to +3.9, "
            "100 problems).",
        ),
        (
            difference(-0.05, -0.03, -0.01),
            "new is worse than old: Avg@8 is 3.0 points lower (95% interval -5.0 to -1.0, "
            "100 problems).",
        ),
        (
            difference(-0.015, 0.003, 0.022),
            "new and old are not told apart by these 100 problems: Avg@8 differs by +0.3 points "
            "(95% interval -1.5 to +2.2).",
        ),
        (
            difference(None, 0.0, None),
            "new and old are not told apart by these 100 problems: Avg@8 differs by +0.0 points, "
            "without an interval (why).",
        ),
        (difference(None, None, None), "new and old are not compared on Avg@8: why."),
    ],
)
def test_a_plain_sentence_for_each_verdict(found: Difference, words: str) -> None:
    assert sentence("old", "new", "Avg@8", found, 0.95) == words


def test_several_pairs_are_noted_with_those_that_do_not_survive() -> None:
    assert multiplicity_note(1, 0.95, []) is None
    note = multiplicity_note(6, 0.95, ["b against a"])
    assert note is not None
    assert "6 pairs" in note
    assert "99.17% (Bonferroni)" in note
    assert note.endswith("Told apart alone but not so: b against a.")
    assert "No verdict" in str(multiplicity_note(3, 0.95, []))
