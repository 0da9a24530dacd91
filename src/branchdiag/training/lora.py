"""The student whose adapter is trained: a base model without gradients, LoRA matrices with them.

Writes and reads adapters in PEFT's format. Knows no loss and no step. The adapter is float32
whatever the base model's type; it is drawn from the run's seed, so that every process has the same.
(arXiv 2106.09685; rank and targets: arXiv 2605.21606, appendix I.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from branchdiag.adapters import WEIGHTS, needs_training_packages
from branchdiag.errors import UsageError
from branchdiag.models import ResolvedModel
from branchdiag.store.fingerprint import derive_seed
from branchdiag.training.settings import LoraSettings
from branchdiag.training.student import Student, Weights


class LoraStudent(Student):
    """See the module.

    Args:
        base: the base model, without gradients.
        resolved: where it is from; the adapter names it.
        settings: rank, scale, dropout and layers.
        seed: of the run.

    Raises:
        MissingRequirement: peft is not installed.
        UsageError: the model has no layers of the adapter's names.
    """

    def __init__(
        self, base: Any, resolved: ResolvedModel, settings: LoraSettings, seed: int
    ) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise needs_training_packages(error) from error
        _check_targets(base, settings)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.r,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
            revision=resolved.revision,
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "adapter"))
            self.adapted: Any = get_peft_model(base, config)
        # PEFT writes the directory that was loaded: of a hub model, the cache of this machine.
        self.adapted.active_peft_config.base_model_name_or_path = _written_name(resolved)
        super().__init__(base, self.adapted.named_parameters())

    def kept(self) -> Weights:
        """The base model's: the adapter is disabled for the pass."""
        return Weights(self.own.head, self.adapted.disable_adapter)

    def decoding(self) -> AbstractContextManager[None]:
        """The adapter is added to the base weights, where that rounds nothing."""
        return merged_weights(self.adapted)

    def write(self, directory: Path) -> None:
        """The adapter as PEFT writes it, without PEFT's own card."""
        self.adapted.save_pretrained(str(directory), save_embedding_layers=False)
        (directory / "README.md").unlink(missing_ok=True)

    def write_checkpoint(self, directory: Path) -> None:
        """The adapter, as in the result."""
        self.write(directory)

    def read_checkpoint(self, directory: Path) -> None:
        """See `Student`."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        result: Any = set_peft_model_state_dict(self.adapted, load_file(directory / WEIGHTS))
        lacking = [name for name in result.missing_keys if "lora_" in name]
        if lacking or result.unexpected_keys:
            raise ValueError(f"tensors differ: {[*lacking, *result.unexpected_keys][0]}")


@contextmanager
def merged_weights(model: Any) -> Iterator[None]:
    """The adapter added to the base weights inside, in float32; afterwards the very same tensors.

    Halves the time of a decoding step of a small model. Of a base model in bfloat16 the adapter is
    left beside the weights: rounded into them it would be another policy than the one trained.
    """
    layers = [module for module in model.modules() if hasattr(module, "get_delta_weight")]
    weights = [layer.get_base_layer().weight for layer in layers]
    if any(weight.dtype != torch.float32 for weight in weights):
        yield
        return
    held = [weight.data for weight in weights]
    try:
        with model.disable_adapter():
            with torch.no_grad():
                for layer, weight in zip(layers, weights, strict=True):
                    weight.data = weight.data + layer.get_delta_weight(model.active_adapter)
            yield
    finally:
        for weight, data in zip(weights, held, strict=True):
            weight.data = data


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
