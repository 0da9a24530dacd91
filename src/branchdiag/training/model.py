"""The model that is trained: a base model without gradients, and a LoRA adapter with them.

Loads models by `models`; writes nothing. Knows no loss. The adapter's weights are float32 whatever
the base model's type; they are drawn from the run's seed, so that every process has the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from branchdiag.adapters import needs_training_packages
from branchdiag.errors import UsageError
from branchdiag.models import ResolvedModel, load_model, use_one_thread_if_small
from branchdiag.protocol import EngineSettings
from branchdiag.store.fingerprint import derive_seed
from branchdiag.training.settings import LoraSettings, TrainSettings


def load_trained_model(
    resolved: ResolvedModel, settings: TrainSettings, device: torch.device
) -> Any:
    """The base model on its device with a new adapter on it: a PEFT model.

    Raises:
        MissingRequirement: peft is not installed, or the model cannot be had.
        UsageError: the model cannot be loaded, or has no layers of the adapter's names.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise needs_training_packages(error) from error
    compute = settings.compute
    on_gpu = device.type != "cpu"
    base: Any = load_model(
        resolved,
        EngineSettings(
            dtype="bfloat16" if compute.dtype == "auto" and on_gpu else compute.dtype,
            attention=compute.attention,
            trust_remote_code=compute.trust_remote_code,
        ),
        str(device),
    )
    use_one_thread_if_small(base)
    _check_targets(base, settings.lora)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora.dropout,
        target_modules=list(settings.lora.targets),
        revision=resolved.revision,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(settings.seed, "adapter"))
        adapted: Any = get_peft_model(base, config)
    # PEFT writes the directory that was loaded: of a hub model, the cache of this machine.
    adapted.active_peft_config.base_model_name_or_path = _written_name(resolved)
    wanted = compute.gradient_checkpointing
    if on_gpu if wanted is None else wanted:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return adapted


def trained_parameters(adapted: Any) -> list[torch.nn.Parameter]:
    """The adapter's weights, in one order everywhere."""
    return [parameter for parameter in adapted.parameters() if parameter.requires_grad]


@contextmanager
def untrained(adapted: Any) -> Iterator[None]:
    """Inside, the adapter adds nothing: the model that training began from."""
    second = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    held = [parameter.data for parameter in second]
    try:
        for parameter in second:
            parameter.data = torch.zeros_like(parameter.data)
        yield
    finally:
        for parameter, data in zip(second, held, strict=True):
            parameter.data = data


def make_optimizer(adapted: Any, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with PyTorch's betas and epsilon over the adapter's weights."""
    return torch.optim.AdamW(
        trained_parameters(adapted),
        lr=settings.optimizer.learning_rate,
        weight_decay=settings.optimizer.weight_decay,
    )


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Of the step after `step` steps: linear from the first to 0 at the horizon, no warm-up."""
    horizon = settings.optimizer.horizon_steps
    return settings.optimizer.learning_rate * max(0, horizon - step) / horizon


def _written_name(resolved: ResolvedModel) -> str:
    """What the adapter calls its base model: a hub id, or the directory."""
    return resolved.path if resolved.revision is None else resolved.name.partition("@")[0]


def _check_targets(base: Any, settings: LoraSettings) -> None:
    names = [name for name, _ in base.named_modules()]
    lacking = [
        target
        for target in settings.targets
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if lacking or not settings.targets:
        kinds = {name.rpartition(".")[2] for name, module in base.named_modules()
                 if isinstance(module, torch.nn.Linear)}  # fmt: skip
        raise UsageError(
            f"the model has no layer named {', '.join(lacking) or 'in an empty list'}",
            where="lora.targets",
            fix=f"its linear layers are {', '.join(sorted(kinds))}",
        )
