"""The embedded engine: transformers' forward in a decoding loop of our own, on CPU or one GPU.

A draw depends on (request seed, step) alone and groups are fixed by the plan, so that an
interrupted run, which decodes a group again whole where any of it is owed, ends with the tokens of
an uninterrupted one. Another batch size may differ in rounding only. Reads a loaded model; writes
nothing. Knows nothing of problems, answers or phases. (arXiv 2605.21606, section 3.2: the
continuations of Phase E and the spines of Phase A.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
import transformers

from branchdiag.engines import workers
from branchdiag.engines.attention import use_grouped_attention
from branchdiag.engines.base import Completion, Key, Request
from branchdiag.engines.decode import GroupDecoder
from branchdiag.engines.plan import plan_groups
from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.model_loading import is_out_of_memory, is_small_on_cpu

KNOWN_LAYERS = frozenset({"full_attention", "sliding_attention"})


class TransformersEngine:
    """Writes tokens with a loaded transformers model.

    Args:
        model: a causal language model in evaluation mode; its attention function may be replaced by
            an equal one (see `attention`).
        stop_ids: tokens that end a completion.
        context_length: prompt and completion together stay within it.
        batch_size: requests decoded together.
        n_workers: processes on a CPU; None takes one a core for a small model, else one.
        batch_setting: the name by which a user sets `batch_size`.
    """

    name = "transformers"

    def __init__(
        self,
        model: Any,
        *,
        stop_ids: Sequence[int],
        context_length: int,
        batch_size: int,
        n_workers: int | None = None,
        batch_setting: str = "engine.batch_size",
    ) -> None:
        _check_cache_kind(model)
        use_grouped_attention(model)
        self.model: Any | None = model
        self.batch_size = batch_size
        self._smaller_batch = f"--set {batch_setting}={max(1, batch_size // 2)}, then run again"
        self._batch_setting = batch_setting
        # A small model decodes faster in processes of one thread than in several threads.
        self.single_threaded = is_small_on_cpu(model)
        if n_workers is None:
            n_workers = workers.usable_cores() if self.single_threaded else 1
        self.n_workers = n_workers if workers.can_fork() else 1
        self._decoder = GroupDecoder(
            model, stop_ids=stop_ids, context_length=context_length, batch_size=batch_size
        )

    def generate(
        self, requests: Sequence[Request], owed: Collection[Key] | None = None
    ) -> Iterator[Completion]:
        """Complete the owed requests (None: all), yielding each as it finishes.

        Raises:
            MissingRequirement: memory does not suffice for the batch size.
            ValueError: two requests have one key.
        """
        wanted = {request.key for request in requests}
        if len(wanted) != len(requests):
            raise ValueError("two requests have one key")
        if owed is not None:
            wanted &= set(owed)
        groups = [
            group
            for group in plan_groups(requests, self.batch_size)
            if any(requests[i].key in wanted for i in group)
        ]

        def decode(index: int) -> Iterator[list[Completion]]:
            return self._decode([requests[i] for i in groups[index]])

        if self.n_workers > 1 and len(groups) > 1:
            batches = workers.run_forked(
                range(len(groups)), decode, self.n_workers, if_killed=self._smaller_batch
            )
        else:
            batches = (finished for index in range(len(groups)) for finished in decode(index))
        for finished in batches:
            yield from (completion for completion in finished if completion.key in wanted)

    def _decode(self, requests: list[Request]) -> Iterator[list[Completion]]:
        """One group. A small model takes one thread everywhere: the number changes rounding."""
        threads = torch.get_num_threads()
        decoding = self._decoder.decode(requests)
        while True:
            try:
                if self.single_threaded:
                    torch.set_num_threads(1)
                finished = next(decoding, None)
            except Exception as error:
                if is_out_of_memory(error):
                    raise self._too_large(error) from error
                raise
            finally:
                if self.single_threaded:
                    torch.set_num_threads(threads)
            if finished is None:
                return
            yield finished

    def _too_large(self, error: Exception) -> MissingRequirement:
        return MissingRequirement(
            f"memory does not suffice for {self.batch_size} rows of this length "
            f"({str(error).splitlines()[0]})",
            where=self._batch_setting,
            fix=self._smaller_batch,
        )

    def describe(self) -> dict[str, Any]:
        """Backend, versions, device and dtype, for the manifest."""
        assert self.model is not None, "the engine is closed"
        return {
            "engine": self.name,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": _device_name(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.config._attn_implementation,
            "batch_size": self.batch_size,
            "workers": self.n_workers,
        }

    def close(self) -> None:
        """Let go of the model."""
        self.model = None
        self._decoder = None  # type: ignore[assignment]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _check_cache_kind(model: Any) -> None:
    """Refuse architectures whose state is no list of keys and values (state-space, linear)."""
    config = model.config.get_text_config()
    unknown = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if unknown:
        raise UsageError(
            f"the transformers engine cannot decode layers of kind {min(unknown)}",
            where=f"model type {config.model_type}",
            fix="--engine vllm",
        )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
