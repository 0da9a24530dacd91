r"""What others grade wrong, through the evaluation's own path: text -> answer -> grade -> vote.

The false positives and negatives are those found in a released evaluation with math-verify 0.8.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from branchdiag.answers.pool import GradingPool
from branchdiag.evaluation.grading import answer_of, grade_group
from branchdiag.evaluation.settings import GradingSettings
from branchdiag.phases.base import Done, Failed


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=1, timeout_s=20.0) as made:
        yield made


def graded(texts: Sequence[str], gold: str, pool: GradingPool, **settings: Any) -> dict[str, Any]:
    rule = GradingSettings(**settings)
    rows = [
        {
            "sample": i,
            "text": text,
            "thinking_open": True,
            "finish_reason": "length" if text.endswith("...") else "stop",
            "n_tokens": 10,
        }
        for i, text in enumerate(texts)
    ]
    outcome = grade_group(("m", "p", 0), [answer_of(row, rule) for row in rows], gold, pool)
    assert isinstance(outcome, Done), outcome
    (found,) = outcome.rows["outcomes"]
    return {**found, "grades": outcome.rows["grades"]}


RIGHT = [
    (r"so \boxed {5}", "5"),
    (r"so \boxed 5.", "5"),
    (r"so \fbox{5}", "5"),
    (r"\boxed{5}</think> I will put the answer in \boxed", "5"),
    (r"\boxed{5} and then \boxed{6 ...", "5"),
    (r"\boxed{\$18.90}", "18.90"),
    (r"\boxed{1/2}", "0.5"),
    (r"\boxed{2,1}", "1,2"),
    (r"\boxed{10\%}", "0.1"),
    (r"\boxed{042}", "42"),
]
WRONG = [
    (r"\boxed{}", "5"),
    (r"no box at all: 5", "5"),
    (r"\boxed{4210_5}", "4210_7"),
    (r"\boxed{sey}", "yes"),
    (r"\boxed{Evelny}", "Evelyn"),
    (r"\boxed{24:60}", "12:30"),
    (r"\boxed{0.3333}", "1/3"),
    (r"\boxed{5}, no: \boxed{6}", "5"),
]


@pytest.mark.parametrize(("text", "gold"), RIGHT)
def test_what_others_miss_is_right(text: str, gold: str, pool: GradingPool) -> None:
    found = graded([text], gold, pool)
    assert (found["n_correct"], found["majority_correct"]) == (1, True), found["grades"]


@pytest.mark.parametrize(("text", "gold"), WRONG)
def test_what_others_accept_is_wrong(text: str, gold: str, pool: GradingPool) -> None:
    found = graded([text], gold, pool)
    assert (found["n_correct"], found["majority_correct"]) == (0, False), found["grades"]


def test_an_empty_box_is_no_answer_and_not_formatted(pool: GradingPool) -> None:
    found = graded([r"\boxed{}", r"nothing", r"\boxed{7}", r"cut \boxed{7..."], "7", pool)
    assert [row["cluster"] for row in found["grades"]] == [0, 0, 1, 0]
    assert (found["n_formatted"], found["n_truncated"], found["n_correct"]) == (1, 1, 1)
    assert found["majority_correct"] is False  # three invalid samples outvote it


def test_spellings_of_one_answer_vote_together(pool: GradingPool) -> None:
    texts = [r"\boxed{3}", r"\boxed{0.5}", r"\boxed{\frac12}", r"\boxed{3}", r"\boxed{1/2}"]
    found = graded(texts, "0.5", pool)
    assert [row["cluster"] for row in found["grades"]] == [0, 1, 1, 0, 1]
    assert (found["majority_sample"], found["majority_votes"]) == (1, 3)
    assert found["majority_correct"] is True


def test_answers_inside_thinking_count_unless_the_rule_says_otherwise(pool: GradingPool) -> None:
    texts = [r"\boxed{5} still thinking", r"hm</think> \boxed{5}"]
    assert graded(texts, "5", pool)["n_correct"] == 2
    strict = graded(texts, "5", pool, answer_rule="after_thinking")
    assert [row["correct"] for row in strict["grades"]] == [False, True]
    assert strict["grades"][0]["extraction"] == "unclosed_thinking"


def test_a_grade_that_is_missing_is_a_failure_and_never_a_wrong_answer(pool: GradingPool) -> None:
    rule = GradingSettings()
    row = {"sample": 3, "text": r"\boxed{5}", "thinking_open": False, "n_tokens": 1}
    answer = answer_of({**row, "finish_reason": "stop"}, rule)
    outcome = grade_group(("m", "p", 0), [answer], "   ", pool)  # no reference answer
    assert isinstance(outcome, Failed)
    assert outcome.kind == "MissingGrade"
    assert "sample 3 (no_gold)" in outcome.message
