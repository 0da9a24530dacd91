"""Prefixes and gradients of a planted chain: the side diagnostics find what is exactly known.

Early harm, with the teacher under three contexts whose distributions differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from branchdiag.stats.alignment import LOSSES, ideal_gradient, renormalised
from tests.planted_chain import CONTEXTS
from tests.planted_oracle import greedy_trace
from tests.planted_runs import (
    PHASES,
    Figure,
    Planted,
    assert_binomial,
    assert_few_miss,
    diagnose,
    start_of,
)
from tests.planted_stage_oracle import (
    Prefixes,
    Sampled,
    Support,
    alignment_truth,
    contrasts,
    descent,
    discrepancies,
    sampled,
    support_of,
    weights,
)

STAGES = ("P0", "P1", "P2", "P3", "N1", "N2", "N3", "N4")
FRACTIONS = (0.0, 0.15, 0.29, 0.45, 0.6, 0.75, 0.9)
SETTINGS = (
    "candidates.spines=all",
    f"prefixes.fractions={list(FRACTIONS)}",
    "align.student_tokens=1",  # leaves one flavour outside each support
)
GROUPS = {"all": ("start", "hard"), "correct": ("start",), "incorrect": ("hard",)}
ALIGN_GROUPS = {"primary": "start", "incorrect_spines": "hard"}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    directory = tmp_path_factory.mktemp("planted") / "early_harm"
    return diagnose("early_harm", directory, copies=6, phases=(*PHASES, *STAGES), more=SETTINGS)


@pytest.fixture(scope="module")
def frame(planted: Planted) -> Callable[[str], pd.DataFrame]:
    return lambda name: planted.run.table(name).frame()


@pytest.fixture(scope="module")
def accuracies(planted: Planted) -> dict[str, dict[str, list[float]]]:
    """start -> writer -> accuracy at each fraction."""
    truth = Prefixes(planted.written.chain)
    return {start: truth.accuracies(start, FRACTIONS) for start in planted.written.chain.starts}


def test_prefixes_reach_the_answer_as_often_as_planted(
    frame: Callable[[str], pd.DataFrame], accuracies: dict[str, Any], planted: Planted
) -> None:
    counts: dict[Any, list[float]] = {}
    for row in frame("prefix_grades").itertuples():
        start = start_of(row.problem_id)
        place = FRACTIONS.index(float(row.fraction))
        chance = accuracies[start][row.writer][place]
        cell = counts.setdefault((start, row.writer, place), [0.0, 0.0, chance])
        cell[0] += bool(row.correct)
        cell[1] += 1
    assert len(counts) == len(planted.written.chain.starts) * 2 * len(FRACTIONS)
    assert_binomial(counts)


def test_prefix_curves_hold_the_exact_accuracies(
    frame: Callable[[str], pd.DataFrame], accuracies: dict[str, Any]
) -> None:
    curves = frame("prefix_curves")
    figures = {}
    for group, kinds in GROUPS.items():
        chosen = [value for start, value in accuracies.items() if start.startswith(kinds)]
        student, teacher = (
            np.mean([value[writer] for value in chosen], axis=0) for writer in CURVES
        )
        truth = {"student": student, "teacher": teacher, "gain": teacher - student}
        for series, exact in truth.items():
            rows = curves[(curves["group"] == group) & (curves["series"] == series)]
            for row in rows.sort_values("bin").itertuples():
                assert row.x == FRACTIONS[row.bin]
                name = f"{group} {series} {row.x}"
                figures[name] = figure_of(row.y, row.lo, row.hi, exact[row.bin])
    assert len(figures) == 9 * len(FRACTIONS)
    assert_few_miss(figures, share=0.2)


CURVES = ("student", "teacher")


def figure_of(value: Any, low: Any, high: Any, truth: float) -> Figure:
    """A figure of a row of a frame, whose missing numbers are NaN."""
    numbers = [None if pd.isna(number) else float(number) for number in (value, low, high)]
    return Figure(*numbers, float(truth))


def test_changes_of_the_gain_hold_the_exact_ones(
    planted: Planted, accuracies: dict[str, Any]
) -> None:
    document = read_json(planted, "position_bias.json")
    figures = {}
    for group, kinds in GROUPS.items():
        chosen = [value for start, value in accuracies.items() if start.startswith(kinds)]
        gains = [np.array(value["teacher"]) - np.array(value["student"]) for value in chosen]
        for name, exact in contrasts(FRACTIONS, np.mean(gains, axis=0)).items():
            found = document["gain"][group][name]
            figures[f"{group} {name}"] = figure_of(
                found["value"], found["low"], found["high"], exact
            )
    assert len(figures) == 9
    assert_few_miss(figures, share=0.2)


def test_early_harm_supports_discounting_early_tokens(planted: Planted) -> None:
    document = read_json(planted, "position_bias.json")
    votes = {strand["name"]: strand["vote"] for strand in document["basis"]}
    assert votes["schedule"] == "early" and votes["gain"] != "late"
    assert document["verdict"] == "discount_early"
    assert document["schedule"]["direction"] == "increasing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "verdict"),
    [("late_harm", "late"), ("horizon", "neither"), ("steady_loss", "neither")],
)
def test_other_worlds_support_what_was_planted(world: str, verdict: str, tmp_path: Path) -> None:
    planted = diagnose(world, tmp_path, copies=6, phases=(*PHASES, "P0", "P1", "P2", "P3"))
    document = read_json(planted, "position_bias.json")
    assert document["verdict"] == ("discount_late" if verdict == "late" else verdict)
    votes = {strand["name"]: strand["vote"] for strand in document["basis"]}
    assert votes["gain"] == verdict
    # With a steady loss of 1% a step hardly a forced branch fails: no schedule can be fitted.
    assert votes["schedule"] == ("unknown" if world == "steady_loss" else verdict)
    if world == "steady_loss":
        assert document["gain"]["all"]["mean"]["high"] < 0 < document["gain"]["all"]["slope"]["low"]
    if world == "horizon":
        assert document["schedule"]["status"] == "horizon_only"


def read_json(planted: Planted, name: str) -> Any:
    import json

    return json.loads((planted.run.path / name).read_text(encoding="utf-8"))


def test_discrepancies_and_weights_are_those_of_the_tables(
    frame: Callable[[str], pd.DataFrame], planted: Planted
) -> None:
    """Nothing is sampled here: each point is the mean over the tokens of its bin, exactly."""
    chain = planted.written.chain
    by_start = {}
    for start in chain.starts:
        steps = discrepancies(chain, start)
        r = [(place + 0.5) / len(steps) for place in range(len(steps))]
        by_start[start] = list(zip(r, steps, weights(steps), strict=True))
    spines = frame("spines")
    curves = frame("prefix_curves")
    for group, kinds in GROUPS.items():
        tokens = [
            token
            for name in spines["problem_id"]
            if start_of(name).startswith(kinds)
            for token in by_start[start_of(name)]
        ]
        tokens.sort()
        for series, column in (("discrepancy_by_r", 1), ("weight_by_r", 2)):
            rows = curves[(curves["group"] == group) & (curves["series"] == series)]
            first = 0
            for row in rows.sort_values("bin").itertuples():
                inside = tokens[first : first + row.n]
                first += row.n
                assert row.y == pytest.approx(np.mean([t[column] for t in inside]), abs=1e-5)
            assert first == len(tokens)


@pytest.fixture(scope="module")
def supports(
    planted: Planted, frame: Callable[[str], pd.DataFrame]
) -> dict[str, tuple[Support, Sampled]]:
    """candidate_id -> what is true of its node. Copies of a problem share it."""
    chain = planted.written.chain
    made: dict[tuple[str, int], tuple[Support, Sampled]] = {}
    found = {}
    for row in frame("nodes").itertuples():
        start = start_of(row.problem_id)
        key = (start, row.position)
        if key not in made:
            before = greedy_trace(chain, start)[row.position - 1]
            support = support_of(
                chain, planted.truth.value, before, row.support_ids, list(CONTEXTS)
            )
            made[key] = (support, sampled(support, planted.samples))
        found[row.candidate_id] = made[key]
    return found


def test_nodes_hold_the_tables_under_every_context(
    frame: Callable[[str], pd.DataFrame], planted: Planted, supports: dict[str, Any]
) -> None:
    chain = planted.written.chain
    for row in frame("nodes").itertuples():
        before = greedy_trace(chain, start_of(row.problem_id))[row.position - 1]
        p = chain.student[before]
        children = planted.truth.node(start_of(row.problem_id), row.position).children
        assert tuple(row.support_ids) == (*children, int(p.argmax()))
        assert list(row.student) == pytest.approx(p[list(row.support_ids)], abs=1e-6)
        support = supports[row.candidate_id][0]
        assert row.student_excluded == pytest.approx(support.student_excluded, abs=1e-6)
        assert support.student_excluded > 0.005
    contexts = frame("node_contexts").merge(
        frame("nodes")[["candidate_id", "support_ids"]], on="candidate_id"
    )
    assert set(contexts["context"]) == set(CONTEXTS)
    for row in contexts.itertuples():
        before = greedy_trace(chain, start_of(row.problem_id))[row.position - 1]
        q, p = chain.teacher_under(row.context)[before], chain.student[before]
        assert list(row.teacher) == pytest.approx(q[list(row.support_ids)], abs=1e-6)
        excluded = supports[row.candidate_id][0].teacher_excluded[row.context]
        assert row.teacher_excluded == pytest.approx(excluded, abs=1e-6)
        at = q > 0
        kl = float((q[at] * np.log(q[at] / p[at])).sum())
        assert row.forward_kl == pytest.approx(kl, abs=1e-5)


def test_arms_of_nodes_succeed_as_often_as_planted(
    frame: Callable[[str], pd.DataFrame], planted: Planted
) -> None:
    counts: dict[Any, list[float]] = {}
    for row in frame("node_arms").itertuples():
        place = row.candidate_id.rpartition("@")[2]
        assert set(row.samples) == {planted.samples}
        for arm, successes, of in zip(row.arms, row.successes, row.samples, strict=True):
            chance = planted.truth.value[int(arm.partition(":")[2])]
            cell = counts.setdefault((start_of(row.problem_id), place, arm), [0.0, 0.0, chance])
            cell[0] += successes
            cell[1] += of
    assert_binomial(counts)


def test_gradients_are_the_exact_ones_at_every_node(
    frame: Callable[[str], pd.DataFrame], supports: dict[str, Any], planted: Planted
) -> None:
    """Distillation gradients have no noise. The ideal one is linear in V: each of its entries,
    averaged over copies of a node, lies about the true one as its variance says.
    """
    nodes = frame("nodes").set_index("candidate_id")
    for row in frame("node_contexts").itertuples():
        support = supports[row.candidate_id][0]
        p = renormalised(np.array(nodes.loc[row.candidate_id, "student"]))
        exact = descent(support.p, support.q[row.context])
        for loss, gradient in LOSSES.items():
            assert gradient(p, renormalised(row.teacher)) == pytest.approx(exact[loss], abs=1e-5)
    excess: dict[tuple[str, int], list[Any]] = {}
    for row in frame("node_arms").itertuples():
        support = supports[row.candidate_id][0]
        node = nodes.loc[row.candidate_id]
        share = np.array(row.successes) / np.array(row.samples)
        ideal = ideal_gradient(renormalised(np.array(node["student"])), share)
        key = (start_of(row.problem_id), int(node["position"]))
        entry = excess.setdefault(key, [0.0, support.ideal_variance(planted.samples), 0])
        entry[0] = entry[0] + ideal - support.ideal()
        entry[2] += 1
    scores = []
    for total, variance, copies in excess.values():
        noisy = variance > 1e-20
        assert np.abs(np.asarray(total)[~noisy]).max(initial=0.0) < 1e-6
        scores += list(total[noisy] / np.sqrt(copies * variance[noisy]))
    assert len(scores) > 100
    assert max(map(abs, scores)) < norm.isf(1e-4 / len(scores))
    assert np.mean(np.square(scores)) == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize("context", CONTEXTS)
def test_intervals_hold_the_exact_alignment(
    frame: Callable[[str], pd.DataFrame], supports: dict[str, Any], context: str
) -> None:
    alignment = frame("alignment")
    own = alignment[(alignment["group"] == "primary") & (alignment["bin"] == -1)]
    nodes = [made for name, made in supports.items() if name_kind(name) == "start"]
    figures = {}
    for name, exact in alignment_truth(nodes, context).items():
        of = "" if name in ("signal_share", "split_half") else context
        row = own[(own["figure"] == name) & (own["context"] == of) & (own["against"] == "")]
        assert len(row) == 1, name
        figures[name] = figure_of(*row.iloc[0][["value", "ci_low", "ci_high"]], exact)
        assert row.iloc[0]["n_nodes"] <= len(nodes)
    assert all(figure.low is not None for figure in figures.values())
    assert_few_miss(figures, share=0.25)


def name_kind(candidate: str) -> str:
    """start or hard: the kind of problem a candidate is of."""
    return start_of(candidate.rpartition("@")[0]).rstrip("0123456789")


def test_advantages_by_position_and_their_slope_are_the_exact_ones(
    frame: Callable[[str], pd.DataFrame], supports: dict[str, Any]
) -> None:
    nodes = frame("nodes")
    nodes = nodes[[name_kind(name) == "start" for name in nodes["candidate_id"]]]
    nodes = nodes.sort_values("r")
    alignment = frame("alignment")
    own = alignment[(alignment["group"] == "primary") & (alignment["against"] == "")]
    figures = {}
    for context in CONTEXTS:
        exact = np.array([supports[name][0].advantage(context) for name in nodes["candidate_id"]])
        rows = own[(own["figure"] == "advantage") & (own["context"] == context)]
        first = 0
        for row in rows[rows["bin"] >= 0].sort_values("bin").itertuples():
            truth = exact[first : first + row.n_nodes].mean()
            first += row.n_nodes
            figures[f"{context} {row.bin}"] = figure_of(row.value, row.ci_low, row.ci_high, truth)
        assert first == len(nodes)
        centred = nodes["r"] - nodes.groupby("problem_id")["r"].transform("mean")
        slope = own[(own["figure"] == "advantage_slope") & (own["context"] == context)].iloc[0]
        truth = float((centred * exact).sum() / (centred**2).sum())
        figures[f"{context} slope"] = figure_of(*slope[["value", "ci_low", "ci_high"]], truth)
    assert_few_miss(figures, share=0.2)


def test_the_better_context_is_found(
    frame: Callable[[str], pd.DataFrame], supports: dict[str, Any]
) -> None:
    """Told nothing this teacher harms least, told the answer most: differences are recovered."""
    alignment = frame("alignment")
    pairs = alignment[
        (alignment["group"] == "primary")
        & (alignment["figure"] == "advantage")
        & (alignment["against"] != "")
    ]
    nodes = [made[0] for name, made in supports.items() if name_kind(name) == "start"]
    figures = {}
    for row in pairs.itertuples():
        truth = np.mean([n.advantage(row.context) - n.advantage(row.against) for n in nodes])
        figures[row.context + row.against] = figure_of(row.value, row.low, row.high, truth)
        assert np.sign(row.value) == np.sign(truth) and row.p < 0.05
    assert len(figures) == 3
    assert_few_miss(figures, share=0.0)


def test_where_every_token_fails_cosines_are_undefined_and_counted(
    frame: Callable[[str], pd.DataFrame], supports: dict[str, Any]
) -> None:
    """A derailed trace never finds back under these sampling settings."""
    derailed = {name: made for name, made in supports.items() if name_kind(name) == "hard"}
    assert derailed and all(made[0].values.max() == 0.0 for made in derailed.values())
    alignment = frame("alignment")
    own = alignment[(alignment["group"] == "incorrect_spines") & (alignment["against"] == "")]
    for name in LOSSES:
        rows = own[(own["figure"] == f"cosine_{name}") & (own["bin"] == -1)]
        assert len(rows) == len(CONTEXTS)
        assert rows["value"].isna().all() and (rows["n_undefined"] == len(derailed)).all()
        assert rows["reason"].notna().all()
    gradients = frame("gradients").set_index("candidate_id").loc[list(derailed)]
    assert (gradients["advantage"] == 0.0).all()
    assert (gradients["reason"] == "every token succeeds equally often").all()
