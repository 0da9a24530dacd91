"""Simulated studies with a known truth: the horizon alone, and a teacher that really hurts early.

The horizon null: each step to go holds a chance of an error that ends all hope, forced or not. The
way to go is a problem's own number of steps (lognormal about 20) times 1 - r.
"""

from __future__ import annotations

import numpy as np
import pytest

from branchdiag.stats.arms import Arms
from branchdiag.stats.auroc import auroc, centre_within, cluster_codes
from branchdiag.stats.bootstrap import interval, replicate
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.finding import finding
from branchdiag.stats.horizon import against_control, within_problem_slope
from branchdiag.stats.horizon_null import evaluate_relative_scores, slope_null
from branchdiag.stats.scores import evaluate_scores
from branchdiag.stats.weighted import weighted_auroc

SAMPLES = 6


def study(generator, n_problems, steps=20.0, error=0.05, harm=0.0):
    """Arms, r and problems; `harm` lowers the children's viability by that share at r = 0."""
    sizes = np.clip(generator.poisson(4.6, n_problems), 1, 8)
    problem = np.repeat(np.arange(n_problems), sizes)
    r = generator.random(problem.size)
    horizon = steps * np.exp(0.5 * generator.normal(size=n_problems))[problem] * (1 - r)
    control = (1 - error) ** horizon
    child = np.clip(control * (1 - harm * (1 - r)), 0, 1)
    n_children = generator.integers(2, 4, problem.size)
    samples = np.where(np.arange(4) <= n_children[:, None], SAMPLES, 0)
    chances = np.column_stack([control, child, child, child])
    return (
        Arms(generator.binomial(samples, chances), samples, np.full((r.size, 4), np.nan)),
        r,
        problem,
    )


def labels(arms):
    children = arms.samples[:, 1:] > 0
    viable = ((arms.successes[:, 1:] >= 5) & children).sum(axis=1) >= 2
    failing = ((arms.successes[:, 1:] <= 2) | ~children).all(axis=1)
    return np.where(failing, "real_uncertain", np.where(viable, "diversity", "gray"))


def settings(seed, resamples=300):
    return {"resamples": resamples, "level": 0.95, "seed": seed, "max_dropped_share": 0.1}


def conclude(arms, r, problem, seed):
    """The finding of one study, and the results it stands on."""
    slopes = against_control(arms, r, problem, permutations=199, **settings(seed))
    first = evaluate_scores({"one_minus_r": 1 - r}, labels(arms), problem, **settings(seed))[0]
    estimate = Estimate(first.auroc, first.ci_low, first.ci_high, first.reason)
    result = finding(
        auroc=estimate,
        slopes=slopes,
        n_positive=first.n_positive,
        n_problems_positive=first.n_problems_positive,
        level=0.95,
    )
    return result.status, slopes, estimate


