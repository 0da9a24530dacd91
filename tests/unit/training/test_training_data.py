"""Prompts of both roles, what is left out and held out, and the order of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from branchdiag.errors import UsageError
from branchdiag.models import load_tokenizer, resolve
from branchdiag.prompt_texts import TEACHER_SOLUTION_PROMPT
from branchdiag.training.data import TrainingData, load_data, prompt_ids
from branchdiag.training.settings import TrainSettings
from tests.tiny_models import tiny_model
from tests.unit.training.tiny_runs import write_problems, write_settings


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(resolve(str(tiny_model())))


def load(tmp_path: Path, tokenizer: Any, *changes: str, n: int = 24) -> TrainingData:
    data = write_problems(tmp_path / "problems.jsonl", n)
    settings = TrainSettings.load(write_settings(tmp_path), [f'data=["{data}"]', *changes])
    return load_data(settings, tokenizer, 512)


def test_student_and_teacher_see_their_own_prompts(tmp_path: Path, tokenizer: Any) -> None:
    data = load(tmp_path, tokenizer, "held_out.problems=0")
    texts = [tokenizer.decode(ids) for ids in (data.prompts[3].student_ids,
                                               data.prompts[3].teacher_ids)]  # fmt: skip
    assert "3 + 3 = ?" in texts[0] and "Solved" not in texts[0]
    assert "3 + 3 = ? Solved: It is \\boxed{6}" in texts[1]
    answer = load(tmp_path, tokenizer, "teacher.context=answer", "held_out.problems=0")
    assert "3 + 3 = ? It is 6." in tokenizer.decode(answer.prompts[3].teacher_ids)
    none = load(tmp_path, tokenizer, "teacher.context=none", "held_out.problems=0")
    assert none.prompts[3].teacher_ids == none.prompts[3].student_ids


def test_the_solution_prompt_is_the_published_one() -> None:
    assert TrainSettings().teacher.prompts.solution == TEACHER_SOLUTION_PROMPT
    assert "=== Reference Solution End ===\n\n\nAfter reading" in TEACHER_SOLUTION_PROMPT
    assert TEACHER_SOLUTION_PROMPT.endswith(
        "if something doesn't work out:\n\nPlease reason step by step, and put your final answer "
        "within \\boxed{}."
    )


def test_held_out_problems_are_not_trained_on(tmp_path: Path, tokenizer: Any) -> None:
    data = load(tmp_path, tokenizer)
    trained = {pair.problem_id for pair in data.prompts}
    held_out = {pair.problem_id for pair in data.held_out}
    assert len(held_out) == 2 and len(trained) == 22 and not trained & held_out
    assert load(tmp_path, tokenizer, n=9).held_out == ()  # at most a tenth


def test_a_step_is_a_function_of_its_number(tmp_path: Path, tokenizer: Any) -> None:
    data = load(tmp_path, tokenizer)
    batches = [data.batch(step, 4, seed=1) for step in range(11)]  # 44 places: two passes
    assert data.batch(7, 4, seed=1) == batches[7] and data.batch(7, 4, seed=2) != batches[7]
    places = [place for batch in batches for place in batch]
    for epoch in (0, 1):
        seen = [pair.problem_id for number, pair in places if number == epoch]
        assert len(seen) == 22 == len(set(seen))
    assert len(data.batch(0, 50, seed=1)) == 50  # a batch larger than the data


def test_problems_that_do_not_fit_are_left_out_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "long.jsonl"
    rows = [{"problem": "1 + 1 = ?" + " please" * n, "solution": "\\boxed{2}"} for n in (0, 90)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = TrainSettings.load(write_settings(tmp_path), [f'data=["{path}"]'])
    data = load_data(settings, tokenizer, 512)
    assert len(data.prompts) == 1 and data.too_long == 1
    with pytest.raises(UsageError, match="no problem fits: the shortest prompt has"):
        load_data(settings.model_copy(update={"max_length": 20}), tokenizer, 512)


def test_an_answer_that_nobody_is_shown_need_not_be_there(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"problem": "Why?", "solution": "Because."}) + "\n")
    settings = TrainSettings.load(write_settings(tmp_path), [f'data=["{path}"]'])
    assert len(load_data(settings, tokenizer, 512).prompts) == 1
    with pytest.raises(UsageError, match="answer"):
        load_data(
            TrainSettings.load(
                write_settings(tmp_path), [f'data=["{path}"]', "teacher.context=answer"]
            ),
            tokenizer,
            512,
        )
    path.write_text(json.dumps({"problem": "1 + 1?", "answer": "2"}) + "\n")
    with pytest.raises(UsageError, match="solution"):
        load_data(settings, tokenizer, 512)


@pytest.mark.parametrize(
    ("template", "thinking", "block", "tail"),
    [
        ("honour", True, "rendered", "assistant\n"),
        ("honour", True, "opened", "assistant\n<think>\n"),
        ("honour", True, "closed", "assistant\n"),
        ("honour", False, "closed", "<think>\n\n</think>\n\n"),
        ("force", True, "rendered", "<think>\n"),
        ("force", True, "closed", "<think>\n</think>\n\n"),
        ("force", True, "opened", "<think>\n"),
        ("force", False, "rendered", "<think>\n</think>\n\n"),
    ],
)
def test_think_blocks_are_closed_and_opened_a_role(
    template: Any, thinking: bool, block: Any, tail: str
) -> None:
    own = load_tokenizer(resolve(str(tiny_model(thinking=template))))
    ids = prompt_ids(own, "1 + 1?", thinking=thinking, think_block=block)
    assert own.decode(ids).endswith(tail)
    assert not own.decode(ids).removesuffix(tail).endswith("</think>\n\n")
