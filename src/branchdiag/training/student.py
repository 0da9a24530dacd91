"""The student as the rest of training sees it: a model to run, weights to move, files to write.

The one place where training an adapter and training all weights differ: `lora` and `full` are the
two kinds. Reads and writes what its files are in a checkpoint and in the result, where it is told
to. Knows no prompt, no loss, no step and no teacher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from branchdiag.training.output_head import OutputHead, output_head


@dataclass(frozen=True)
class Weights:
    """Weights that the student's model can be run with."""

    head: OutputHead
    inside: Callable[[], AbstractContextManager[None]] = nullcontext
    """Within it the model computes with them."""


class Student(ABC):
    """What is trained.

    Args:
        model: a causal language model.
        parameters: its parameters by name; those that require gradients are trained.

    Attributes:
        model: as given; its body makes hidden states, and the engine decodes with it.
        trained: what the optimizer moves, float32 (or float64), by name, in one order everywhere.
        own: the weights as they are at any moment.

    Raises:
        UsageError: the model's output head cannot be taken out of it.
    """

    def __init__(self, model: Any, parameters: Iterable[tuple[str, Parameter]]) -> None:
        self.model = model
        self._places = {name: place for name, place in parameters if place.requires_grad}
        self.trained = dict(self._places)
        self.own = Weights(output_head(model))

    @abstractmethod
    def kept(self) -> Weights:
        """The weights that training begins from, which stay what they are; asked for before it."""

    def exchanged(self, values: Mapping[str, Tensor]) -> Weights:
        """Others in the place of the trained ones, rounded to the model's type where that is less.

        Storage is exchanged for the time of a pass: nothing is rounded on the way back.

        Args:
            values: one for each of `trained`.
        """
        rounded = {name: values[name].to(place.dtype) for name, place in self._places.items()}

        @contextmanager
        def inside() -> Iterator[None]:
            held = {name: place.data for name, place in self._places.items()}
            try:
                for name, place in self._places.items():
                    place.data = rounded[name]
                yield
            finally:
                for name, place in self._places.items():
                    place.data = held[name]

        return Weights(self._head_of(rounded), inside)

    def _head_of(self, values: Mapping[str, Tensor]) -> OutputHead:
        """The model's head with these values, as far as it is trained (embeddings may be tied)."""
        names = {id(place): name for name, place in self._places.items()}
        head = self.own.head
        name, bias = names.get(id(head.weight_Vd)), names.get(id(head.bias_V))
        return OutputHead(
            head.weight_Vd if name is None else values[name],
            head.bias_V if bias is None else values[bias],
            head.softcap,
        )

    def after_step(self) -> None:  # noqa: B027 (nothing to do, unless a kind has something)
        """`trained` has been moved: let the model follow."""

    def decoding(self) -> AbstractContextManager[None]:
        """Within it the model decodes as fast as it can, with the weights of the moment."""
        return nullcontext()

    def remark(self, teacher: str) -> str | None:
        """What a user should know of it before training, given the kind of teacher."""
        return None

    @abstractmethod
    def write(self, directory: Path) -> None:
        """The result, but for its card."""

    @abstractmethod
    def write_checkpoint(self, directory: Path) -> None:
        """All of `trained`, exactly."""

    @abstractmethod
    def read_checkpoint(self, directory: Path) -> None:
        """Take up what `write_checkpoint` wrote.

        Raises:
            Exception: it cannot be read, or is that of another model.
        """
