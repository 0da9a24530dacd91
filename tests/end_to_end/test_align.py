"""`branchdiag align` on a small finished run: what it touches, what it reuses, what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from branchdiag.store.run import RunDirectory
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL

WIDE = ("--set=align.rollouts=4", "--set=align.student_tokens=4",
        "--set=align.min_student_probability=0")  # fmt: skip
"""Phase E of the small run has 3 samples an arm: one more is owed, and four of every new token."""
NO_SAMPLING = ("--set=align.rollouts=2", "--set=align.student_tokens=0")
MAIN = (
    *("problems", "spines", "positions", "candidates", "dropout"),
    *("continuations", "grades", "labels", "signals"),
)


def align(run: Path, *settings: str) -> Ended:
    return branchdiag("align", str(run), *settings, "--progress=plain", cwd=run.parent)


def contents(run: Path, tables: tuple[str, ...]) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in tables
        for path in sorted((run / name).glob("*.parquet"))
    }


@pytest.fixture(scope="module")
def aligned(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run with its alignment. Read only."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("aligned") / "run"))
    before = contents(run, MAIN)
    ended = align(run, *WIDE, "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out) == json.loads((run / "alignment.json").read_text())
    assert contents(run, MAIN) == before  # nothing of the main job is touched
    return run


@pytest.fixture
def copied(aligned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(aligned, tmp_path / "run"))


def rows(run: Path, table: str) -> list[dict[str, object]]:
    return RunDirectory.open(run).table(table).rows()


def test_the_document_the_report_and_the_terminal_say_the_same(aligned: Path) -> None:
    document = json.loads((aligned / "alignment.json").read_text())
    report = json.loads((aligned / "report.json").read_text())
    assert report["sections"]["align"] == document
    page = (aligned / "report.html").read_text()
    (group,) = document["groups"]
    assert '<section id="align">' in page and 'href="#align"' in page
    assert (aligned / "figures" / "alignment_advantage_primary.png").is_file()
    shown = " ".join(align(aligned).out.split())
    for sentence in group["sentences"]:
        assert " ".join(sentence.split()) in shown
    assert [c["context"] for c in group["contexts"]] == ["answer", "solution", "none"]
    none = group["contexts"][2]
    assert (
        none["advantage"]["value"] == 0
        and none["teacher_excluded"] == (group["support"]["student_excluded"])
    )
    assert document["counts"]["measured"] == len(rows(aligned, "candidates"))


def test_the_runs_own_context_gives_the_numbers_of_phase_b(aligned: Path) -> None:
    nodes = {row["candidate_id"]: row for row in rows(aligned, "nodes")}
    views = {
        row["candidate_id"]: row
        for row in rows(aligned, "node_contexts")
        if row["context"] == "answer"
    }
    for candidate in rows(aligned, "candidates"):
        node, view = nodes[candidate["candidate_id"]], views[candidate["candidate_id"]]
        count = candidate["n_children"]
        assert node["support_ids"][:count] == candidate["child_ids"]
        assert candidate["spine_token_id"] in node["support_ids"]
        assert view["teacher"][:count] == pytest.approx(candidate["child_teacher"], abs=1e-6)
        assert node["student"][:count] == pytest.approx(candidate["child_student"], abs=1e-6)


def test_what_phase_e_has_is_reused_and_new_samples_go_on_from_the_same_prompt(
    aligned: Path,
) -> None:
    earlier = {
        (r["candidate_id"], r["arm"], r["sample"]): r for r in rows(aligned, "continuations")
    }
    new = rows(aligned, "arm_continuations")
    assert new
    assert not {(r["candidate_id"], r["arm"], r["sample"]) for r in new} & earlier.keys()
    prompts = {(name, arm): r["prompt_hash"] for (name, arm, _), r in earlier.items()}
    topped_up = [r for r in new if (r["candidate_id"], r["arm"]) in prompts]
    assert topped_up and len(topped_up) < len(new)
    for row in topped_up:
        assert row["sample"] == 3
        assert row["prompt_hash"] == prompts[row["candidate_id"], row["arm"]]
    seeds = [r["seed"] for r in new] + [r["seed"] for r in earlier.values()]
    assert len(set(seeds)) == len(seeds)


def test_counts_and_gradients_follow_from_the_tables(aligned: Path) -> None:
    graded = [*rows(aligned, "grades"), *rows(aligned, "arm_grades")]
    nodes = {row["candidate_id"]: row for row in rows(aligned, "nodes")}
    arms = {row["candidate_id"]: row for row in rows(aligned, "node_arms")}
    views = {(r["candidate_id"], r["context"]): r for r in rows(aligned, "node_contexts")}
    for name, row in arms.items():
        for place, arm in enumerate(row["arms"]):
            own = [r for r in graded if r["candidate_id"] == name and r["arm"] == arm]
            assert row["samples"][place] == len(own) == 4
            assert row["successes"][place] == sum(r["correct"] for r in own)
            assert row["first_samples"][place] == 2
    gradients = rows(aligned, "gradients")
    assert len(gradients) == 3 * len(nodes)
    for row in gradients:
        node, arm = nodes[row["candidate_id"]], arms[row["candidate_id"]]
        teacher = views[row["candidate_id"], row["context"]]["teacher"]
        success = [s / n for s, n in zip(arm["successes"], arm["samples"], strict=True)]
        p, q = ([v / sum(side) for v in side] for side in (node["student"], teacher))
        gain = sum((b - a) * v for a, b, v in zip(p, q, success, strict=True))
        assert row["advantage"] == pytest.approx(gain, abs=1e-12)
        constant = len(set(success)) == 1
        assert (row["reason"] is None) == (row["cosine_jsd"] is not None)
        if constant:
            assert row["reason"] == "every token succeeds equally often"
        elif row["context"] == "none":
            assert row["reason"] == "teacher and student agree on the support"


def test_again_there_is_nothing_to_do_and_run_all_has_nothing_to_do_either(copied: Path) -> None:
    before = contents(copied, (*MAIN, "nodes", "arm_continuations", "gradients", "alignment"))
    for ended in (
        align(copied),
        branchdiag("run-all", *SMALL, f"--out={copied}", cwd=copied.parent),
    ):
        assert ended.status == 0 and "nothing to do" in ended.err, ended.err
    assert (
        contents(copied, (*MAIN, "nodes", "arm_continuations", "gradients", "alignment")) == before
    )


def test_other_settings_concern_the_stages_that_use_them_alone(copied: Path) -> None:
    ended = align(copied, "--set=align.rollouts=5")
    assert ended.status == 3 and "phase N2: align.rollouts: 4 -> 5" in ended.err
    assert "N2, N3, N4, G" in ended.err
    ended = align(copied, "--set=align.contexts=['answer']")
    assert ended.status == 3 and "--restart-from N1" in ended.err
    assert align(copied).status == 0
    assert align(copied, "--restart-from=E").status == 2
    (copied / "own.txt").write_text("no placeholder", encoding="utf-8")
    ended = align(copied, f"--set=align.contexts=['{copied}/own.txt']", "--restart-from=N1")
    assert ended.status == 2 and "{problem} is missing" in ended.err


def test_a_budget_is_kept_and_what_it_leaves_out_is_counted(copied: Path) -> None:
    ended = align(copied, "--set=align.budget=60", "--restart-from=N2", "--json")
    assert ended.status == 0, ended.err
    counts, drawn = ended.json["counts"], rows(copied, "arm_continuations")
    assert 0 < len(drawn) <= 60 and counts["new_samples"] == len(drawn)
    assert counts["beyond_budget"] == counts["nodes"] - counts["measured"] > 0
    assert {r["candidate_id"] for r in drawn} <= {
        r["candidate_id"] for r in rows(copied, "node_arms")
    }
    assert any(
        "exponential depth windows, whose law is not published" in n for n in ended.json["notes"]
    )


def test_a_template_file_is_a_context_and_its_text_counts(copied: Path) -> None:
    file = copied.parent / "own.txt"
    contexts = f"--set=align.contexts=['none', '{file}']"
    ended = align(copied, contexts, *NO_SAMPLING, "--restart-from=N1")
    assert ended.status == 2 and "no such file" in ended.err and str(file) in ended.err
    assert (copied / "report.html").is_file() and rows(copied, "nodes")  # nothing is lost for it
    file.write_text("{problem}\nThe answer is known: {answer}.", encoding="utf-8")
    ended = align(copied, contexts, *NO_SAMPLING, "--restart-from=N1", "--json")
    assert ended.status == 0, ended.err
    assert rows(copied, "arm_continuations") == []  # Phase E has all that is asked for
    own = next(c for c in ended.json["groups"][0]["contexts"] if c["context"] == str(file))
    assert own["n_nodes"] == ended.json["counts"]["measured"]
    assert align(copied).status == 0
    file.write_text("{problem}\nIt is {answer}.", encoding="utf-8")
    ended = align(copied)
    assert ended.status == 3 and "teacher_templates" in ended.err


def test_a_plan_writes_nothing(finished_run: Path) -> None:
    ended = branchdiag("align", str(finished_run), "--dry-run", cwd=finished_run.parent)
    assert ended.status == 0 and "N1" in ended.out and "N4" in ended.out
    assert not (finished_run / "nodes").exists()
