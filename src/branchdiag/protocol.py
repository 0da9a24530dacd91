"""The protocol: every number of Phases A to G, one validated frozen model a section.

Reads and writes TOML; knows nothing of models, files of a run or engines. The defaults are those
of the paper (arXiv 2605.21606, section 3.2, appendices A and B); where the paper is ambiguous, the
decision taken is said in the field's description. An unknown key is an error with a suggestion.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from branchdiag.errors import UsageError
from branchdiag.prompt_texts import (
    STUDENT_PROMPT,
    TEACHER_ANSWER_PROMPT,
    TEACHER_SOLUTION_PROMPT,
)
from branchdiag.settings_section import Section, added, transport
from branchdiag.stage_settings import AlignSettings, PrefixSettings

AnySection = TypeVar("AnySection", bound=Section)


class SpineSettings(Section):
    """Phase A: the student's own trace."""

    prompt: str = Field(
        STUDENT_PROMPT,
        description="Student user message; {problem} is replaced. The paper does not state it; "
        "this is its evaluation prompt.",
    )
    thinking: bool = Field(
        True, description="enable_thinking for the student's chat template (16k budget implies it)."
    )
    max_new_tokens: int = Field(16384, ge=1, description="Budget of a spine, in tokens.")
    fallback: bool = Field(
        True, description="One sampled try where the greedy trace has no boxed answer."
    )
    fallback_temperature: float = Field(0.7, gt=0, description="Temperature of that try.")
    fallback_top_p: float = Field(0.95, gt=0, le=1, description="Nucleus of that try.")


class TeacherPrompts(Section):
    """The teacher's user message for each context; {problem}, {answer}, {solution} are replaced."""

    answer: str = Field(TEACHER_ANSWER_PROMPT, description="Teacher told the answer (the paper).")
    solution: str = Field(TEACHER_SOLUTION_PROMPT, description="Teacher shown the solution (OPSD).")
    none: str | None = Field(None, description="Teacher told nothing; null: the student's prompt.")


class TeacherSettings(Section):
    """Phase B: what the teacher sees and how its distributions are read."""

    context: str = Field(
        "answer", description="answer | solution | none | the path of a template file."
    )
    prompts: TeacherPrompts = Field(
        default_factory=TeacherPrompts, description="User message for each context."
    )
    thinking: bool = Field(True, description="enable_thinking for the teacher's chat template.")
    temperature: float = Field(
        1.0, gt=0, description="Softmax temperature of every diagnostic score (1.0, not 1.1)."
    )
    top_k: int = Field(
        16, ge=2, description="Valid tokens kept a position for the truncated entropy h_trunc."
    )
    chunk_positions: int = transport(
        128, "Positions whose logits are held at once in Phase B.", ge=1
    )


class CandidateSettings(Section):
    """Phase C: which positions become candidates and which children they get."""

    min_p2: float = Field(0.02, ge=0, le=1, description="Least probability of the second token.")
    min_ratio: float = Field(0.10, ge=0, le=1, description="Least p2 / p1.")
    spacing_tokens: int = Field(
        64, ge=1, description="Least distance between two candidates of a spine, in spine tokens."
    )
    max_per_problem: int = Field(5, ge=1, description="Candidates kept a problem, by h_trunc.")
    max_children: int = Field(3, ge=2, description="Teacher's top valid tokens forced a candidate.")
    min_children: int = Field(2, ge=2, description="Fewer valid children: no candidate.")
    junk_filter: bool = Field(
        True,
        description="Skip position 0 and positions whose spine token or teacher's first token is "
        "white space, punctuation or a control tag.",
    )
    merge_equal_children: bool = Field(
        False, description="Keep one of children whose stripped lower-case text is equal."
    )
    spines: Literal["correct", "incorrect", "all"] = added(
        "correct",
        "Which spines are diagnosed (the paper: correct). With all, incorrect ones are reported "
        "apart.",
    )
    random_per_problem: int = added(
        0, "Further candidates a problem drawn without a look at entropy, reported apart.", ge=0
    )


class DropoutSettings(Section):
    """Phase D: Monte Carlo dropout on the teacher's last blocks."""

    layers: int = Field(4, ge=1, description="Last blocks whose output is perturbed.")
    probability: float = Field(0.1, gt=0, lt=1, description="Dropout probability.")
    samples: int = Field(5, ge=2, description="Perturbed passes a problem.")


