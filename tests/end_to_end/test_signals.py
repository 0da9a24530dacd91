"""The side stage S of a real run: what it may touch, and a signal that comes later."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from branchdiag.signals import SIGNALS
from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES
from branchdiag.store.table import Table
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL

UNDEFINED = ("akl_head_share", "sfd_next_confidence")  # sides agree; last token
LATER = ("gkd_jsd", "iw_opd_share")
BEFORE_S = (
    *("problems", "spines", "positions", "candidates", "dropout"),
    *("continuations", "grades", "labels"),
)


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def again(run: Path, *arguments: str) -> Ended:
    return branchdiag(
        "run-all", *SMALL, f"--out={run.name}", "--progress=plain", *arguments, cwd=run.parent
    )


def untouched(run: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for name in BEFORE_S for p in (run / name).iterdir()}


def made_before(path: Path, *columns: str, sentinel: str = "teacher_top1") -> None:
    """Make the table one of a branchdiag that did not know some signals, another one marked."""
    run = RunDirectory.open(path)
    schema = TABLES["signals"]
    older = dataclasses.replace(
        schema, columns=tuple(c for c in schema.columns if c.name not in columns)
    )
    with run.lock():
        rows = [
            {name: value for name, value in row.items() if name not in columns} | {sentinel: 0.125}
            for row in run.table("signals").rows()
        ]
        run.table("signals").remove()
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):  # both read the older schema's part
            Table(path / "signals", older).append(part)


def test_every_candidate_has_every_signal_that_is_defined_there(finished_run: Path) -> None:
    run = RunDirectory.open(finished_run)
    frame = run.table("signals").frame()
    assert len(frame) == run.table("candidates").n_rows()
    assert frame[[n for n in SIGNALS if n not in UNDEFINED]].notna().all().all()
    positions = run.table("positions").frame()
    beside = frame.merge(positions, on=["problem_id", "position"])
    for name, other in (("forward_kl", "kl"), ("gkd_jsd", "jsd"), ("eopd_entropy", "h_full")):
        assert beside[name].to_numpy() == pytest.approx(beside[other].to_numpy(), abs=1e-5)


def test_a_later_signal_is_added_alone_without_any_rollout(copied_run: Path) -> None:
    whole = {r["candidate_id"]: r for r in RunDirectory.open(copied_run).table("signals").rows()}
    made_before(copied_run, *LATER)
    before = untouched(copied_run)
    assert branchdiag("verify", "run", cwd=copied_run.parent).status in (0, 4)
    ended = again(copied_run, "--json")
    assert ended.status == 0, ended.err
    assert f"lacks {', '.join(sorted(LATER, key=list(SIGNALS).index))}; adding that" in ended.err
    assert untouched(copied_run) == before
    run = RunDirectory.open(copied_run)
    for row in run.table("signals").rows():
        assert row["teacher_top1"] == 0.125  # what was there was not measured again
        for name in LATER:
            assert row[name] == pytest.approx(
                whole[row["candidate_id"]][name],
                rel=1e-4,
                abs=1e-6,  # float32, in another process
            )
    assert not run.table("signals").lacking()
    assert "nothing to do" in again(copied_run).err


def test_a_run_from_before_the_signals_goes_on_with_them(copied_run: Path) -> None:
    run = RunDirectory.open(copied_run)
    with run.lock():
        run.table("signals").remove()
        del run.manifest["phases"]["S"]
        content = run.manifest["phases"]["G"]["content"]
        del content["reads"]["S"]
        run.save_manifest()
    before = untouched(copied_run)
    ended = again(copied_run)
    assert ended.status == 0, ended.err
    assert untouched(copied_run) == before
    after = RunDirectory.open(copied_run).manifest["phases"]
    assert after["S"]["status"] == after["G"]["status"] == "complete"
    assert "S" in after["G"]["content"]["reads"]


def test_other_statistics_are_still_a_conflict(copied_run: Path) -> None:
    ended = again(copied_run, "--set=report.bins=7")
    assert ended.status == 3 and "report.bins: 10 -> 7" in ended.err


def test_restarting_from_s_leaves_everything_else_alone(copied_run: Path) -> None:
    before = untouched(copied_run)
    rows = RunDirectory.open(copied_run).table("signals").rows()
    ended = branchdiag("run", "S", *SMALL, "--out=run", "--restart-from=S", cwd=copied_run.parent)
    assert ended.status == 0, ended.err
    status = json.loads(branchdiag("status", "run", "--json", cwd=copied_run.parent).out)
    states = {phase["letter"]: phase["state"] for phase in status["phases"]}
    assert states == dict.fromkeys("ABCDEFS", "done") | {"G": "waiting"}
    assert again(copied_run).status == 0
    assert untouched(copied_run) == before
    assert RunDirectory.open(copied_run).table("signals").rows() == rows


def test_at_least_18_signals_differ_once_centred(finished_run: Path) -> None:
    rows = RunDirectory.open(finished_run).table("leaderboard").rows()
    signals = [row for row in rows if row["kind"] == "signal"]
    assert {row["name"] for row in signals} == SIGNALS.keys()
    differ = [
        r
        for r in signals
        if r["alias_of"] is None and "the same" not in str(r["comparison_reason"])
    ]
    assert len(differ) >= 18
    alias = {row["name"]: row["alias_of"] for row in rows}
    assert alias["forward_kl"] == "kl" and alias["reopold_log_ratio"] == "log_ratio"
    assert alias["iw_opd_weight"] == "iw_opd_share"


def test_the_leaderboard_repeats_the_scores_and_compares_on_the_same_candidates(
    finished_run: Path,
) -> None:
    run = RunDirectory.open(finished_run)
    board = {row["name"]: row for row in run.table("leaderboard").rows()}
    scores = {(row["figure"], row["name"]): row for row in run.table("scores").rows()}
    for (figure, name), row in scores.items():
        if figure == "absolute":
            assert (board[name]["auroc"], board[name]["ci_low"]) == (row["auroc"], row["ci_low"])
        if figure == "relative":
            assert board[name]["relative_auroc"] == row["auroc"]
            assert board[name]["relative_p"] == row["p"]
    for row in board.values():
        if row["vs_reference"] is not None and row["n_missing"] == 0:
            less = row["auroc"] - board["one_minus_r"]["auroc"]
            assert row["vs_reference"] == pytest.approx(less, abs=1e-12)
    document = json.loads((finished_run / "report.json").read_text())
    (group,) = document["leaderboard"]
    assert len(group["entries"]) == len(board)
    assert group["sentences"]
