"""Every number of a training run, one validated frozen model a section.

Reads TOML and overrides; knows no model and no file of a run. The defaults are those of arXiv
2605.21606 (appendix I) and of the training code released with it; where that code and the paper
differ, the field's description says which is followed. An unknown key is an error with a
suggestion. A field marked `transport` changes how the work is carried, not what it gives.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from branchdiag.engines.base import Sampling
from branchdiag.errors import UsageError
from branchdiag.prompt_texts import STUDENT_PROMPT
from branchdiag.protocol import (
    TeacherPrompts,
    apply_override,
    keys_of,
    name_of_file,
    read_toml,
    validated,
)
from branchdiag.settings_section import Section, added, transport
from branchdiag.training.objectives import OBJECTIVE_NAMES, make_objective, objective_class

if TYPE_CHECKING:
    from branchdiag.training.objectives.base import Objective

PAPER_DATA = "siyanzhao/Openthoughts_math_30k_opsd#train"
COMMON_SAMPLING = (1.1, 0.95, 20)
"""Temperature, top-p and top-k of the rollouts of arXiv 2605.21606."""
METHOD_SAMPLING = {"iw-opd": (1.0, 1.0, -1)}
"""Of methods whose own papers sample otherwise (arXiv 2606.22600)."""

ThinkBlock = Literal["rendered", "closed", "opened"]


class ObjectiveSettings(Section):
    """The method, and which tokens of a rollout it is given."""

    name: str = Field(OBJECTIVE_NAMES[0], description=" | ".join(OBJECTIVE_NAMES))
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="The method's own, for example clip = 0.06; the text none is no value.",
    )
    reduction: Literal["sequence", "token"] | None = Field(
        None, description="sequence: mean over rows of row means; token: over tokens; null: own."
    )
    accumulation: Literal["exact", "release"] = Field(
        "exact", description="release: the mean of the micro-batches' means, as released."
    )
    eos: Literal["exclude", "include"] = Field(
        "exclude", description="Whether the EOS that ended a rollout is a trained token."
    )
    prefix_fraction: float | None = Field(
        None, gt=0, le=1, description="Train on this part of each rollout, from its front."
    )
    suffix_fraction: float | None = Field(None, gt=0, le=1, description="Or from its back.")


class RolloutSettings(Section):
    """How the student's own rollouts are drawn."""

    sampling: Literal["method", "common"] = Field(
        "method", description="method: as the objective's paper; common: T 1.1, top-p .95, top-k 20"
    )
    temperature: float | None = Field(None, gt=0, description="null: that of `sampling`.")
    top_p: float | None = Field(None, gt=0, le=1, description="null: that of `sampling`.")
    top_k: int | None = Field(None, ge=-1, description="null: that of `sampling`; -1: off.")
    max_new_tokens: int = Field(1024, ge=1, description="A rollout is cut here, in tokens.")
    engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="vllm: the adapter is saved each step and passed along."
    )
    batch_size: int = transport(64, "Rows decoded together (transformers), or in flight.", ge=1)
    gpu_memory_utilization: float = transport(0.4, "Share of GPU memory vLLM takes.", gt=0, le=1)


class StudentSettings(Section):
    """What the student is asked."""

    prompt: str = Field("Problem: " + STUDENT_PROMPT, description="User message, as released.")
    thinking: bool = Field(False, description="enable_thinking for the chat template.")
    think_block: ThinkBlock = Field(
        "closed",
        description="rendered: the prompt as the template writes it (where thinking is off, an "
        "open <think> at its end is closed always); closed: an open <think> gets </think>; "
        "opened: a prompt that does not end in <think> gets one.",
    )


class TeacherRoleSettings(Section):
    """Who the teacher is, and what it is shown beside the problem."""

    kind: Literal["fixed", "current", "ema"] = Field(
        "fixed", description="The model that training began from, as it is now, or its average."
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="Of the average, a step.")
    context: str = Field(
        "solution", description="solution | answer | none | the path of a template file."
    )
    prompts: TeacherPrompts = Field(
        default_factory=TeacherPrompts, description="User message for each context."
    )
    thinking: bool = Field(True, description="enable_thinking for the chat template.")
    think_block: ThinkBlock = Field("rendered", description="As for the student.")