def test_the_horizon_alone_looks_early_in_absolute_terms_and_is_seen_through() -> None:
    generator = np.random.default_rng(0)
    n_studies = 150
    covered, absolute, p_values, statuses = 0, 0, [], []
    for seed in range(n_studies):
        status, slopes, estimate = conclude(*study(generator, 50), seed)
        interval = slopes.difference.estimate
        covered += interval.ci_low <= 0 <= interval.ci_high
        absolute += estimate.is_above(0.5)
        p_values.append(slopes.null.p)
        statuses.append(status)
    assert absolute > 0.95 * n_studies  # the paper's figure sees an early effect nearly always
    assert covered > 0.88 * n_studies  # 95% less 4 Monte Carlo errors
    assert np.mean(np.array(p_values) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert 0.42 < np.mean(p_values) < 0.60
    wrong = statuses.count("early_worse") + statuses.count("late_worse")
    assert wrong < 0.05 * n_studies + 3 * np.sqrt(n_studies * 0.05 * 0.95)
    assert statuses.count("no_more_than_horizon") > 0.85 * n_studies


def test_a_drop_below_a_threshold_lets_the_horizon_in_and_its_null_shows_it() -> None:
    generator = np.random.default_rng(1)
    areas, nulls, p_values = [], [], []
    for seed in range(40):
        arms, r, problem = study(generator, 60)
        result = evaluate_relative_scores(
            {"one_minus_r": 1 - r}, arms, problem, permutations=99, **settings(seed, 10)
        )[0]
        if result.auroc is not None:
            areas.append(result.auroc)
            nulls.append(result.null_mean)
            p_values.append(result.p)
    assert np.mean(areas) > 0.58  # far from one half with no teacher effect at all
    assert np.mean(areas) == pytest.approx(np.mean(nulls), abs=0.05)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15


def test_a_teacher_that_hurts_early_is_found() -> None:
    generator = np.random.default_rng(2)
    statuses = [conclude(*study(generator, 60, harm=0.6), seed)[0] for seed in range(25)]
    assert statuses.count("early_worse") >= 23


def test_harm_that_is_the_same_share_everywhere_is_not_called_late_worse() -> None:
    generator = np.random.default_rng(3)
    statuses = []
    for seed in range(40):
        arms, r, problem = study(
            generator, 60, steps=0.0
        )  # no horizon: the control always succeeds
        successes = arms.successes.copy()
        successes[:, 1:] = generator.binomial(arms.samples[:, 1:], 0.7)
        successes[:, 0] = generator.binomial(arms.samples[:, 0], 0.9)
        statuses.append(conclude(Arms(successes, arms.samples, arms.lengths), r, problem, seed)[0])
    assert statuses.count("not_told_apart") >= 34
    assert statuses.count("late_worse") <= 4 and statuses.count("early_worse") <= 4


def coverage(hits, n):
    share = hits / n
    return f"{share:.3f} (Monte Carlo error {np.sqrt(share * (1 - share) / n):.3f})"


@pytest.mark.slow
@pytest.mark.parametrize("n_problems", [5, 10, 20, 60, 200])
def test_coverage_of_the_slope_and_size_of_the_permutation(n_problems: int) -> None:
    generator = np.random.default_rng(4)
    n_studies, covered, given, p_values = 2000, 0, 0, []
    for seed in range(n_studies):
        arms, r, problem = study(generator, n_problems)
        slope = within_problem_slope(arms.difference, r, problem, **settings(seed, 1000)).estimate
        if slope.has_interval:
            given += 1
            covered += slope.ci_low <= 0 <= slope.ci_high
        p = slope_null(arms, r, problem, permutations=399, seed=seed).p
        if p is not None:
            p_values.append(p)
    size = np.mean(np.array(p_values) <= 0.05)
    print(
        f"\n{n_problems} problems: 95% interval of the slope of d holds 0 in "
        f"{coverage(covered, given)}; p <= 0.05 in {coverage(size * len(p_values), len(p_values))}"
    )
    floor = {5: 0.75, 10: 0.86, 20: 0.90, 60: 0.92, 200: 0.93}[n_problems]
    assert covered / given > floor
    assert size < 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(p_values))


@pytest.mark.slow
@pytest.mark.parametrize(("base", "floor"), [(-4.0, 0.84), (-2.0, 0.90)])
def test_coverage_of_the_auroc(base: float, floor: float) -> None:
    """A logistic truth in 61 problems; its AUROC is that of studies a hundred times as large."""
    generator = np.random.default_rng(5)

    def draw(n_problems):
        problem = np.repeat(
            np.arange(n_problems), np.clip(generator.poisson(4.6, n_problems), 1, 8)
        )
        earliness = generator.random(problem.size)
        effect = base + 3.0 * (earliness - 0.5) + generator.normal(size=n_problems)[problem]
        positive = generator.random(problem.size) < 1 / (1 + np.exp(-effect))
        return centre_within(earliness, problem), positive, cluster_codes(problem)[0]

    truth = np.mean(
        [auroc(scores, positive) for scores, positive, _ in (draw(6100) for _ in range(50))]
    )
    n_studies, covered, given, n_positive = 2000, 0, 0, []
    for seed in range(n_studies):
        scores, positive, codes = draw(61)
        point = auroc(scores, positive)
        if point is None:
            continue
        (areas,) = replicate(
            [weighted_auroc(scores, positive, codes)], 61, resamples=1000, seed=seed
        )
        estimate = interval(point, areas, 61, **settings(seed, 1000))
        if estimate.has_interval:
            given += 1
            n_positive.append(positive.sum())
            covered += estimate.ci_low <= truth <= estimate.ci_high
    print(
        f"\n{np.mean(n_positive):.0f} positives on average: 95% interval of the AUROC holds "
        f"{truth:.3f} in {coverage(covered, given)}"
    )
    assert covered / given > floor