class ContinuationSettings(Section):
    """Phase E: what follows each forced child, and the control."""

    rollouts: int = Field(6, ge=1, description="Samples an arm.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus.")
    top_k: int = Field(-1, ge=-1, description="-1: off. Never inherited from the model.")
    max_total_tokens: int = Field(
        32768, ge=2, description="Prompt, prefix, child and continuation together, in tokens."
    )
    control: bool = Field(
        True, description="Also continue with nothing forced (the horizon's control)."
    )
    spine: bool = Field(False, description="Also force the spine's own token as an arm.")


class LabelSettings(Section):
    """Phase F: from graded continuations to labels."""

    diversity_share: float = Field(
        0.75, gt=0, le=1, description="A child is viable from this share: ceil(share x N) of N."
    )
    diversity_children: int = Field(2, ge=1, description="Viable children that make `diversity`.")
    uncertain_share: float = Field(
        0.40, gt=0, lt=1, description="`real_uncertain`: every child strictly below this share."
    )
    min_finished: int = Field(
        4, ge=1, description="Finished samples a child needs under the truncation-free label."
    )
    grading_timeout_s: float = transport(10.0, "Seconds before one grading is killed.", gt=0)
    grading_workers: int = transport(2, "Processes that grade.", ge=1)


class ReportSettings(Section):
    """Phase G: statistics."""

    resamples: int = Field(2000, ge=100, description="Cluster-bootstrap resamples over problems.")
    permutations: int = Field(2000, ge=100, description="Permutations of the relative null.")
    level: float = Field(0.95, gt=0.5, lt=1, description="Level of every interval.")
    bins: int = Field(10, ge=2, description="Equal-count bins of the reliability curves.")
    seed: int = Field(0, ge=0, description="Seed of NumPy's default_rng.")
    max_dropped_share: float = Field(
        0.10, ge=0, lt=1, description="More one-class resamples than this: no interval."
    )


class EngineSettings(Section):
    """Who writes tokens, and on what. Only `dtype` can change a result."""

    name: Literal["auto", "transformers", "vllm"] = transport(
        "auto", "auto takes vLLM where CUDA and vLLM are there, else transformers."
    )
    device: str = transport("auto", "auto | cpu | cuda | cuda:N, for the transformers engine.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: as the model's configuration says on GPU, float32 on CPU."
    )
    batch_size: int = transport(64, "Requests decoded together (transformers).", ge=1)
    tensor_parallel: int = transport(1, "GPUs a vLLM replica spans.", ge=1)
    gpu_memory_utilization: float = transport(0.90, "Share of GPU memory vLLM takes.", gt=0, le=1)
    max_num_seqs: int = transport(256, "Requests vLLM keeps in flight.", ge=1)
    enforce_eager: bool = transport(False, "vLLM without CUDA graphs.")
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = transport(
        "auto", "Attention of the transformers forward passes."
    )
    isolate: Literal["auto", "always", "never"] = transport(
        "auto", "Run each phase that loads a model in a process of its own; auto: on a GPU."
    )
    checkpoint_seconds: float = transport(5.0, "Longest time between two checkpoints.", ge=0)
    trust_remote_code: bool = Field(
        False, description="Run code that a model repository ships. Off unless asked for."
    )


class Protocol(Section):
    """All settings of a diagnosis. `Protocol()` is the paper's."""

    name: str = Field("paper", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="For the run.")
    problems: tuple[str, ...] = Field(
        ("math500:24", "aime2024", "aime2025"), description="Problem sets, in order."
    )
    spine: SpineSettings = SpineSettings()
    teacher: TeacherSettings = TeacherSettings()
    candidates: CandidateSettings = CandidateSettings()
    dropout: DropoutSettings = DropoutSettings()
    continuation: ContinuationSettings = ContinuationSettings()
    label: LabelSettings = LabelSettings()
    report: ReportSettings = ReportSettings()
    prefixes: PrefixSettings = PrefixSettings()
    align: AlignSettings = AlignSettings()
    engine: EngineSettings = EngineSettings()

    @staticmethod
    def load(source: str | Path, overrides: Sequence[str] = ()) -> Protocol:
        """`paper`, `bundled` or a TOML file, with `section.key=value` overrides on top.

        Raises:
            UsageError: unreadable file, bad TOML, unknown key or a value out of range; every
                fault is listed.
        """
        values = _read_source(source)
        for override in overrides:
            apply_override(values, override)
        return validate(values, where=str(source))

    def to_toml(self) -> str:
        """The whole protocol as TOML, with each field's description as a comment."""
        return _dump_section(self, prefix="")


