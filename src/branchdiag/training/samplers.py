"""Who draws the rollouts: the transformers engine in process, or vLLM beside it.

Makes a `rollouts.Sampler` of the settings; writes nothing itself. Knows no loss. vLLM runs in a
process of its own that sees this process's GPU alone and none of the launcher's variables.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from branchdiag.models import ResolvedModel, context_length, stop_token_ids
from branchdiag.protocol import EngineSettings
from branchdiag.training.processes import Processes
from branchdiag.training.rollouts import InProcess, Sampler, WithVllm
from branchdiag.training.settings import TrainSettings
from branchdiag.training.student import Student

VLLM_ADAPTERS = ".rollout-adapter"
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK",
                      "MASTER_ADDR", "MASTER_PORT")  # fmt: skip


def make_sampler(
    settings: TrainSettings,
    resolved: ResolvedModel,
    tokenizer: Any,
    student: Student,
    processes: Processes,
    out: Path,
) -> Sampler:
    """The sampler that the settings name.

    Raises:
        MissingRequirement: vLLM is asked for and not installed.
        UsageError: the transformers engine cannot decode this architecture.
    """
    stop_ids = stop_token_ids(resolved, tokenizer)
    length = min(settings.max_length, context_length(resolved))
    if settings.rollout.engine == "vllm":
        return _with_vllm(settings, resolved, student, processes, out, stop_ids, length)
    from branchdiag.engines.transformers_engine import TransformersEngine
    from branchdiag.engines.workers import usable_cores

    engine = TransformersEngine(
        student.model,
        stop_ids=stop_ids,
        context_length=length,
        batch_size=settings.rollout.batch_size,
        batch_setting="rollout.batch_size",
    )
    if engine.n_workers > 1:
        engine.n_workers = max(1, usable_cores() // processes.local_count())
    return InProcess(engine, student)


def make_vllm_engine(
    settings: EngineSettings,
    directory: str,
    max_model_len: int,
    stop_ids: tuple[int, ...],
    adapter_rank: int,
) -> Any:
    """The vLLM engine that takes adapters, in the process that calls this."""
    from branchdiag.engines.vllm_engine import VllmEngine

    return VllmEngine(
        directory,
        settings=settings,
        stop_ids=stop_ids,
        max_model_len=max_model_len,
        adapter_rank=adapter_rank,
    )


def _with_vllm(
    settings: TrainSettings,
    resolved: ResolvedModel,
    student: Student,
    processes: Processes,
    out: Path,
    stop_ids: tuple[int, ...],
    length: int,
) -> Sampler:
    from branchdiag.engines import resolve_engine_name
    from branchdiag.engines.isolation import IsolatedEngine

    engine_settings = EngineSettings(
        name="vllm",
        dtype=settings.compute.dtype,
        gpu_memory_utilization=settings.rollout.gpu_memory_utilization,
        max_num_seqs=settings.rollout.batch_size,
        trust_remote_code=settings.compute.trust_remote_code,
    )
    resolve_engine_name(engine_settings)  # says so where vLLM is not installed
    environment = {
        name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES
    }
    if processes.device.type == "cuda" and processes.count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        index = processes.device.index or 0
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[index] if visible else str(index)
    engine = IsolatedEngine(
        "vllm",
        "branchdiag.training.samplers:make_vllm_engine",
        {
            "settings": engine_settings,
            "directory": resolved.path,
            "max_model_len": length,
            "stop_ids": stop_ids,
            "adapter_rank": settings.lora.r,
        },
        log_path=out / "logs" / f"vllm-{processes.rank}.log",
        environment=environment,
    )
    return WithVllm(engine, student, out / VLLM_ADAPTERS / str(processes.rank))
