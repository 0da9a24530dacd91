"""Killed with SIGKILL in every stage of the prefixes, the rows are those of a run that was not."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from branchdiag.phases import PHASES, stages_of
from branchdiag.store.run import RunDirectory
from tests.command_line import branchdiag
from tests.crash.test_kill_and_resume import EVERY_UNIT, KILLED_RUN

SETTINGS = ("--set=prefixes.fractions=[0.0, 0.5]", "--set=prefixes.rollouts=2", "--progress=none")
KILLS = [
    ("P0", "after", 2),
    ("P1", "before", 30),
    ("P2", "after", 3),
    ("P3", "after", 1),
]


@pytest.mark.slow
def test_killed_in_every_stage_the_rows_are_the_same(tmp_path: Path, finished_run: Path) -> None:
    killed, whole = (shutil.copytree(finished_run, tmp_path / name) for name in ("killed", "whole"))
    for letter, moment, count in KILLS:
        words = (letter, moment, str(count), "prefixes", str(killed), *SETTINGS, EVERY_UNIT)
        status = branchdiag(*words, cwd=tmp_path, program=KILLED_RUN).status
        assert status == -signal.SIGKILL, (letter, moment)
        assert RunDirectory.open(killed).manifest["phases"][letter]["status"] == "running"
    for path in (killed, whole):
        words = ("prefixes", str(path), *SETTINGS, EVERY_UNIT)
        ended = branchdiag(*words, cwd=tmp_path, interpreter=path == whole)
        assert ended.status == 0, ended.err
    first, second = RunDirectory.open(killed), RunDirectory.open(whole)
    for letter in stages_of("prefixes"):
        for name in PHASES[letter].writes:
            assert first.table(name).rows() == second.table(name).rows(), name
    assert first.table("prefix_samples").n_rows() == 30 * 2 * 2 * 2
    documents = [(path / "position_bias.json").read_bytes() for path in (killed, whole)]
    assert documents[0] == documents[1]
