"""The permuted null against full enumeration, and who may change places with the control."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from branchdiag.stats.arms import Arms
from branchdiag.stats.auroc import centre_within
from branchdiag.stats.horizon_null import (
    draw_controls,
    drops,
    evaluate_relative_scores,
    exchangeable_arms,
    slope_null,
)
from branchdiag.stats.scores import SCORES, evaluate_columns

SETTINGS = {"resamples": 200, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}


def make_arms(successes, samples=None, lengths=None):
    successes = np.array(successes)
    samples = np.full(successes.shape, 6) if samples is None else np.array(samples)
    lengths = np.full(successes.shape, np.nan) if lengths is None else np.array(lengths, float)
    return Arms(successes, samples, lengths)


def enumerate_nulls(successes, samples, score_of, r, problems):
    """Every equally likely choice of controls: AUROC of the score, slope of d, and the slope in
    standard errors between problems (the plain slope where one problem has no spread), by loops.
    """
    choices = [
        [a for a, n in enumerate(row) if n > 0 and n == row[0]] for row in np.asarray(samples)
    ]
    for chosen in product(*choices):
        above, below = dict.fromkeys(problems, 0.0), dict.fromkeys(problems, 0.0)
        for row, arm in enumerate(chosen):
            mates = [x for x, p in zip(r, problems, strict=True) if p == problems[row]]
            earliness = r[row] - sum(mates) / len(mates)
            d = difference(successes[row], samples[row], arm)
            above[problems[row]] += earliness * d
            below[problems[row]] += earliness**2
        slope = sum(above.values()) / sum(below.values())
        left = [above[problem] - slope * below[problem] for problem in above]
        error = sum(x**2 for x in left) ** 0.5 / sum(below.values())
        area = one_assignment(successes, samples, chosen, score_of, problems)
        carrying = sum(x > 0 for x in below.values())
        yield area, slope, slope if carrying < 2 else slope / max(error, 1e-6)


def one_assignment(successes, samples, chosen, score_of, problems):
    """AUROC with the given arms as controls, pair by pair; NaN with one class only."""
    rows = range(len(problems))
    score = [score_of(row, arm) for row, arm in enumerate(chosen)]
    residual = []
    for row in rows:
        mates = [score[other] for other in rows if problems[other] == problems[row]]
        residual.append(score[row] - sum(mates) / len(mates))
    positive = [
        difference(successes[row], samples[row], arm) <= -0.4 + 1e-9
        for row, arm in enumerate(chosen)
    ]
    gaps = [
        round(residual[i] - residual[j], 9)
        for i in rows
        for j in rows
        if positive[i] and not positive[j]
    ]
    return np.mean([(gap > 0) + 0.5 * (gap == 0) for gap in gaps]) if gaps else np.nan


def difference(successes, samples, arm):
    """Mean share of the other arms less that of `arm`."""
    shares = {a: s / n for a, (s, n) in enumerate(zip(successes, samples, strict=True)) if n > 0}
    own = shares.pop(arm)
    return sum(shares.values()) / len(shares) - own


CASES = {
    "three and two children": (
        [[6, 1, 2, 0], [3, 3, 4, 0], [5, 0, 1, 2], [2, 6, 5, 0], [6, 0, 5, 1], [1, 2, 3, 4]],
        [[6, 6, 6, 6], [6, 6, 6, 0], [6, 6, 6, 6], [6, 6, 6, 0], [6, 6, 6, 6], [6, 6, 6, 6]],
    ),
    "unequal samples": (
        [[6, 1, 2, 0], [3, 3, 4, 0], [5, 0, 1, 2], [2, 5, 5, 0], [5, 0, 5, 1], [1, 2, 3, 4]],
        [[6, 6, 5, 6], [6, 6, 6, 0], [5, 6, 6, 6], [6, 5, 6, 0], [6, 6, 6, 4], [6, 6, 6, 6]],
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["one_minus_r", "control_viability"])
def test_null_mean_and_p_approach_full_enumeration(case: str, name: str) -> None:
    successes, samples = CASES[case]
    problems = ["a", "a", "a", "b", "b", "b"]
    r = np.array([0.1, 0.5, 0.9, 0.2, 0.4, 0.95])
    score_of = {
        "one_minus_r": lambda row, arm: 1 - r[row],
        "control_viability": lambda row, arm: -successes[row][arm] / samples[row][arm],
    }[name]
    nulls = np.array(list(enumerate_nulls(successes, samples, score_of, r, problems)))
    arms = make_arms(successes, samples)
    results = evaluate_relative_scores(
        {"one_minus_r": 1 - r}, arms, problems, permutations=4000, **SETTINGS
    )
    result = next(row for row in results if row.name == name)
    areas, slopes, ratios = nulls.T
    assert result.auroc == pytest.approx(areas[0])  # the observed assignment comes first
    defined = areas[~np.isnan(areas)]
    error = 5 * defined.std() / np.sqrt(4000) + 1e-12
    assert result.null_mean == pytest.approx(defined.mean(), abs=error)
    tails = [(defined <= areas[0] + 1e-9).mean(), (defined >= areas[0] - 1e-9).mean()]
    assert result.p == pytest.approx(min(1.0, 2 * min(tails)), abs=0.05)
    assert result.n_undefined / 4000 == pytest.approx(np.isnan(areas).mean(), abs=0.03)
    null = slope_null(arms, r, problems, permutations=4000, seed=1)
    tails = [(ratios <= ratios[0] + 1e-9).mean(), (ratios >= ratios[0] - 1e-9).mean()]
    assert null.p == pytest.approx(min(1.0, 2 * min(tails)), abs=0.05)
    assert null.null_mean == pytest.approx(slopes.mean(), abs=5 * slopes.std() / np.sqrt(4000))
    if case == "three and two children":
        assert slopes.mean() == pytest.approx(0.0, abs=1e-12)


def test_only_arms_with_as_many_samples_change_places_with_the_control() -> None:
    arms = make_arms(
        [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]], [[6, 6, 5, 6], [6, 6, 6, 0], [4, 6, 6, 5]]
    )
    allowed = exchangeable_arms(arms)
    assert allowed.tolist() == [
        [True, True, False, True],
        [True, True, True, False],
        [True, False, False, False],
    ]
    chosen = np.concatenate(list(draw_controls(arms, permutations=3000, seed=0)))
    assert [set(column) for column in chosen.T.tolist()] == [{0, 1, 3}, {0, 1, 2}, {0}]
    shares = [(chosen[:, 0] == arm).mean() for arm in (0, 1, 3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)
    result = evaluate_relative_scores(
        {"one_minus_r": [0.1, 0.2, 0.3]}, arms, [0, 0, 0], permutations=10, **SETTINGS
    )
    assert result[0].n_fixed == 1


def test_candidates_are_permuted_independently_of_each_other() -> None:
    arms = make_arms(np.ones((2, 3), int))
    chosen = np.concatenate(list(draw_controls(arms, permutations=5000, seed=0)))
    table = np.array(
        [[((chosen == (a, b)).all(axis=1)).mean() for a in range(3)] for b in range(3)]
    )
    assert table == pytest.approx(np.full((3, 3), 1 / 9), abs=0.02)


def test_a_drop_of_exactly_four_tenths_counts() -> None:
    arms = make_arms([[5, 1, 1], [5, 2, 1], [4, 2, 2]], np.full((3, 3), 5))
    dropped = drops(arms)[:, 0]
    assert dropped.tolist() == [True, True, True]
    assert drops(make_arms([[5, 4, 3]], [[5, 5, 5]]))[:, 0].tolist() == [False]
    narrow = make_arms([[6, 4, 3], [6, 3, 4]], [[6, 6, 6], [6, 6, 5]])
    assert narrow.difference.tolist() == pytest.approx([-0.4167, -0.35], abs=1e-3)
    assert drops(narrow)[:, 0].tolist() == [True, False]


def test_relative_figures_use_all_comparable_candidates_gray_too() -> None:
    generator = np.random.default_rng(0)
    samples = np.full((40, 4), 6)
    samples[:4, 0] = 0  # no control
    samples[4:6, 2:] = 0  # one child
    successes = generator.binomial(samples, 0.5)
    arms = Arms(successes, samples, np.full((40, 4), np.nan))
    score = generator.random(40)
    problems = np.repeat(np.arange(10), 4)
    results = evaluate_relative_scores(
        {"h_trunc": score}, arms, problems, permutations=50, **SETTINGS
    )
    by_name = {r.name: r for r in results}
    assert list(by_name) == list(SCORES)
    used = arms.comparable
    assert used.sum() == 34
    result = by_name["h_trunc"]
    assert result.n_positive + result.n_negative == 34
    direct = evaluate_columns(
        {"h_trunc": score[used]},
        arms.difference[used] <= -0.4 + 1e-9,
        problems[used],
        class_names=("relatively failing", "other"),
        **SETTINGS,
    )
    plain = next(r for r in direct if r.name == "h_trunc")
    assert (result.auroc, result.ci_low, result.ci_high) == (
        plain.auroc,
        plain.ci_low,
        plain.ci_high,
    )
    assert by_name["control_viability"].auroc is not None
    assert by_name["control_length"].reason == by_name["control_length"].null_reason
    assert by_name["mi"].null_mean is None and by_name["mi"].p is None


def test_scores_of_the_control_arm_move_with_the_control() -> None:
    """Under the null the control's viability is far from uninformative about d, which holds it."""
    generator = np.random.default_rng(1)
    arms = make_arms(generator.binomial(6, 0.5, (300, 4)))
    problems = np.repeat(np.arange(60), 5)
    results = evaluate_relative_scores(
        {"h_trunc": generator.random(300)}, arms, problems, permutations=300, **SETTINGS
    )
    by_name = {r.name: r for r in results}
    control = by_name["control_viability"]
    assert control.auroc < 0.2 and control.null_mean < 0.2
    assert control.p > 0.05
    assert by_name["h_trunc"].null_mean == pytest.approx(0.5, abs=0.03)


