"""From a model's files and the settings to what is trained, its optimizer and its learning rate.

Loads models by `models`; writes nothing. Knows no loss. What differs between an adapter and all
weights is `student`'s.
"""

from __future__ import annotations

from typing import Any

import torch

from branchdiag.models import ResolvedModel, load_model, use_one_thread_if_small
from branchdiag.protocol import EngineSettings
from branchdiag.training.full import FullStudent
from branchdiag.training.lora import LoraStudent
from branchdiag.training.settings import TrainSettings
from branchdiag.training.student import Student


def load_student(resolved: ResolvedModel, settings: TrainSettings, device: torch.device) -> Student:
    """The model on its device with a new adapter on it, or ready for all its weights to be trained.

    Raises:
        MissingRequirement: peft is not installed, or the model cannot be had.
        UsageError: the model cannot be loaded, or has no layers of the adapter's names.
    """
    compute = settings.compute
    on_gpu = device.type != "cpu"
    model: Any = load_model(
        resolved,
        EngineSettings(
            dtype="bfloat16" if compute.dtype == "auto" and on_gpu else compute.dtype,
            attention=compute.attention,
            trust_remote_code=compute.trust_remote_code,
        ),
        str(device),
    )
    use_one_thread_if_small(model)
    student: Student = (
        FullStudent(model, resolved)
        if settings.tuning == "full"
        else LoraStudent(model, resolved, settings.lora, settings.seed)
    )
    wanted = compute.gradient_checkpointing
    if on_gpu if wanted is None else wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return student


def make_optimizer(student: Student, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with PyTorch's betas and epsilon over the trained weights."""
    return torch.optim.AdamW(
        student.trained.values(),
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
    )


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Of the step after `step` steps: linear from the first to 0 at the horizon, no warm-up."""
    horizon = settings.optimizer.horizon_steps
    return settings.optimizer.learning_rate * max(0, horizon - step) / horizon
