"""Which prescription the data support: discount early tokens, late ones, or neither.

PW-OPSD (arXiv 2605.21606) discounts early tokens, IW-OPD (arXiv 2606.22600) late ones. Reads
intervals and statuses and nothing else, so that nothing here can rest on a point value; knows no
data. Three strands, each of which says early, late, neither or unknown:

    schedule     the schedule fitted to the run: rising says early, falling says late; flat and
                 horizon_only say neither; any other status says nothing. It stands on correct
                 spines alone unless the run was told otherwise, so it cannot see late drift
    gain         what the teacher's continuation gains over the student's, over all spines. Late
                 where the gain for each share of the trace still to be written falls: late prefixes
                 can be mended less than the shorter way left explains. Early where the gain itself
                 rises though less and less is left to write. Neither where both or none is seen.
                 That the gain per remaining share rises says nothing: a teacher that copies an
                 answer at the end makes it rise, and so does a student that nearly always fails
                 early. Fewer than 10 problems, or an interval missing: nothing
    discrepancy  |ln(q / p)| along the trace. IW-OPD's premise is that it grows. It is no measure of
                 reliability, so it decides nothing: it says late where it grows, neither where no
                 growth is seen, and stands beside a verdict as agreeing or not

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
from branchdiag.stats.estimate import Estimate
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
"""Fewer problems say nothing about the gain, as they make no finding."""
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
    schedule, gain = schedule_vote(evidence), gain_vote(evidence.gain)
    discrepancy = discrepancy_vote(evidence.discrepancy.estimate)
    verdict = _verdict(schedule, gain)
    basis = (
        Basis("schedule", schedule, sentences.schedule(evidence, schedule)),
        Basis("gain", gain, sentences.gain(evidence, gain)),
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


def gain_vote(gain: GainChange) -> Vote:
    """What the two changes of the gain say, by their intervals."""
    known = gain.slope.has_interval and gain.per_remaining.has_interval
    if gain.n_problems < MIN_PROBLEMS or not known:
        return "unknown"
    late, early = gain.per_remaining.is_below(0.0), gain.slope.is_above(0.0)
    if late == early:
        return "neither"
    return "late" if late else "early"


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
