"""Which engine the settings mean, decided without importing torch or vLLM."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from branchdiag import engines, models
from branchdiag.engines import create_engine, resolve_engine_name
from branchdiag.engines.isolation import IsolatedEngine
from branchdiag.errors import MissingRequirement
from branchdiag.protocol import EngineSettings
from tests.tiny_models import tiny_model


def settings(**values: Any) -> EngineSettings:
    return EngineSettings.model_validate(values)


@pytest.mark.parametrize(
    ("values", "vllm_is_installed", "cuda_is_there", "expected"),
    [
        ({}, True, True, "vllm"),
        ({}, True, False, "transformers"),
        ({}, False, True, "transformers"),
        ({"device": "cpu"}, True, True, "transformers"),
        ({"name": "transformers"}, True, True, "transformers"),
        ({"name": "vllm"}, True, False, "vllm"),
    ],
)
def test_auto_takes_vllm_where_it_and_cuda_are(
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    vllm_is_installed: bool,
    cuda_is_there: bool,
    expected: str,
) -> None:
    found = object() if vllm_is_installed else None
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(engines, "has_cuda", lambda: cuda_is_there)
    assert resolve_engine_name(settings(**values)) == expected


@pytest.mark.skipif(
    engines.importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here"
)
def test_vllm_asked_for_and_missing_says_how_to_get_it() -> None:
    with pytest.raises(MissingRequirement) as raised:
        resolve_engine_name(settings(name="vllm"))
    assert raised.value.exit_status == 5
    assert "pip install" in str(raised.value) and "--engine transformers" in str(raised.value)


def test_hidden_devices_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not engines.has_cuda()


def test_on_a_cpu_the_transformers_engine_is_embedded() -> None:
    resolved = models.resolve(str(tiny_model("qwen3")))
    made = create_engine(settings(name="transformers", device="cpu"), resolved, max_total_tokens=64)
    assert made.describe()["device"] == "cpu" and not isinstance(made, IsolatedEngine)
    made.close()
    made.close()


def test_a_gpu_that_is_not_there_is_said_so_before_anything_starts() -> None:
    resolved = models.resolve(str(tiny_model("qwen3")))
    with pytest.raises(MissingRequirement, match="no device cuda:63"):
        create_engine(
            settings(name="transformers", device="cuda:63"), resolved, max_total_tokens=64
        )


def test_choosing_and_resolving_import_neither_torch_nor_transformers_nor_vllm(
    tmp_path: Path,
) -> None:
    script = f"""
import sys
from branchdiag import models
from branchdiag.engines import create_engine, resolve_engine_name
from branchdiag.engines.isolation import IsolatedEngine
from branchdiag.protocol import EngineSettings
resolve_engine_name(EngineSettings())
resolved = models.resolve({str(tiny_model("qwen3"))!r})
models.context_length(resolved), models.estimate(resolved)
heavy = {{"torch", "transformers", "vllm", "pandas", "scipy", "pyarrow"}} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=tmp_path)
