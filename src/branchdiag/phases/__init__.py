"""Phases A to G and the side stages, in the order they run. Each module holds one; none imports
another.
"""

from __future__ import annotations

from branchdiag.phases import (
    a_spine,
    b_teacher,
    c_candidates,
    d_dropout,
    e_continue,
    f_label,
    g_report,
    n1_nodes,
    n2_arms,
    n3_grade,
    n4_alignment,
    p0_drift,
    p1_prefixes,
    p2_grade,
    p3_position_bias,
    s_signals,
)
from branchdiag.phases.base import Phase

PHASES: dict[str, Phase] = {
    module.PHASE.letter: module.PHASE
    for module in (
        a_spine,
        b_teacher,
        c_candidates,
        d_dropout,
        e_continue,
        f_label,
        s_signals,
        p0_drift,
        p1_prefixes,
        p2_grade,
        p3_position_bias,
        n1_nodes,
        n2_arms,
        n3_grade,
        n4_alignment,
        g_report,
    )
}
SIDE = ("S",)
"""Side stages: no phase of A to F reads them, G does."""


def stages_of(command: str) -> tuple[str, ...]:
    """The letters of the stages that a command runs, in order."""
    return tuple(letter for letter, phase in PHASES.items() if phase.command == command)


def with_side_stages(letters: str) -> str:
    """The letters of phases to run, with the side stages before G where G is among them."""
    return letters.replace("G", "".join(SIDE) + "G")
