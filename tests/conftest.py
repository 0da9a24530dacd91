"""Shared fixtures: a finished run on the bundled model, made once a session."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "--limit=30",
    "--set=continuation.rollouts=3",
    "--set=label.min_finished=2",
    "--set=report.resamples=300",
    "--set=report.permutations=200",
)
"""A run on a few problems, small enough for a test and whole in every other way."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def branchdiag(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> Ended:
    """Run the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "branchdiag", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on the bundled model. Read only: tests that change it copy it."""
    cwd = tmp_path_factory.mktemp("finished")
    ended = branchdiag("run-all", *SMALL, "--out=run", "--progress=plain", cwd=cwd)
    assert ended.status == 0, ended.err
    return cwd / "run"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
    if importlib.util.find_spec("vllm") is None:
        skip = pytest.mark.skip(reason="vLLM is not installed here: make test-vllm")
        for item in items:
            if "vllm" in item.keywords:
                item.add_marker(skip)
    if any("gpu" in item.keywords for item in items):
        import torch

        if not torch.cuda.is_available():
            skip = pytest.mark.skip(reason="no CUDA device on this machine")
            for item in items:
                if "gpu" in item.keywords:
                    item.add_marker(skip)
