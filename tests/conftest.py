"""Shared fixtures: a finished run on the bundled model, made once a session."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.command_line import branchdiag

SMALL = (
    "--limit=30",
    "--set=continuation.rollouts=3",
    "--set=label.min_finished=2",
    "--set=report.resamples=300",
    "--set=report.permutations=200",
)
"""A run on a few problems, small enough for a test and whole in every other way."""


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on the bundled model. Read only: tests that change it copy it."""
    cwd = tmp_path_factory.mktemp("finished")
    ended = branchdiag(
        *("run-all", *SMALL, "--out=run", "--progress=plain"), cwd=cwd, interpreter=True
    )
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