def test_control_length_needs_the_length_of_every_arm() -> None:
    generator = np.random.default_rng(2)
    lengths = generator.integers(5, 50, (80, 3)).astype(float)
    lengths[:10, 1] = np.nan
    arms = make_arms(generator.binomial(6, 0.5, (80, 3)), lengths=lengths)
    results = evaluate_relative_scores(
        {}, arms, np.repeat(np.arange(20), 4), permutations=100, **SETTINGS
    )
    result = next(r for r in results if r.name == "control_length")
    assert result.n_missing == 10 and result.p is not None


def test_control_length_of_the_control_alone_has_a_figure_but_no_null() -> None:
    generator = np.random.default_rng(4)
    arms = make_arms(generator.binomial(6, 0.5, (80, 3)))
    results = evaluate_relative_scores(
        {"control_length": generator.random(80)},
        arms,
        np.repeat(np.arange(20), 4),
        permutations=100,
        **SETTINGS,
    )
    result = next(r for r in results if r.name == "control_length")
    assert result.auroc is not None and result.p is None and result.null_mean is None
    assert result.null_reason is not None and "control only" in result.null_reason


def test_no_comparable_candidate_leaves_every_figure_missing_with_a_reason() -> None:
    arms = make_arms([[0, 3, 3]], [[0, 6, 6]])
    results = evaluate_relative_scores(
        {"one_minus_r": [0.5]}, arms, ["a"], permutations=10, **SETTINGS
    )
    assert all(r.auroc is None and r.reason and r.null_reason for r in results)
    assert slope_null(arms, [0.5], ["a"], permutations=10, seed=0).p is None


