"""The prompts that the bundled model was trained on, as format strings over a problem's fields.

Each is the whole user message; the chat template of the tokenizer goes around it. They are the ones
that the bundled protocol uses: another wording is off the model's training distribution.
"""

from __future__ import annotations

STUDENT_PROMPT = "{problem}"
"""What the student sees: the problem and nothing else."""

TEACHER_ANSWER_PROMPT = "{problem}\nThe answer is known: {answer}."
"""The privileged teacher that is shown the answer."""

TEACHER_SOLUTION_PROMPT = "{problem}\nA solution is known: {solution}"
"""The privileged teacher that is shown a reference solution."""

TEACHER_NONE = STUDENT_PROMPT
"""A teacher without privilege: the student's own prompt."""
