"""What the options of the command line mean."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from branchdiag.cli.run import ProgressStyle, build_request, parse_phases, run_name
from branchdiag.errors import BranchdiagError, MissingRequirement, UsageError


def request(**changes: object) -> object:
    options: dict[str, object] = {
        **dict.fromkeys(("model", "teacher", "problems", "limit", "protocol", "settings")),
        "engine": None,
        "out": None,
        "seed": 0,
        "progress": ProgressStyle.none,
    }
    return build_request(**(options | changes))  # type: ignore[arg-type]


def test_without_options_the_bundled_model_and_protocol() -> None:
    made = request()
    assert made.model is None and made.protocol.name == "bundled"
    assert made.out == Path("runs/bundled")
    assert made.problems == made.protocol.problems


def test_with_a_model_alone_the_papers_protocol_and_problems() -> None:
    made = request(model="Qwen/Qwen3-4B")
    assert made.protocol.name == "paper"
    assert made.problems == ("math500:24", "aime2024", "aime2025")
    assert made.out == Path("runs/Qwen-Qwen3-4B-paper")


def test_the_users_own_win() -> None:
    made = request(problems=["a.jsonl"], settings=["continuation.rollouts=2"], out=Path("x"))
    assert made.problems == ("a.jsonl",)
    assert made.protocol.continuation.rollouts == 2
    assert made.out == Path("x")


def test_the_same_command_names_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-100").mkdir()
    os.chdir(tmp_path)
    assert run_name("./checkpoint-100", "paper") == "checkpoint-100-paper"
    assert run_name(str(tmp_path / "checkpoint-100") + "/", "paper") == "checkpoint-100-paper"
    assert run_name("org/name@main", "mine") == "org-name-main-mine"


@pytest.mark.parametrize(
    ("text", "letters"), [("A", "A"), ("b-d", "BCD"), (" E-G ", "EFG"), ("C-C", "C")]
)
def test_ranges_of_phases(text: str, letters: str) -> None:
    assert parse_phases(text) == letters


@pytest.mark.parametrize("text", ["H", "D-B", "", "A-", "AB"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_phases(text)


def test_errors_cross_processes_whole() -> None:
    error = MissingRequirement("what", where="where", fix="fix")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, BranchdiagError) and str(copy) == str(error)
    assert copy.exit_status == 5