def test_no_drop_anywhere_is_missing_with_a_reason() -> None:
    arms = make_arms(np.full((20, 3), 6))
    result = evaluate_relative_scores(
        {"one_minus_r": np.arange(20.0)}, arms, np.arange(20) // 4, permutations=20, **SETTINGS
    )[0]
    assert result.auroc is None and result.p is None
    assert result.null_reason == "no relatively failing candidate with this score"


def test_slope_null_without_two_positions_is_missing() -> None:
    arms = make_arms(np.full((3, 3), 2))
    null = slope_null(arms, [0.1, 0.2, 0.3], ["a", "b", "c"], permutations=10, seed=0)
    assert null.p is None and null.reason == "no problem has candidates at two positions"


def test_children_that_differ_do_not_hide_a_slope() -> None:
    """Children far apart spread the permuted slopes wide; the observed slope is sharp all the same.

    One child always succeeds, one never, one as often as the control; forcing loses a little more
    in late places. The plain slope's permutation cannot see it: p was above .1 here.
    """
    generator = np.random.default_rng(4)
    r = np.tile(np.linspace(0.1, 0.9, 6), 40)
    control = generator.binomial(6, 0.5 + 0.1 * r)
    children = [np.full(r.size, 6), np.zeros(r.size, int), generator.binomial(6, 0.5 - 0.2 * r)]
    arms = make_arms(np.column_stack([control, *children]))
    problems = np.repeat(np.arange(40), 6)
    assert slope_null(arms, r, problems, permutations=999, seed=0).p < 0.05
    x = centre_within(r, problems)
    d = arms.difference_by_arm
    rows = np.arange(r.size)
    plain = np.array(
        [d[rows, c] @ x for c in np.vstack(list(draw_controls(arms, permutations=999, seed=0)))]
    )
    assert 2 * (plain <= d[:, 0] @ x).mean() > 0.1