@cache
def section_names() -> tuple[str, ...]:
    """The protocol's sections, in order."""
    return tuple(
        name
        for name, field in Protocol.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    )


def validate(values: Mapping[str, Any], *, where: str) -> Protocol:
    """Build a protocol from plain values; all faults at once.

    Raises:
        UsageError: with one line a fault and, for an unknown key, the nearest known one.
    """
    return validated(
        Protocol,
        values,
        what="the protocol",
        where=where,
        fix="`branchdiag protocol paper` prints every key with its meaning",
    )


def validated(
    kind: type[AnySection], values: Mapping[str, Any], *, what: str, where: str, fix: str
) -> AnySection:
    """A section of settings from plain values; all faults at once.

    Args:
        kind: of the section.
        values: sections within sections.
        what, where, fix: of the error: what cannot be used, where it was given, how to mend it.

    Raises:
        UsageError: with one line a fault and, for an unknown key, the nearest known one.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        keys = keys_of(kind)
        lines = [explain_fault(fault, keys) for fault in error.errors()]
        raise UsageError(
            f"{what} cannot be used:\n  " + "\n  ".join(lines), where=where, fix=fix
        ) from None


def _read_source(source: str | Path) -> dict[str, Any]:
    if str(source) == "paper":
        return {}
    if str(source) == "bundled":
        from branchdiag.bundled import protocol_path

        return read_toml(protocol_path())
    path = Path(source)
    values = read_toml(path)
    values.setdefault("name", name_of_file(path))
    return values


def name_of_file(path: Path) -> str:
    """What settings are called that name themselves nowhere: the file's stem, fit for a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("-._") or "unnamed"


def read_toml(path: Path, what: str = "protocol") -> dict[str, Any]:
    """The table in a TOML file; `what` is the file's name in errors.

    Raises:
        UsageError: no such file, unreadable, or no valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"no such {what}", where=str(path), fix="use paper, bundled or the path of a TOML file"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the {what} cannot be read: {error}", where=str(path), fix="a TOML file in UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"the {what} is no valid TOML: {error}", where=str(path), fix="mend that line"
        ) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set `section.key=value` in place; the value is read as TOML, else as a bare string."""
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise UsageError(
            "a setting must read section.key=value", where=f"--set {override}",
            fix="for example --set continuation.rollouts=12",
        )  # fmt: skip
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    target = values
    for key in keys[:-1]:
        child = target.setdefault(key, {})
        if not isinstance(child, dict):
            raise UsageError(f"{key} is a value, not a section", where=f"--set {override}")
        target = child
    target[keys[-1]] = value


def explain_fault(fault: Any, keys: Sequence[str]) -> str:
    """A fault that pydantic found, in a line; an unknown key with the nearest of `keys`."""
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{path}: {fault['msg']} (got {fault['input']!r})"
    near = difflib.get_close_matches(path, keys, n=1, cutoff=0.5)
    if not near:  # the right key in the wrong section
        near = [key for key in keys if key.rpartition(".")[2] == path.rpartition(".")[2]]
    return f"{path}: unknown key" + (f"; did you mean {near[0]}?" if near else "")


def keys_of(section: type[Section], prefix: str = "") -> list[str]:
    """Every key of a section and those inside it, with dots."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys.extend(keys_of(field.annotation, f"{prefix}{name}."))
    return keys


def _dump_section(section: Section, prefix: str) -> str:
    lines: list[str] = []
    nested: list[str] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            nested.append(f"\n[{prefix}{name}]\n" + _dump_section(value, f"{prefix}{name}."))
        elif value is not None:
            lines.append(f"# {field.description}\n{name} = {_toml_value(value)}\n")
    return "".join(lines + nested)


def _toml_value(value: Any) -> str:
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # A JSON string is a valid TOML basic string, but for DEL, which JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
