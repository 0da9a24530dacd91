"""Which prescription the data support: discount early tokens, late ones, or neither.

PW-OPSD (arXiv 2605.21606) discounts early tokens, IW-OPD (arXiv 2606.22600) late ones. Reads
intervals and statuses and nothing else, so that nothing here can rest on a point value; knows no
data. Three strands, each of which says early, late, neither or unknown:

    schedule     the schedule fitted to the run: rising says early, falling says late; flat and
                 horizon_only say neither; any other status says nothing. It stands on correct
                 spines alone unless the run was told otherwise, so it cannot see late drift
    gain         what the teacher's continuation gains over the student's, over all spines. A gain
                 ends with the trace, and so does a loss, since nothing is left to write: with the
                 same chance of a mistake at each step a gain falls while, for each share of the
                 trace still to be written, it rises, and a loss does the reverse. So late only
                 where both changes fall (late prefixes can be mended less than the shorter way left
                 explains), early only where both rise, else neither. One case escapes that: where
                 hardly any continuation of the first prefix reaches the answer, a gain has no room
                 there and first grows, whatever the teacher. Unless both writers are shown to reach
                 it in more than one in twenty, the gain says nothing; nor with fewer than 10
                 problems, or an interval missing
    discrepancy  |ln(q / p)| along the trace. IW-OPD's premise is that it grows. It is no measure of
                 reliability, so it decides nothing: it says late where it grows, neither where no
                 growth is seen, nothing with fewer than 10 spines, and stands beside a verdict as
                 agreeing or not

The verdict, from the first two:

    contradictory   one says early, the other late
    discount_early  one says early, the other does not say late
    discount_late   one says late, the other does not say early
    neither         neither says early or late, and at least one is known
    too_few         nothing is known
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from branchdiag.stats import prescription_sentences as sentences
from branchdiag.stats.estimate import Estimate, with_enough
from branchdiag.stats.position_bias import GainChange
from branchdiag.stats.prescription_sentences import Basis, Evidence, Vote

Verdict = Literal["discount_early", "discount_late", "neither", "contradictory", "too_few"]
VERDICTS: tuple[Verdict, ...] = (
    "discount_early",
    "discount_late",
    "neither",
    "contradictory",
    "too_few",
)

MIN_PROBLEMS = 10
"""Fewer problems say nothing about gain or discrepancy, as they make no finding."""
MIN_ACCURACY = 0.05
"""Below it a gain has no room. Under constant chances of a mistake both changes of the gain had one
sign (beyond 0.03) only where the worse writer began below 0.065: student's chance of none 0.1 to 8
in the exponent, teacher's a fifth to five times that, problems alike or unlike in length."""
SAYS_NEITHER = ("flat", "horizon_only")


@dataclass(frozen=True)
class Prescription:
    """What the data support, in sentences.

    verdict: of the closed list above. sentence: states it. basis: each strand with its vote and its
    sentence, in the order of the docstring. remarks: what limits it, whatever it is.
    """

    verdict: Verdict
    sentence: str
    basis: tuple[Basis, ...]
    remarks: tuple[str, ...]

    @property
    def paragraph(self) -> str:
        """Everything, as one paragraph."""
        parts = (self.sentence, *(strand.sentence for strand in self.basis), *self.remarks)
        return " ".join(parts)


def prescribe(evidence: Evidence) -> Prescription:
    """The verdict by the rule in this module's docstring, and its sentences."""
    schedule, gain = schedule_vote(evidence), gain_vote(evidence.gain, evidence.first_accuracy)
    slope = evidence.discrepancy
    discrepancy = discrepancy_vote(with_enough(slope.estimate, slope.n_problems, MIN_PROBLEMS))
    verdict = _verdict(schedule, gain)
    basis = (
        Basis("schedule", schedule, sentences.schedule(evidence, schedule)),
        Basis(
            "gain", gain, sentences.gain(evidence, gain, has_room=has_room(evidence.first_accuracy))
        ),
        Basis("discrepancy", discrepancy, sentences.discrepancy(evidence, discrepancy)),
    )
    return Prescription(
        verdict=verdict,
        sentence=sentences.statement(verdict, basis),
        basis=basis,
        remarks=sentences.remarks(evidence),
    )


def schedule_vote(evidence: Evidence) -> Vote:
    """What the fitted schedule says, by its status and direction."""
    if evidence.schedule_status in SAYS_NEITHER:
        return "neither"
    if evidence.schedule_status not in ("ok", "separation"):
        return "unknown"
    if evidence.schedule_direction == "none":
        return "neither"
    return "early" if evidence.schedule_direction == "increasing" else "late"


def gain_vote(gain: GainChange, first_accuracy: Estimate) -> Vote:
    """What the two changes of the gain say, by their intervals.

    Args:
        first_accuracy: share of correct continuations of the first prefix, of the worse writer.
    """
    known = gain.slope.has_interval and gain.per_remaining.has_interval
    if gain.n_problems < MIN_PROBLEMS or not known or not has_room(first_accuracy):
        return "unknown"
    if gain.slope.is_below(0.0) and gain.per_remaining.is_below(0.0):
        return "late"
    if gain.slope.is_above(0.0) and gain.per_remaining.is_above(0.0):
        return "early"
    return "neither"


def has_room(first_accuracy: Estimate) -> bool:
    """Whether enough continuations of the first prefix are shown to reach the answer.

    All of them leave no spread to resample, and room all the same.
    """
    return first_accuracy.is_above(MIN_ACCURACY) or first_accuracy.value == 1.0


def discrepancy_vote(slope: Estimate) -> Vote:
    """Whether the discrepancy is seen to grow along the trace."""
    if not slope.has_interval:
        return "unknown"
    return "late" if slope.is_above(0.0) else "neither"


def _verdict(schedule: Vote, gain: Vote) -> Verdict:
    votes = {schedule, gain}
    if {"early", "late"} <= votes:
        return "contradictory"
    if "early" in votes:
        return "discount_early"
    if "late" in votes:
        return "discount_late"
    return "too_few" if votes == {"unknown"} else "neither"
