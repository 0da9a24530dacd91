"""Means, intervals of two levels, pooled cosines: against loops and against planted truths."""

import dataclasses
import math

import numpy as np
import pytest

from branchdiag.stats.alignment import LOSSES, cosine, ideal_gradient, renormalised
from branchdiag.stats.alignment_estimates import between_groups, evaluate, simultaneous
from branchdiag.stats.alignment_nodes import FIGURES, Nodes, node_values
from branchdiag.stats.alignment_pooled import pool
from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.estimate import Estimate, Resampling
from branchdiag.stats.reliability import equal_count_bins
from tests.unit.stats.planted_nodes import planted

FEW: Resampling = {"resamples": 200, "level": 0.95, "seed": 3, "max_dropped_share": 0.1}
ANSWER, NONE = ("advantage", "answer", ""), ("advantage", "none", "")
COSINE = ("cosine_forward_kl", "answer", "")


def slow_mean(values: list[float], weights: list[float]) -> float:
    kept = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v) and w]
    return math.fsum(v * w for v, w in kept) / math.fsum(w for _, w in kept)


def slow_figures(nodes: Nodes, success: np.ndarray) -> dict[str, list[float]]:
    """Advantage and forward-KL cosine of each node, by loops."""
    found: dict[str, list[float]] = {"advantage": [], "cosine_forward_kl": []}
    for row in range(nodes.r.size):
        p, q = ([v / sum(values) for v in values] for values in
                (list(nodes.student_NK[row]), list(nodes.teacher["answer"][row])))  # fmt: skip
        v = list(success[row])
        mean = sum(a * b for a, b in zip(p, v, strict=True))
        ideal = [a * (b - mean) for a, b in zip(p, v, strict=True)]
        step = [b - a for a, b in zip(p, q, strict=True)]
        found["advantage"].append(sum(s * b for s, b in zip(step, v, strict=True)))
        long = [math.sqrt(sum(x * x for x in g)) for g in (ideal, step)]
        found["cosine_forward_kl"].append(
            math.nan
            if min(long) <= 1e-12
            else sum(a * b for a, b in zip(ideal, step, strict=True)) / long[0] / long[1]
        )
    return found


def test_every_mean_and_its_interval_against_loops() -> None:
    nodes, _, _ = planted(1, n_problems=12, rollouts=3)
    found = evaluate(nodes, bins=3, **FEW)
    success = nodes.successes_NK / nodes.samples_NK
    observed = slow_figures(nodes, success)
    codes = [int(name[1:]) for name in nodes.problem_id]
    order = sorted(set(nodes.problem_id))  # as the codes are given: p10 before p2
    codes = [order.index(name) for name in nodes.problem_id]
    inside = equal_count_bins(nodes.r, 3)
    weights = np.concatenate(list(draw_multiplicities(12, resamples=200, seed=3)))
    drawn = np.random.default_rng([3, 1]).binomial(
        nodes.samples_NK, success, size=(200, *success.shape)
    )
    again = [slow_figures(nodes, one / nodes.samples_NK) for one in drawn]
    for key in (ANSWER, COSINE):
        cells = [found.series[key].whole, *found.series[key].by_position]
        for cell, members in zip(
            cells, [inside >= 0, *(inside == b for b in range(3))], strict=True
        ):
            chosen = [float(flag) for flag in members]
            assert cell.estimate.value == pytest.approx(slow_mean(observed[key[0]], chosen))
            replicates = np.array(
                [
                    slow_mean(
                        values[key[0]],
                        [w[codes[n]] * chosen[n] for n in range(len(codes))],
                    )
                    for values, w in zip(again, weights, strict=True)
                ]
            )
            if key == COSINE:
                replicates = np.clip(replicates - replicates.mean() + cell.estimate.value, -1, 1)
            low, high = np.quantile(replicates, [0.025, 0.975])
            assert (cell.estimate.ci_low, cell.estimate.ci_high) == pytest.approx((low, high))
            defined = sum(not math.isnan(observed[key[0]][n]) for n in np.flatnonzero(members))
            assert cell.n_nodes == defined and cell.n_undefined == int(members.sum()) - defined


def test_the_slope_is_least_squares_with_an_intercept_a_problem() -> None:
    nodes, _, _ = planted(2, n_problems=15)
    found = evaluate(nodes, bins=4, **FEW).series[ANSWER]
    advantages = node_values(nodes, nodes.success())[ANSWER]
    dummies = (nodes.problem_id[:, None] == np.unique(nodes.problem_id)[None]).astype(float)
    design = np.column_stack([nodes.r, dummies])
    expected = np.linalg.lstsq(design, advantages, rcond=None)[0][0]
    assert found.slope is not None and found.slope.value == pytest.approx(expected)
    assert found.slope.ci_low is not None and found.slope.ci_low < expected < found.slope.ci_high


def test_a_planted_advantage_lies_in_its_interval_and_the_student_has_none() -> None:
    nodes, _, truth = planted(4, gain=3.0)
    found = evaluate(nodes, bins=5, **FEW)
    estimate = found.series[ANSWER].whole.estimate
    assert estimate.ci_low is not None and estimate.ci_high is not None
    assert estimate.ci_low < truth.mean() < estimate.ci_high and estimate.is_above(0)
    none = found.series[NONE].whole.estimate
    assert none.value == 0 and none.reason
    cosine_none = found.series["cosine_jsd", "none", ""].whole
    assert cosine_none.estimate.value is None and cosine_none.n_undefined == nodes.r.size


