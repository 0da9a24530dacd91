"""Defaults of an evaluation, and what is wrong with a setting."""

from __future__ import annotations

import pytest

from branchdiag.errors import UsageError
from branchdiag.evaluation.settings import load_settings
from branchdiag.protocol import Protocol


def test_defaults_are_the_papers() -> None:
    settings = load_settings(bundled=False)
    assert settings.problems == ("math500", "aime2024", "aime2025", "hmmt2025")
    assert (settings.n, settings.seeds) == (12, 3)
    sampling = settings.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.95, -1)
    assert (sampling.max_new_tokens, sampling.thinking) == (38912, True)
    assert sampling.prompt == (
        "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    )


def test_the_bundled_model_is_asked_as_it_is_diagnosed() -> None:
    settings, spine = load_settings(bundled=True), Protocol.load("bundled").spine
    assert settings.problems == ("bundled:evaluate:100",)
    assert settings.sampling.prompt == spine.prompt
    assert settings.sampling.max_new_tokens == spine.max_new_tokens


def test_overrides_apply_and_faults_are_named() -> None:
    settings = load_settings(bundled=True, overrides=["n=4", "sampling.temperature=0.6"])
    assert (settings.n, settings.sampling.temperature) == (4, 0.6)
    with pytest.raises(UsageError, match=r"did you mean sampling\.temperature\?"):
        load_settings(bundled=False, overrides=["sampling.temprature=0.6"])
    with pytest.raises(UsageError, match=r"sampling\.top_p"):
        load_settings(bundled=False, overrides=["sampling.top_p=1.5"])
