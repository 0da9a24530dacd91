"""What this machine has, what it lacks for branchdiag, and how to get it. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from branchdiag import __version__
from branchdiag.pipeline.runner import environment


def examine() -> dict[str, Any]:
    """Versions, devices and engines, each with what to do where something is missing."""
    import psutil

    cuda = _cuda()
    vllm = find_spec("vllm") is not None
    checks = [
        _check(
            "CUDA device",
            bool(cuda),
            ", ".join(cuda) or "none; the transformers engine runs on the CPU",
            "models past about 1 B parameters want a GPU",
        ),
        _check(
            "vLLM",
            vllm,
            "installed" if vllm else "not installed: engine auto takes transformers",
            "pip install 'branchdiag[vllm]' (CUDA)",
        ),
        _check(
            "hub",
            not _offline(),
            "asked when a model or data set is named by id"
            if not _offline()
            else "HF_HUB_OFFLINE is set: only what is cached is found",
            "unset HF_HUB_OFFLINE, or give local paths",
        ),
        _bundled(),
    ]
    return {
        "branchdiag": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "versions": environment()["versions"],
        "checks": checks,
    }


def lines(findings: dict[str, Any]) -> list[str]:
    """The findings as lines for a terminal."""
    result = [
        f"branchdiag {findings['branchdiag']}, Python {findings['python']}, {findings['platform']}",
        f"{findings['cores']} cores, {findings['memory_gib']} GiB memory, "
        f"{findings['disk_free_gib']} GiB free here",
        "",
    ]
    result += [f"  {name:<14} {version}" for name, version in findings["versions"].items()]
    result.append("")
    for check in findings["checks"]:
        result.append(f"{'ok' if check['ok'] else '--'}  {check['name']}: {check['detail']}")
        if not check["ok"]:
            result.append(f"    {check['fix']}")
    return result


def _check(name: str, ok: bool, detail: str, fix: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "fix": fix}


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _cuda() -> list[str]:
    """Names of the CUDA devices. Torch, slow to load, is asked only where a driver is there."""
    if not Path("/dev/nvidiactl").exists():
        return []
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _bundled() -> dict[str, Any]:
    from branchdiag.bundled import model_path

    weights = Path(model_path()) / "model.safetensors"
    return _check(
        "bundled model",
        weights.is_file(),
        str(weights.parent),
        "the installation is not whole: install branchdiag again",
    )
