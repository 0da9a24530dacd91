"""Training examples of the bundled model: prompts and completions as token ids, endless and seeded.

Every example is one problem under one of the prompts of `prompts`, in one of the template's two
modes, with a solution drawn anew. Held-out problems (`Problem.is_held_out`) are left out. Knows the
task and the tokenizer; knows no model and no optimizer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from branchdiag.bundled import prompts, task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARE_TEACHER_ANSWER = 0.28
SHARE_TEACHER_SOLUTION = 0.12
SHARE_LEAN = 0.35
"""Of the examples that show the answer: the solution leans on it (`task.write_solution`)."""
SHARE_NO_THINKING = 0.06
LINKS = (1, 5)
"""Definitions a plan goes through, from and to, drawn uniformly."""
CLUTTER = 0.5
"""Share of the statements that a problem may hold beside those it needs."""


@dataclass(frozen=True)
class Example:
    """Token ids of the rendered prompt and of what the model should write after it."""

    prompt_ids: list[int]
    completion_ids: list[int]


def completion_text(solution: str, answer: str, thinking: bool) -> str:
    """What the assistant writes: reasoning (in the think tags or not), then the boxed answer."""
    if thinking:
        return f"<think>\n{solution}\n</think>\n\n\\boxed{{{answer}}}<|im_end|>"
    return f"{solution}\n\n\\boxed{{{answer}}}<|im_end|>"


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, content: str, thinking: bool = True
) -> list[int]:
    """The chat template around one user message, as token ids."""
    return list(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_dict=False,
        )
    )


def examples(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Example]:
    """Endless examples, none of a held-out problem."""
    rng = random.Random(seed)
    while True:
        problem = task.make_problem(rng, n_links=rng.randint(*LINKS), clutter=CLUTTER)
        if problem.is_held_out:
            continue
        role = rng.random()
        lean = False
        fields = {"problem": problem.text, "answer": str(problem.answer)}
        template = prompts.STUDENT_PROMPT
        if role < SHARE_TEACHER_ANSWER:
            template = prompts.TEACHER_ANSWER_PROMPT
            lean = rng.random() < SHARE_LEAN
        elif role < SHARE_TEACHER_ANSWER + SHARE_TEACHER_SOLUTION:
            template = prompts.TEACHER_SOLUTION_PROMPT
            fields["solution"] = task.boxed_solution(problem, rng)
        thinking = rng.random() >= SHARE_NO_THINKING
        solution = task.write_solution(problem, rng, lean=lean)
        text = completion_text(solution, str(problem.answer), thinking)
        yield Example(
            prompt_ids(tokenizer, template.format(**fields), thinking),
            tokenizer(text).input_ids,
        )
