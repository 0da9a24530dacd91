"""Engines for the tests of isolation; made inside a child process by their names.

Real engines and processes, small enough to start in a moment: one that echoes its prompts after
starting processes of its own, as vLLM does, and the transformers engine with such processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from branchdiag.engines import make_transformers_engine
from branchdiag.engines.base import Completion, Engine, Key, Request

SLEEP = "import time; time.sleep(600)"


def start_grandchildren() -> list[int]:
    """Three processes: an ordinary one, one in a session of its own, and an orphan."""
    plain = subprocess.Popen([sys.executable, "-c", SLEEP])
    apart = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    orphan = subprocess.run(
        [sys.executable, "-c", f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.DEVNULL)
print(child.pid)
"""],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )  # fmt: skip
    return [plain.pid, apart.pid, int(orphan.stdout)]


class EchoEngine:
    """Completes a prompt with itself."""

    name = "echo"

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.processes = [os.getpid(), os.getppid(), *start_grandchildren()]
        print("echo is ready")

    def generate(
        self, requests: Sequence[Request], owed: Collection[Key] | None = None
    ) -> Iterator[Completion]:
        for request in requests:
            if owed is None or request.key in owed:
                time.sleep(self.pause_s)
                yield Completion(request.key, request.prompt_ids, "stop")

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "processes": self.processes}

    def close(self) -> None:
        print("echo is closed")


def make_echo(pause_s: float = 0.0) -> EchoEngine:
    return EchoEngine(pause_s)


def make_transformers_with_grandchildren(**arguments: Any) -> Engine:
    engine = make_transformers_engine(**arguments)
    processes = [os.getpid(), os.getppid(), *start_grandchildren()]
    describe = engine.describe
    engine.describe = lambda: {**describe(), "processes": processes}  # type: ignore[method-assign]
    return engine


def make_broken() -> Engine:
    raise ZeroDivisionError("a bug in the factory")
