"""The student whose weights are all trained: embeddings, blocks, norms and head.

Writes and reads whole weights. Knows no loss and no step.

A model in bfloat16 has a float32 copy of its weights beside it, which the optimizer moves; after
each step the model's are those, rounded. An update below half of a weight's last bit (of 8) would
be lost in the model's own type: at a rate of 5e-6 that of every weight above 0.002. Gradients are
added up in float32 as well: a micro-batch's is handed over, weight by weight, as the backward pass
makes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from branchdiag.adapters import write_whole
from branchdiag.models import ResolvedModel
from branchdiag.training.student import Student, Weights

CHECKPOINT = "weights.safetensors"
ADAM_BYTES = 8
"""Of AdamW's two averages, a weight."""
FLOAT32_BYTES = 4


class FullStudent(Student):
    """See the module.

    Args:
        model: the model to train, in the type that it computes with.
        resolved: where it is from: tokenizer and other files are copied from there.
    """

    def __init__(self, model: Any, resolved: ResolvedModel) -> None:
        model.requires_grad_(True)
        super().__init__(model, model.named_parameters())
        self._resolved = resolved
        self.trained = {name: _master_of(place) for name, place in self._places.items()}

    def kept(self) -> Weights:
        """A copy of the weights of now."""
        return self.exchanged({n: place.detach().clone() for n, place in self._places.items()})

    @torch.no_grad()
    def after_step(self) -> None:
        """Round the float32 weights into the model's."""
        for name, place in self._places.items():
            if self.trained[name] is not place:
                place.copy_(self.trained[name])

    def remark(self, teacher: str) -> str:
        """What is trained, what the teacher is, and the memory of it all but activations."""
        weights = sum(place.numel() for place in self._places.values())
        return (
            f"all {weights:,} weights are trained; {_TEACHERS[teacher]}; with gradients and "
            f"optimizer {self.memory_bytes(teacher) / 2**20:,.0f} MiB a process, and activations"
        )

    def memory_bytes(self, teacher: str) -> int:
        """Bytes of weights, gradients, optimizer and teacher, given the kind of teacher."""
        total = 0
        for name, place in self._places.items():
            own, rounded = place.element_size(), self.trained[name] is not place
            master = FLOAT32_BYTES if rounded else 0
            of_teacher = {"fixed": own, "current": 0, "ema": own + master}[teacher]
            each = own + master + self.trained[name].element_size() + ADAM_BYTES + of_teacher
            total += place.numel() * each
        return total

    def write(self, directory: Path) -> None:
        """The model in the type that it computed with: the very student that was trained."""
        write_whole(self.model, self._resolved, directory)

    def write_checkpoint(self, directory: Path) -> None:
        """Float32 weights, tied ones once."""
        from safetensors.torch import save_file

        save_file(
            {name: value.detach().contiguous() for name, value in self.trained.items()},
            directory / CHECKPOINT,
        )

    @torch.no_grad()
    def read_checkpoint(self, directory: Path) -> None:
        """See `Student`."""
        from safetensors import safe_open

        with safe_open(directory / CHECKPOINT, framework="pt") as file:
            odd = sorted(set(file.keys()) ^ self.trained.keys())
            if odd:
                raise ValueError(f"tensors differ: {odd[0]}")
            for name, value in self.trained.items():
                value.copy_(file.get_tensor(name))
        self.after_step()


_TEACHERS = {
    "fixed": "the teacher is a second copy of them, which stays as it is",
    "ema": "the teacher is a second copy of them, their average over steps",
    "current": "the teacher has the student's",
}


def _master_of(place: Parameter) -> Parameter:
    """What the optimizer moves: a parameter of the model itself, or a float32 copy of it."""
    if place.dtype in (torch.float32, torch.float64):
        return place
    master = Parameter(place.detach().float())

    def hand_over(place: Any) -> None:
        if master.grad is None:
            master.grad = place.grad.float()
        else:
            master.grad.add_(place.grad)
        place.grad = None

    place.register_post_accumulate_grad_hook(hand_over)  # type: ignore[no-untyped-call]
    return master
