"""`compare` on real runs: another seed, another teacher; and everything it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from branchdiag.errors import BranchdiagError
from branchdiag.pipeline.compared_runs import read_runs
from branchdiag.pipeline.comparing import compare_runs, make_comparison
from tests.command_line import Ended, branchdiag
from tests.conftest import SMALL

FEW = [a for a in SMALL if not a.startswith("--limit")] + ["--limit=9"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> dict[str, Path]:
    """The finished run, one of fewer problems shown the solution, and one of another seed."""
    cwd = tmp_path_factory.mktemp("compared")
    made = {"run": finished_run}
    for name, more in (
        ("solution", "--set=teacher.context=solution"),
        ("seed", "--seed=1"),
    ):
        ended = branchdiag("run-all", *FEW, more, f"--out={name}", "--progress=none", cwd=cwd)
        assert ended.status == 0, ended.err
        made[name] = cwd / name
    return made


def contents(path: Path) -> dict[str, tuple[str, int]]:
    """Every file below with its hash and its time of change."""
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, runs: dict[str, Path]) -> tuple[Ended, Path]:
    """All three, once."""
    cwd = tmp_path_factory.mktemp("page")
    before = {name: contents(path) for name, path in runs.items()}
    ended = branchdiag("compare", *map(str, runs.values()), "--json", "--no-schedules", cwd=cwd)
    assert ended.status == 0, ended.err
    assert {name: contents(path) for name, path in runs.items()} == before
    return ended, cwd / "compare.html"


def test_runs_are_compared_and_left_as_they_are(
    compared: tuple[Ended, Path], runs: dict[str, Path]
) -> None:
    ended, page = compared
    document = ended.json
    assert (document["schema"], document["version"]) == ("branchdiag.comparison", 1)
    assert [run["label"] for run in document["runs"]] == list(runs)
    for entry, path in zip(document["runs"], runs.values(), strict=True):
        report = json.loads((path / "report.json").read_text())
        assert entry["slope"] == report["slope"]
        assert entry["counts"] == report["counts"]
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert all(run["finding"][:40].split(":")[0] in text for run in document["runs"])
    assert document["schedules"] == []
    assert "--no-schedules" in document["schedules_reason"]


def test_what_differs_is_what_was_changed(compared: tuple[Ended, Path]) -> None:
    keys = {row["key"]: row["values"] for row in compared[0].json["differs"]}
    assert keys["teacher.context"] == ["answer", "solution", "answer"]
    assert keys["seed"] == [0, 0, 1]
    assert set(keys) == {"teacher template", "problems", "seed", "teacher.context"}


def pair_with(document: Any, name: str) -> Any:
    return next(pair for pair in document["pairs"] if pair["second"] == name)


def test_differences_are_those_of_the_shared_problems(
    compared: tuple[Ended, Path], runs: dict[str, Path]
) -> None:
    import pandas as pd

    pair = pair_with(compared[0].json, "solution")
    figures = {entry["name"]: entry for entry in pair["figures"]}
    tables = [
        {
            name: pd.read_parquet(runs[run] / name)
            for name in ("labels", "spines", "problems", "candidates")
        }
        for run in ("run", "solution")
    ]
    ids = set(tables[0]["problems"]["problem_id"]) & set(tables[1]["problems"]["problem_id"])
    assert pair["shared"]["problems"] == len(ids) > 0
    assert figures["solved"]["verdict"] == "equal"  # one student, one way to decode
    means = [
        t["labels"].groupby("problem_id")["mean_child_viability"].mean().rename(str(i))
        for i, t in enumerate(tables)
    ]
    both = pd.concat(means, axis=1, join="inner").dropna()
    assert figures["child_viability"]["n_problems"] == len(both)
    assert figures["child_viability"]["difference"] == pytest.approx((both["1"] - both["0"]).mean())
    assert figures["child_viability"]["first"] == pytest.approx(both["0"].mean())
    for entry in figures.values():
        assert entry["difference"] is not None or entry["reason"]
        assert entry["ci_low"] is not None or entry["reason"]
        assert entry["sentence"].endswith(".")


def test_candidates_at_the_same_place_are_counted(
    compared: tuple[Ended, Path], runs: dict[str, Path]
) -> None:
    import pandas as pd

    shared = pair_with(compared[0].json, "solution")["shared"]
    ids = [
        set(pd.read_parquet(runs[r] / "candidates")["candidate_id"]) for r in ("run", "solution")
    ]
    assert shared["same_spines"] == shared["problems"]
    assert shared["same_places"] == len(ids[0] & ids[1]) > 0


def test_people_get_words_a_narrow_terminal_and_no_colour(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    ended = branchdiag(
        *("compare", str(runs["run"]), str(runs["solution"]), "--out=mine.html"),
        cwd=tmp_path,
        env={"COLUMNS": "60", "NO_COLOR": "1"},
    )
    assert ended.status == 0, ended.err
    assert "\x1b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 60
    assert "solution and run" in ended.out.replace("\n", " ")
    assert "fitted schedules" in ended.out
    assert "Weight of a token by position" in (tmp_path / "mine.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def refused(paths: list[Path], out: Path, status: int, *words: str) -> None:
    """What the command would print and end with; a process of its own is tried once, below."""
    with pytest.raises(BranchdiagError) as caught:
        compare_runs(paths, out=out)
    assert caught.value.exit_status == status, str(caught.value)
    assert caught.value.fix
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert not out.exists()


def test_a_refusal_is_a_few_lines_and_a_status(tmp_path: Path, finished_run: Path) -> None:
    ended = branchdiag("compare", str(finished_run), str(finished_run), cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert "named twice" in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_pair_of_runs_is_refused(tmp_path: Path, finished_run: Path) -> None:
    run, out = finished_run, tmp_path / "compare.html"
    refused([run], out, 2, "two runs or more")
    (tmp_path / "link").symlink_to(run)
    refused([run, tmp_path / "link"], out, 2, "named twice")
    refused([run, tmp_path / "nowhere"], out, 2, "There is no run at")
    (tmp_path / "file").write_text("mine")
    refused([run, tmp_path / "file"], out, 2, "is not a run")
    for name, words in (("evaluation.json", "an evaluation"), ("training.json", "a training run")):
        other = tmp_path / name.removesuffix(".json")
        other.mkdir()
        (other / name).write_text("{}")
        refused([run, other], out, 2, words)


def copied(run: Path, to: Path, **manifest: Any) -> Path:
    shutil.copytree(run, to)
    if manifest:
        file = to / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | manifest))
    return to


def test_unfinished_newer_and_damaged_runs_are_refused(tmp_path: Path, finished_run: Path) -> None:
    run, out = finished_run, tmp_path / "compare.html"
    manifest = json.loads((run / "run.json").read_text())
    owed = {**manifest["phases"], "G": {"status": "owed"}}
    begun = copied(run, tmp_path / "begun", phases=owed)
    refused([run, begun], out, 4, "not finished", "run-all")
    newer = copied(run, tmp_path / "newer", format=99)
    refused([run, newer], out, 3, "newer", "update branchdiag")
    later = {**manifest["protocol"]["candidates"], "by_magic": 1}
    protocol = {**manifest["protocol"], "candidates": later}
    settings = copied(run, tmp_path / "settings", protocol=protocol)
    refused([run, settings], out, 3, "candidates.by_magic")
    torn = copied(run, tmp_path / "torn")
    part = max((torn / "labels").iterdir(), key=lambda path: path.stat().st_size)
    part.write_bytes(part.read_bytes()[:100])
    refused([run, torn], out, 4, "cannot be read", "verify")
    part.unlink()
    refused([run, torn], out, 4, "the table holds", "verify")


def test_a_damaged_report_is_refused(tmp_path: Path, finished_run: Path) -> None:
    run, out = finished_run, tmp_path / "compare.html"
    other = copied(run, tmp_path / "other")
    file = other / "report.json"
    report = json.loads(file.read_text())
    for content, words in (
        (b"{", "no JSON"),
        (b"\xff\xfe", "cannot be read"),
        (json.dumps(report | {"version": 99}).encode(), "version 99"),
        (json.dumps({k: v for k, v in report.items() if k != "model"}).encode(), "lacks model"),
    ):
        file.write_bytes(content)
        refused([run, other], out, 2, words)


def test_a_page_that_cannot_be_written_is_said_before_any_work(
    tmp_path: Path, finished_run: Path
) -> None:
    run, other = finished_run, copied(finished_run, tmp_path / "other")
    refused([run, other], run / "page.html", 2, "leaves the runs")
    refused([run, other], tmp_path / "page.pdf", 2, "page.html")
    refused([run, other], Path("/proc/x/page.html"), 5, "/proc/x")


def test_a_copy_of_a_run_is_the_same_in_everything(tmp_path: Path, finished_run: Path) -> None:
    other = copied(finished_run, tmp_path / "other")
    document = make_comparison(read_runs([finished_run, other]), schedules=False)
    assert document["differs"] == []
    assert "one run made twice" in document["notes"][0]
    verdicts = {figure["verdict"] for figure in document["pairs"][0]["figures"]}
    assert verdicts <= {"equal", "not compared"}
