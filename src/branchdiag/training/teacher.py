"""Who the teacher is: the model that training began from, the student as it is, or its average.

Each teacher gives hidden states of the teacher's sequences and the output head that belongs to
them, without gradients and without dropout; the average reads the trained weights after each step.
Knows no prompt and no loss. (Fixed: the choice of arXiv 2605.21606 and of the released code; the
average: decay 0.999, trained weights alone.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from branchdiag.training.output_head import OutputHead
from branchdiag.training.rollouts import evaluation_mode
from branchdiag.training.settings import TeacherRoleSettings
from branchdiag.training.step import Rows, states_of
from branchdiag.training.student import Student, Weights


class Teacher:
    """The student's model with weights that no step changes, or with the student's own.

    Args:
        student: whose model is run.
        weights: those that it is run with.
    """

    def __init__(self, student: Student, weights: Weights) -> None:
        self._student, self._weights = student, weights

    @property
    def head(self) -> OutputHead:
        """The output head of the states given until the next step."""
        return self._weights.head

    def states(self, rows: Rows) -> Tensor:
        """Hidden states [B, T, d], no gradient."""
        model = self._student.model
        with torch.no_grad(), evaluation_mode(model), self._weights.inside():
            return states_of(model, rows.teacher)

    def after_step(self) -> None:
        """The student has been updated."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up a checkpoint's."""


class Averaged(Teacher):
    """An exponential moving average of the trained weights; before the first step, the student."""

    def __init__(self, student: Student, decay: float) -> None:
        self._decay = decay
        self._average = {name: value.detach().clone() for name, value in student.trained.items()}
        super().__init__(student, student.exchanged(self._average))

    def after_step(self) -> None:
        """average = decay * average + (1 - decay) * weights."""
        with torch.no_grad():
            for name, value in self._average.items():
                value.lerp_(self._student.trained[name].detach(), 1 - self._decay)
        self._weights = self._student.exchanged(self._average)

    def state(self) -> dict[str, Tensor]:
        """The average."""
        return self._average

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up an average."""
        for name, value in self._average.items():
            value.copy_(state[name])
        self._weights = self._student.exchanged(self._average)


def make_teacher(student: Student, settings: TeacherRoleSettings) -> Teacher:
    """The teacher that the settings name, for a student that has taken no step."""
    if settings.kind == "ema":
        return Averaged(student, settings.ema_decay)
    return Teacher(student, student.kept() if settings.kind == "fixed" else student.own)
