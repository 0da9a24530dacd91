"""Which problems are the same, what runs are called, and where a page may lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from branchdiag.errors import UsageError
from branchdiag.pipeline.compared_pairs import match_problems, means_by_problem
from branchdiag.pipeline.compared_runs import MAX_RUNS, labels_of, read_runs
from branchdiag.pipeline.comparing import check_out


def problems(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["problem_id", "problem", "answer"])


def test_a_problem_is_the_same_by_text_and_answer_and_not_by_name() -> None:
    first = problems(("a/1", "1+1?", "2"), ("a/2", "2+2?", "4"), ("a/3", "3+3?", "6"))
    second = problems(("b/9", "2+2? ", "4"), ("a/1", "1+1?", "3"), ("a/3", "3+3?", "6"))
    assert match_problems(first, second) == [("a/2", "b/9"), ("a/3", "a/3")]


def test_a_problem_that_is_there_twice_is_matched_by_name_as_well() -> None:
    twice = problems(("x", "q", "1"), ("y", "q", "1"))
    assert match_problems(twice, problems(("y", "q", "1"))) == [("y", "y")]
    assert match_problems(twice, problems(("z", "q", "1"))) == []
    assert match_problems(twice, twice) == [("x", "x"), ("y", "y")]


def test_means_by_problem_leave_missing_values_out() -> None:
    means = means_by_problem(
        np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 0, 2]), n_problems=3
    )
    assert means[0] == 2.0
    assert np.isnan(means[1:]).all()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/runs/a", "/r/runs/b"], ["a", "b"]),
        (["/x/runs/a", "/y/runs/a"], ["x/runs/a", "y/runs/a"]),
        (["/x/runs/a", "/y/runs/a", "/y/runs/b"], ["x/runs/a", "y/runs/a", "y/runs/b"]),
    ],
)
def test_labels_are_the_shortest_that_tell_runs_apart(paths: list[str], names: list[str]) -> None:
    assert labels_of([Path(path) for path in paths]) == names


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("compare.json", "not the name of a page"),
        ("folder.html", "is a directory"),
        ("run/compare.html", "lies inside run"),
        ("run/figures/../compare.html", "lies inside run"),
        ("link/compare.html", "lies inside run"),
    ],
)
def test_a_page_lies_outside_the_runs(tmp_path: Path, out: str, words: str) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "run" / "figures").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(UsageError, match=words) as caught:
        check_out(tmp_path / out, [tmp_path / "run"])
    assert caught.value.fix
    check_out(tmp_path / "beside.html", [tmp_path / "run"])


@pytest.mark.parametrize("n", [0, 1, MAX_RUNS + 1])
def test_too_few_and_too_many_runs_are_refused_before_any_is_read(n: int) -> None:
    with pytest.raises(UsageError) as caught:
        read_runs([Path(f"nowhere-{i}") for i in range(n)])
    assert caught.value.fix
