"""The settings of the side diagnostics that commands of their own run: sections of the protocol.

Knows nothing of models, files of a run or engines. They change no phase from A to G.
"""

from __future__ import annotations

from pydantic import Field

from branchdiag.settings_section import Section


class PrefixSettings(Section):
    """Stages P1 to P3: student and teacher go on from fractions of each spine."""

    rollouts: int = Field(8, ge=1, description="Samples a prefix and writer.")


class AlignSettings(Section):
    """Stages N1 to N4: distillation gradients against the ideal one at each candidate."""

    rollouts: int = Field(6, ge=1, description="Samples an arm.")
