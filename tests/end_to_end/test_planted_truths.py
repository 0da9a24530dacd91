"""Worlds whose success probabilities are known exactly: the real phases find what was planted.

Every figure of a run is held against dynamic programming on the tables that the models were written
from. At one seed a few 95% intervals may miss by chance; how often they hold the truth over many
studies, `tests/bench/bench_planted_chain` measures.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from branchdiag.phases.g_report import analyse, analyse_run
from tests.planted_oracle import entropy, greedy_trace, label_chances
from tests.planted_runs import (
    PHASES,
    THRESHOLDS,
    Planted,
    assert_binomial,
    assert_few_miss,
    binned_truth,
    diagnose,
    exact_figures,
    exact_leaderboard,
    nodes_of,
    start_of,
)
from tests.planted_worlds import WORLDS

COPIES = 6


class World:
    """A run on a world, its analysis, and the truth of each candidate."""

    def __init__(self, planted: Planted) -> None:
        self.planted = planted
        self.frames, self.analysis = analyse_run(planted.context)
        self.nodes = nodes_of(planted.truth, self.frames["candidates"])

    def row(self, figure: str, name: str) -> dict[str, Any]:
        return next(
            row for row in self.analysis.scores if (row["figure"], row["name"]) == (figure, name)
        )


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """Each world, run once when it is first asked for."""

    class Made(dict[str, World]):
        def __missing__(self, name: str) -> World:
            phases = (*PHASES, "G") if name == "horizon" else PHASES
            directory = tmp_path_factory.mktemp("planted") / name
            self[name] = World(diagnose(name, directory, copies=COPIES, phases=phases))
            return self[name]

    return Made()


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    return worlds[request.param]


def test_models_say_what_the_tables_say(world: World) -> None:
    chain = world.planted.written.chain
    spines = world.planted.run.table("spines").frame()
    for row in spines.itertuples():
        assert list(row.spine_ids) == greedy_trace(chain, start_of(row.problem_id))
        assert row.correct == start_of(row.problem_id).startswith("start")
    spine_of = {row.problem_id: row for row in spines.itertuples()}
    positions = world.planted.run.table("positions").frame()
    for row in positions.drop_duplicates("position").itertuples():
        spine = spine_of[row.problem_id]
        before = [spine.prompt_ids[-1], *spine.spine_ids][row.position]
        p, q = chain.student[before], chain.teacher[before]
        assert row.student_logprob == pytest.approx(np.log(p[row.token_id]), abs=1e-6)
        assert row.teacher_logprob == pytest.approx(np.log(q[row.token_id]), abs=1e-6)
        assert row.h_student == pytest.approx(entropy(p), abs=1e-6)
        assert row.h_full == pytest.approx(entropy(q), abs=1e-6)
    for row in world.frames["candidates"].itertuples():
        assert tuple(row.child_ids) == world.nodes[row.candidate_id].children


def test_arms_succeed_as_often_as_planted(world: World) -> None:
    """Pearson's test over the arms of each kind of candidate, copies of a problem together."""
    counts: dict[tuple[str, int, str], list[float]] = {}
    for row in world.frames["labels"].itertuples():
        node = world.nodes[row.candidate_id]
        chances = (*node.child_success, node.control_success)
        assert row.arms[-1] == "control"
        for arm, successes, samples, chance in zip(
            row.arms, row.successes, row.samples, chances, strict=True
        ):
            entry = counts.setdefault((node.start, node.position, arm), [0.0, 0.0, chance])
            entry[0] += successes
            entry[1] += samples
    assert_binomial(counts)


def test_labels_are_as_frequent_as_planted(world: World) -> None:
    viable_from, failing_to = THRESHOLDS[world.planted.samples]
    labels = world.frames["labels"].set_index("candidate_id")["label"]
    for index, label in enumerate(("diversity", "real_uncertain", "gray")):
        chances = np.array(
            [
                label_chances(
                    world.nodes[name],
                    samples=world.planted.samples,
                    viable_from=viable_from,
                    failing_to=failing_to,
                )[index]
                for name in labels.index
            ]
        )
        spread = np.sqrt((chances * (1 - chances)).sum())
        assert abs((labels == label).sum() - chances.sum()) < 3.3 * spread


