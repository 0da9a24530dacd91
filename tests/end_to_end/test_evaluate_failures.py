"""What cannot be sampled or graded is tried again and then missing: never a wrong answer.

And a file that is not the published one is said to be another.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from branchdiag.bundled import problems_path
from branchdiag.cli.main import call
from branchdiag.evaluation import sampling
from branchdiag.evaluation.directory import EvaluationDirectory

FEW = ("--n=2", "--seeds=1", "--progress=none", "--set=comparison.resamples=100")


def write_problems(path: Path, n: int, **changed: str) -> Path:
    """The first bundled problems; `changed` answers by id."""
    lines = problems_path("evaluate").read_text().splitlines()[:n]
    rows = [json.loads(line) for line in lines]
    for i, row in enumerate(rows):
        row.update(id=f"p{i}", answer=changed.get(f"p{i}", row["answer"]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def failing_engine(monkeypatch: pytest.MonkeyPatch, key: tuple[str | int, ...], times: int) -> None:
    """The real engine, which reports an error for one request so many times."""
    opened = sampling.open_engine
    left = times

    class Failing:
        def __init__(self, engine: Any) -> None:
            self.engine = engine

        def generate(self, requests: Any, owed: Any = None) -> Iterator[Any]:
            nonlocal left
            for completion in self.engine.generate(requests, owed):
                if completion.key == key and left > 0:
                    left -= 1
                    yield dataclasses.replace(
                        completion, token_ids=(), finish_reason="error", error="lost"
                    )
                else:
                    yield completion

        def describe(self) -> Any:
            return self.engine.describe()

    @contextmanager
    def open_failing(*arguments: Any) -> Iterator[Any]:
        with opened(*arguments) as engine:
            yield Failing(engine)

    monkeypatch.setattr(sampling, "open_engine", open_failing)


def test_engine_errors_and_ungradable_answers_leave_figures_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Twelve problems: at most a tenth may fail. One answer that no grader can read.
    source = write_problems(tmp_path / "set.jsonl", 12, p3="\\frac{")
    command = ["evaluate", "bundled", *FEW, f"--problems={source}", f"--out={tmp_path / 'out'}"]
    failing_engine(monkeypatch, ("bundled", "set/p5", 0, 1), times=2)
    assert call([*command, "--json"]) == 4
    out, err = capfd.readouterr()
    report = json.loads(out)
    main = next(f for f in report["metrics"] if f["metric"] == "avg@2")
    assert (main["value"], main["per_seed"]) == (None, [None])
    assert main["reason"] == "2 of 12 problems x repeats have no value"
    assert "2 groups of samples" in err
    directory = EvaluationDirectory.open(tmp_path / "out")
    errors = {row["unit"]: row["kind"] for row in directory.table("errors").rows()}
    assert errors == {"bundled/set/p5/0/1": "EngineError", "bundled/set/p3/0": "MissingGrade"}
    assert directory.table("samples").n_rows() == 12 * 2 - 1

    # The engine is well again: the same command makes what is owed and nothing else.
    kept = {row["problem_id"]: row for row in directory.table("outcomes").rows()}
    assert call(command) == 4
    directory = EvaluationDirectory.open(tmp_path / "out")
    assert directory.table("samples").n_rows() == 12 * 2
    after = {row["problem_id"]: row for row in directory.table("outcomes").rows()}
    assert after.keys() == kept.keys() | {"set/p5"}
    assert all(after[name] == row for name, row in kept.items())
    assert "missing: bundled, set: 1 of 12" in capfd.readouterr().err


def test_an_error_is_tried_again_within_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_problems(tmp_path / "set.jsonl", 4)
    command = ["evaluate", "bundled", *FEW, f"--problems={source}"]
    assert call([*command, f"--out={tmp_path / 'well'}"]) == 0
    failing_engine(monkeypatch, ("bundled", "set/p1", 0, 0), times=1)
    assert call([*command, f"--out={tmp_path / 'ill'}"]) == 0
    rows = [
        EvaluationDirectory.open(tmp_path / name).table("samples").rows()
        for name in ("well", "ill")
    ]
    assert rows[0] == rows[1]


def test_a_file_that_is_not_the_published_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import pandas as pd

    source = write_problems(tmp_path / "set.jsonl", 2)
    frame = pd.read_json(source, lines=True, dtype={"answer": str})[["problem", "answer"]]
    frame.to_parquet(tmp_path / "hmmt.parquet")
    monkeypatch.setenv("HMMT25_PARQUET_PATH", str(tmp_path / "hmmt.parquet"))
    command = ["evaluate", "bundled", *FEW, "--problems=hmmt2025", "--json"]
    assert call([*command, f"--out={tmp_path / 'out'}"]) == 0
    report = json.loads(capfd.readouterr().out)
    (benchmark,) = report["benchmarks"]
    (file,) = benchmark["files"]
    assert (benchmark["name"], file["as_published"]) == ("hmmt2025", False)
    assert any(file["sha256"] in note and "as published" in note for note in report["notes"])
