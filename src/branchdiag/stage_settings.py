"""The settings of the side diagnostics that commands of their own run: sections of the protocol.

Knows nothing of models, files of a run or engines. They change no phase from A to G.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, field_validator

from branchdiag.settings_section import Section


class PrefixSettings(Section):
    """Stages P0 to P3: student and teacher go on from fractions of each spine."""

    fractions: tuple[float, ...] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        min_length=1,
        description="Of each spine that are kept, rising; the paper does not give its own.",
    )
    rollouts: int = Field(8, ge=1, description="Samples a prefix and writer.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature (IW-OPD: 1).")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus (IW-OPD: off); top-k is off.")
    max_response_tokens: int = Field(
        16384, ge=1, description="Prefix and continuation together, for both writers, in tokens."
    )

    @field_validator("fractions")
    @classmethod
    def _rise_below_one(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.0 <= fraction < 1.0 for fraction in fractions):
            raise ValueError("every fraction must be at least 0 and below 1")
        if any(after <= before for before, after in pairwise(fractions)):
            raise ValueError("the fractions must rise")
        return fractions


class AlignSettings(Section):
    """Stages N1 to N4: distillation gradients against the ideal one at each candidate."""

    contexts: tuple[str, ...] = Field(
        ("answer", "solution", "none"),
        min_length=1,
        description="Teacher contexts, each as teacher.context: answer, solution, none or a file.",
    )
    student_tokens: int = Field(
        3, ge=0, description="The student's likeliest valid tokens that join a support."
    )
    min_student_probability: float = Field(
        0.01, ge=0, le=1, description="Less likely ones of them do not join."
    )
    rollouts: int = Field(
        6, ge=2, description="Samples an arm, those of Phase E included; what it has is kept."
    )
    budget: int = Field(
        0, ge=0, description="Samples that may be drawn in all, spread over depth; 0: all."
    )
    min_samples: int = Field(
        2, ge=2, description="Graded samples that every arm of a node needs to be counted."
    )

    @field_validator("contexts")
    @classmethod
    def _differ(cls, contexts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(contexts)) != len(contexts) or not all(contexts):
            raise ValueError("every context must be named, and none twice")
        return contexts