class LoraSettings(Section):
    """The adapter that is trained, where `tuning` is lora."""

    r: int = Field(64, ge=1, description="Rank.")
    alpha: float = Field(128, gt=0, description="Scale: the product is multiplied by alpha / r.")
    dropout: float = Field(
        0.05, ge=0, lt=1, description="As the paper prints; the released code's is 0 in effect."
    )
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Names of the linear layers that get one.",
    )


class OptimizerSettings(Section):
    """AdamW, and a learning rate that falls linearly to 0."""

    learning_rate: float = Field(5e-6, gt=0, description="Of the first step.")
    horizon_steps: int = Field(150, ge=1, description="Where the rate would reach 0.")
    max_grad_norm: float = Field(0.1, gt=0, description="Norm that gradients are clipped to.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled.")
    batch_size: int = Field(32, ge=1, description="Rollouts a step, of all processes together.")
    micro_batch_size: int = transport(4, "Rollouts that are in memory at once.", ge=1)


class HeldOutSettings(Section):
    """Problems on which the divergence from the teacher is measured, never trained on."""

    problems: int = Field(32, ge=0, description="At most a tenth of the data; 0: none.")
    every: int = transport(0, "Also measured every so many steps; 0: first and last alone.", ge=0)


class ComputeSettings(Section):
    """What the models run on."""

    device: str = transport("auto", "auto | cpu | cuda | cuda:N; one a process.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU. What is trained is float32."
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = transport(
        "auto", "Attention of the forward passes."
    )
    gradient_checkpointing: bool | None = transport(None, "null: on a GPU.")
    trust_remote_code: bool = Field(
        False, description="Run code that a model repository ships. Off unless asked for."
    )


class TrainSettings(Section):
    """All settings of a training run. `TrainSettings()` is the paper's."""

    name: str = Field("paper", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Of this set.")
    tuning: Literal["lora", "full"] = added(
        "lora", "What is trained: an adapter, or all of the model's weights."
    )
    data: tuple[str, ...] = Field((PAPER_DATA,), description="Problem sources, in order.")
    steps: int = transport(100, "Optimizer steps after which the result is written.", ge=1)
    save_every: int = transport(25, "Steps between two checkpoints.", ge=1)
    seed: int = Field(0, ge=0, description="Of every draw.")
    max_length: int = Field(
        20000, ge=2, description="Prompt and rollout together; problems beyond it are left out."
    )
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = transport(
        (), "Also sent there; metrics.jsonl is always written."
    )
    objective: ObjectiveSettings = ObjectiveSettings()
    rollout: RolloutSettings = RolloutSettings()
    student: StudentSettings = StudentSettings()
    teacher: TeacherRoleSettings = TeacherRoleSettings()
    lora: LoraSettings = LoraSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    held_out: HeldOutSettings = HeldOutSettings()
    compute: ComputeSettings = ComputeSettings()

    @field_validator("data", "report_to", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        """`--set report_to=wandb` means a list of one."""
        return (value,) if isinstance(value, str) else value

    @staticmethod
    def load(source: str | Path, overrides: Sequence[str] = ()) -> TrainSettings:
        """`paper`, `bundled` or a TOML file, with `section.key=value` overrides on top.

        A method's own settings in a file concern the methods that have them; as an override, one
        that the chosen method lacks is an error (of `make_objective`). So do those of the adapter.

        Raises:
            UsageError: unreadable file, unknown key, a value out of range, or settings that
                exclude each other; every fault is listed.
        """
        values = _read(source)
        of_file, tuning_of_file = _method_settings(values), values.get("tuning")
        for override in overrides:
            apply_override(values, override)
        _leave_out_foreign(values, of_file)
        if values.get("tuning") == "full":
            _leave_out_lora(values, tuning_of_file, overrides)
        keys = keys_of(TrainSettings)
        sections = dict.fromkeys(key.partition(".")[0] for key in keys if "." in key)
        settings = validated(
            TrainSettings,
            values,
            what="the training settings",
            where=str(source),
            fix="keys read section.key; the sections: " + ", ".join(sections),
        )
        settings._check()
        return settings

    def _check(self) -> None:
        if self.objective.prefix_fraction and self.objective.suffix_fraction:
            raise UsageError(
                "prefix_fraction and suffix_fraction exclude each other",
                where="objective",
                fix="leave one of them out",
            )
        if self.tuning == "full" and self.rollout.engine == "vllm":
            raise UsageError(
                "vLLM cannot draw the rollouts of full training: at each step it is passed an "
                "adapter, and there is none; whole weights are not passed",
                where="tuning, rollout.engine",
                fix="--engine transformers, which decodes with the weights that are trained, or "
                "--set tuning=lora",
            )
        if self.steps > self.optimizer.horizon_steps:
            raise UsageError(
                f"the learning rate is 0 from step {self.optimizer.horizon_steps} on, and "
                f"{self.steps} steps were asked for",
                where="steps",
                fix=f"--set optimizer.horizon_steps={self.steps * 3 // 2}",
            )

    def sampling(self) -> Sampling:
        """How rollouts are drawn, with what is left open filled in."""
        common = self.rollout.sampling == "common"
        temperature, top_p, top_k = (
            COMMON_SAMPLING if common else METHOD_SAMPLING.get(self.objective.name, COMMON_SAMPLING)
        )
        own = self.rollout
        return Sampling(
            temperature=temperature if own.temperature is None else own.temperature,
            top_p=top_p if own.top_p is None else own.top_p,
            top_k=top_k if own.top_k is None else own.top_k,
            max_new_tokens=own.max_new_tokens,
        )

    def make_objective(self) -> Objective:
        """The method; its softmax temperature is that of the rollouts unless it is set.

        Raises:
            UsageError: no such method or setting, or a value that the method does not allow.
        """
        given = {
            key: None if value == "none" else value
            for key, value in self.objective.settings.items()
        }
        return make_objective(
            self.objective.name, **{"temperature": self.sampling().temperature, **given}
        )

    def document(self) -> dict[str, Any]:
        """All settings that this run has, for people: without an adapter, none of the adapter's."""
        return self.model_dump(mode="json", exclude=None if self.tuning == "lora" else {"lora"})

    def result_settings(self) -> dict[str, Any]:
        """All settings that can change a result, sections within sections."""
        settings = super().result_settings()
        if self.tuning == "full":
            del settings["lora"]
        if self.objective.accumulation == "release":  # its means depend on the division
            settings["optimizer"]["micro_batch_size"] = self.optimizer.micro_batch_size
        return settings


def _method_settings(values: dict[str, Any]) -> dict[str, Any]:
    section = values.get("objective", {})
    found = section.get("settings", {}) if isinstance(section, dict) else {}
    return dict(found) if isinstance(found, dict) else {}


def _leave_out_foreign(values: dict[str, Any], of_file: dict[str, Any]) -> None:
    """Take out what a file sets for methods other than the chosen one."""
    name = values.get("objective", {}).get("name", OBJECTIVE_NAMES[0]) if of_file else None
    if name not in OBJECTIVE_NAMES:
        return
    known = objective_class(name).__dataclass_fields__
    settings = values["objective"]["settings"]
    for key in [key for key in of_file if key not in known and settings.get(key) == of_file[key]]:
        del settings[key]


def _leave_out_lora(
    values: dict[str, Any], tuning_of_file: object, overrides: Sequence[str]
) -> None:
    """Take out what a file sets for an adapter; who asks for both does not know what they get."""
    asked = [text for text in overrides if text.partition("=")[0].split(".")[0].strip() == "lora"]
    if asked or ("lora" in values and tuning_of_file == "full"):
        raise UsageError(
            "full training has no adapter for lora's settings to describe",
            where=f"--set {asked[0]}" if asked else "lora",
            fix="leave them out, or --set tuning=lora",
        )
    values.pop("lora", None)


def _read(source: str | Path) -> dict[str, Any]:
    if str(source) == "paper":
        return {}
    if str(source) == "bundled":
        return read_toml(Path(__file__).with_name("bundled.toml"), "training settings")
    path = Path(source)
    values: Mapping[str, Any] = read_toml(path, "training settings")
    return {"name": name_of_file(path), **copy.deepcopy(dict(values))}
