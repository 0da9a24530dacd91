"""Killed with SIGKILL in every stage, the alignment ends with the rows of one that was not."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from branchdiag.phases import PHASES, stages_of
from branchdiag.store.run import RunDirectory
from tests.command_line import branchdiag
from tests.crash.test_kill_and_resume import EVERY_UNIT, KILLED_RUN

SETTINGS = ("--set=align.rollouts=4", "--set=align.budget=60", "--progress=none")
KILLS = [
    ("N1", "after", 1),  # the teacher's views are there, the nodes of the same problem are not
    ("N2", "before", 5),
    ("N3", "after", 1),  # grades are there, the counts of the same node are not
    ("N4", "after", 1),
]


def killed_with(letter: str, moment: str, count: int, run: Path, *more: str) -> int:
    """The status of `align` that is killed there."""
    words = (letter, moment, str(count), "align", str(run), *SETTINGS, EVERY_UNIT, *more)
    return branchdiag(*words, cwd=run.parent, program=KILLED_RUN).status


@pytest.mark.slow
def test_killed_in_every_stage_the_rows_are_the_same(tmp_path: Path, finished_run: Path) -> None:
    killed, whole = (shutil.copytree(finished_run, tmp_path / name) for name in ("killed", "whole"))
    for letter, moment, count in KILLS:
        assert killed_with(letter, moment, count, killed) == -signal.SIGKILL, (letter, moment)
        assert RunDirectory.open(killed).manifest["phases"][letter]["status"] == "running"
    for path in (killed, whole):
        words = ("align", str(path), *SETTINGS, EVERY_UNIT)
        ended = branchdiag(*words, cwd=tmp_path, interpreter=path == whole)
        assert ended.status == 0, ended.err
    first, second = RunDirectory.open(killed), RunDirectory.open(whole)
    for letter in stages_of("align"):
        for name in PHASES[letter].writes:
            assert first.table(name).rows() == second.table(name).rows(), name
    assert first.table("arm_continuations").n_rows()
    documents = [json.loads((path / "alignment.json").read_text()) for path in (killed, whole)]
    assert documents[0] == documents[1]
