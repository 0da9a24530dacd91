"""Killed with SIGKILL twice in every phase, a run ends with the rows of one that never was.

Each kill hits a real process at a part it writes: once right after a part was renamed into place,
once before a later one is on disk. Then the same command is given again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES
from tests.command_line import branchdiag
from tests.conftest import SMALL

KILLED_RUN = "tests.crash.killed_run"
EVERY_UNIT = "--set=engine.checkpoint_seconds=0"
KILLS = [
    ("A", "after", 2),
    ("A", "before", 3),
    ("B", "after", 1),
    ("B", "before", 2),
    ("C", "after", 1),
    ("C", "before", 2),
    ("D", "after", 1),
    ("D", "before", 2),
    ("E", "after", 40),
    ("E", "before", 70),
    ("F", "after", 1),  # grades are there, the labels of the same candidates are not
    ("F", "before", 4),
    ("S", "after", 1),
    ("S", "before", 2),
    ("G", "before", 1),
    ("G", "after", 1),  # scores are there, curves are not
]


def killed(letter: str, moment: str, count: int, cwd: Path) -> int:
    arguments = ["run-all", *SMALL, EVERY_UNIT, "--out=run", "--progress=none"]
    words = (letter, moment, str(count), *arguments)
    return branchdiag(*words, cwd=cwd, program=KILLED_RUN).status


def test_killed_twice_in_every_phase_the_rows_are_the_same(
    tmp_path: Path, finished_run: Path
) -> None:
    for letter, moment, count in KILLS:
        assert killed(letter, moment, count, tmp_path) == -signal.SIGKILL, (letter, moment)
        manifest = RunDirectory.open(tmp_path / "run").manifest
        assert manifest["phases"][letter]["status"] == "running"
    ended = branchdiag("run-all", *SMALL, EVERY_UNIT, "--out=run", "--progress=plain", cwd=tmp_path)
    assert ended.status == 0, ended.err
    interrupted = RunDirectory.open(tmp_path / "run")
    whole = RunDirectory.open(finished_run)
    for name in TABLES:
        assert interrupted.table(name).rows() == whole.table(name).rows(), name


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, number: int, status: int
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "branchdiag", "run-all", *SMALL, EVERY_UNIT),
            *("--out=run", "--progress=plain"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("E continue"):
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == status, "".join(seen) + rest
    assert "The same command goes on" in rest
    assert "Traceback" not in rest
    run = RunDirectory.open(tmp_path / "run")
    assert run.manifest["phases"]["C"]["status"] == "complete"
    assert run.manifest["phases"]["E"]["status"] == "running"
    assert run.holder() is None
