"""Candidates at random positions and on incorrect spines: never in the figures of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchdiag.store.run import RunDirectory
from tests.command_line import branchdiag
from tests.conftest import SMALL

OF_DROPOUT = {"h_mc", "mi", "log_kappa"}  # one perturbed pass serves all candidates of a problem


@pytest.fixture(scope="module")
def wide_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `finished_run` with both further kinds of candidates."""
    cwd = tmp_path_factory.mktemp("wide")
    ended = branchdiag(
        *("run-all", *SMALL, "--out=run", "--progress=none", "--spines=all"),
        "--set=candidates.random_per_problem=2",
        cwd=cwd,
    )
    assert ended.status == 0, ended.err
    return cwd / "run"


def test_each_group_is_reported_apart(wide_run: Path) -> None:
    run = RunDirectory.open(wide_run)
    spines = run.table("spines").frame().set_index("problem_id")["correct"]
    candidates = run.table("candidates").frame()
    incorrect = candidates["problem_id"].map(spines).eq(False)
    random = candidates["selected_by"].isin(["random", "both"])
    assert incorrect.any() and random.any()
    assert (candidates[random].groupby("problem_id").size() <= 2).all()
    document = json.loads((wide_run / "report.json").read_text())
    groups = {group["group"]: group for group in document["leaderboard"]}
    assert list(groups) == [
        *("primary", "random_positions"),
        *("incorrect_spines", "incorrect_spines_random_positions"),
    ]
    labels = run.table("labels").frame().set_index("candidate_id")["label"]
    told = candidates["candidate_id"].map(labels).isin(["real_uncertain", "diversity"])
    by_entropy = candidates["selected_by"] != "random"
    expected = {
        "primary": ~incorrect & by_entropy,
        "random_positions": ~incorrect & random,
        "incorrect_spines": incorrect & by_entropy,
        "incorrect_spines_random_positions": incorrect & random,
    }
    for name, rows in expected.items():
        assert groups[name]["n_candidates"] == (rows & told).sum(), name
    notes = groups["random_positions"]["sentences"][-1]
    assert "Range restriction" in notes or not expected["random_positions"].sum()
    assert document["counts"]["candidates"] == expected["primary"].sum()


def test_the_primary_figures_are_those_of_a_run_without_the_others(
    wide_run: Path, finished_run: Path
) -> None:
    wide, plain = RunDirectory.open(wide_run), RunDirectory.open(finished_run)
    wide_labels = {row["candidate_id"]: row for row in wide.table("labels").rows()}
    for row in plain.table("labels").rows():
        assert wide_labels[row["candidate_id"]] == row
    for mine, theirs in zip(wide.table("scores").rows(), plain.table("scores").rows(), strict=True):
        if mine["name"] not in OF_DROPOUT:
            assert mine == theirs
    assert wide.table("curves").rows()[0] == plain.table("curves").rows()[0]
    both = [json.loads((path / "report.json").read_text()) for path in (wide_run, finished_run)]
    for key in ("counts", "finding", "slope", "control", "sensitivity", "truncation"):
        assert both[0][key] == both[1][key], key


def test_the_run_is_sound_and_a_fit_takes_the_primary_group_alone(
    wide_run: Path, finished_run: Path
) -> None:
    from branchdiag.pipeline.fitting import labelled_candidates

    sound = branchdiag("verify", "run", cwd=wide_run.parent)
    assert sound.status == 0, sound.out
    wide, plain = (
        labelled_candidates(RunDirectory.open(path)) for path in (wide_run, finished_run)
    )
    assert wide.r.tolist() == plain.r.tolist()
    assert wide.label.tolist() == plain.label.tolist()
