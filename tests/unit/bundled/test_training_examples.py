"""What the bundled model is trained on: both prompts, both modes, nothing held out."""

from __future__ import annotations

import itertools

import pytest

from branchdiag.bundled import examples, measure, problem_sets, prompts, task, wording
from branchdiag.bundled.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(n_problems=500)


@pytest.fixture(scope="module")
def drawn(tokenizer):
    source = examples.examples(tokenizer, seed=5)
    return [
        (tokenizer.decode(e.prompt_ids), tokenizer.decode(e.completion_ids))
        for e in itertools.islice(source, 1500)
    ]


def test_both_prompts_and_both_modes_are_drawn(drawn):
    marks = {
        "answer": prompts.TEACHER_ANSWER_PROMPT.split("\n")[1].split("{")[0],
        "solution": prompts.TEACHER_SOLUTION_PROMPT.split("\n")[1].split("{")[0],
    }
    shares = {
        k: sum(mark in prompt for prompt, _ in drawn) / len(drawn) for k, mark in marks.items()
    }
    assert shares["answer"] == pytest.approx(examples.SHARE_TEACHER_ANSWER, abs=0.05)
    assert shares["solution"] == pytest.approx(examples.SHARE_TEACHER_SOLUTION, abs=0.05)
    closed = sum(prompt.endswith("</think>\n\n") for prompt, _ in drawn) / len(drawn)
    assert closed == pytest.approx(examples.SHARE_NO_THINKING, abs=0.03)


def test_only_prompts_that_show_the_answer_have_solutions_that_lean_on_it(drawn):
    leaning = [prompt for prompt, text in drawn if wording.SHORTCUT in text]
    assert leaning
    assert all("The answer is known" in prompt for prompt in leaning)


def test_every_completion_ends_in_one_boxed_answer_and_the_end_of_turn(drawn):
    for prompt, text in drawn:
        assert text.count("\\boxed{") == 1
        assert text.endswith("}<|im_end|>")
        assert ("</think>" in prompt) != ("</think>" in text)
        if "The answer is known: " in prompt:
            known = prompt.split("The answer is known: ")[1].split(".")[0]
            assert measure.boxed_answer(text) == known


def test_no_example_is_of_a_held_out_problem(drawn):
    held_out = {row["problem"] for rows in problem_sets.draw_sets().values() for row in rows}
    for prompt, _ in drawn:
        assert not any(text in prompt for text in held_out)
    source = examples.examples(build_tokenizer(n_problems=50), seed=1)
    seen = 0
    make = task.make_problem

    def watched(*arguments, **options):
        nonlocal seen
        problem = make(*arguments, **options)
        seen += problem.is_held_out
        return problem

    # A generator that drew a held-out problem drops it: over 400 draws some were drawn.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "make_problem", watched)
        list(itertools.islice(source, 400))
    assert seen > 10


def test_prompt_and_completion_tokens_are_those_of_the_joined_text(tokenizer):
    source = examples.examples(tokenizer, seed=3)
    for example in itertools.islice(source, 200):
        joined = tokenizer.decode(example.prompt_ids + example.completion_ids)
        assert tokenizer(joined).input_ids == example.prompt_ids + example.completion_ids
