"""The parts of a causal language model that scoring reaches into: its body, its blocks, its head.

Works on any `transformers` causal model by exchanging the `forward` of a module for the time of one
call and running *the model's own* forward around it: the head (tied or not, with soft-capping or
scaling after it) and the masks and rotary code before the blocks are never written again here.
Knows nothing of spines, dropout or phases.

The projection is checked once a model against the model's own logits on a few tokens; an
architecture that does something between body and head that this cannot see is refused, never scored
wrongly. (The other way, a whole forward a chunk with `logits_to_keep`, costs T / chunk forwards.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from branchdiag.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 8
"""Length of the text on which a short cut is compared with the model's own forward."""

_checked_heads: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class BodyOutput:
    """What the body made of one text: hidden states, and the class of output the head expects."""

    states_Td: Tensor
    kind: Callable[..., Any]

    def rows(self, rows: slice | Tensor) -> BodyOutput:
        """The same for some positions."""
        return BodyOutput(self.states_Td[rows], self.kind)


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within the block `module(...)` calls `forward(...)`; afterwards the module is as it was."""
    # A device map (accelerate) has put a forward of its own on the instance; it must come back.
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def body_of(model: PreTrainedModel) -> nn.Module:
    """The module that turns token ids into final hidden states.

    Raises:
        UsageError: the model is no causal language model with a body and a head.
    """
    untyped: Any = model
    body = untyped.get_decoder()
    if body is model or not isinstance(body, nn.Module):
        raise _unsupported(model, "it has no body apart from its head")
    return body


def blocks_of(model: PreTrainedModel) -> list[nn.Module]:
    """The body's blocks, first to last.

    Raises:
        UsageError: the body has not exactly one list of `num_hidden_layers` blocks.
    """
    n_blocks = int(model.config.get_text_config().num_hidden_layers)
    lists: dict[str, nn.ModuleList] = {}
    for name, module in body_of(model).named_modules():
        inside = any(name.startswith(outer + ".") for outer in lists)  # as many experts as blocks
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks and not inside:
            lists[name] = module
    if len(lists) != 1:
        raise _unsupported(model, f"its list of {n_blocks} blocks was not found")
    return list(*lists.values())


def run_body(model: PreTrainedModel, token_ids: Sequence[int]) -> BodyOutput:
    """Final hidden states [T, d] of one text, in one pass without a key-value cache.

    In one piece: 16k tokens of Qwen3-4B in bfloat16 make 3 x 319 MB in a block's MLP, while a pass
    in pieces would keep 2.4 GB of keys and values.

    Raises:
        ValueError: the model is in training mode, or a token is beyond its vocabulary.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() before scoring")
    embeddings: Any = model.get_input_embeddings()
    n_embeddings = int(embeddings.weight.shape[0])
    if max(token_ids) >= n_embeddings:
        raise ValueError(f"token {max(token_ids)} is beyond the model's {n_embeddings} embeddings")
    input_ids = torch.tensor([list(token_ids)], dtype=torch.long, device=model.device)
    output = body_of(model)(input_ids=input_ids, use_cache=False, return_dict=True)
    return BodyOutput(output.last_hidden_state[0], type(output))


def project(model: PreTrainedModel, output: BodyOutput) -> Tensor:
    """Logits [T, V] of hidden states [T, d], by the model's own forward from its body onwards."""
    states_1Td = output.states_Td.unsqueeze(0)
    placeholder = torch.zeros(states_1Td.shape[:2], dtype=torch.long, device=states_1Td.device)

    def stored(*_: Any, **__: Any) -> Any:
        return output.kind(last_hidden_state=states_1Td)

    with replaced_forward(body_of(model), stored):
        logits: Tensor = model(input_ids=placeholder, use_cache=False, return_dict=True).logits
    return logits[0]


def check_head(model: PreTrainedModel, token_ids: Sequence[int]) -> None:
    """Compare `project` with the model's own logits on the first tokens of a text, once a model.

    Raises:
        UsageError: they differ, or the forward cannot be run around a stored body.
    """
    if model in _checked_heads:
        return
    probe = list(token_ids)[:PROBE_TOKENS]
    input_ids = torch.tensor([probe], dtype=torch.long, device=model.device)
    expected = model(input_ids=input_ids, use_cache=False, return_dict=True).logits[0]
    output = run_body(model, probe)
    try:
        logits = project(model, output)
    except (TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise _unsupported(model, f"its head cannot be run apart: {error}") from error
    if not same_numbers(logits, expected):
        raise _unsupported(model, "its head gives other logits apart from its body")
    _checked_heads.add(model)


def same_numbers(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree but for their type's rounding (products of other shapes)."""
    if first.shape != second.shape:
        return False
    tolerance = 1e-4 if first.dtype in (torch.float32, torch.float64) else 0.05
    scale = float(second.float().abs().nan_to_num(posinf=0).max())
    return torch.allclose(
        first.float(), second.float(), rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def _unsupported(model: PreTrainedModel, reason: str) -> UsageError:
    return UsageError(
        f"a model of this architecture cannot be scored: {reason}",
        where=type(model).__name__,
        fix="Qwen, Llama, OLMo, Mistral, Gemma and other plain decoders can",
    )
