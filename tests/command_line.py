"""Runs the command line in a process of its own, without waiting seconds for its libraries.

A command that loads a model imports torch and transformers first, which takes longer than most of
what is tested. So commands are forks of one process that has imported the libraries, none of
branchdiag: a process of its own all the same, with its own arguments, directory and streams, that
ends as any other does. What forks have in common (the seed of hashes, the state of `random`) could
hide that a run depends on it: of two runs that a test holds against each other one is made with
`interpreter=True`, in a new interpreter, as `finished_run` is.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT = 600
LIBRARIES = [
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen3.modeling_qwen3",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "scipy.optimize",
    "matplotlib.figure",
    "sympy",
    "peft",
]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def branchdiag(
    *arguments: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    interpreter: bool = False,
    program: str = "branchdiag.__main__",
) -> Ended:
    """Run the command line in a process of its own.

    Args:
        env: to add to the environment; libraries may read it as they are imported, so the
            interpreter is a new one then.
        interpreter: whether it must be one.
        program: the module whose `main` is run; one that kills itself, for instance.
    """
    if env or interpreter or sys.platform != "linux":
        done = subprocess.run(
            [sys.executable, "-m", program, *arguments],
            cwd=cwd,
            # The programs of the tests are not installed.
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams) / "out", Path(streams) / "err"
        process = context.Process(
            target=_main,
            args=(program, arguments, str(cwd), str(out), str(err), dict(os.environ)),
        )
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{arguments} took more than {TIMEOUT} s")
        return Ended(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


def _main(
    program: str,
    arguments: tuple[str, ...],
    cwd: str,
    out: str,
    err: str,
    environment: dict[str, str],
) -> None:
    """What `python -m program` does."""
    for number, path in ((1, out), (2, err)):
        with Path(path).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    try:
        sys.exit(importlib.import_module(program).main())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
