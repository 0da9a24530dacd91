"""Monte Carlo dropout on the teacher's last blocks: Phase D's distributions.

Reads a model, a prompt, a spine and the candidates' positions; writes probability arrays.
Implements arXiv 2605.21606 (Phase D): inverted dropout on the whole residual output of the last L
blocks, at all positions, by forward hooks, M samples. Knows no problem and no table; `uncertainty`
reads the arrays.

One perturbed pass serves all candidates of a spine. The hooks act on blocks' *outputs*, so the
output of block N-L+1 of N (counting from 1) is the same in every sample: the plain pass keeps it,
and in a sample that block and all before it hand it on instead of computing. The rest runs inside
the model's own forward, which makes masks, rotary embeddings and block arguments as ever (sliding
windows too). N + M (L - 1) block passes instead of N (M + 1), and the same probabilities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from branchdiag.errors import UsageError
from branchdiag.scoring.distributions import log_softmax
from branchdiag.scoring.model_parts import (
    PROBE_TOKENS,
    BodyOutput,
    blocks_of,
    check_head,
    project,
    replaced_forward,
    run_body,
    same_numbers,
)
from branchdiag.scoring.uncertainty import uncertainty

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["DropoutDistributions", "dropout_distributions", "dropout_keep", "uncertainty"]

_short_cuts: WeakKeyDictionary[nn.Module, dict[int, bool]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class DropoutDistributions:
    """Teacher's distributions at C candidates, float64: plain_CV, and samples_MCV under dropout."""

    plain_CV: NDArray[np.float64]
    samples_MCV: NDArray[np.float64]


def dropout_distributions(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    spine_ids: Sequence[int],
    positions: Sequence[int],
    *,
    layers: int,
    probability: float,
    samples: int,
    seed: int,
    chunk: int,
    temperature: float = 1.0,
) -> DropoutDistributions:
    """The teacher's next-token distributions before the tokens `spine_ids[position]`.

    Over the teacher's whole vocabulary, V of its logits.

    Args:
        model: the teacher, in evaluation mode.
        prompt_ids: the teacher's prompt; at least one token.
        spine_ids: the spine; what comes after the last candidate is not run.
        positions: the C candidates' positions in the spine.
        layers: L, last blocks whose output is perturbed.
        probability: of a residual entry being set to 0; the others are scaled by 1 / (1 - p).
        samples: M.
        seed: of this problem; each (sample, block) draws from a generator of its own, so that
            neither the global state nor the other blocks matter.
        chunk: candidates that go through the output head together.
        temperature: softmax temperature.

    Raises:
        UsageError: more layers than the model has; an architecture that cannot be scored.
        ValueError: an empty prompt, a position outside the spine, a model in training mode.
    """
    blocks = blocks_of(model)
    if not 1 <= layers <= len(blocks):
        raise UsageError(
            f"dropout on the last {layers} blocks of a model that has {len(blocks)}",
            where="dropout.layers",
            fix=f"--set dropout.layers={min(4, len(blocks))}",
        )
    if not len(prompt_ids):
        raise ValueError("an empty prompt: nothing predicts the spine's first token")
    if not len(positions) or not all(0 <= position < len(spine_ids) for position in positions):
        raise ValueError("candidates must lie inside the spine, and there must be one")
    token_ids = [*prompt_ids, *spine_ids[: max(positions)]]
    rows = torch.tensor([len(prompt_ids) - 1 + position for position in positions])
    first = len(blocks) - layers

    def probabilities(output: BodyOutput) -> NDArray[np.float64]:
        states = output.rows(rows.to(output.states_Td.device))
        parts = []
        for start in range(0, len(positions), chunk):
            logits = project(model, states.rows(slice(start, start + chunk)))
            parts.append(log_softmax(logits, temperature, "teacher").exp().cpu().numpy())
        return np.concatenate(parts)

    with torch.inference_mode():
        check_head(model, token_ids)
        short_cut = _short_cut_holds(model, blocks, first, token_ids)
        plain, kept = _run_keeping(model, blocks[first], token_ids)
        plain_CV = probabilities(plain)
        samples_MCV = np.empty((samples, *plain_CV.shape))
        with _handing_on(blocks[: first + 1], kept if short_cut else None):
            for m in range(samples):
                with _dropout_hooks(blocks, first, probability, (seed, m)):
                    samples_MCV[m] = probabilities(run_body(model, token_ids))
    return DropoutDistributions(plain_CV, samples_MCV)


def dropout_keep(
    shape: Sequence[int], probability: float, key: tuple[int, ...], device: torch.device
) -> Tensor:
    """Bool mask of the entries that dropout keeps, drawn from a generator seeded by `key` alone.

    The mask does not depend on the type of the states; it does on the device's kind.
    """
    digest = hashlib.sha256(repr(tuple(key)).encode()).digest()
    generator = torch.Generator(device=device)
    generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    keep = torch.empty(tuple(shape), dtype=torch.bool, device=device)
    return keep.bernoulli_(1 - probability, generator=generator)


@contextmanager
def _dropout_hooks(
    blocks: Sequence[nn.Module], first: int, probability: float, key: tuple[int, int]
) -> Iterator[None]:
    """Inverted dropout on the output of blocks `first` onwards, for the time of the block."""

    def hook_for(index: int) -> Callable[..., Any]:
        def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            keep = dropout_keep(states.shape, probability, (*key, index), states.device)
            # Scaled by a Python number: a bfloat16 factor would be off by 0.2%.
            states = states * keep * (1 / (1 - probability))
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return hook

    with ExitStack() as removals:  # a `finally` that also runs if a later hook cannot be placed
        for index in range(first, len(blocks)):
            handle = blocks[index].register_forward_hook(hook_for(index))
            removals.callback(handle.remove)
        yield


@contextmanager
def _handing_on(blocks: Sequence[nn.Module], kept: Any | None) -> Iterator[None]:
    """Within the block these blocks return `kept` instead of computing; None: they compute."""

    def hand_on(*_: Any, **__: Any) -> Any:
        return kept

    with ExitStack() as stack:
        for block in blocks if kept is not None else ():
            stack.enter_context(replaced_forward(block, hand_on))
        yield


def _run_keeping(
    model: PreTrainedModel, block: nn.Module, token_ids: Sequence[int]
) -> tuple[BodyOutput, Any]:
    """The plain pass, and the output of `block` in it (tensor or tuple, as the block gave it)."""
    kept: list[Any] = []

    def keep(_module: nn.Module, _arguments: Any, output: Any) -> None:
        kept.append(output)

    handle = block.register_forward_hook(keep)
    try:
        output = run_body(model, token_ids)
    finally:
        handle.remove()
    if len(kept) != 1:
        raise RuntimeError(f"a block of {type(model).__name__} ran {len(kept)} times in one pass")
    return output, kept[0]


def _short_cut_holds(
    model: PreTrainedModel, blocks: Sequence[nn.Module], first: int, token_ids: Sequence[int]
) -> bool:
    """Whether the later blocks need nothing of the earlier ones but their output; once a model.

    Tried on a few tokens. Where it fails (blocks that share keys and values, say) every sample is a
    full forward: slower, and right.
    """
    known = _short_cuts.setdefault(model, {})
    if first not in known:
        probe = list(token_ids)[:PROBE_TOKENS]
        expected, kept = _run_keeping(model, blocks[first], probe)
        try:
            with _handing_on(blocks[: first + 1], kept):
                found = run_body(model, probe)
            known[first] = same_numbers(found.states_Td, expected.states_Td)
        except (TypeError, AttributeError, KeyError, IndexError, RuntimeError):
            known[first] = False
    return known[first]
