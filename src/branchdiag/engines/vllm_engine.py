"""The vLLM engine: one node, tensor parallel, continuous batching; offline, without a server.

Requests go in as token ids with a seed each, through vLLM's add-and-step loop, so that a completion
comes out as soon as it is finished and only what fits the scheduler (and a small queue) is in
flight. Nothing is inherited from the model's generation_config. Meant to run in a child process
(`isolation`): vLLM gives GPU memory back only when its process ends. Knows no problem, no answer,
no phase. (arXiv 2605.21606, section 3.2 and appendix B sample with vLLM.)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from branchdiag import model_files
from branchdiag.engines.base import Completion, Key, Request
from branchdiag.errors import BranchdiagError, MissingRequirement, UsageError
from branchdiag.protocol import EngineSettings

BATCHED_TOKENS = 65_536
"""Prompt tokens a step may hold on a CPU, where prompts must not be cut into chunks."""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for the greatest rank of an adapter."""
CPU_CACHE_SHARE = 4
"""On a CPU the key-value cache takes at most this part (1/4) of the free memory."""


class VllmEngine:
    """Writes tokens with vLLM.

    Args:
        directory: the model's files.
        settings: tensor_parallel, gpu_memory_utilization, max_num_seqs, enforce_eager, dtype and
            trust_remote_code are used.
        stop_ids: tokens that end a completion; the only ones that do.
        max_model_len: prompt and completion together stay within it.
        adapter_rank: the greatest rank of the LoRA adapters that `use_adapter` will be given; None:
            none will be.

    Raises:
        MissingRequirement: vLLM is not installed, or the model does not fit the device.
    """

    name = "vllm"

    def __init__(
        self,
        directory: str,
        *,
        settings: EngineSettings,
        stop_ids: Sequence[int],
        max_model_len: int,
        adapter_rank: int | None = None,
    ) -> None:
        self.adapter_rank = adapter_rank
        self._adapter: Any = None
        self.directory = Path(directory)
        self.settings = settings
        self.stop_ids = tuple(stop_ids)
        self.max_model_len = max_model_len
        self.vocabulary_size = model_files.model_size(self.directory).vocabulary_size
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the files are here
        try:
            from vllm.platforms import current_platform
        except ImportError as error:
            raise MissingRequirement(
                f"vLLM cannot be imported: {error}",
                where="engine.name",
                fix="pip install 'branchdiag[vllm]', or --engine transformers",
            ) from error
        self.on_cpu = bool(current_platform.is_cpu())
        if self.on_cpu:
            # A scheduler beside the model is no use to a CPU; one process loads in half the time.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._engine: Any = self._start()

    def _start(self) -> Any:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        try:
            return LLMEngine.from_engine_args(EngineArgs(**self.engine_arguments()))
        except Exception as error:
            raise self._explain(error) from error

    def engine_arguments(self) -> dict[str, Any]:
        """vLLM's EngineArgs for these settings and this platform."""
        settings = self.settings
        arguments: dict[str, Any] = {
            "model": str(self.directory),
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "dtype": settings.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": settings.max_num_seqs,
            "tensor_parallel_size": settings.tensor_parallel,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "enforce_eager": settings.enforce_eager,
            "enable_prefix_caching": True,
            "trust_remote_code": settings.trust_remote_code,
            "disable_log_stats": True,
            "seed": 0,
        }
        if self.adapter_rank is not None:
            rank = next((rank for rank in LORA_RANKS if rank >= self.adapter_rank), None)
            if rank is None:
                raise UsageError(
                    f"vLLM takes adapters up to rank {LORA_RANKS[-1]}, not {self.adapter_rank}",
                    where="lora.r",
                )
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        if self.on_cpu:
            # The CPU build crashes where the prefill of a seeded request is cut into chunks or
            # starts behind a cached prefix ("CPU Generator does not use offset").
            arguments |= {
                "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
                "max_num_seqs": settings.max_num_seqs + 1,
                "max_num_batched_tokens": max(BATCHED_TOKENS, self.max_model_len),
                "enable_prefix_caching": False,
                "enable_chunked_prefill": False,
                "enforce_eager": True,
                "kv_cache_memory_bytes": self._cpu_cache_bytes(),
            }
            del arguments["gpu_memory_utilization"]
        return arguments

    def _cpu_cache_bytes(self) -> int:
        """What every sequence at full length needs, within a share of the free memory."""
        import psutil

        size = model_files.model_size(self.directory, "float32")
        needed = (self.settings.max_num_seqs + 1) * self.max_model_len * size.cache_bytes_per_token
        least = 64 * 2**20
        return int(max(least, min(needed, psutil.virtual_memory().available // CPU_CACHE_SHARE)))

    def use_adapter(self, directory: str, number: int) -> None:
        """Complete what follows with this LoRA adapter; a new number for new weights, from 1."""
        from vllm.lora.request import LoRARequest

        former, self._adapter = self._adapter, LoRARequest(f"adapter-{number}", number, directory)
        if former is not None:
            self._engine.remove_lora(former.lora_int_id)

    def generate(
        self, requests: Sequence[Request], owed: Collection[Key] | None = None
    ) -> Iterator[Completion]:
        """Complete the owed requests (None: all), yielding each as it finishes.

        Closing the iterator aborts what is in flight.

        Raises:
            MissingRequirement: the engine ran out of memory.
        """
        wanted = None if owed is None else set(owed)
        waiting = [r for r in reversed(requests) if wanted is None or r.key in wanted]
        queue = 0 if self.on_cpu else self.settings.max_num_seqs // 4
        in_flight: dict[str, Request] = {}
        number = 0
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < self.settings.max_num_seqs + queue:
                    request = waiting.pop()
                    if (refused := self._refuse(request)) is not None:
                        yield refused
                        continue
                    number += 1
                    in_flight[str(number)] = request
                    self._engine.add_request(
                        str(number),
                        {"prompt_token_ids": list(request.prompt_ids)},
                        self._parameters(request),
                        lora_request=self._adapter,
                    )
                for output in self._step() if in_flight else ():
                    if output.finished:
                        yield self._completion(in_flight.pop(output.request_id), output.outputs[0])
        finally:
            if in_flight:
                self._engine.abort_request(list(in_flight))

    def _refuse(self, request: Request) -> Completion | None:
        """The completion of a request that needs no engine, or that it would choke on."""
        if not request.prompt_ids:
            return Completion(request.key, (), "error", "the prompt holds no token")
        unknown = [t for t in request.prompt_ids if not 0 <= t < self.vocabulary_size]
        if unknown:
            reason = f"token id {unknown[0]} is not in the model's {self.vocabulary_size} ids"
            return Completion(request.key, (), "error", reason)
        if len(request.prompt_ids) >= self.max_model_len:
            return Completion(request.key, (), "length")
        return None

    def _parameters(self, request: Request) -> Any:
        from vllm import SamplingParams

        sampling = request.sampling
        room = self.max_model_len - len(request.prompt_ids)
        return SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=0.0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            repetition_penalty=1.0,
            seed=request.seed,
            max_tokens=min(sampling.max_new_tokens, room),
            stop_token_ids=list(self.stop_ids),
            ignore_eos=True,  # stop_ids hold the EOS
            detokenize=False,
        )

    def _step(self) -> list[Any]:
        try:
            return list(self._engine.step())
        except Exception as error:
            raise self._explain(error) from error

    def _completion(self, request: Request, output: Any) -> Completion:
        tokens = tuple(int(token) for token in output.token_ids)
        if output.finish_reason == "stop" and tokens and tokens[-1] in self.stop_ids:
            return Completion(request.key, tokens[:-1], "stop", stop_id=tokens[-1])
        if output.finish_reason == "length":
            return Completion(request.key, tokens, "length")
        reason = f"vLLM ended the request with {output.finish_reason!r} ({output.stop_reason!r})"
        return Completion(request.key, (), "error", reason)

    def _explain(self, error: Exception) -> Exception:
        """An error that the user can mend, or the error itself."""
        text = str(error)
        if "head_dim" in text and self.on_cpu:
            return MissingRequirement(
                f"vLLM's CPU build cannot run this model: {text.splitlines()[0]}",
                where=str(self.directory),
                fix="--engine transformers",
            )
        if self._adapter is not None and "lora" in text.lower():
            return UsageError(
                f"vLLM cannot use this adapter: {text.splitlines()[0]}",
                where=self._adapter.lora_path,
                fix="--engine transformers, or `branchdiag merge` and the merged weights",
            )
        hints = ("out of memory", "No available memory", "KV cache", "Free memory on device")
        if isinstance(error, BranchdiagError) or not any(hint in text for hint in hints):
            return error
        return MissingRequirement(
            f"vLLM has too little memory: {text.splitlines()[0]}",
            where="engine",
            fix="--set engine.gpu_memory_utilization=…, a smaller engine.max_num_seqs or "
            "continuation.max_total_tokens, or a larger engine.tensor_parallel",
        )

    def describe(self) -> dict[str, Any]:
        """Backend, versions, device and dtype, for the manifest."""
        import torch
        import transformers
        import vllm
        from vllm.platforms import current_platform

        config = self._engine.model_config
        return {
            "engine": self.name,
            "vllm": vllm.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": current_platform.get_device_name(),
            "dtype": str(config.dtype).removeprefix("torch."),
            "max_model_len": config.max_model_len,
            "max_num_seqs": self.settings.max_num_seqs,
            "tensor_parallel": self.settings.tensor_parallel,
        }

    def close(self) -> None:
        """Stop vLLM's processes; memory comes back when this process ends."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.engine_core.shutdown()