def test_p_of_a_strong_planted_effect_is_the_smallest_possible() -> None:
    r = np.tile([0.1, 0.3, 0.7, 0.9], 20)
    children = np.where(r[:, None] < 0.5, 0, 6) * np.ones((80, 3), int)
    arms = make_arms(np.column_stack([np.full(80, 6), children]))
    null = slope_null(arms, r, np.repeat(np.arange(20), 4), permutations=999, seed=0)
    assert null.p == pytest.approx(2 / 1000)


def test_chunks_change_no_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = make_arms(np.ones((7, 4), int))
    whole = np.concatenate(list(draw_controls(arms, permutations=100, seed=0)))
    monkeypatch.setattr("branchdiag.stats.horizon_null.CELLS", 20)
    chunks = list(draw_controls(arms, permutations=100, seed=0))
    assert len(chunks) == 50
    assert (np.concatenate(chunks) == whole).all()


def test_null_figures_equal_loops_over_the_same_draws_on_1000_random_cases() -> None:
    generator = np.random.default_rng(3)
    settings = SETTINGS | {"resamples": 2}
    n_defined = 0
    for case in range(1000):
        n, width = int(generator.integers(1, 9)), int(generator.integers(3, 5))
        samples = generator.choice([5, 6, 6, 6], (n, width))
        samples[generator.random(n) < 0.3, width - 1] = 0
        if width == 3:
            samples[:, 2] = 6
        successes = generator.binomial(samples, generator.choice([0.3, 0.5], (n, 1)))
        arms, problems = make_arms(successes, samples), generator.integers(0, 3, n).tolist()
        score = generator.integers(0, 3, n) / 3
        results = evaluate_relative_scores(
            {"h_trunc": score}, arms, problems, permutations=3, **(settings | {"seed": case})
        )
        (draws,) = draw_controls(arms, permutations=3, seed=case)
        shares = -arms.viability
        for name, score_of in {
            "h_trunc": lambda row, _, score=score: score[row],
            "control_viability": lambda row, arm, shares=shares: shares[row, arm],
        }.items():
            result = next(r for r in results if r.name == name)
            observed = one_assignment(successes, samples, [0] * n, score_of, problems)
            if np.isnan(observed):
                assert result.auroc is None and result.p is None
                continue
            values = [one_assignment(successes, samples, row, score_of, problems) for row in draws]
            defined = [v for v in values if not np.isnan(v)]
            assert result.auroc == pytest.approx(observed, abs=1e-12)
            assert result.n_undefined == 3 - len(defined)
            if defined:
                n_defined += 1
                assert result.null_mean == pytest.approx(np.mean(defined), abs=1e-12)
                tails = [
                    1 + sum(v <= observed + 1e-9 for v in defined),
                    1 + sum(v >= observed - 1e-9 for v in defined),
                ]
                assert result.p == pytest.approx(min(1.0, 2 * min(tails) / (1 + len(defined))))
            else:
                assert result.p is None and result.null_reason is not None
    assert n_defined > 300
