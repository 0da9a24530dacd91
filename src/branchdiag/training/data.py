"""The prompts that are trained on: both roles' token ids for every problem, and their order.

Reads problem sources and a tokenizer; writes nothing. Knows no model and no step. What a step
trains on is a pure function of (seed, step), so that a resumed run needs no position but its step.
Teacher prompts: a reference solution (arXiv 2601.18734), the answer alone (arXiv 2605.21606,
appendix A), nothing, or a file's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from branchdiag.errors import UsageError
from branchdiag.problems import Problem, data_identity, load_problems
from branchdiag.prompts import (
    CLOSE_THINKING,
    CONTEXTS,
    Template,
    fill,
    opens_thinking,
    parse_template,
    render,
    require_solutions,
    teacher_template,
)
from branchdiag.protocol import TeacherSettings
from branchdiag.store.fingerprint import derive_seed
from branchdiag.training.settings import ThinkBlock, TrainSettings

OPEN_THINKING = "<think>\n"
HELD_OUT_SHARE = 10
"""At most one in ten problems is held out."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """One problem as student and teacher are given it."""

    problem_id: str
    student_ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]


@dataclass(frozen=True)
class TrainingData:
    """What is trained on, what is held out, and where it is from."""

    prompts: tuple[Prompts, ...]
    held_out: tuple[Prompts, ...]
    too_long: int
    """Problems left out because prompt and rollout would not fit."""
    data_id: str
    provenance: list[dict[str, Any]]
    teacher_file: str | None = None
    """The teacher's template where it is a file's: settings hold its path alone."""

    def batch(self, step: int, size: int, seed: int) -> list[tuple[int, Prompts]]:
        """The prompts of a step (from 0), each with the number of its pass over the data."""
        places = range(step * size, (step + 1) * size)
        count = len(self.prompts)
        orders = {epoch: _order(count, seed, epoch) for epoch in {p // count for p in places}}
        return [(p // count, self.prompts[orders[p // count][p % count]]) for p in places]


def load_data(
    settings: TrainSettings,
    tokenizer: Any,
    context_length: int,
    revisions: Mapping[str, str] | None = None,
) -> TrainingData:
    """Load, render and divide the problems.

    Args:
        settings: data, prompts, lengths and the seed of the division.
        tokenizer: the model's.
        context_length: positions that the model was made for.
        revisions: repository -> commit of the data sets that a resumed run began with.

    Raises:
        UsageError: bad rows, a template that cannot be used, a missing solution, or no problem
            that fits.
        MissingRequirement: a data set of the hub that cannot be had.
    """
    student = parse_template(settings.student.prompt, where="student.prompt", allowed=("problem",))
    teacher = _teacher_template(settings)
    loaded = load_problems(
        [_source(text, teacher) for text in settings.data],
        seed=settings.seed,
        recorded_revisions=revisions,
    )
    require_solutions(teacher, loaded.problems)
    pairs = [_render(settings, tokenizer, student, teacher, p) for p in loaded.problems]
    limit = min(settings.max_length, context_length) - settings.rollout.max_new_tokens
    fitting = [
        pair for pair in pairs if max(len(pair.student_ids), len(pair.teacher_ids)) + 1 <= limit
    ]
    if not fitting:
        shortest = min(max(len(pair.student_ids), len(pair.teacher_ids)) for pair in pairs)
        raise UsageError(
            f"no problem fits: the shortest prompt has {shortest} tokens, and beside a rollout of "
            f"{settings.rollout.max_new_tokens} there is room for {max(limit - 1, 0)}",
            where="max_length, rollout.max_new_tokens",
            fix="--set rollout.max_new_tokens=… with a smaller number",
        )
    n_held_out = min(settings.held_out.problems, len(fitting) // HELD_OUT_SHARE)
    order = np.random.default_rng(derive_seed(settings.seed, "held out")).permutation(len(fitting))
    kept_out = set(order[:n_held_out].tolist())
    return TrainingData(
        prompts=tuple(pair for i, pair in enumerate(fitting) if i not in kept_out),
        held_out=tuple(pair for i, pair in enumerate(fitting) if i in kept_out),
        too_long=len(pairs) - len(fitting),
        data_id=data_identity(loaded),
        provenance=loaded.provenance,
        teacher_file=None if settings.teacher.context in CONTEXTS else teacher.text,
    )


def prompt_ids(
    tokenizer: Any, message: str, *, thinking: bool, think_block: ThinkBlock
) -> tuple[int, ...]:
    """A user message as token ids, its think block closed or opened as asked.

    Raises:
        UsageError: as `prompts.render`.
    """
    rendered = render(tokenizer, message, thinking=thinking)
    text = rendered.text
    if think_block == "closed" and opens_thinking(text):
        text += CLOSE_THINKING
    elif think_block == "opened" and not opens_thinking(text):
        text += OPEN_THINKING
    if text == rendered.text:
        return rendered.token_ids
    return tuple(int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"])


def _teacher_template(settings: TrainSettings) -> Template:
    role = settings.teacher
    return teacher_template(
        TeacherSettings(context=role.context, prompts=role.prompts), settings.student.prompt
    )


def _source(text: str, teacher: Template) -> str:
    """The source as the problem loader takes it: an answer nobody is shown need not be there."""
    wants_answer = "answer" in teacher.fields or "solution" not in teacher.fields
    if wants_answer or ",answer=" in text:
        return text
    mapped = [part for part in text.split(",")[1:] if part.startswith("solution=")]
    return f"{text},answer={mapped[0].removeprefix('solution=') if mapped else 'solution'}"


def _render(
    settings: TrainSettings, tokenizer: Any, student: Template, teacher: Template, problem: Problem
) -> Prompts:
    ours, theirs = settings.student, settings.teacher
    return Prompts(
        problem.problem_id,
        prompt_ids(
            tokenizer,
            fill(student, problem),
            thinking=ours.thinking,
            think_block=ours.think_block,
        ),
        prompt_ids(
            tokenizer,
            fill(teacher, problem),
            thinking=theirs.thinking,
            think_block=theirs.think_block,
        ),
    )


def _order(count: int, seed: int, epoch: int) -> Sequence[int]:
    """The order of the problems in one pass over the data."""
    generator = np.random.default_rng(derive_seed(seed, "order", epoch))
    order: list[int] = generator.permutation(count).tolist()
    return order
