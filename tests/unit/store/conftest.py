"""Rows that fit the tables of a run, and child processes, for the tests of the store."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest


def continuation_row(number: int, n_tokens: int = 12) -> dict[str, Any]:
    """A row of `continuations`; rows of different numbers have different keys and tokens."""
    return {
        "candidate_id": f"p{number // 4}@3",
        "problem_id": f"p{number // 4}",
        "arm": "control" if number % 2 else "child:7",
        "sample": number % 4 // 2,
        "seed": 2**62 + number,
        "prompt_hash": f"{number:016x}",
        "n_prompt_tokens": 9,
        "token_ids": [(number * 31 + step) % 151_936 for step in range(n_tokens)],
        "n_tokens": n_tokens,
        "finish_reason": "stop",
    }


@pytest.fixture
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    """``make_rows(first, stop)``: the rows of `continuations` with these numbers."""
    return lambda first, stop: [continuation_row(number) for number in range(first, stop)]


@pytest.fixture
def start_python() -> Any:
    """Starts a child that runs a script and talks over pipes; ends those still running."""
    children: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
