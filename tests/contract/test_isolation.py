"""An engine in a child process: the same completions, and nothing left when its parent is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from branchdiag import models
from branchdiag.engines import Request, Sampling, create_engine
from branchdiag.engines.isolation import EngineCrashed, IsolatedEngine
from branchdiag.errors import MissingRequirement
from branchdiag.protocol import EngineSettings
from tests.tiny_models import tiny_model

ROOT = Path(__file__).parents[2]
ENGINES = "tests.isolated_engines"


@pytest.fixture(autouse=True)
def children_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'src'}")


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[IsolatedEngine]:
    engine = IsolatedEngine("echo", f"{ENGINES}:make_echo", {}, log_path=tmp_path / "logs" / "log")
    yield engine
    engine.close()


def requests_of(count: int) -> list[Request]:
    sampling = Sampling(1.0, 0.95, -1, 20)
    return [Request(("p", i), (40, 50 + i % 7), sampling, seed=i) for i in range(count)]


def alive(pids: list[int]) -> list[int]:
    running = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
        except psutil.NoSuchProcess:
            continue
    return running


def gone(pids: list[int], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pids)


def test_completions_cross_the_process_border_whole(echo: IsolatedEngine) -> None:
    requests = requests_of(500)
    done = list(echo.generate(requests))
    assert [(c.key, c.token_ids) for c in done] == [(r.key, r.prompt_ids) for r in requests]
    some = list(echo.generate(requests, owed={("p", 3), ("p", 7)}))
    assert [c.key for c in some] == [("p", 3), ("p", 7)]


def test_closing_ends_every_process_and_keeps_the_log(echo: IsolatedEngine, tmp_path: Path) -> None:
    pids = echo.describe()["processes"]
    assert len(alive(pids)) == 5 and os.getpid() not in pids
    echo.close()
    echo.close()
    assert not alive(pids)
    log = (tmp_path / "logs" / "log").read_text()
    assert "echo is ready" in log and "echo is closed" in log


def test_an_engine_that_is_forgotten_is_ended(echo: IsolatedEngine) -> None:
    engine = IsolatedEngine("echo", f"{ENGINES}:make_echo", {})
    pids = engine.describe()["processes"]
    del engine
    assert gone(pids)


def test_an_abandoned_generate_leaves_no_stray_completions(echo: IsolatedEngine) -> None:
    first = echo.describe()["processes"]
    running = echo.generate(requests_of(500))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert gone(first)
    assert [c.key for c in echo.generate(requests_of(2))] == [("p", 0), ("p", 1)]


def test_a_bug_in_the_child_shows_its_traceback() -> None:
    engine = IsolatedEngine("broken", f"{ENGINES}:make_broken", {})
    with pytest.raises(EngineCrashed, match=r"(?s)Traceback.*make_broken.*a bug in the factory"):
        engine.describe()
    engine.close()


def test_an_error_that_a_user_can_mend_comes_back_as_one() -> None:
    settings = EngineSettings(name="transformers", device="cuda:63")
    engine = IsolatedEngine(
        "transformers",
        "branchdiag.engines:make_transformers_engine",
        {
            "settings": settings,
            "resolved": models.resolve(str(tiny_model("qwen3"))),
            "max_total_tokens": 64,
            "stop_ids": (1,),
        },
    )
    with pytest.raises(MissingRequirement, match="no device cuda:63") as raised:
        list(engine.generate(requests_of(2)))
    assert raised.value.where == "engine.device"


def test_a_killed_engine_is_said_to_be_killed_and_takes_all_with_it(tmp_path: Path) -> None:
    engine = IsolatedEngine(
        "echo", f"{ENGINES}:make_echo", {"pause_s": 0.05}, log_path=tmp_path / "log"
    )
    pids = engine.describe()["processes"]
    running = engine.generate(requests_of(1000))
    next(running)
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(MissingRequirement, match=r"(?s)killed.*echo is ready"):
        list(running)
    assert gone(pids)


PARENT = """
import json, sys, time
from branchdiag import models
from branchdiag.engines import Request, Sampling
from branchdiag.engines.isolation import IsolatedEngine
from branchdiag.protocol import EngineSettings

factory, arguments = sys.argv[1], eval(sys.argv[2])
engine = IsolatedEngine("dummy", factory, arguments)
pids = engine.describe().get("processes", [])
sampling = Sampling(1.0, 1.0, -1, 50)
running = engine.generate([Request(("p", i), (1, 2), sampling, i) for i in range(100000)])
next(running)
print(json.dumps(pids), flush=True)
time.sleep(600)
"""


def kill_parent_of(factory: str, arguments: str) -> list[int]:
    """Run an isolated engine from a process, kill that, and return what had been below it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, factory, arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    line = parent.stdout.readline()
    below = [process.pid for process in psutil.Process(parent.pid).children(recursive=True)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    return sorted({*json.loads(line), *below})


def test_nothing_outlives_a_killed_parent() -> None:
    pids = kill_parent_of(f"{ENGINES}:make_echo", "{'pause_s': 0.01}")
    assert len(pids) == 5
    assert gone(pids)


def test_nothing_of_the_transformers_engine_outlives_a_killed_parent() -> None:
    directory = str(tiny_model("qwen3"))
    arguments = (
        "{'settings': EngineSettings(device='cpu'), 'max_total_tokens': 64, 'stop_ids': (1,),"
        f"'resolved': models.resolve({directory!r})}}"
    )
    pids = kill_parent_of(f"{ENGINES}:make_transformers_with_grandchildren", arguments)
    assert len(pids) >= 5
    assert gone(pids)


def test_isolated_transformers_equals_the_embedded_one(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "settings": EngineSettings(device="cpu"),
        "resolved": models.resolve(str(tiny_model("llama"))),
        "max_total_tokens": 64,
        "stop_ids": tuple(range(30)),
    }
    isolated = IsolatedEngine(
        "transformers", "branchdiag.engines:make_transformers_engine", arguments
    )
    embedded = create_engine(**arguments)
    requests = requests_of(30)
    here = {completion.key: completion for completion in embedded.generate(requests)}
    there = {completion.key: completion for completion in isolated.generate(requests)}
    isolated.close()
    assert here == there


@pytest.mark.vllm
def test_nothing_of_vllm_outlives_a_killed_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    # With its core and workers in processes of their own, as on a GPU.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    directory = str(tiny_model("qwen3"))
    arguments = (
        "{'settings': EngineSettings(name='vllm', max_num_seqs=4), 'max_total_tokens': 64,"
        f"'stop_ids': (1,), 'resolved': models.resolve({directory!r})}}"
    )
    pids = kill_parent_of("branchdiag.engines:make_vllm_engine", arguments)
    assert len(pids) >= 4
    assert gone(pids)
