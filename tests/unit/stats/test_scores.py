"""The score table against a direct evaluation with pandas, and what it says when it cannot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from branchdiag.stats.bootstrap import draw_multiplicities
from branchdiag.stats.scores import SCORES, evaluate_scores

SETTINGS = {"resamples": 200, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
NO_POSITIVE = "no real-uncertain candidate with this score"


def study(seed, n_problems=20, positives=0.25):
    """Labels and two scores with ties, problems of 1 to 6 candidates, one candidate in six gray."""
    generator = np.random.default_rng(seed)
    problem = np.repeat(np.arange(n_problems), generator.integers(1, 7, n_problems))
    n = problem.size
    label = np.where(generator.random(n) < positives, "real_uncertain", "diversity")
    label[generator.random(n) < 1 / 6] = "gray"
    signal = label == "real_uncertain"
    columns = {
        "one_minus_r": generator.integers(0, 12, n) / 12 + 0.2 * signal,
        "log_kappa": np.round(generator.normal(size=n) - signal, 1),
    }
    return columns, label, np.array([f"p{i}" for i in problem])


def direct(frame, sign):
    """One AUROC and one stratified AUROC the direct way: pandas, pair by pair."""
    centred = sign * (frame.score - frame.groupby("copy").score.transform("mean"))
    centred = centred.round(9)
    wins = pairs = within_wins = within_pairs = 0.0
    for p, c in zip(centred[frame.positive], frame.copy_id[frame.positive], strict=True):
        for q, d in zip(centred[~frame.positive], frame.copy_id[~frame.positive], strict=True):
            won = (p > q) + 0.5 * (p == q)
            wins, pairs = wins + won, pairs + 1
            if c == d:
                within_wins, within_pairs = within_wins + won, within_pairs + 1
    return (
        wins / pairs if pairs else np.nan,
        within_wins / within_pairs if within_pairs else np.nan,
    )


@pytest.mark.parametrize("name", ["one_minus_r", "log_kappa"])
def test_intervals_equal_resampling_and_centring_explicit_copies(name: str) -> None:
    columns, label, problem = study(1, n_problems=8)
    settings = SETTINGS | {"resamples": 60}
    result = {r.name: r for r in evaluate_scores(columns, label, problem, **settings)}[name]
    frame = pd.DataFrame({"score": columns[name], "label": label, "problem": problem})
    frame = frame[frame.label != "gray"].assign(positive=lambda f: f.label == "real_uncertain")
    names = sorted(frame.problem.unique())
    areas, within = [], []
    for weights in next(draw_multiplicities(len(names), resamples=60, seed=0)):
        copies = [
            frame[frame.problem == problem_name].assign(copy=f"{problem_name}/{i}")
            for problem_name, count in zip(names, weights, strict=True)
            for i in range(int(count))
        ]
        drawn = pd.concat(copies, ignore_index=True).assign(copy_id=lambda f: f["copy"])
        area, share = direct(drawn, SCORES[name].sign)
        areas.append(area)
        within.append(share)
    low, high = np.nanquantile(areas, [0.025, 0.975])
    assert [result.ci_low, result.ci_high] == pytest.approx([low, high], abs=1e-12)
    assert result.n_dropped_resamples == np.isnan(areas).sum()
    low, high = np.nanquantile(within, [0.025, 0.975])
    assert [result.stratified_ci_low, result.stratified_ci_high] == pytest.approx([low, high])
    folded = np.maximum(areas, 1 - np.array(areas))
    low, high = np.nanquantile(folded, [0.025, 0.975])
    assert [result.paper_compat.ci_low, result.paper_compat.ci_high] == pytest.approx([low, high])
    assert result.paper_compat.auroc == max(result.auroc, 1 - result.auroc)


def test_names_order_and_signs_are_declared() -> None:
    assert {name: score.sign for name, score in SCORES.items()} == {
        "one_minus_r": 1,
        "h_trunc": 1,
        "h_full": 1,
        "h_mc": 1,
        "mi": 1,
        "log_kappa": -1,
        "h_student": 1,
        "log_ratio": -1,
        "kl": 1,
        "margin": -1,
        "control_viability": -1,
        "control_length": 1,
        "position": -1,
    }
    assert next(iter(SCORES)) == "one_minus_r" and list(SCORES)[-1] == "position"
    assert all(score.name == name and score.meaning for name, score in SCORES.items())


def test_a_score_of_negative_sign_is_turned_before_it_is_ranked() -> None:
    columns, label, problem = study(2)
    plain = evaluate_scores({"h_full": columns["log_kappa"]}, label, problem, **SETTINGS)
    turned = evaluate_scores({"log_kappa": columns["log_kappa"]}, label, problem, **SETTINGS)
    up = next(r for r in plain if r.name == "h_full")
    down = next(r for r in turned if r.name == "log_kappa")
    assert down.auroc == pytest.approx(1 - up.auroc)
    assert down.ci_low == pytest.approx(1 - up.ci_high)
    assert down.auroc > 0.5
    assert up.paper_compat == down.paper_compat or up.paper_compat.auroc == pytest.approx(
        down.paper_compat.auroc
    )


def test_the_primary_figure_is_not_folded() -> None:
    columns, label, problem = study(3)
    result = evaluate_scores({"h_full": columns["log_kappa"]}, label, problem, **SETTINGS)[2]
    assert result.name == "h_full"
    assert result.auroc < 0.5 < result.paper_compat.auroc
    assert result.ci_low < result.auroc < result.ci_high
    assert result.paper_compat.ci_low >= 0.5


def test_gray_candidates_do_not_move_the_centre() -> None:
    columns, label, problem = study(4)
    moved = columns["one_minus_r"] + 100.0 * (label == "gray")
    plain = evaluate_scores(columns, label, problem, **SETTINGS)[0]
    other = evaluate_scores({"one_minus_r": moved}, label, problem, **SETTINGS)[0]
    assert dataclasses.replace(other, aliases=()) == dataclasses.replace(plain, aliases=())
    assert plain.n_positive + plain.n_negative == (label != "gray").sum()


def test_counts_and_prevalence() -> None:
    label = ["real_uncertain", "diversity", "gray", "real_uncertain", "diversity", None, "", np.nan]
    problem = ["a", "a", "a", "b", "c", "d", "d", "d"]
    result = evaluate_scores({"one_minus_r": np.arange(8.0)}, label, problem, **SETTINGS)[0]
    assert (result.n_positive, result.n_negative) == (2, 2)
    assert (result.n_problems, result.n_problems_positive) == (3, 2)
    assert (result.n_pairs, result.n_problems_mixed) == (1, 1)
    assert result.prevalence == 0.5


def test_rows_without_the_score_are_left_out_and_counted() -> None:
    columns, label, problem = study(5)
    used = np.flatnonzero(label != "gray")
    values = columns["one_minus_r"].copy()
    values[used[:3]] = [np.nan, np.inf, -np.inf]
    kept = np.ones(label.size, bool)
    kept[used[:3]] = False
    result = evaluate_scores({"one_minus_r": values}, label, problem, **SETTINGS)[0]
    alone = evaluate_scores({"one_minus_r": values[kept]}, label[kept], problem[kept], **SETTINGS)
    assert result.n_missing == 3
    assert dataclasses.replace(result, n_missing=0) == alone[0]


def test_a_score_that_was_not_measured_says_so() -> None:
    columns, label, problem = study(6)
    results = evaluate_scores(columns, label, problem, **SETTINGS)
    assert [r.name for r in results] == list(SCORES)
    absent = next(r for r in results if r.name == "mi")
    assert absent.auroc is None and absent.auprc is None and absent.stratified_auroc is None
    assert absent.reason == absent.auprc_reason == "this run did not measure it"
    assert absent.n_missing == (label != "gray").sum()
    assert absent.paper_compat.auroc is None


@pytest.mark.parametrize(
    ("only", "reason"),
    [
        ("diversity", NO_POSITIVE),
        ("real_uncertain", "no diversity candidate with this score"),
        ("gray", NO_POSITIVE),
    ],
)
def test_one_class_only_is_missing_with_the_class_named(only: str, reason: str) -> None:
    columns, label, problem = study(7)
    result = evaluate_scores(columns, np.full(label.size, only), problem, **SETTINGS)[0]
    assert result.auroc is None and result.ci_low is None and result.reason == reason
    assert result.auprc is None and result.auprc_reason == reason
    assert result.stratified_auroc is None and result.stratified_reason is not None


def test_no_candidates_at_all() -> None:
    result = evaluate_scores({"one_minus_r": []}, [], [], **SETTINGS)[0]
    assert result.auroc is None and result.prevalence is None and result.n_problems == 0


def test_positives_in_one_problem_of_many_give_a_value_without_interval() -> None:
    problem = np.repeat(np.arange(20), 3)
    label = np.full(60, "diversity", dtype=object)
    label[:2] = "real_uncertain"
    score = np.random.default_rng(0).normal(size=60)
    result = evaluate_scores({"one_minus_r": score}, label, problem, **SETTINGS)[0]
    assert result.auroc is not None and result.ci_low is None
    assert result.reason is not None and "drew no problem" in result.reason
    assert result.n_dropped_resamples == pytest.approx(200 * (19 / 20) ** 20, abs=25)
    assert result.paper_compat.auroc is not None and result.paper_compat.ci_low is None


def test_singletons_alone_are_all_tied_and_carry_no_interval() -> None:
    label = np.array(["real_uncertain", "diversity"] * 10)
    result = evaluate_scores({"one_minus_r": np.arange(20.0)}, label, np.arange(20), **SETTINGS)[0]
    assert result.auroc == 0.5 and result.ci_low is None
    assert result.reason is not None and "no spread" in result.reason
    assert result.stratified_auroc is None
    assert (
        result.stratified_reason is not None and "no problem holds both" in result.stratified_reason
    )


def test_scores_that_rank_alike_are_marked_as_aliases() -> None:
    columns, label, problem = study(8)
    length = 100.0 + 50.0 * np.unique(problem, return_inverse=True)[1]
    r = 1.0 - columns["one_minus_r"]
    columns = {
        "h_trunc": columns["log_kappa"],
        "h_full": 5.0 + 2.0 * columns["log_kappa"],
        "margin": 3.0 * columns["log_kappa"],
        "one_minus_r": 1.0 - r,
        "control_length": length * (1.0 - r),  # remaining length
        "position": length * r,
    }
    results = {r.name: r for r in evaluate_scores(columns, label, problem, **SETTINGS)}
    assert results["h_trunc"].alias_of is None
    assert results["h_trunc"].aliases == ("h_full", "margin")
    assert results["h_full"].alias_of == "h_trunc"
    assert results["h_full"].auroc == results["h_trunc"].auroc
    assert results["margin"].alias_of == "h_trunc"  # the other way round
    assert results["margin"].auroc == pytest.approx(1 - results["h_trunc"].auroc)
    assert results["position"].alias_of == "control_length"  # L is constant inside a problem
    assert results["control_length"].alias_of is None  # 1 - r weighs problems differently


def test_constant_scores_are_not_aliases_of_each_other() -> None:
    _, label, problem = study(9)
    zeros = np.zeros(label.size)
    results = evaluate_scores({"h_mc": zeros, "mi": zeros + 1}, label, problem, **SETTINGS)
    assert all(r.alias_of is None and r.aliases == () for r in results)


def test_unknown_names_and_lengths_are_refused() -> None:
    columns, label, problem = study(10)
    with pytest.raises(ValueError, match="not declared: h_trunk"):
        evaluate_scores({"h_trunk": columns["log_kappa"]}, label, problem, **SETTINGS)
    with pytest.raises(ValueError, match="unknown labels: grey"):
        evaluate_scores({}, np.where(label == "gray", "grey", label), problem, **SETTINGS)
    with pytest.raises(ValueError, match="differ in length"):
        evaluate_scores({"mi": columns["log_kappa"]}, label, problem[:-1], **SETTINGS)


def test_results_do_not_depend_on_the_order_of_rows() -> None:
    columns, label, problem = study(11)
    order = np.random.default_rng(0).permutation(label.size)
    shuffled = {name: values[order] for name, values in columns.items()}
    plain = evaluate_scores(columns, label, problem, **SETTINGS)
    other = evaluate_scores(shuffled, label[order], problem[order], **SETTINGS)
    for a, b in zip(plain, other, strict=True):
        for name, value in dataclasses.asdict(a).items():
            mine = dataclasses.asdict(b)[name]
            if isinstance(value, float):
                assert mine == pytest.approx(value, abs=1e-12)
            elif name != "paper_compat":
                assert mine == value
