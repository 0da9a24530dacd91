"""The settings of an evaluation, one validated frozen model; TOML and `--set` in.

The defaults are those of arXiv 2605.21606 (section 4, appendix J): MATH-500, AIME 2024 and 2025 and
HMMT February 2025, 12 samples a problem at T = 1 and top-p 0.95, thinking on, three repeats. For
the bundled model the problems are its own (`bundled.toml`). Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from branchdiag.prompt_texts import STUDENT_PROMPT
from branchdiag.protocol import (
    EngineSettings,
    Protocol,
    apply_override,
    keys_of,
    read_toml,
    validated,
)
from branchdiag.settings_section import Section, transport


class SamplingSettings(Section):
    """How a model answers."""

    prompt: str = Field(
        STUDENT_PROMPT, description="User message; {problem} is replaced. No `Problem:` before it."
    )
    thinking: bool = Field(True, description="enable_thinking of the chat template.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus.")
    top_k: int = Field(-1, ge=-1, description="-1: off. Never inherited from the model.")
    max_new_tokens: int = Field(38912, ge=1, description="Budget of an answer, in tokens.")


class GradingSettings(Section):
    """Which answer counts, and how long grading one may take."""

    answer_rule: Literal["last_complete", "after_thinking"] = Field(
        "last_complete",
        description="last_complete: a box counts anywhere, inside thinking too (the paper's). "
        "after_thinking: only after closed thinking.",
    )
    timeout_s: float = transport(10.0, "Seconds before one grading is killed.", gt=0)
    workers: int = transport(2, "Processes that grade.", ge=1)


class ComparisonSettings(Section):
    """Intervals of the differences; changing them makes the report anew and nothing else."""

    resamples: int = Field(10_000, ge=100, description="Cluster-bootstrap resamples of problems.")
    level: float = Field(0.95, gt=0.5, lt=1, description="Level of every interval.")
    seed: int = Field(0, ge=0, description="Seed of the resamples.")


class EvaluationSettings(Section):
    """All settings of an evaluation. `EvaluationSettings()` is the paper's."""

    problems: tuple[str, ...] = Field(
        ("math500", "aime2024", "aime2025", "hmmt2025"), description="Benchmarks, in order."
    )
    n: int = Field(12, ge=1, description="Samples a problem: the N of Avg@N, Pass@N and Maj@N.")
    seeds: int = Field(3, ge=1, description="Repeats of the whole, with seeds of their own.")
    seed: int = Field(0, ge=0, description="Seed that every request's seed is derived from.")
    sampling: SamplingSettings = SamplingSettings()
    grading: GradingSettings = GradingSettings()
    comparison: ComparisonSettings = ComparisonSettings()
    engine: EngineSettings = EngineSettings()


def load_settings(*, bundled: bool, overrides: Sequence[str] = ()) -> EvaluationSettings:
    """The defaults, with `key=value` or `section.key=value` overrides on top.

    Args:
        bundled: whether every model is the bundled one or an adapter of it.
        overrides: as `--set` takes them.

    Raises:
        UsageError: an unknown key or a value out of range; every fault is listed.
    """
    values = _bundled_values() if bundled else {}
    for override in overrides:
        apply_override(values, override)
    return validated(
        EvaluationSettings,
        values,
        what="the evaluation's settings",
        where="--set",
        fix="keys: " + ", ".join(keys_of(EvaluationSettings)),
    )


def _bundled_values() -> dict[str, Any]:
    spine = Protocol.load("bundled").spine
    sampling = {
        "prompt": spine.prompt,
        "thinking": spine.thinking,
        "max_new_tokens": spine.max_new_tokens,
    }
    return {"sampling": sampling, **read_toml(Path(__file__).with_name("bundled.toml"))}
