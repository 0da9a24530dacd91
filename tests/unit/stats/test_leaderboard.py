"""Paired differences against explicit copies of problems, aliases, and simultaneous coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.leaderboard import compare, find_aliases
from branchdiag.stats.power import critical_auroc, detectable_auroc, null_sd
from branchdiag.stats.scores import Score

SETTINGS = {"resamples": 300, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def declared(*names: str, negative: tuple[str, ...] = ()) -> dict[str, Score]:
    return {name: Score(name, -1 if name in negative else 1, name) for name in names}


def study(seed, n_problems=12, strength=0.0, positives=0.3):
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(n_problems), generator.integers(2, 7, n_problems))
    positive = generator.random(problem.size) < positives
    shared = generator.normal(size=problem.size)
    columns = {
        "first": np.round(shared + strength * positive, 1),
        "second": shared + generator.normal(size=problem.size),
        "third": -generator.normal(size=problem.size),
    }
    return columns, positive, np.array([f"p{i:03d}" for i in problem])


def slow_auroc(values, positive):
    """Pair by pair, ties one half."""
    up, down = values[positive], values[~positive]
    if not len(up) or not len(down):
        return np.nan
    return np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(up, down)])


def slow_replicates(columns, signs, positive, problem, resamples):
    """AUROC of each column on explicit copies of the drawn problems, centred copy by copy."""
    names = sorted(set(problem))
    frame = pd.DataFrame(columns).assign(positive=positive, problem=problem)
    rows = []
    for weights in next(draw_multiplicities(len(names), resamples=resamples, seed=0)):
        copies = [
            frame[frame.problem == name].assign(copy=f"{name}/{i}")
            for name, count in zip(names, weights, strict=True)
            for i in range(int(count))
        ]
        drawn = pd.concat(copies, ignore_index=True)
        rows.append(
            [
                slow_auroc(
                    (sign * (drawn[name] - drawn.groupby("copy")[name].transform("mean")))
                    .round(9)
                    .to_numpy(),
                    drawn.positive.to_numpy(),
                )
                for name, sign in signs.items()
            ]
        )
    return np.array(rows).T


def test_differences_and_both_kinds_of_intervals_equal_explicit_copies() -> None:
    columns, positive, problem = study(1)
    signs = {"first": 1, "second": 1, "third": -1}
    settings = SETTINGS | {"resamples": 80}
    board = compare(
        columns, declared(*signs, negative=("third",)), positive, problem,
        reference="second", **settings,
    )  # fmt: skip
    slow = slow_replicates(columns, signs, positive, problem, 80)
    slow = slow[:, np.isfinite(slow).all(axis=0)]
    frame = pd.DataFrame(columns).assign(problem=problem)
    point = []
    for name, sign in signs.items():
        centred = sign * (frame[name] - frame.groupby("problem")[name].transform("mean"))
        point.append(slow_auroc(centred.round(9).to_numpy(), positive))
    point = np.array(point)

    def check(compared, value, replicates, largest, null) -> None:
        assert compared.estimate.value == pytest.approx(value, abs=1e-12)
        ends = np.quantile(replicates, [0.025, 0.975])
        assert [compared.estimate.ci_low, compared.estimate.ci_high] == pytest.approx(ends)
        half = np.quantile(largest, 0.95) * replicates.std()
        assert [compared.low, compared.high] == pytest.approx([value - half, value + half])
        hits = sum(largest >= abs(value - null) / replicates.std())
        assert compared.p == pytest.approx((1 + hits) / (1 + len(largest)))

    def largest_of(pairs) -> np.ndarray:
        spreads = []
        for value, replicates in pairs:
            spreads.append(np.abs(replicates - value) / replicates.std())
        return np.max(spreads, axis=0)

    standing = {s.name: s for s in board.standings}
    largest = largest_of(zip(point, slow, strict=True))
    for i, name in enumerate(signs):
        check(standing[name].auroc, point[i], slow[i], largest, 0.5)
    largest = largest_of([(point[i] - point[1], slow[i] - slow[1]) for i in (0, 2)])
    for i, name in ((0, "first"), (2, "third")):
        check(
            standing[name].against_reference,
            point[i] - point[1], slow[i] - slow[1], largest, 0.0,
        )  # fmt: skip
    best = int(np.argmax(point))
    assert board.best == list(signs)[best]
    pairs = itertools.combinations(range(3), 2)
    largest = largest_of([(point[i] - point[j], slow[i] - slow[j]) for i, j in pairs])
    for i, name in enumerate(signs):
        if i == best:
            assert standing[name].against_best is None and standing[name].rank == 1
        else:
            check(
                standing[name].against_best,
                point[i] - point[best], slow[i] - slow[best], largest, 0.0,
            )  # fmt: skip
    assert board.median_sd == pytest.approx(np.median(slow.std(axis=1)))
    assert board.c == pytest.approx(np.quantile(largest_of(zip(point, slow, strict=True)), 0.95))


def test_the_same_once_centred_is_one_entry_with_aliases() -> None:
    columns, positive, problem = study(2)
    length = 50.0 + 10 * np.unique(problem, return_inverse=True)[1]
    generator = np.random.default_rng(0)
    columns |= {
        "shifted": 3.0 * columns["second"] + length,
        "turned": -columns["second"],
        "rounded": columns["second"] * (1 + 1e-9 * generator.normal(size=problem.size)),
        "curved": np.exp(columns["second"]),
        "constant": length,
    }
    names = [*columns]
    board = compare(columns, declared(*names), positive, problem, reference="first", **SETTINGS)
    standing = {s.name: s for s in board.standings}
    assert [s.name for s in board.standings] == names
    assert standing["shifted"].alias_of == standing["rounded"].alias_of == "second"
    assert not standing["shifted"].opposite
    assert standing["turned"].alias_of == "second" and standing["turned"].opposite
    assert standing["curved"].alias_of is None  # centring sees the curve
    assert board.n_compared == 4
    assert standing["turned"].auroc is None and standing["turned"].rank is None
    assert "the same at every candidate" in str(standing["constant"].reason)
    assert {s.rank for s in board.standings if s.rank} == {1, 2, 3, 4}


def test_find_aliases_sees_swaps_that_are_no_rounding() -> None:
    values = np.array([-1.0, -0.2, 0.1, 1.1])
    swapped = np.array([-1.0, 0.1, -0.2, 1.1])
    assert find_aliases({"a": values, "b": swapped}) == {}
    assert find_aliases({"a": values, "b": values**3}) == {"b": ("a", False)}  # the same ranks
    assert find_aliases({"a": values, "b": -2 * values}) == {"b": ("a", True)}


def test_rows_that_one_signal_lacks_are_left_out_for_all_unless_they_are_many() -> None:
    columns, positive, problem = study(3, n_problems=30)
    columns["third"] = np.where(np.arange(problem.size) < 3, np.nan, columns["third"])
    half = np.arange(problem.size) % 2 == 0
    columns["sparse"] = np.where(half, np.nan, columns["second"])
    board = compare(
        columns, declared("first", "second", "third", "sparse", "absent"), positive, problem,
        reference="first", **SETTINGS,
    )  # fmt: skip
    assert board.n_candidates == problem.size - 3
    standing = {s.name: s for s in board.standings}
    assert standing["sparse"].reason == (
        f"it is missing at {half.sum()} of {problem.size} candidates"
    )
    assert standing["absent"].reason == "this run did not measure it"
    assert board.n_compared == 3


def test_one_class_or_few_problems_have_a_reason_and_no_interval() -> None:
    columns, positive, problem = study(4)
    names = declared(*columns)
    none = compare(columns, names, np.zeros_like(positive), problem, reference="first", **SETTINGS)
    assert none.reason == "one class is empty" and none.best is None
    assert all(s.auroc is None and s.reason for s in none.standings)
    two = problem < "p002"
    few = compare(
        {k: v[two] for k, v in columns.items()}, names,
        np.arange(two.sum()) % 2 == 0, problem[two], reference="first", **SETTINGS,
    )  # fmt: skip
    assert "too few to resample" in str(few.reason)
    assert few.standings[0].auroc.estimate.value is not None
    assert few.standings[0].auroc.low is None and few.median_sd is None
    empty = compare({"first": []}, names, [], [], reference="first", **SETTINGS)
    assert empty.n_candidates == 0 and empty.reason


def test_a_planted_better_signal_is_best_and_told_from_the_reference() -> None:
    columns, positive, problem = study(5, n_problems=120)
    columns["planted"] = columns["third"] + 3.0 * positive
    board = compare(columns, declared(*columns), positive, problem, reference="second", **SETTINGS)
    assert board.best == "planted"
    standing = {s.name: s for s in board.standings}
    assert standing["planted"].against_reference.low > 0
    assert standing["planted"].against_reference.p < 0.01
    assert standing["third"].against_best.high < 0
    assert standing["third"].against_reference.p > 0.05
    barred = compare(
        columns,
        declared(*columns),
        positive,
        problem,
        reference="second",
        never_best=("planted",),
        **SETTINGS,
    )
    assert barred.best != "planted" and barred.standings[-1].rank == 1
    assert barred.standings[-1].against_best.low > 0


def test_simultaneous_intervals_hold_all_signals_without_information_at_once() -> None:
    """Ten signals of noise in 60 problems: pointwise intervals miss some 0.5 in many studies,
    simultaneous ones in few."""
    pointwise = simultaneous = 0
    studies = 60
    for seed in range(studies):
        generator = np.random.default_rng(1000 + seed)
        problem = np.repeat(np.arange(60), 4)
        positive = generator.random(240) < 0.2
        columns = {f"s{i}": generator.normal(size=240) for i in range(10)}
        board = compare(columns, declared(*columns), positive, problem, reference="s0", **SETTINGS)
        areas = [s.auroc for s in board.standings]
        pointwise += all(
            not a.estimate.is_above(0.5) and not a.estimate.is_below(0.5) for a in areas
        )
        simultaneous += all(a.low <= 0.5 <= a.high for a in areas)
    assert simultaneous >= 0.86 * studies
    assert pointwise < simultaneous


def test_the_null_spread_is_that_of_random_ranks() -> None:
    generator = np.random.default_rng(0)
    ranks = [generator.permutation(60) for _ in range(4000)]
    areas = [(r[:9].sum() - 36) / (9 * 51) for r in ranks]
    assert null_sd(9, 51) == pytest.approx(np.std(areas), rel=0.04)
    assert null_sd(8, 271) == pytest.approx(0.104, abs=5e-4)
    assert critical_auroc(null_sd(8, 271)) == pytest.approx(0.704, abs=1e-3)
    assert detectable_auroc(8, 271) == pytest.approx(0.79, abs=5e-3)
    assert critical_auroc(10.0) == 1.0
