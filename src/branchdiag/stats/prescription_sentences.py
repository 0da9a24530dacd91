"""The wording of the prescription: one plain English sentence for each outcome of `prescription`.

Takes evidence and votes and returns text; decides nothing. Numbers carry their interval and counts.
A change is from the start of a trace to its end. The teacher's gain is in shares of samples, the
discrepancy in nats a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from branchdiag.stats.estimate import Estimate
from branchdiag.stats.horizon import Slope
from branchdiag.stats.position_bias import GainChange

Vote = Literal["early", "late", "neither", "unknown"]

PW_OPSD = "PW-OPSD (arXiv 2605.21606)"
IW_OPD = "IW-OPD (arXiv 2606.22600)"
NAMES = {
    "schedule": "the fitted schedule",
    "gain": "the teacher's gain",
    "discrepancy": "the discrepancy",
}
SILENT = {"neither": "speaks for neither", "unknown": "cannot be read"}
GROWS = {
    "late": "grows along the trace, as IW-OPD expects",
    "neither": "is not seen to grow along the trace, as IW-OPD expects it to",
    "unknown": "cannot be read",
}


@dataclass(frozen=True)
class Evidence:
    """What a verdict stands on: statuses and estimates, no data.

    schedule_status, schedule_direction, schedule_reason: of the schedule fitted to the run.
    schedule_spines: which spines it was fitted on (correct or incorrect). gain: over all spines
    with samples. first_accuracy: share of correct continuations of the first prefix, of the
    writer that may have fewer. discrepancy: slope of |ln(q / p)| on relative position.
    n_incorrect: spines of the gain that are incorrect. by_spine: the discrepancy's slope on
    correct and on incorrect spines.
    told: what the teacher's prompt gives away ("the answer", "a solution"), None where nothing.
    gamma: of IW-OPD's weight. level: of every interval.
    """

    schedule_status: str
    schedule_direction: str
    schedule_reason: str | None
    schedule_spines: str
    gain: GainChange
    first_accuracy: Estimate
    discrepancy: Slope
    n_incorrect: int
    by_spine: Mapping[str, Estimate]
    told: str | None
    gamma: float
    level: float


@dataclass(frozen=True)
class Basis:
    """One strand of the evidence, what it says, and the sentence that says it."""

    name: str
    vote: Vote
    sentence: str


def statement(verdict: str, basis: Sequence[Basis]) -> str:
    """The verdict, with the strands that it rests on and whether the discrepancy agrees."""
    if verdict == "too_few":
        return (
            "These data do not say whether early or late tokens should be discounted: "
            "neither the fitted schedule nor the teacher's gain can be read."
        )
    deciding = {strand.name: strand.vote for strand in basis if strand.name != "discrepancy"}
    if verdict == "contradictory":
        early, late = (
            NAMES[next(name for name, vote in deciding.items() if vote == way)]
            for way in ("early", "late")
        )
        return (
            f"These data support neither prescription, since they contradict each other: {early} "
            f"speaks for discounting early tokens, {late} for discounting late ones."
        )
    if verdict == "neither":
        known = [NAMES[name] for name, vote in deciding.items() if vote == "neither"]
        unknown = [NAMES[name] for name, vote in deciding.items() if vote == "unknown"]
        says = f"neither {known[0]} nor {known[-1]} speaks for either"
        if unknown:
            says = f"{known[0]} speaks for neither, and {unknown[0]} cannot be read"
        return (
            f"These data support neither discounting early tokens, as {PW_OPSD} does, nor late "
            f"ones, as {IW_OPD} does: {says}."
        )
    way = "early" if verdict == "discount_early" else "late"
    paper = PW_OPSD if way == "early" else IW_OPD
    saying = [NAMES[name] for name, vote in deciding.items() if vote == way]
    parts = [f"{' and '.join(saying)} {'say' if len(saying) > 1 else 'says'} so"]
    for name, vote in deciding.items():
        if vote != way:
            parts.append(f"{NAMES[name]} {SILENT[vote]}")
    grows = next(strand.vote for strand in basis if strand.name == "discrepancy")
    if way == "late":
        parts.append(f"the discrepancy {GROWS[grows]}")
    says = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return f"These data support discounting {way} tokens, as {paper} does: {says}."


def schedule(evidence: Evidence, vote: Vote) -> str:
    """The fitted schedule: its status, its direction and what that means."""
    status = f"status {evidence.schedule_status}"
    reason = f"; {evidence.schedule_reason}" if evidence.schedule_reason else ""
    opening = f"The schedule fitted to forced branches on {evidence.schedule_spines} spines"
    if vote == "unknown":
        return f"{opening} says nothing ({status}{reason})."
    if vote == "neither":
        return f"{opening} is weight 1 everywhere ({status}{reason})."
    rises = "rises" if vote == "early" else "falls"
    return (
        f"{opening} {rises} along the trace ({status}{reason}): {vote} teacher tokens are the less "
        "reliable ones."
    )


def gain(evidence: Evidence, vote: Vote, *, has_room: bool) -> str:
    """The teacher's gain over the student's own continuation, and how it changes.

    has_room: whether enough continuations reach the answer for the change to be read.
    """
    found = evidence.gain
    if found.mean.value is None:
        return f"What the teacher's continuation gains is not known ({found.mean.reason})."
    problems = _counted(found.n_problems, "problem")
    opening = (
        f"Continued by the teacher instead of the student, a prefix gains "
        f"{_signed(found.mean.value)} in the share of correct answers on average "
        f"({_interval(found.mean, evidence, 0.0)}; {problems}, {evidence.n_incorrect:,} of them "
        "with an incorrect spine)"
    )
    if found.slope.value is None or found.per_remaining.value is None:
        reason = found.slope.reason or found.per_remaining.reason
        return f"{opening}; how that changes with the prefix is not known ({reason})."
    changes = (
        f"{opening}; from the start of a trace to its end that changes by "
        f"{_signed(found.slope.value)} ({_interval(found.slope, evidence, 0.0)}), and for each "
        f"share of the trace still to be written by {_signed(found.per_remaining.value)} "
        f"({_interval(found.per_remaining, evidence, 0.0)})"
    )
    return f"{changes}, {_reading(evidence, vote, has_room)}."


def _reading(evidence: Evidence, vote: Vote, has_room: bool) -> str:
    """What the two changes of the gain come to."""
    found = evidence.gain
    slope, per_remaining, first = found.slope, found.per_remaining, evidence.first_accuracy
    if vote == "unknown":
        if has_room:
            return "which is too little to be read"
        return (
            f"which is not read: {_first(first, evidence)}, and where hardly any arrives, a gain "
            "has no room and grows by itself"
        )
    if vote == "late":
        return "so late prefixes gain less than the shorter way left to write explains"
    if vote == "early":
        return "so early prefixes gain less than the longer way left to write explains"
    if slope.is_above(0.0) and per_remaining.is_below(0.0):
        return (
            "so it rises with the prefix while less of it is had for what is left, as a loss that "
            "ends with the trace does"
        )
    if slope.is_above(0.0):
        return "so it rises with the prefix, but no more than a loss does that ends with the trace"
    if slope.is_below(0.0):
        return (
            "so the gain falls with the prefix, but no more than the shorter way left to write "
            "explains"
        )
    if per_remaining.is_below(0.0):
        return "so less is gained for what is left, but no fall of the gain itself is seen"
    return "so no fall beyond the shorter way left to write is seen"


def _first(first: Estimate, evidence: Evidence) -> str:
    """How few continuations of the first prefix reach the answer."""
    share = "none" if not first.value else _number(first.value)
    interval = f" ({_interval(first, evidence, 0.0)})" if first.has_interval else ""
    return f"of the first prefix's continuations {share}{interval} reach the answer for one writer"


def discrepancy(evidence: Evidence, vote: Vote) -> str:
    """Whether teacher and student differ more and more along the trace."""
    slope = evidence.discrepancy.estimate
    if slope.value is None:
        return f"Whether the discrepancy |log q - log p| grows is not known ({slope.reason})."
    spines = _counted(evidence.discrepancy.n_problems, "spine")
    changes = (
        "From the start of a trace to its end the discrepancy |log q - log p| changes by "
        f"{_signed(slope.value, 4)} nats a token ({_interval(slope, evidence, 0.0, 4)}; {spines}"
        f"{_apart(evidence)})"
    )
    if vote == "unknown":
        return f"{changes}."
    if vote == "late":
        return f"{changes}: it grows, as IW-OPD expects."
    if slope.is_below(0.0):
        return f"{changes}: it falls, where IW-OPD expects it to grow."
    return f"{changes}: the growth that IW-OPD expects is not seen."


def _apart(evidence: Evidence) -> str:
    """The same on correct and on incorrect spines, as far as both are known."""
    known = {kind: s.value for kind, s in evidence.by_spine.items() if s.value is not None}
    if len(known) < 2:
        return ""
    parts = [f"{_signed(value, 4)} on {kind} ones" for kind, value in known.items()]
    return f": {' and '.join(parts)}"


def remarks(evidence: Evidence) -> tuple[str, ...]:
    """What limits the verdict, whatever it is."""
    ends = f"{1 + evidence.gamma:g} to 1"
    made = [
        f"IW-OPD's weight falls from {ends} on every trace whatever the data, so that it falls is "
        "no evidence for it."
    ]
    if evidence.schedule_spines == "correct":
        made.append(
            "The schedule looks at correct spines alone, and a spine that ends correct has not "
            "drifted: conditioning on it removes late drift by construction, so a schedule that "
            "is flat or rises there is no evidence against drift."
        )
    if evidence.told:
        made.append(
            f"The teacher is told {evidence.told} and can copy it from any prefix (a leak): its "
            "gain is an upper bound of what its tokens teach, and hides a fall along the trace. "
            "For the same reason it disagrees with a wrong answer as such, so that the "
            "discrepancy grows at the end of an incorrect spine without any drift."
        )
    return tuple(made)


def _interval(estimate: Estimate, evidence: Evidence, none: float, digits: int = 2) -> str:
    if estimate.ci_low is None or estimate.ci_high is None:
        return f"no interval: {estimate.reason}"
    low, high = (_number(end, digits) for end in (estimate.ci_low, estimate.ci_high))
    text = f"{100 * evidence.level:g}% interval {low} to {high}"
    covers = estimate.ci_low <= none <= estimate.ci_high
    return f"{text}, which includes {none:g}" if covers else text


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def _number(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