def test_intervals_hold_the_exact_slopes_and_aurocs(world: World) -> None:
    figures = exact_figures(world.analysis, world.nodes, samples=world.planted.samples)
    assert_few_miss(figures, share=0.25)
    assert figures["slope of difference"].held


def test_the_leaderboard_holds_the_exact_auroc_of_every_signal(world: World) -> None:
    figures = exact_leaderboard(
        world.analysis, world.frames["signals"], world.nodes, samples=world.planted.samples
    )
    apart = not np.array_equal(
        world.planted.written.chain.student, world.planted.written.chain.teacher
    )
    assert len(figures) >= (18 if apart else 5)
    assert_few_miss(figures, share=0.25)


def test_bands_hold_the_exact_curves(world: World) -> None:
    figures = binned_truth(world.analysis, world.nodes)
    assert len(figures) >= 30
    assert_few_miss(figures, share=0.2)


def test_a_score_fares_alone_as_it_does_among_the_signals(worlds: dict[str, Any]) -> None:
    world = worlds["horizon"]
    settings = world.planted.request.protocol.report
    values = world.analysis.score_values
    alone = analyse(values, world.frames["candidates"], settings)
    assert alone.scores == world.analysis.scores


def test_under_the_horizon_alone_only_absolute_figures_see_position(worlds: dict[str, Any]) -> None:
    world = worlds["horizon"]
    assert all(abs(node.d) < 1e-12 for node in world.nodes.values())
    position = world.row("absolute", "one_minus_r")
    assert position["ci_low"] > 0.5
    slopes = world.analysis.slopes
    assert slopes.failure.estimate.ci_high < 0
    difference = slopes.difference.estimate
    assert difference.ci_low < 0 < difference.ci_high
    assert slopes.null.p > 0.05
    relative = world.row("relative", "one_minus_r")
    assert relative["p"] > 0.05
    assert world.analysis.finding.status == "no_more_than_horizon"
    assert "no more than the longer way still to go explains" in world.analysis.finding.sentence


def test_the_report_of_a_planted_horizon_says_so(worlds: dict[str, Any]) -> None:
    run = worlds["horizon"].planted.run.path
    document = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert worlds["horizon"].analysis.finding.sentence in json.dumps(document)
    assert "no more than the longer way" in (run / "report.html").read_text(encoding="utf-8")


def test_planted_early_harm_is_found(worlds: dict[str, Any]) -> None:
    world = worlds["early_harm"]
    assert world.analysis.slopes.difference.estimate.ci_low > 0
    assert world.row("absolute", "one_minus_r")["ci_low"] > 0.5
    assert world.row("relative", "one_minus_r")["p"] <= 0.05
    assert world.analysis.finding.status == "early_worse"


def test_planted_late_harm_is_found(worlds: dict[str, Any]) -> None:
    world = worlds["late_harm"]
    assert world.analysis.slopes.difference.estimate.ci_high < 0
    assert world.row("absolute", "one_minus_r")["ci_high"] < 0.5
    assert world.row("relative", "one_minus_r")["p"] <= 0.05
    assert world.analysis.finding.status == "late_worse"


def test_nothing_is_found_where_nothing_was_planted(worlds: dict[str, Any]) -> None:
    world = worlds["flat"]
    slopes = world.analysis.slopes
    for slope in (slopes.failure, slopes.control, slopes.difference):
        assert slope.estimate.ci_low < 0 < slope.estimate.ci_high
    position = world.row("absolute", "one_minus_r")
    assert position["ci_low"] < 0.5 < position["ci_high"]
    assert world.row("relative", "one_minus_r")["p"] > 0.05
    assert world.analysis.finding.status == "not_told_apart"
