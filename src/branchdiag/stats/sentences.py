"""The wording of the finding: one plain English sentence for each case of `finding`.

Takes evidence and returns text; decides nothing. Numbers carry their interval and counts. A change
is that of the straight line within problems from the start of a trace (r = 0) to its end (r = 1),
in shares of samples. "Forced less free viability" is d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from branchdiag.stats.estimate import Estimate
from branchdiag.stats.horizon import AgainstControl

Direction = Literal["early", "late", "none"]

FROM_TO = "from the start of a trace to its end"


@dataclass(frozen=True)
class Evidence:
    """What a finding stands on: estimates and counts, no data.

    auroc: of 1 - r, real-uncertain against diversity. level: of every interval.
    """

    auroc: Estimate
    slopes: AgainstControl
    n_positive: int
    n_problems_positive: int
    level: float


def worse(evidence: Evidence, way: Direction) -> str:
    """Statuses `early_worse` and `late_worse`."""
    beyond = "longer way still to go" if way == "early" else "way still to go"
    return (
        f"{way.capitalize()} teacher tokens are the worse ones, beyond what the {beyond} explains: "
        f"{FROM_TO}, {_effect(evidence)} and {_failure(evidence)}; {_ranking(evidence)}."
    )


def no_more_than_horizon(evidence: Evidence, way: Direction) -> str:
    """The pattern is there with nothing forced, and forcing adds none that can be seen."""
    cause = (
        "the longer way still to go explains" if way == "early" else "they do with nothing forced"
    )
    return (
        f"{way.capitalize()} tokens fail more often, but no more than {cause}: {FROM_TO}, "
        f"{_failure(evidence)}, {_control(evidence)}, and {_effect(evidence)}; "
        f"{_ranking(evidence)}."
    )


def contradiction(evidence: Evidence) -> str:
    """The two absolute figures point in opposite ways."""
    return (
        "Early and late teacher tokens are not told apart, since two figures of failure contradict "
        f"each other: {FROM_TO}, {_failure(evidence)}, but {_ranking(evidence)}."
    )


def no_control(evidence: Evidence, way: Direction) -> str:
    """The comparison with the control is missing."""
    reason = evidence.slopes.difference.estimate.reason
    opening = (
        "Early and late teacher tokens are not told apart"
        if way == "none"
        else f"{way.capitalize()} tokens fail more often, but the teacher's part in it is not told "
        "apart from the way still to go"
    )
    return (
        f"{opening}: {FROM_TO}, {_failure(evidence)}, {_ranking(evidence)}, and there is no "
        f"comparison with going on freely ({reason})."
    )


def opposed(evidence: Evidence, way: Direction) -> str:
    """Absolute one way, relative the other."""
    return (
        f"Early and late teacher tokens are not told apart, since {way} ones fail more often but "
        f"compare better with going on freely: {FROM_TO}, {_failure(evidence)}, whereas "
        f"{_effect(evidence)}, which may say no more than that forcing can lose little where "
        "going on freely seldom succeeds and gain little where it nearly always does."
    )


def open_question(evidence: Evidence, way: Direction) -> str:
    """No pattern, or one whose cause is not shown."""
    if way == "none":
        return (
            f"Early and late teacher tokens are not told apart: {FROM_TO}, {_failure(evidence)} "
            f"and {_effect(evidence)}; {_ranking(evidence)}."
        )
    return (
        f"{way.capitalize()} tokens fail more often, but what makes them fail is not told apart: "
        f"{FROM_TO}, {_failure(evidence)}, {_control(evidence)}, and {_effect(evidence)}; "
        f"{_ranking(evidence)}."
    )


def too_few(evidence: Evidence, needed: int) -> str:
    """Too few problems."""
    return (
        "Too few data to say whether early or late teacher tokens are worse: "
        f"{_counted(evidence.slopes.failure.n_problems, 'problem')} with candidates at two or more "
        f"positions, where {needed} are needed, and "
        f"{_counted(evidence.n_positive, 'real-uncertain candidate')} in "
        f"{_counted(evidence.n_problems_positive, 'problem')}."
    )


def nothing_to_tell(evidence: Evidence) -> str:
    """Problems enough, but no figure with an interval."""
    failure = evidence.slopes.failure
    return (
        "Too few data to say whether early or late teacher tokens are worse: over "
        f"{_counted(failure.n_candidates, 'candidate')} in "
        f"{_counted(failure.n_problems, 'problem')} the slope of failure has no interval "
        f"({failure.estimate.reason}), and {_ranking(evidence)}."
    )


def _failure(evidence: Evidence) -> str:
    slope = evidence.slopes.failure.estimate
    if slope.value is None:
        return f"the failure rate of forced branches is not known ({slope.reason})"
    return (
        f"the failure rate of forced branches changes by {_signed(slope.value)} "
        f"({_interval(slope, evidence, 0.0)})"
    )


def _control(evidence: Evidence) -> str:
    slope = evidence.slopes.control.estimate
    if slope.value is None:
        return f"that of free ones is not known ({slope.reason})"
    return f"that of free ones by {_signed(slope.value)} ({_interval(slope, evidence, 0.0)})"


def _effect(evidence: Evidence) -> str:
    slopes = evidence.slopes
    slope = slopes.difference.estimate
    if slope.value is None:
        return f"forced less free viability is not known ({slope.reason})"
    p = "" if slopes.null.p is None else f", permutation p {_p_value(slopes.null.p)}"
    counts = (
        f"{_counted(slopes.difference.n_candidates, 'candidate')} in "
        f"{_counted(slopes.difference.n_problems, 'problem')}"
    )
    return (
        f"forced less free viability changes by {_signed(slope.value)} "
        f"({_interval(slope, evidence, 0.0)}{p}; {counts})"
    )


def _ranking(evidence: Evidence) -> str:
    if evidence.n_positive == 0:
        return "no candidate is real-uncertain, so there is no AUROC of early position"
    counts = (
        f"{_counted(evidence.n_positive, 'real-uncertain candidate')} in "
        f"{_counted(evidence.n_problems_positive, 'problem')}"
    )
    auroc = evidence.auroc
    if auroc.value is None:
        return f"there is no AUROC of early position ({auroc.reason}; {counts})"
    return (
        f"the AUROC of early position is {_number(auroc.value)} "
        f"({_interval(auroc, evidence, 0.5)}; {counts})"
    )


def _interval(estimate: Estimate, evidence: Evidence, none: float) -> str:
    if estimate.ci_low is None or estimate.ci_high is None:
        return f"no interval: {estimate.reason}"
    text = (
        f"{100 * evidence.level:g}% interval {_number(estimate.ci_low)} to "
        f"{_number(estimate.ci_high)}"
    )
    covers = estimate.ci_low <= none <= estimate.ci_high
    return f"{text}, which includes {none:g}" if covers else text


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-0.00", "0.00").replace("+0.00", "0.00")


def _number(value: float | None) -> str:
    assert value is not None
    return f"{value:.2f}".replace("-0.00", "0.00")


def _p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1g}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
