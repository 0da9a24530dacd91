"""The output head: the matrix that turns hidden states into logits, taken out of a model.

Reads a `transformers` causal model, with or without a PEFT adapter; writes an `OutputHead`. Knows
no loss. What is taken is checked once against the model's own logits on a few tokens, so that an
architecture that does more than this between hidden states and logits is refused, not mistrained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from branchdiag.errors import UsageError
from branchdiag.scoring.model_parts import body_of, same_numbers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_IDS = (0, 1, 2, 3)
"""Tokens on which head and model are compared; any will do."""


@dataclass(frozen=True)
class OutputHead:
    """Logits = softcap * tanh((h W^T + b) / softcap), or h W^T + b without soft-capping."""

    weight_Vd: Tensor
    """The model's own parameter, tied to the embeddings or not."""
    bias_V: Tensor | None = None
    softcap: float | None = None

    def cut(self, width: int) -> OutputHead:
        """The head of the first `width` ids: views, no copies."""
        bias_V = None if self.bias_V is None else self.bias_V[:width]
        return OutputHead(self.weight_Vd[:width], bias_V, self.softcap)

    def to(self, dtype: torch.dtype) -> OutputHead:
        """The head in another type, attached to the same parameters: bfloat16 projections of
        float32 weights, say."""
        bias_V = None if self.bias_V is None else self.bias_V.to(dtype)
        return OutputHead(self.weight_Vd.to(dtype), bias_V, self.softcap)

    def project(self, hidden_Td: Tensor, out_TV: Tensor) -> Tensor:
        """Products h W^T + b into `out_TV`, in the weight's type, before soft-capping."""
        if self.bias_V is None:
            return torch.mm(hidden_Td, self.weight_Vd.T, out=out_TV)
        return torch.addmm(self.bias_V, hidden_Td, self.weight_Vd.T, out=out_TV)


def output_head(model: PreTrainedModel | nn.Module) -> OutputHead:
    """The head of a causal model, checked against its logits on a few tokens.

    The parameters are the model's own, so that the head stays right while they are trained; take it
    again after parameters are replaced.

    Raises:
        UsageError: the head carries an adapter, is quantised or is no linear layer, or the model
            does more between hidden states and logits than a head does.
    """
    base: Any = model
    if hasattr(base, "get_base_model"):  # a PEFT model: its adapters sit inside the base model
        base = base.get_base_model()
    layer: Any = base.get_output_embeddings()
    if hasattr(layer, "base_layer") or hasattr(layer, "modules_to_save"):
        raise UsageError(
            "an adapter on the output head cannot be trained with the fused loss: it returns the "
            "gradient of the head's whole matrix, of which the adapter would get no part",
            where=f"{type(base).__name__}, {type(layer).__name__} on the output head",
            fix="leave lm_head out of the adapter's target_modules and modules_to_save",
        )
    if type(layer) is not nn.Linear:
        raise _unsupported(base, f"its output head is a {type(layer).__name__}, no plain matrix")
    softcap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    head = OutputHead(layer.weight, layer.bias, softcap)
    _check(base, head)
    return head


@torch.no_grad()
def _check(model: Any, head: OutputHead) -> None:
    """Compare the head on the body's hidden states with the model's own logits."""
    ids = torch.tensor([PROBE_IDS], device=head.weight_Vd.device)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        expected_TV = model(input_ids=ids, use_cache=False, return_dict=True).logits[0]
        hidden_Td = body_of(model)(input_ids=ids, use_cache=False, return_dict=True)[0][0]
    finally:
        for module, was_training in training.items():
            module.training = was_training
    hidden_Td = hidden_Td.to(head.weight_Vd.dtype)
    logits_TV = head.project(hidden_Td, hidden_Td.new_empty(len(hidden_Td), len(head.weight_Vd)))
    if head.softcap is not None:
        logits_TV = torch.tanh(logits_TV / head.softcap) * head.softcap
    if not same_numbers(logits_TV.to(expected_TV.dtype), expected_TV):
        raise _unsupported(model, "its logits are not its output head's products")


def _unsupported(model: object, reason: str) -> UsageError:
    return UsageError(
        f"a model of this architecture cannot be trained with the fused loss: {reason}",
        where=type(model).__name__,
        fix="Qwen, Llama, OLMo, Mistral, Gemma and other plain decoders can, not quantised",
    )
