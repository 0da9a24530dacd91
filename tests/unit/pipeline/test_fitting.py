"""From tables on disk to `fitted.json`: each planted truth says what it is; mistakes are told."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from branchdiag import Schedule
from branchdiag.errors import Incomplete, UsageError
from branchdiag.pipeline.fitting import fit_run
from branchdiag.stats.schedule_band import FitSettings
from branchdiag.store.atomic import StorageError
from branchdiag.store.run import RunDirectory
from tests.unit.schedule.planted_schedules import candidates, horizon, level, plant, shape

SCHEMA = json.loads(files("branchdiag").joinpath("schedule_schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
QUICK = FitSettings(resamples=20, permutations=1000, slope_resamples=50)
PNG = b"\x89PNG"


def write_run(path: Path, data, *, status: str = "complete") -> Path:
    """A run directory with the candidates and labels of a planted study."""
    run = RunDirectory.create(path)
    labels, found = [], []
    n_children = data.arms.samples.shape[1] - 1
    for row, r in enumerate(data.r):
        name = {"candidate_id": f"{data.problem[row]}@{row}", "problem_id": str(data.problem[row])}
        place = {**name, "position": row, "r": float(r)}
        order = [*range(1, n_children + 1), 0]  # children first, as Phase F writes them
        labels.append(
            {
                **place,
                "arms": [*(f"child:{child}" for child in range(n_children)), "control"],
                "successes": [int(data.arms.successes[row, arm]) for arm in order],
                "samples": [int(data.arms.samples[row, arm]) for arm in order],
                "truncated": [0] * len(order),
                "lengths": [9.0] * len(order),
                "n_children": n_children,
                "label": data.label[row],
                "share_truncated": 0.0,
            }
        )
        found.append(
            {
                **place,
                **dict.fromkeys(("h_trunc", "p1", "p2"), 0.3),
                "spine_token_id": 0,
                "child_ids": list(range(n_children)),
                "child_texts": ["x"] * n_children,
                "child_teacher": [0.6, 0.3, 0.1][:n_children],
                "child_student": [0.6, 0.3, 0.1][:n_children],
                "n_children": n_children,
            }
        )
    with run.lock():
        student = {"name": "org/model", "revision": "r1", "content_id": "c1", "path": "/nowhere"}
        run.manifest["inputs"] = {"student": student, "data_id": "d1"}
        run.manifest["command"] = "branchdiag run-all --out here"
        run.manifest["phases"] = {
            "E": {"status": "complete", "fingerprint": "fp1:e", "failed": 0},
            "F": {"status": status, "fingerprint": "fp1:f", "failed": 0},
        }
        run.save_manifest()
        for table, rows in (("labels", labels), ("candidates", found)):
            run.table(table).create()
            if rows:
                run.table(table).append(rows)
    return path


@pytest.fixture(scope="module")
def rising_run(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rising") / "run"
    return write_run(path, plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0))


def two(r, control, children):
    """A candidate at each r of 8 problems, with as many successes of 6 everywhere."""
    problem = np.repeat(np.arange(8), len(r))
    successes = np.tile([[control, *children]], (problem.size, 1))
    return candidates(np.tile(r, 8), problem, successes)


STEP = lambda r: np.where(r < 0.45, 0.0, 1.0)  # noqa: E731


@pytest.mark.parametrize(
    ("data", "status", "direction"),
    [
        (plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0), "ok", "increasing"),
        (plant(shape(0.4, 0.6, 0.1, falling=True), level(0.9), seed=0), "ok", "decreasing"),
        (plant(level(0.6), level(0.7), seed=0), "flat", "none"),
        (plant(horizon(), horizon(), seed=0), "horizon_only", "none"),
        (plant(STEP, level(1.0), seed=0), "separation", "increasing"),
        (plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0, n_problems=2), "insufficient", "none"),
        (plant(shape(0.4, 0.3, 0.1), level(0.9), seed=0, n_problems=1), "insufficient", "none"),
        (candidates([], [], np.zeros((0, 4))), "insufficient", "none"),
        (two([0.1, 0.5, 0.9], 6, [6, 6, 6]), "no_variation", "none"),
        (two([0.1, 0.15, 0.2], 6, [6, 1, 3]), "insufficient", "none"),
    ],
    ids=[
        "rising",
        "falling",
        "flat",
        "horizon only",
        "separated",
        "two problems",
        "one problem",
        "no candidates",
        "no variation",
        "narrow",
    ],
)
def test_each_planted_truth_is_written_as_what_it_is(tmp_path, data, status, direction) -> None:
    run, out = write_run(tmp_path / "run", data), tmp_path / "fitted.json"
    written = fit_run(run, out=out, settings=QUICK)
    document = json.loads(out.read_text())
    assert document == written.document
    VALIDATOR.validate(document)
    assert (document["status"], document["direction"]) == (status, direction)
    assert {"viability", "relative"} == set(document["fits"])
    schedule = Schedule.load(out)
    if status not in ("ok", "separation"):
        assert (schedule.w_min, schedule.tau, schedule.s) == (1.0, None, None)
        assert document["reason"]
        assert (schedule.weights(np.ones((1, 5))) == 1.0).all()
    for figure in written.figures:
        assert figure.parent == tmp_path and figure.stat().st_size > 2000
    assert written.figures[0].read_bytes().startswith(PNG)


def test_the_file_says_which_run_and_model_it_is_of(tmp_path, rising_run) -> None:
    document = fit_run(rising_run, out=tmp_path / "f.json", settings=QUICK).document
    assert document["model"] == {"name": "org/model", "revision": "r1", "content_id": "c1"}
    assert document["run"]["name"] == "run"
    assert document["run"]["fingerprints"] == {"E": "fp1:e", "F": "fp1:f"}
    assert document["estimand_named"] is False


@pytest.mark.parametrize("estimand", ["relative", "binary", "teacher-weighted"])
def test_a_named_estimand_stands_beside_viability_and_relative(
    tmp_path, rising_run, estimand
) -> None:
    out = tmp_path / "f.json"
    document = fit_run(rising_run, estimand=estimand, out=out, settings=QUICK).document
    VALIDATOR.validate(document)
    assert document["estimand"] == estimand
    assert document["estimand_named"] is True
    assert set(document["fits"]) == {"viability", "relative", estimand}
    assert document["fits"][estimand]["counts"]["used"] > 0


def test_a_preset_alone_needs_no_run_and_says_it_is_none(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # no runs/ here
    written = fit_run(None, preset="moderate", out=tmp_path / "m.json")
    VALIDATOR.validate(written.document)
    schedule = Schedule.load(tmp_path / "m.json")
    assert (schedule.w_min, schedule.tau, schedule.s) == (0.25, 0.30, 0.10)
    assert (written.document["origin"], written.document["status"]) == ("preset", None)
    assert "not fitted" in written.document["reason"]
    assert "fits" not in written.document and "model" not in written.document
    assert written.figures[0].read_bytes().startswith(PNG)


def test_a_preset_for_a_run_keeps_the_runs_fit_and_model_beside_it(tmp_path, rising_run) -> None:
    out = tmp_path / "m.json"
    document = fit_run(rising_run, preset="sharp", out=out, settings=QUICK).document
    VALIDATOR.validate(document)
    assert (document["w_min"], document["tau"], document["s"]) == (0.10, 0.40, 0.05)
    assert (document["status"], document["band"]) == (None, None)
    assert "the fit to this run is ok" in document["reason"]
    assert document["fits"]["viability"]["status"] == "ok"
    assert document["model"]["name"] == "org/model"


def test_the_run_is_left_as_it_was(tmp_path, rising_run) -> None:
    before = {p: p.read_bytes() for p in rising_run.rglob("*") if p.is_file()}
    fit_run(rising_run, out=tmp_path / "f.json", settings=QUICK)
    assert {p: p.read_bytes() for p in rising_run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("status", ["running", "owed", None])
def test_without_labels_the_command_that_makes_them_is_named(tmp_path, rising_run, status) -> None:
    run = tmp_path / "run"
    shutil.copytree(rising_run, run)
    manifest = json.loads((run / "run.json").read_text())
    if status is None:
        del manifest["phases"]["F"]
        shutil.rmtree(run / "labels")
    else:
        manifest["phases"]["F"]["status"] = status
    (run / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(Incomplete, match="no labels yet") as caught:
        fit_run(run, out=tmp_path / "f.json", settings=QUICK)
    assert caught.value.fix == "branchdiag run-all --out here"
    assert not (tmp_path / "f.json").exists()


def test_labels_that_cannot_be_read_are_not_passed_over(tmp_path, rising_run) -> None:
    run = tmp_path / "run"
    shutil.copytree(rising_run, run)
    part = max((run / "labels").glob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(data)
    with pytest.raises(Incomplete, match="cannot be read"):
        fit_run(run, out=tmp_path / "f.json", settings=QUICK)


def test_units_that_failed_are_counted(tmp_path, rising_run) -> None:
    run = tmp_path / "run"
    shutil.copytree(rising_run, run)
    manifest = json.loads((run / "run.json").read_text())
    manifest["phases"]["F"] |= {"status": "incomplete", "failed": 3}
    (run / "run.json").write_text(json.dumps(manifest))
    document = fit_run(run, out=tmp_path / "f.json", settings=QUICK).document
    assert document["run"]["failed_units"] == 3


def test_mistakes_are_said_before_anything_is_fitted(tmp_path, rising_run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    never = FitSettings(resamples=10**9)  # would take for ever
    (tmp_path / "file").write_text("")
    for error, said, changes in (
        (UsageError, "no preset 'harsh'", {"preset": "harsh"}),
        (UsageError, "name of a picture", {"out": Path("fitted.png")}),
        (UsageError, "is a directory", {"out": tmp_path}),
        (StorageError, "file", {"out": Path("file/fitted.json")}),
        (UsageError, "no run", {"run": tmp_path / "nothing"}),
        (UsageError, "no run yet", {"run": None}),
        (UsageError, "none is named", {"run": None, "preset": "mild", "estimand": "binary"}),
    ):
        arguments = {"run": rising_run, "out": Path("fitted.json"), "settings": never, **changes}
        with pytest.raises(error, match=said) as caught:
            fit_run(arguments.pop("run"), **arguments)
        assert caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_directories_of_the_output_are_made(tmp_path) -> None:
    written = fit_run(None, preset="mild", out=tmp_path / "a" / "b" / "mine.v2.json")
    names = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert names == {"mine.v2.json", "mine.v2.png", "mine.v2.svg"}
    assert written.path.name == "mine.v2.json"
