"""Forked workers: every task once, errors come back, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from branchdiag.engines.base import Completion
from branchdiag.engines.workers import WorkerFailed, run_forked
from branchdiag.errors import MissingRequirement, UsageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def decode(task: int) -> Iterator[list[Completion]]:
    for part in range(3):
        yield [Completion((task, part), (os.getpid(),), "stop")]


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if psutil.pid_exists(pid)}


def test_every_task_is_done_once_by_several_processes() -> None:
    done = [c for finished in run_forked(range(20), decode, 3) for c in finished]
    assert sorted(c.key for c in done) == [(task, part) for task in range(20) for part in range(3)]
    pids = {c.token_ids[0] for c in done}
    assert os.getpid() not in pids and 1 < len(pids) <= 3
    assert not alive(pids)


def test_closing_the_iterator_ends_the_workers() -> None:
    running = run_forked(range(1000), decode, 2)
    pids = {next(running)[0].token_ids[0] for _ in range(10)}
    running.close()  # type: ignore[attr-defined]
    assert pids and not alive(pids)


def test_an_error_that_a_user_can_mend_comes_back_whole() -> None:
    def work(task: int) -> Iterator[list[Completion]]:
        raise UsageError("no such thing", where="here", fix="try that")
        yield []

    with pytest.raises(UsageError) as raised:
        list(run_forked([0], work, 1))
    assert (raised.value.where, raised.value.fix) == ("here", "try that")


def test_a_bug_comes_back_with_its_traceback() -> None:
    def work(task: int) -> Iterator[list[Completion]]:
        yield [Completion((task,), (), "stop")]
        raise ZeroDivisionError("a bug in here")

    with pytest.raises(WorkerFailed, match=r"(?s)Traceback.*in work.*a bug in here"):
        list(run_forked([0, 1], work, 2))


def test_a_killed_worker_is_no_silence() -> None:
    def work(task: int) -> Iterator[list[Completion]]:
        yield [Completion((task,), (), "stop")]
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(MissingRequirement, match="killed") as raised:
        list(run_forked([0, 1], work, 2, if_killed="take fewer"))
    assert raised.value.fix == "take fewer"


PARENT = """
import os, sys, time
from branchdiag.engines.base import Completion
from branchdiag.engines.workers import run_forked

def work(task):
    yield [Completion((task,), (os.getpid(),), "stop")]
    time.sleep(600)

for finished in run_forked([0, 1], work, 2):
    print(finished[0].token_ids[0], flush=True)
"""


def test_workers_die_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = {int(parent.stdout.readline()) for _ in range(2)}
    assert alive(pids) == pids
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pids)


def test_workers_hold_no_file_of_the_parent(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        number = lock.fileno()

        def work(task: int) -> Iterator[list[Completion]]:
            open_files = {file.path for file in psutil.Process().open_files()}
            held = str(tmp_path / "lock") in open_files
            yield [Completion((number,), (int(held),), "stop")]

        done = [c for finished in run_forked([0], work, 1) for c in finished]
    assert done[0].token_ids == (0,)
