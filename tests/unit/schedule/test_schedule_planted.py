"""What is planted is what is said: a status for each kind of data, and never a crash."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

from branchdiag.stats.arms import Arms
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.schedule_band import (
    GRID,
    FitSettings,
    Replicates,
    expanded_level,
    parameter_intervals,
)
from branchdiag.stats.schedule_curve import Parameters
from branchdiag.stats.schedule_data import ESTIMANDS, LabelledCandidates
from branchdiag.stats.schedule_document import make_document, to_schedule
from branchdiag.stats.schedule_fit import control_mean, fit_estimand, fit_schedule
from branchdiag.stats.schedule_refit import Refits
from branchdiag.stats.schedule_status import of_parameters
from tests.unit.schedule.planted_schedules import (
    candidates,
    horizon,
    level,
    marginal,
    plant,
    shape,
)

QUICK = FitSettings(resamples=20, permutations=1000, slope_resamples=100)
RISING, FALLING = shape(0.4, 0.3, 0.1), shape(0.4, 0.6, 0.1, falling=True)
STEP = lambda r: np.where(r < 0.45, 0.0, 1.0)  # noqa: E731


def fit(child, control, seed=0, estimand=None, **planted):
    return fit_schedule(
        plant(child, control, seed=seed, **planted), estimand=estimand, settings=QUICK
    )


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("child", "control", "status", "direction"),
    [
        (RISING, level(0.9), "ok", "increasing"),
        (FALLING, level(0.9), "ok", "decreasing"),
        (level(0.6), level(0.7), "flat", "none"),
        (horizon(), horizon(), "horizon_only", "none"),
        (STEP, level(1.0), "separation", "increasing"),
        (lambda r: 1.0 - STEP(r), level(1.0), "separation", "decreasing"),
    ],
    ids=["rising", "falling", "flat", "horizon", "separated", "separated falling"],
)
def test_each_planted_truth_has_its_status(child, control, status, direction, seed) -> None:
    fitted = fit(child, control, seed)
    assert (fitted.status, fitted.direction) == (status, direction)
    schedule = to_schedule(fitted)
    if status in ("ok", "separation"):
        assert (fitted.w_min, fitted.tau, fitted.s) == (schedule.w_min, schedule.tau, schedule.s)
        assert schedule.tau is not None
        assert not schedule.is_uniform
    else:
        assert (schedule.w_min, schedule.tau, schedule.s) == (1.0, None, None)
        assert fitted.reason
    assert set(fitted.fits) == {"viability", "relative"}


@pytest.mark.parametrize(
    ("estimand", "data", "said"),
    [
        (None, plant(RISING, level(0.9), seed=0, n_problems=2), "2 problems"),
        (None, plant(RISING, level(0.9), seed=0, n_problems=1), "1 problem "),
        (None, candidates([], [], np.zeros((0, 4))), "0 problems"),
        (
            None,
            candidates([0.1, 0.2, 0.15, 0.25, 0.12], [0, 0, 1, 1, 2], [[6, 1, 5, 3]] * 5),
            "span 0.15",
        ),
        (
            None,
            candidates([0.1, 0.5, 0.9], [0, 1, 2], [[6, 1, 2, 3]] * 3),
            "two positions",
        ),
        ("binary", plant(shape(0.97, 0.2, 0.1), level(0.9), seed=1), "real-uncertain"),
    ],
    ids=["two problems", "one", "none", "narrow", "one position", "few failing"],
)
def test_too_few_data_are_insufficient(estimand, data, said) -> None:
    fitted = fit_schedule(data, estimand=estimand, settings=QUICK)
    assert fitted.status == "insufficient"
    assert said in fitted.reason
    assert (fitted.w_min, fitted.tau, fitted.s, fitted.direction) == (1.0, None, None, "none")


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_one_outcome_alone_is_no_variation(chance) -> None:
    fitted = fit(level(chance), level(0.5))
    assert fitted.status == "no_variation"
    assert "at any position" in fitted.reason


def test_a_control_that_never_succeeds_allows_no_ratio() -> None:
    fitted = fit(RISING, level(0.0), estimand="relative")
    assert fitted.status == "no_variation"
    assert "without a forced token" in fitted.reason


def test_without_a_control_viability_stands_and_says_what_is_not_known() -> None:
    planted = plant(RISING, level(0.9), seed=0)
    samples = planted.arms.samples.copy()
    successes = planted.arms.successes.copy()
    samples[:, 0] = successes[:, 0] = 0
    arms = Arms(successes, samples, planted.arms.lengths)
    data = LabelledCandidates(planted.r, planted.problem, arms, planted.label, planted.teacher_CK)
    fitted = fit_schedule(data, settings=QUICK)
    assert (fitted.status, fitted.direction) == ("ok", "increasing")
    assert "not known" in fitted.reason
    assert make_document(fitted)["control"] is None


def test_a_named_estimand_is_taken_knowingly() -> None:
    fitted = fit(horizon(), horizon(), estimand="viability")
    assert (fitted.status, fitted.direction) == ("ok", "increasing")
    assert "no more than the horizon" in fitted.reason


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_every_estimand_finds_a_strong_rise(estimand) -> None:
    fitted = fit(shape(0.1, 0.4, 0.05), level(0.9), estimand=estimand)
    assert fitted.direction == "increasing"
    assert fitted.status in ("ok", "separation")
    assert fitted.w_min < 0.5
    assert {"viability", "relative", estimand} == set(fitted.fits)


def test_eight_early_failures_among_280_are_a_sharp_step_and_not_moderate() -> None:
    # The counts of the paper: even with every failure in the first quarter, w_min is near 0.87.
    generator = np.random.default_rng(0)
    problem = np.repeat(np.arange(61), np.clip(generator.poisson(5.5, 61), 1, 5))
    r = generator.random(problem.size)
    successes = np.full((r.size, 4), 6)
    successes[generator.choice(np.flatnonzero(r < 0.25), 8, replace=False), 1:] = 0
    found = fit_estimand(candidates(r, problem, successes), "binary", QUICK)
    assert (found.status, found.direction) == ("separation", "increasing")
    assert 0.83 < found.parameters.w_min < 0.92


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (Parameters(0.9, 0.4, 0.3, 0.1), "ok"),
        (Parameters(0.9, 0.4, 0.3, 0.02), "separation"),
        (Parameters(0.9, 0.4, -0.01, 0.1), "no_transition"),
        (Parameters(0.9, 0.4, 1.01, 0.02), "no_transition"),
        (Parameters(0.9, 0.4, 0.5, 1.0), "ok"),
    ],
)
def test_the_status_of_parameters_is_by_where_they_lie(found, status) -> None:
    assert of_parameters(found, 1)[0] == status


def test_a_weight_that_does_not_reach_one_is_said() -> None:
    assert "0.70 at the end" in of_parameters(Parameters(0.9, 0.4, 1.0, 0.1), 1)[1]
    assert "0.70 at the start" in of_parameters(Parameters(0.9, 0.4, 0.0, 0.1), -1)[1]
    gradual = of_parameters(Parameters(0.9, 0.4, 0.5, 1.0), 1)[1]
    assert "straight line" in gradual
    assert "0.77 at the end" in gradual
    assert of_parameters(Parameters(0.9, 0.4, 0.4, 0.1), 1)[1] is None


def test_no_transition_gives_a_curve_and_no_schedule() -> None:
    curve = lambda r: np.exp(5.0 * (r - 1.0)) * 0.5  # noqa: E731 - rises to the very end
    data = plant(curve, level(0.9), seed=0, n_problems=200, problem_sd=0.0)
    fitted = fit_schedule(data, estimand="viability", settings=QUICK)
    assert (fitted.status, fitted.direction) == ("no_transition", "increasing")
    assert (fitted.w_min, fitted.tau, fitted.s) == (1.0, None, None)
    assert fitted.chosen.band.w[0] < fitted.chosen.band.w[-1] < 1.0
    assert to_schedule(fitted).is_uniform


def test_the_band_of_a_rise_holds_most_of_the_truth_and_orders_its_ends() -> None:
    fitted = fit(RISING, level(0.9))
    band = fitted.chosen.band
    true = marginal(RISING, GRID) / marginal(level(0.9), GRID)
    assert (band.low <= band.high).all()
    assert np.mean((band.low <= true) & (true <= band.high)) > 0.6
    np.testing.assert_allclose(band.w, true, atol=0.12)
    assert isinstance(fitted.chosen.intervals["tau"], Estimate)


def test_many_failed_resamples_leave_no_band_and_a_reason() -> None:
    # All failures are in one of twelve problems: a third of the resamples do not draw it.
    problem = np.repeat(np.arange(12), 4)
    successes = np.full((48, 4), 6)
    successes[:2, 1:] = 0
    data = candidates(np.tile([0.1, 0.3, 0.6, 0.9], 12), problem, successes)
    band = fit_estimand(data, "viability", QUICK).band
    assert band.low is None
    assert band.high is None
    assert "resamples could not be fitted (limit 10%)" in band.reason
    assert 0.2 < band.n_failed / band.resamples < 0.5


def test_many_failed_resamples_leave_the_parameters_without_intervals() -> None:
    theta = np.random.default_rng(0).normal(size=(100, 4))
    refits = Refits(np.ones(100, bool), np.ones(100, np.int64), theta)
    for n_failed in (10, 11):
        replicates = Replicates(refits, np.arange(100) < n_failed)
        found = parameter_intervals(
            Parameters(0.9, 0.4, 0.3, 0.1), 1, replicates, level=0.95, max_failed_share=0.1
        )
        assert [estimate.has_interval for estimate in found.values()] == [n_failed == 10] * 3
        assert found["tau"].value == 0.3
    assert "11 of 100 resamples could not be fitted" in found["tau"].reason


def test_a_rise_that_turns_round_against_the_control_is_the_horizons() -> None:
    child, control = shape(0.5, 0.4, 0.1, top=0.6), shape(0.3, 0.4, 0.1, top=0.95)
    fitted = fit(child, control, n_problems=200, problem_sd=0.3)
    ways = {name: one.direction for name, one in fitted.fits.items()}
    assert ways == {"viability": "increasing", "relative": "decreasing"}
    assert (fitted.status, fitted.direction, fitted.w_min) == ("horizon_only", "none", 1.0)
    assert "does the opposite" in fitted.reason


@pytest.mark.parametrize("n_problems", [3, 5, 61])
def test_ends_are_moved_out_to_what_a_mean_would_need(n_problems) -> None:
    # Plain percentiles of a mean are value +- z sd sqrt((P - 1) / P) / sqrt(P); Student's interval
    # is value +- t sd / sqrt(P). The expanded level takes the first to the second.
    widened = norm.ppf(0.5 + expanded_level(0.95, n_problems) / 2)
    assert widened * np.sqrt((n_problems - 1) / n_problems) == pytest.approx(
        student.ppf(0.975, n_problems - 1), rel=1e-6
    )


@pytest.mark.parametrize("n_problems", [3, 7, 40])
def test_the_controls_curve_is_the_one_that_was_fitted(n_problems) -> None:
    planted = plant(RISING, shape(0.5, 0.6, 0.1), seed=3, n_problems=n_problems)
    found = fit_estimand(planted, "relative", QUICK)
    rows = found.rows
    curve, theta = found.fits.constant, found.fits.constant_theta
    if found.parameters is not None:
        sign = found.test.sign
        curve, theta = found.fits.sigmoids[sign], found.fits.sigmoid_thetas[sign]
    of_rows = curve.mean(theta[np.newaxis])[0][rows.is_control]
    np.testing.assert_allclose(control_mean(found, rows.r[rows.is_control]), of_rows, atol=1e-9)


def test_tied_positions_give_the_control_as_many_knots_as_were_fitted() -> None:
    # Quantiles of few positions twice over are not those of the positions.
    r = [0.21, 1.0, 0.7, 0.7, 1.0, 1.0, 0.2]
    problem = [0, 1, 1, 2, 2, 3, 3]
    successes = [[2, 0, 3, 1], [1, 0, 0, 2], [2, 3, 0, 0], [1, 0, 0, 3], [3, 0, 1, 0]]
    planted = candidates(r, problem, [*successes, [0, 1, 1, 1], [3, 0, 3, 0]], 3)
    document = make_document(fit_schedule(planted, estimand="relative", settings=QUICK))
    assert document["control"]["fit"] is not None


def test_equal_seeds_give_equal_results() -> None:
    data = plant(RISING, level(0.9), seed=0, n_problems=15)
    one, two = (make_document(fit_schedule(data, settings=QUICK)) for _ in range(2))
    assert one == two


@pytest.mark.slow
def test_a_fit_of_the_papers_size_with_all_defaults_finds_what_was_planted() -> None:
    fitted = fit_schedule(plant(RISING, level(0.9), seed=0))
    assert (fitted.status, fitted.direction) == ("ok", "increasing")
    assert (fitted.settings.resamples, fitted.settings.permutations) == (500, 2000)


@st.composite
def any_candidates(draw) -> LabelledCandidates:
    n = draw(st.integers(0, 12))
    whole = st.integers(0, 3)
    samples = np.array(draw(st.lists(st.tuples(*[whole] * 4), min_size=n, max_size=n)), int)
    samples = samples.reshape(n, 4)
    share = np.array(draw(st.lists(st.sampled_from([0, 0.5, 1]), min_size=4 * n, max_size=4 * n)))
    successes = np.floor(samples * share.reshape(n, 4)).astype(int)
    r = draw(st.lists(st.sampled_from([0.0, 0.2, 0.21, 0.7, 1.0, np.nan]), min_size=n, max_size=n))
    problem = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    label = draw(
        st.lists(
            st.sampled_from(["diversity", "real_uncertain", "gray", None]), min_size=n, max_size=n
        )
    )
    teacher = np.where(np.arange(3) < draw(st.integers(0, 3)), 0.3, np.nan)
    return LabelledCandidates(
        np.array(r, float),
        np.array(problem, int),
        Arms(successes, samples, np.full((n, 4), np.nan)),
        np.array(label, object),
        np.tile(teacher, (n, 1)),
    )


@given(any_candidates(), st.sampled_from(ESTIMANDS))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_data_make_it_crash_or_write_nan(data, estimand) -> None:
    few = FitSettings(resamples=12, permutations=50, slope_resamples=20)
    document = make_document(fit_schedule(data, estimand=estimand, settings=few))
    json.dumps(document, allow_nan=False)
    assert document["status"] == "ok" or document["reason"]
