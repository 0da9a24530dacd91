"""`branchdiag prefixes` on a small finished run: its numbers, what it touches, what it refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from branchdiag.phases import p0_drift, p1_prefixes
from branchdiag.phases.base import Context, Done
from branchdiag.pipeline.verification import context_of_run
from branchdiag.prompts import render_student, render_teacher
from branchdiag.stage_settings import PrefixSettings
from branchdiag.store.fingerprint import tokens_hash
from branchdiag.store.run import RunDirectory
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL

FEW = ("--set=prefixes.fractions=[0.0, 0.4, 0.8]", "--set=prefixes.rollouts=2")
MAIN = (
    *("problems", "spines", "positions", "candidates", "dropout"),
    *("continuations", "grades", "labels", "signals"),
)
OWN = ("log_ratios", "prefix_samples", "prefix_grades", "prefix_curves")


def prefixes(run: Path, *settings: str) -> Ended:
    return branchdiag("prefixes", str(run), *settings, "--progress=plain", cwd=run.parent)


def contents(run: Path, tables: tuple[str, ...]) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in tables
        for path in sorted((run / name).glob("*.parquet"))
    }


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    return RunDirectory.open(run).table(table).rows()


@pytest.fixture(scope="module")
def continued(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with its prefixes. Read only."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("continued") / "run"))
    before = contents(run, MAIN)
    ended = prefixes(run, *FEW, "--json")
    assert ended.status == 0, ended.err
    assert ended.json == json.loads((run / "position_bias.json").read_text())
    assert contents(run, MAIN) == before  # nothing of the main job is touched
    return run


@pytest.fixture
def copied(continued: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(continued, tmp_path / "run"))


@pytest.fixture(scope="module")
def context(continued: Path) -> Context:
    return context_of_run(RunDirectory.open(continued))


def test_report_page_and_terminal_say_what_the_document_says(continued: Path) -> None:
    document = json.loads((continued / "position_bias.json").read_text())
    report = json.loads((continued / "report.json").read_text())
    assert report["sections"]["prefixes"] == document
    page = (continued / "report.html").read_text()
    assert '<section id="prefixes">' in page
    assert 'href="#prefixes"' in page
    for name in ("prefix_accuracy", "discrepancy_by_r", "weight_iw_opd", "weight_fitted"):
        assert (continued / "figures" / f"{name}.png").is_file()
    shown = " ".join(prefixes(continued).out.split())
    for sentence in (document["sentence"], *(strand["sentence"] for strand in document["basis"])):
        assert " ".join(sentence.split()) in shown
    assert document["context"] == "answer"
    assert any("a leak" in remark for remark in document["remarks"])
    assert any("by construction" in remark for remark in document["remarks"])


def test_every_spine_is_continued_by_both_from_its_own_tokens(
    continued: Path, context: Context
) -> None:
    spines = {row["problem_id"]: row for row in rows(continued, "spines")}
    samples = rows(continued, "prefix_samples")
    assert {row["problem_id"] for row in samples} == set(spines)
    assert {spine["correct"] for spine in spines.values()} == {True, False}
    assert len(samples) == len(spines) * 3 * 2 * 2
    assert len({row["seed"] for row in samples}) == len(samples)
    protocol = context.protocol
    for row in samples:
        spine, problem = spines[row["problem_id"]], context.problem(row["problem_id"])
        assert row["cut"] == int(float(row["fraction"]) * 10) * spine["n_spine_tokens"] // 10
        prompt = (
            render_student(context.tokenizer, protocol.spine, problem)
            if row["writer"] == "student"
            else render_teacher(context.tokenizer, protocol.teacher, protocol.spine.prompt, problem)
        )
        prefix = spine["spine_ids"][: row["cut"]]
        assert row["prompt_hash"] == tokens_hash([*prompt.token_ids, *prefix])
        assert row["cut"] + row["n_tokens"] <= protocol.prefixes.max_response_tokens


def test_curves_and_gain_are_plain_means_of_the_grades(continued: Path) -> None:
    document = json.loads((continued / "position_bias.json").read_text())
    correct = {row["problem_id"]: row["correct"] for row in rows(continued, "spines")}
    grades = rows(continued, "prefix_grades")
    for group, kinds in (("all", (True, False)), ("correct", (True,)), ("incorrect", (False,))):
        means = {}
        for writer in ("student", "teacher"):
            for point in document["curves"][group][writer]:
                own = [
                    row["correct"]
                    for row in grades
                    if row["writer"] == writer
                    and float(row["fraction"]) == point["x"]
                    and correct[row["problem_id"]] in kinds
                ]
                means[writer, point["x"]] = sum(own) / len(own)
                assert point["y"] == pytest.approx(means[writer, point["x"]], abs=1e-12)
                assert point["n"] == len(own) / 2
        for point in document["curves"][group]["gain"]:
            expected = means["teacher", point["x"]] - means["student", point["x"]]
            assert point["y"] == pytest.approx(expected, abs=1e-12)


def test_the_discrepancy_is_that_of_phase_b_on_correct_spines_and_of_p0_on_the_others(
    continued: Path, context: Context
) -> None:
    document = json.loads((continued / "position_bias.json").read_text())
    steps: dict[str, list[float]] = {}
    for row in rows(continued, "positions"):
        gap = abs(row["teacher_logprob"] - row["student_logprob"])
        steps.setdefault(row["problem_id"], []).append(gap)
    scored = set(steps)
    for row in rows(continued, "log_ratios"):
        assert row["problem_id"] not in scored
        steps.setdefault(row["problem_id"], []).append(abs(row["log_ratio"]))
    top, bottom = 0.0, 0.0
    for values in steps.values():
        r = (np.arange(len(values)) + 0.5) / len(values)
        top += float(((r - r.mean()) * np.array(values)).sum())
        bottom += float(((r - r.mean()) ** 2).sum())
    assert document["discrepancy"]["all"]["value"] == pytest.approx(top / bottom, abs=1e-12)
    assert document["discrepancy"]["all"]["n_spines"] == len(steps) == 30
    # One pass gives what the other does.
    name = min(scored)
    (outcome,) = p0_drift.work(context, [(name,)])
    assert isinstance(outcome, Done)
    again = [abs(row["log_ratio"]) for row in outcome.rows["log_ratios"]]
    assert again == pytest.approx(steps[name], abs=1e-5)


def test_the_schedule_is_the_one_that_fit_schedule_fits(continued: Path, tmp_path: Path) -> None:
    shown = json.loads((continued / "position_bias.json").read_text())["schedule"]
    out = tmp_path / "fitted.json"
    ended = branchdiag("fit-schedule", str(continued), f"--out={out}", cwd=tmp_path)
    assert ended.status == 0, ended.err
    fitted = json.loads(out.read_text())
    for key in ("status", "reason", "direction", "w_min", "tau", "s", "counts"):
        assert shown[key] == fitted[key], key
    for name, fit in shown["fits"].items():
        assert fit["band"] == fitted["fits"][name]["band"]


def test_another_teacher_writes_with_its_own_weights_and_the_student_as_before(
    continued: Path, context: Context, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from branchdiag.models import ModelReference, resolve

    other = Path(shutil.copytree(context.student.path, tmp_path / "other"))
    weights = {name: 0.5 * w for name, w in load_file(other / "model.safetensors").items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    late = PrefixSettings.model_validate(
        {**context.protocol.prefixes.model_dump(), "fractions": (0.8,), "rollouts": 1}
    )
    mixed = dataclasses.replace(
        context,
        protocol=context.protocol.model_copy(update={"prefixes": late}),
        teacher=resolve(ModelReference.parse(str(other))),
    )
    names = {problem.problem_id for problem in context.problems[:8]}
    owed = [unit for unit in p1_prefixes.units(mixed) if unit[0] in names]
    made = {}
    for outcome in p1_prefixes.work(mixed, owed):
        assert isinstance(outcome, Done)
        made[outcome.unit] = outcome.rows["prefix_samples"][0]["token_ids"]
    assert set(made) == set(owed)
    before = {
        (row["problem_id"], row["cut"], row["writer"], row["sample"]): row["token_ids"]
        for row in rows(continued, "prefix_samples")
    }
    assert all(made[key] == before[key] for key in owed if key[2] == "student")
    assert any(made[key] != before[key] for key in owed if key[2] == "teacher")


def test_again_there_is_nothing_to_do_and_run_all_has_nothing_to_do_either(copied: Path) -> None:
    before = contents(copied, (*MAIN, *OWN))
    for ended in (
        prefixes(copied),
        branchdiag("run-all", *SMALL, f"--out={copied}", cwd=copied.parent),
    ):
        assert ended.status == 0, ended.err
        assert "nothing to do" in ended.err
    assert contents(copied, (*MAIN, *OWN)) == before
    plan = branchdiag("prefixes", str(copied), "--dry-run", "--json", cwd=copied.parent)
    assert {stage["letter"]: stage["owed"] for stage in plan.json["stages"]} == dict.fromkeys(
        ("P0", "P1", "P2", "P3"), 0
    )
    verified = branchdiag("verify", str(copied), cwd=copied.parent)
    assert verified.status == 0, verified.out + verified.err


def test_other_settings_concern_these_stages_alone(copied: Path) -> None:
    ended = prefixes(copied, "--set=prefixes.rollouts=3")
    assert ended.status == 3
    assert "phase P1: prefixes.rollouts: 2 -> 3" in ended.err
    assert "P1, P2, P3, G" in ended.err and "--out" not in ended.err  # it has no --out
    planned = prefixes(copied, "--set=prefixes.rollouts=3", "--dry-run")
    assert (planned.status, planned.err) == (3, ended.err)
    everything = contents(copied, (*MAIN, *OWN))
    other = prefixes(copied, "--set=continuation.rollouts=4", "--restart-from=P1")
    assert other.status == 3 and "phase E: continuation.rollouts" in other.err
    assert contents(copied, (*MAIN, *OWN)) == everything  # refused before anything is removed
    before = contents(copied, MAIN)
    refused = branchdiag(
        "run-all", *SMALL, "--set=prefixes.rollouts=3", f"--out={copied}", cwd=copied.parent
    )
    assert refused.status == 0, refused.err  # run-all has no use for them
    quick = ("--set=prefixes.rollouts=1", "--set=prefixes.fractions=[0.8]")
    ended = prefixes(copied, *quick, "--restart-from=p1")
    assert ended.status == 0, ended.err
    assert contents(copied, MAIN) == before
    assert {row["sample"] for row in rows(copied, "prefix_samples")} == {0}
    assert prefixes(copied, "--restart-from=E").status == 2
    ended = prefixes(copied, "--set=prefixes.fractions=[0.5, 0.2]")
    assert ended.status == 2
    assert "the fractions must rise" in ended.err


def test_a_plan_writes_nothing_and_an_unfinished_run_is_refused(
    finished_run: Path, tmp_path: Path
) -> None:
    ended = branchdiag("prefixes", str(finished_run), "--dry-run", cwd=finished_run.parent)
    assert ended.status == 0, ended.err
    assert "P1" in ended.out
    assert not (finished_run / "prefix_samples").exists()
    begun = branchdiag("run", "A", "--limit=2", "--out=begun", "--progress=none", cwd=tmp_path)
    assert begun.status == 0, begun.err
    ended = branchdiag("prefixes", "begun", cwd=tmp_path)
    assert ended.status == 4
    assert "not finished" in ended.err
