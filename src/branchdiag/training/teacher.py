"""Who the teacher is: the model without its adapter, as it is now, or averaged over steps.

Each teacher gives hidden states of the teacher's sequences, without gradients and without dropout;
the average reads the trained weights after each step. Knows no prompt and no loss. (Fixed: the
choice of arXiv 2605.21606 and of the released code; the average: decay 0.999, trained weights
alone.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from branchdiag.training.rollouts import evaluation_mode
from branchdiag.training.settings import TeacherRoleSettings
from branchdiag.training.step import Rows, states_of


class Teacher(Protocol):
    """Gives the teacher's hidden states."""

    def states(self, rows: Rows) -> Tensor:
        """[B, T, d], no gradient."""
        ...

    def after_step(self) -> None:
        """The student has been updated."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up a checkpoint's."""
        ...


class Current:
    """The student's own weights of the moment, shown more."""

    def __init__(self, adapted: Any) -> None:
        self._adapted, self._model = adapted, adapted.get_base_model()

    def states(self, rows: Rows) -> Tensor:
        """See `Teacher`."""
        with torch.no_grad(), evaluation_mode(self._model), self._weights():
            return states_of(self._model, rows.teacher)

    def after_step(self) -> None:
        """Nothing to do."""

    def state(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up."""

    @contextmanager
    def _weights(self) -> Iterator[None]:
        yield


class Fixed(Current):
    """The model that training began from: its adapter is disabled for the pass."""

    @contextmanager
    def _weights(self) -> Iterator[None]:
        with self._adapted.disable_adapter():
            yield


class Averaged(Current):
    """An exponential moving average of the trained weights; before the first step, the student."""

    def __init__(self, adapted: Any, decay: float) -> None:
        super().__init__(adapted)
        self._decay = decay
        self._trained: dict[str, Tensor] = {
            name: parameter for name, parameter in adapted.named_parameters()
            if parameter.requires_grad
        }  # fmt: skip
        self._average = {name: value.detach().clone() for name, value in self._trained.items()}

    def after_step(self) -> None:
        """average = decay * average + (1 - decay) * weights."""
        with torch.no_grad():
            for name, value in self._average.items():
                value.lerp_(self._trained[name].detach(), 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        """The average."""
        return self._average

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up an average."""
        for name, value in self._average.items():
            value.copy_(state[name])

    @contextmanager
    def _weights(self) -> Iterator[None]:
        """Exchange the storage for the time of the pass: nothing is rounded on the way back."""
        held = {name: parameter.data for name, parameter in self._trained.items()}
        try:
            for name, parameter in self._trained.items():
                parameter.data = self._average[name]
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data = held[name]


def make_teacher(adapted: Any, settings: TeacherRoleSettings) -> Teacher:
    """The teacher that the settings name, for a PEFT model whose adapter is being trained."""
    if settings.kind == "ema":
        return Averaged(adapted, settings.ema_decay)
    return Fixed(adapted) if settings.kind == "fixed" else Current(adapted)
