"""`branchdiag fit-schedule` as a user calls it, on a run of the bundled model."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from branchdiag import Schedule
from tests.command_line import branchdiag

SCHEMA = json.loads(files("branchdiag").joinpath("schedule_schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def fitted(finished_run, tmp_path_factory):
    """The command with --json in a directory of its own; its ending, and the directory."""
    cwd = tmp_path_factory.mktemp("fit")
    return branchdiag("fit-schedule", str(finished_run), "--json", cwd=cwd), cwd


def test_json_is_one_object_after_the_published_schema_and_is_the_file(fitted) -> None:
    ended, cwd = fitted
    assert (ended.status, ended.err) == (0, "")
    VALIDATOR.validate(ended.json)
    assert ended.json == json.loads((cwd / "fitted.json").read_text("utf-8"))
    assert {path.name for path in cwd.iterdir()} == {"fitted.json", "fitted.png", "fitted.svg"}


def test_the_file_names_the_run_and_weighs_tokens(fitted, finished_run) -> None:
    ended, cwd = fitted
    manifest = json.loads((finished_run / "run.json").read_text("utf-8"))
    student = manifest["inputs"]["student"]
    assert ended.json["model"]["name"] == student["name"]
    assert ended.json["run"]["fingerprints"] == {
        letter: phase["fingerprint"] for letter, phase in manifest["phases"].items()
    }
    counts = ended.json["fits"]["viability"]["counts"]
    assert counts["candidates"] == manifest["phases"]["F"]["units"]
    schedule = Schedule.load(cwd / "fitted.json")
    weights = schedule.weights(np.array([[1, 1, 1, 0]]))
    assert weights.shape == (1, 4)
    assert weights[0, 3] == 0
    np.testing.assert_allclose(weights[0, :3], schedule.curve([1 / 6, 3 / 6, 5 / 6]))
    if ended.json["status"] not in ("ok", "separation"):
        assert schedule.is_uniform


def test_for_people_it_says_status_files_and_what_comes_next(finished_run, tmp_path) -> None:
    ended = branchdiag("fit-schedule", str(finished_run), "--out=mine.json", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    for word in ("viability", "relative", "mine.json", "mine.png", "train --schedule mine.json"):
        assert word in ended.out
    document = json.loads((tmp_path / "mine.json").read_text("utf-8"))
    assert document["status"] in ended.out
    if document["tau"] is None:
        assert "w = 1" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())


def test_a_preset_needs_no_run_and_takes_no_time(tmp_path) -> None:
    ended = branchdiag("fit-schedule", "--preset=aggressive", "--json", cwd=tmp_path)
    assert (ended.status, ended.err) == (0, "")
    VALIDATOR.validate(ended.json)
    assert (ended.json["origin"], ended.json["status"]) == ("preset", None)
    again = Schedule.load(tmp_path / "fitted.json")
    assert again == Schedule.preset("aggressive")
    for_people = branchdiag("fit-schedule", "--preset=mild", cwd=tmp_path)
    assert "preset mild, not fitted" in for_people.out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere"], 2, ["nowhere", "run"]),
        ([], 2, ["no run yet", "run-all"]),
        (["--preset=harsh"], 2, ["harsh"]),
        (["--estimand=viable"], 2, ["viable"]),
        (["{run}", "--out=/proc/fitted.json"], 5, ["/proc/fitted.json", "--out"]),
        (["{run}", "--out=fitted.svg"], 2, ["fitted.json"]),
        (["--preset=mild", "--estimand=binary"], 2, ["--estimand"]),
    ],
)
def test_a_mistake_is_explained(finished_run, tmp_path, arguments, status, words) -> None:
    given = [text.format(run=finished_run) for text in arguments]
    ended = branchdiag("fit-schedule", *given, cwd=tmp_path)
    assert ended.status == status, ended.out + ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    for word in words:
        assert word in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_labels_says_what_makes_them(finished_run, tmp_path) -> None:
    run = tmp_path / "runs" / "half"
    shutil.copytree(finished_run, run)
    manifest = json.loads((run / "run.json").read_text("utf-8"))
    for letter in "FG":
        del manifest["phases"][letter]
    shutil.rmtree(run / "labels")
    (run / "run.json").write_text(json.dumps(manifest), "utf-8")
    ended = branchdiag("fit-schedule", cwd=tmp_path)  # the latest run is this one
    assert ended.status == 4
    assert "no labels yet" in ended.err
    assert manifest["command"] in ended.err
    assert not Path(tmp_path / "fitted.json").exists()