def test_an_interval_of_the_advantage_covers_what_was_planted() -> None:
    studies = 60
    held = 0
    for seed in range(studies):
        nodes, _, truth = planted(100 + seed, n_problems=25, per_problem=3, gain=1.0)
        estimate = evaluate(nodes, bins=2, **FEW).series[ANSWER].whole.estimate
        assert estimate.ci_low is not None and estimate.ci_high is not None
        held += estimate.ci_low <= truth.mean() <= estimate.ci_high
    assert held >= 0.9 * studies


def test_few_rollouts_pull_the_mean_cosine_to_0_and_the_corrected_one_not() -> None:
    few, truth, _ = planted(5, n_problems=300, rollouts=4, gain=2.0)
    p, q = renormalised(few.student_NK), renormalised(few.teacher["answer"])
    ideal, step = ideal_gradient(p, truth), q - p
    true_mean = float(np.nanmean(cosine(ideal, step)))
    true_whole = float((ideal * step).sum() / np.sqrt((ideal**2).sum() * (step**2).sum()))
    mean = float(np.nanmean(node_values(few, few.success())[COSINE]))
    pooled = pool(few, **FEW)
    plain, corrected = (
        pooled.cosines["forward_kl", "answer"],
        pooled.corrected["forward_kl", "answer"],
    )
    assert mean < true_mean - 0.05
    assert plain.value is not None and plain.value < true_whole - 0.05
    assert corrected.ci_low is not None and corrected.ci_high is not None
    assert corrected.ci_low < true_whole < corrected.ci_high


def test_halves_agree_the_more_the_more_rollouts_there_are() -> None:
    agreement = []
    for rollouts in (4, 40):
        pooled = pool(planted(6, n_problems=100, rollouts=rollouts)[0], **FEW)
        assert pooled.split_half.value is not None and pooled.signal_share.value is not None
        agreement.append((pooled.split_half.value, pooled.signal_share.value))
    assert agreement[1][0] > agreement[0][0] + 0.2 and agreement[1][1] > agreement[0][1] + 0.2
    half, whole = agreement[1]
    assert whole == pytest.approx(2 * half / (1 + half), abs=0.08)  # Spearman and Brown


def test_pooled_cosines_against_one_long_vector() -> None:
    nodes, _, _ = planted(7)
    pooled = pool(nodes, **FEW)
    p, q = renormalised(nodes.student_NK), renormalised(nodes.teacher["answer"])
    ideal = ideal_gradient(p, nodes.success()).ravel()
    for loss, gradient in LOSSES.items():
        step = gradient(p, q).ravel()
        expected = ideal @ step / np.linalg.norm(ideal) / np.linalg.norm(step)
        assert pooled.cosines[loss, "answer"].value == pytest.approx(expected)
        nothing = pooled.cosines[loss, "none"]
        assert nothing.value is None and nothing.reason == "the loss has no gradient at any node"


def test_success_that_never_differs_leaves_no_cosine_and_an_advantage_of_0() -> None:
    nodes, _, _ = planted(8)
    alike = dataclasses.replace(
        nodes, successes_NK=nodes.samples_NK, first_successes_NK=nodes.first_samples_NK
    )
    found = evaluate(alike, bins=3, **FEW)
    assert found.series[ANSWER].whole.estimate.value == pytest.approx(0)
    assert found.series[COSINE].whole.estimate.reason == "no node has a defined cosine"
    assert found.pooled.split_half.value is None and found.pooled.signal_share.value is None
    assert found.pooled.corrected["jsd", "answer"].value is None


def test_a_context_that_some_problems_lack_is_compared_where_both_are() -> None:
    nodes, _, _ = planted(9, contexts=("answer", "solution"))
    lacking = nodes.teacher["solution"].copy()
    lacking[nodes.problem_id < "p2"] = np.nan
    partly = dataclasses.replace(nodes, teacher={**nodes.teacher, "solution": lacking})
    found = evaluate(partly, bins=3, **FEW)
    present = ~(nodes.problem_id < "p2")
    assert found.series["advantage", "solution", ""].whole.n_nodes == int(present.sum())
    assert found.series[ANSWER].whole.n_nodes == nodes.r.size
    values = node_values(nodes, nodes.success())
    expected = (values[ANSWER] - values["advantage", "solution", ""])[present].mean()
    difference = found.differences["advantage", "answer", "solution"].estimate
    assert difference.value == pytest.approx(expected)


def test_all_figures_are_there_for_every_context() -> None:
    found = evaluate(planted(10)[0], bins=3, **FEW)
    assert set(found.series) == {(f, c, "") for f in FIGURES for c in ("answer", "none")}
    assert found.n_problems == 40 and found.n_nodes == 200


def test_a_family_is_wider_than_its_members_alone() -> None:
    rng = np.random.default_rng(0)
    family = {
        ("advantage", "a", other): (Estimate(0.0, -1.0, 1.0), rng.normal(0, 1, 4000))
        for other in "bcdefgh"
    }
    compared = simultaneous(family, 0.95)
    for pair in compared.values():
        assert pair.low is not None and pair.high is not None and pair.p is not None
        assert pair.high == -pair.low and 2.4 < pair.high < 3.0  # of one alone 1.96
    still = {("advantage", "a", "b"): (Estimate(0.0, None, None, "no spread"), np.zeros(100))}
    assert simultaneous(still, 0.95)["advantage", "a", "b"].low is None


def test_two_groups_are_compared_by_their_own_resamples() -> None:
    first = evaluate(planted(11, gain=4.0)[0], bins=3, **FEW)
    second = evaluate(planted(12, gain=0.0)[0], bins=3, **{**FEW, "seed": 4})
    difference = between_groups(first, second, ANSWER, **FEW)
    a, b = first.series[ANSWER].whole.estimate, second.series[ANSWER].whole.estimate
    assert a.value is not None and b.value is not None and difference.is_above(0)
    assert difference.value == pytest.approx(a.value - b.value)
