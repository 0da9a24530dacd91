"""Calls side by side: the same results in the same order as one after another, whoever made any."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import psutil
import pytest

from branchdiag.engines import workers
from branchdiag.errors import UsageError
from branchdiag.phases.side_by_side import WORTH_FORKING, in_order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: 2)


def described(task: int) -> dict[str, Any]:
    time.sleep(0.02 * (task % 3 == 0))  # later tasks are finished before earlier ones
    return {"task": task, "array": np.arange(task) / 7, "pid": os.getpid()}


@pytest.mark.parametrize("n_tasks", [WORTH_FORKING, 37, 100])
def test_results_are_those_of_a_loop_in_its_order(n_tasks: int) -> None:
    found = list(in_order(described, range(n_tasks)))
    looped = [described(task) for task in range(n_tasks)]
    assert [result["task"] for result in found] == list(range(n_tasks))
    for ours, theirs in zip(found, looped, strict=True):
        assert ours["array"].dtype == theirs["array"].dtype
        assert ours["array"].tolist() == theirs["array"].tolist()
    pids = {result["pid"] for result in found}
    assert len(pids) == 2 and os.getpid() not in pids


def test_few_tasks_no_task_and_a_single_core_start_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list(in_order(described, [])) == []
    few = list(in_order(described, range(WORTH_FORKING - 1)))
    monkeypatch.setattr(workers, "usable_cores", lambda: 1)
    many = list(in_order(described, range(40)))
    assert {result["pid"] for result in few + many} == {os.getpid()}


def test_a_model_that_threads_serve_better_runs_in_this_process() -> None:
    class Large:
        class device:  # noqa: N801
            type = "cuda"

        def parameters(self) -> list[Any]:
            return []

    found = list(in_order(described, range(40), [Large()]))
    assert {result["pid"] for result in found} == {os.getpid()}


def test_an_error_of_one_task_ends_all_and_says_what_it_said() -> None:
    def work(task: int) -> int:
        if task == 30:
            raise UsageError("this spine has no tokens", where="here")
        return task

    before = psutil.Process().children()
    found = []
    with pytest.raises(UsageError, match="no tokens"):
        found.extend(in_order(work, range(60)))
    assert not set(psutil.Process().children()) - set(before)


def test_who_stops_half_way_leaves_no_process() -> None:
    running = in_order(described, range(1000))
    pids = {next(running)["pid"] for _ in range(20)}
    running.close()  # type: ignore[attr-defined]
    assert pids and not any(psutil.pid_exists(pid) for pid in pids)
