"""The main job as a user runs it: the JSON it prints, the second call, conflicts, restarts."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL


def again(run: Path, *arguments: str) -> Ended:
    return branchdiag(
        "run-all", *SMALL, f"--out={run.name}", "--progress=none", *arguments, cwd=run.parent
    )


@pytest.fixture
def copied_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_json_has_the_promised_keys_and_no_nan(finished_run: Path) -> None:
    ended = again(finished_run, "--json")
    assert ended.status == 0, ended.err
    document = json.loads(ended.out, parse_constant=lambda name: pytest.fail(name))
    counts = ("problems", "correct_spines", "usable_problems", "candidates", "diversity")
    assert set(counts) | {"real_uncertain", "gray"} <= document["counts"].keys()
    assert document["counts"]["problems"] == 30
    score = {
        *("name", "auroc", "ci_low", "ci_high", "auprc", "n_positive", "n_negative"),
        *("n_problems", "n_problems_positive", "paper_compat"),
    }
    assert all(score <= entry.keys() for entry in document["scores"])
    assert all(score | {"null_mean", "p"} <= e.keys() for e in document["scores_relative"])
    assert {"auroc", "ci_low", "ci_high"} <= document["scores"][0]["paper_compat"].keys()
    assert {"estimate", "ci_low", "ci_high"} <= document["slope"].keys()
    assert document["finding"].strip()
    assert (finished_run.parent / document["report"]).is_file()
    for entry in document["scores"]:
        assert entry["auroc"] is not None or entry["reason"]


def test_counts_agree_with_the_tables(finished_run: Path) -> None:
    run = RunDirectory.open(finished_run)
    counts = json.loads((finished_run / "report.json").read_text())["counts"]
    labels = run.table("labels").frame()
    assert counts["candidates"] == run.table("candidates").n_rows() == len(labels)
    for label in ("diversity", "real_uncertain", "gray"):
        assert counts[label] == (labels["label"] == label).sum()
    assert counts["correct_spines"] == run.table("spines").frame()["correct"].sum()


def test_every_table_is_readable_by_pandas_alone(finished_run: Path) -> None:
    for name in TABLES:
        if (finished_run / name).exists():
            frame = pd.read_parquet(finished_run / name)
            assert list(frame.columns) == TABLES[name].arrow.names


def test_what_the_tables_hold_fits_together(finished_run: Path) -> None:
    run = RunDirectory.open(finished_run)
    spines = {row["problem_id"]: row for row in run.table("spines").rows()}
    positions = {(r["problem_id"], r["position"]): r for r in run.table("positions").rows()}
    candidates = run.table("candidates").rows()
    assert candidates
    for row in candidates:
        spine = spines[row["problem_id"]]
        position = positions[row["problem_id"], row["position"]]
        assert spine["correct"]
        assert spine["boxed_position"] is None or row["position"] < spine["boxed_position"]
        assert position["token_id"] == spine["spine_ids"][row["position"]] == row["spine_token_id"]
        assert position["p2"] >= 0.02 and position["p2"] >= 0.1 * position["p1"]
        assert row["child_ids"] == position["top_ids"][: row["n_children"]]
    sampled = run.table("continuations").frame()
    arms = sampled.groupby("candidate_id")["arm"].nunique()
    expected = {row["candidate_id"]: row["n_children"] + 1 for row in candidates}
    assert arms.to_dict() == expected
    assert sampled["seed"].is_unique
    children = sampled[sampled["arm"] != "control"]
    controls = sampled[sampled["arm"] == "control"].set_index(["candidate_id", "sample"])
    length = controls["n_prompt_tokens"].groupby("candidate_id").first()
    assert (children["n_prompt_tokens"] == children["candidate_id"].map(length) + 1).all()
    agree = run.table("positions").frame()
    greedy = [name for name, row in spines.items() if row["spine_mode"] == "greedy"]
    greedy_rows = agree[agree["problem_id"].isin(greedy)]
    assert (greedy_rows["token_id"] == greedy_rows["student_top_id"]).mean() > 0.999


def test_a_finished_run_is_left_alone_and_loads_no_torch(finished_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}
    script = (
        "import sys\n"
        "from branchdiag.cli.main import call\n"
        "status = call(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'vllm', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run-all", *SMALL, "--out=run", "--json"],
        cwd=finished_run.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip().endswith("[]"), done.stderr
    assert "nothing to do" in done.stderr
    after = {p: p.stat().st_mtime_ns for p in finished_run.rglob("*") if p.is_file()}
    assert before == after


def test_other_settings_are_a_conflict_that_names_them(copied_run: Path) -> None:
    ended = again(copied_run, "--set=candidates.min_p2=0.05")
    assert ended.status == 3
    assert "candidates.min_p2: 0.02 -> 0.05" in ended.err
    assert "--restart-from B" in ended.err
    assert "Traceback" not in ended.err
    assert again(copied_run, "--seed=1").status == 3
    assert branchdiag(
        "run-all", "--limit=29", *SMALL[1:], "--out=run", cwd=copied_run.parent
    ).status == 3  # fmt: skip


def test_transport_settings_are_no_conflict(copied_run: Path) -> None:
    assert again(copied_run, "--set=engine.batch_size=8").status == 0


def test_restarting_from_d_leaves_e_and_f_alone(copied_run: Path) -> None:
    run = RunDirectory.open(copied_run)
    kept = {p: p.stat().st_mtime_ns for p in run.table("continuations").part_paths()}
    labels = run.table("labels").rows()
    ended = again(copied_run, "--restart-from=D", "--set=dropout.samples=7")
    assert ended.status == 0, ended.err
    after = RunDirectory.open(copied_run)
    assert {p: p.stat().st_mtime_ns for p in after.table("continuations").part_paths()} == kept
    assert after.table("labels").rows() == labels
    assert after.table("dropout").rows() != run.table("problems").rows()
    assert after.manifest["phases"]["D"]["content"]["dropout"]["samples"] == 7


def test_a_lost_part_is_made_again_with_the_same_rows(copied_run: Path) -> None:
    run = RunDirectory.open(copied_run)
    before = run.table("continuations").rows()
    part = run.table("continuations").part_paths()[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(data)
    assert branchdiag("verify", "run", cwd=copied_run.parent).status == 4
    ended = again(copied_run, "--restart-from=F")
    assert ended.status == 0, ended.err
    assert RunDirectory.open(copied_run).table("continuations").rows() == before


def test_verify_finds_the_run_sound_and_a_changed_label_not(copied_run: Path) -> None:
    sound = branchdiag("verify", "run", "--json", cwd=copied_run.parent)
    assert sound.status == 0, sound.out + sound.err
    assert sound.json == {"ok": True, "findings": []}
    run = RunDirectory.open(copied_run)
    with run.lock():
        table = run.table("labels")
        rows = table.rows()
        table.remove()
        rows[0]["label"] = "gray" if rows[0]["label"] != "gray" else "diversity"
        table.append(rows)
    assert "labels" in branchdiag("verify", "run", cwd=copied_run.parent).out


def test_a_second_process_is_told_who_holds_the_run(copied_run: Path) -> None:
    run = RunDirectory.open(copied_run)
    with run.lock():
        ended = again(copied_run, "--restart-from=G")
    assert ended.status == 3
    assert "in use by process" in ended.err


def test_phases_one_by_one_give_the_same_run(finished_run: Path, tmp_path: Path) -> None:
    for phases in ("A", "B-D", "E", "F-G"):
        ended = branchdiag("run", phases, *SMALL, "--out=run", "--progress=none", cwd=tmp_path)
        assert ended.status == 0, ended.err
    one, other = RunDirectory.open(tmp_path / "run"), RunDirectory.open(finished_run)
    for name in TABLES:
        assert one.table(name).rows() == other.table(name).rows(), name


def test_a_phase_before_what_it_reads_is_refused(tmp_path: Path) -> None:
    ended = branchdiag("run", "C", *SMALL, "--out=run", cwd=tmp_path)
    assert ended.status == 4
    assert "branchdiag run A-C" in ended.err


def test_in_processes_of_their_own_the_phases_give_the_same_rows(
    finished_run: Path, tmp_path: Path
) -> None:
    ended = branchdiag(
        *("run-all", *SMALL, "--out=run", "--progress=plain"),
        "--set=engine.isolate=always",
        cwd=tmp_path,
    )
    assert ended.status == 0, ended.err
    one, other = RunDirectory.open(tmp_path / "run"), RunDirectory.open(finished_run)
    for name in TABLES:
        assert one.table(name).rows() == other.table(name).rows(), name


def test_scores_are_finite_or_missing(finished_run: Path) -> None:
    for row in RunDirectory.open(finished_run).table("scores").rows():
        for value in row.values():
            assert not (isinstance(value, float) and not math.isfinite(value))
