"""Phases A to G, in order. Each module holds one; none imports another."""

from __future__ import annotations

from branchdiag.phases import (
    a_spine,
    b_teacher,
    c_candidates,
    d_dropout,
    e_continue,
    f_label,
    g_report,
)
from branchdiag.phases.base import Phase

PHASES: dict[str, Phase] = {
    module.PHASE.letter: module.PHASE
    for module in (a_spine, b_teacher, c_candidates, d_dropout, e_continue, f_label, g_report)
}
