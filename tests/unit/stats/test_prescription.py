"""Every verdict, every sentence, and that neither ever rests on a point value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from branchdiag.stats.estimate import Estimate, missing
from branchdiag.stats.horizon import Slope
from branchdiag.stats.position_bias import GainChange, contrasts
from branchdiag.stats.prescription import (
    VERDICTS,
    discrepancy_vote,
    gain_vote,
    prescribe,
    schedule_vote,
)
from branchdiag.stats.prescription_sentences import Evidence
from branchdiag.stats.schedule_status import STATUSES

FALLS, RISES, NONE = Estimate(-0.3, -0.5, -0.1), Estimate(0.3, 0.1, 0.5), Estimate(0.1, -0.2, 0.4)
ROOM, NO_ROOM = Estimate(0.5, 0.4, 0.6), Estimate(0.06, 0.02, 0.11)
NO_INTERVAL = Estimate(-0.9, None, None, "2 problems are too few to resample")


def gain(per_remaining: Estimate = NONE, slope: Estimate = NONE, n: int = 60) -> GainChange:
    return GainChange(Estimate(0.2, 0.1, 0.3), slope, per_remaining, n)


def evidence(**changed: Any) -> Evidence:
    base = Evidence(
        schedule_status="flat",
        schedule_direction="none",
        schedule_reason="the constant is chosen",
        schedule_spines="correct",
        gain=gain(),
        first_accuracy=ROOM,
        discrepancy=Slope(NONE, 900, 60),
        n_incorrect=20,
        by_spine={"correct": FALLS, "incorrect": RISES},
        told=None,
        gamma=0.5,
        level=0.95,
    )
    return replace(base, **changed)


RISING = {"schedule_status": "ok", "schedule_direction": "increasing", "schedule_reason": None}
FALLING = {"schedule_status": "ok", "schedule_direction": "decreasing", "schedule_reason": None}
UNKNOWN = {"schedule_status": "insufficient", "schedule_reason": "2 problems"}
LATE, EARLY = {"gain": gain(FALLS, FALLS)}, {"gain": gain(RISES, RISES)}
FEW = {"gain": gain(FALLS, FALLS, n=9)}


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "neither"),
        (UNKNOWN, "neither"),
        (FEW, "neither"),
        (UNKNOWN | FEW, "too_few"),
        (RISING, "discount_early"),
        (RISING | FEW, "discount_early"),
        (RISING | EARLY, "discount_early"),
        (EARLY, "discount_early"),
        (UNKNOWN | EARLY, "discount_early"),
        (FALLING, "discount_late"),
        (FALLING | LATE, "discount_late"),
        (LATE, "discount_late"),
        (UNKNOWN | LATE, "discount_late"),
        (RISING | LATE, "contradictory"),
        (FALLING | EARLY, "contradictory"),
    ],
)
def test_the_verdict_follows_from_the_schedule_and_the_gain(
    changed: dict[str, Any], verdict: str
) -> None:
    made = prescribe(evidence(**changed))
    assert made.verdict == verdict
    for slope in (FALLS, RISES, missing("no spine")):  # the discrepancy decides nothing
        assert prescribe(evidence(**changed, discrepancy=Slope(slope, 9, 9))).verdict == verdict


def test_every_verdict_has_been_seen() -> None:
    seen = {
        prescribe(evidence(**changed)).verdict
        for changed in ({}, UNKNOWN | FEW, RISING, FALLING, RISING | LATE)
    }
    assert seen == set(VERDICTS)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_of_a_fit_has_a_vote(status: str) -> None:
    votes = {
        direction: schedule_vote(evidence(schedule_status=status, schedule_direction=direction))
        for direction in ("increasing", "decreasing", "none")
    }
    if status in ("ok", "separation"):
        assert votes == {"increasing": "early", "decreasing": "late", "none": "neither"}
    else:
        (vote,) = set(votes.values())
        assert vote == ("neither" if status in ("flat", "horizon_only") else "unknown")


def test_a_point_value_without_an_interval_says_nothing() -> None:
    assert gain_vote(gain(NO_INTERVAL, FALLS), ROOM) == "unknown"
    assert gain_vote(gain(FALLS, NO_INTERVAL), ROOM) == "unknown"
    assert gain_vote(gain(FALLS, FALLS), Estimate(0.5, None, None, "too few")) == "unknown"
    assert discrepancy_vote(NO_INTERVAL) == "unknown"


def test_a_large_value_whose_interval_holds_zero_says_neither() -> None:
    wide = Estimate(-5.0, -11.0, 0.5)
    assert gain_vote(gain(wide, wide), ROOM) == "neither"
    assert discrepancy_vote(Estimate(5.0, -0.5, 11.0)) == "neither"


def test_a_gain_that_only_ends_with_the_trace_says_neither() -> None:
    made = prescribe(evidence(gain=gain(NONE, FALLS)))
    assert made.verdict == "neither"
    assert "no more than the shorter way left to write explains" in made.basis[1].sentence


def test_that_the_gain_per_remaining_share_rises_says_neither() -> None:
    """A teacher that copies the answer at the end makes it rise."""
    assert gain_vote(gain(RISES, NONE), ROOM) == "neither"


def test_changes_that_say_opposite_things_say_neither() -> None:
    assert gain_vote(gain(FALLS, RISES), ROOM) == "neither"
    sentence = prescribe(evidence(gain=gain(FALLS, RISES))).basis[1].sentence
    assert sentence.endswith("as a loss that ends with the trace does.")


def test_that_one_change_moves_and_the_other_is_not_seen_to_says_neither() -> None:
    """A loss rises to nothing by itself, as a gain falls to nothing."""
    for changes, ending in (
        (gain(NONE, RISES), "but no more than a loss does that ends with the trace."),
        (gain(FALLS, NONE), "less is gained for what is left, but no fall of the gain itself is "
         "seen."),
    ):  # fmt: skip
        assert gain_vote(changes, ROOM) == "neither"
        assert prescribe(evidence(gain=changes)).basis[1].sentence.endswith(ending)


def test_a_gain_without_room_is_not_read() -> None:
    for changes in (LATE, EARLY):
        made = prescribe(evidence(**changes, first_accuracy=NO_ROOM))
        assert made.basis[1].vote == "unknown" and made.verdict == "neither"
        assert "0.06 (95% interval 0.02 to 0.11) reach the answer" in made.basis[1].sentence
        none = prescribe(evidence(**changes, first_accuracy=Estimate(0.0, None, None, "one value")))
        assert "first prefix's continuations none reach the answer" in none.basis[1].sentence
    everyone = Estimate(1.0, None, None, "the resamples gave one value")
    assert gain_vote(gain(FALLS, FALLS), everyone) == "late"


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize("hazard", [0.15, 0.6, 1.5, 3.0, 6.0])
def test_the_horizon_alone_says_nothing_of_early_and_late(hazard: float, better: bool) -> None:
    """One writer has twice the other's chance of a mistake, the same at every step: exact shares
    under an interval as narrow as four standard errors of 2,000 problems.
    """
    fractions = np.arange(10) / 10
    lengths = np.linspace(0.5, 1.5, 8)
    shares = [
        np.exp(-scale * hazard * np.outer(lengths, 1 - fractions)).mean(axis=0)
        for scale in ((1.0, 0.5) if better else (0.5, 1.0))
    ]
    curve = shares[1] - shares[0]
    slope, per_remaining = (
        Estimate(float(c @ curve), float(c @ curve) - 0.02, float(c @ curve) + 0.02)
        for c in contrasts(fractions)
        if c is not None
    )
    least = float(min(share[0] for share in shares))
    first = Estimate(least, max(least - 0.01, 0.0), least + 0.01)
    found = GainChange(Estimate(0.0, -1.0, 1.0), slope, per_remaining, 2000)
    assert gain_vote(found, first) in ("neither", "unknown")


def test_the_statement_names_what_it_rests_on() -> None:
    def sentence(**changed: Any) -> str:
        return prescribe(evidence(**changed)).sentence

    grows = {"discrepancy": Slope(RISES, 90, 19)}
    assert sentence() == (
        "These data support neither discounting early tokens, as PW-OPSD (arXiv 2605.21606) does, "
        "nor late ones, as IW-OPD (arXiv 2606.22600) does: neither the fitted schedule nor the "
        "teacher's gain speaks for either."
    )
    assert sentence(**UNKNOWN).endswith(
        "the teacher's gain speaks for neither, and the fitted schedule cannot be read."
    )
    assert sentence(**RISING) == (
        "These data support discounting early tokens, as PW-OPSD (arXiv 2605.21606) does: the "
        "fitted schedule says so, and the teacher's gain speaks for neither."
    )
    assert sentence(**(RISING | EARLY)).endswith(
        "the fitted schedule and the teacher's gain say so."
    )
    assert sentence(**LATE, **grows) == (
        "These data support discounting late tokens, as IW-OPD (arXiv 2606.22600) does: the "
        "teacher's gain says so, the fitted schedule speaks for neither, and the discrepancy grows "
        "along the trace, as IW-OPD expects."
    )
    assert sentence(**(FALLING | LATE)).endswith(
        "the fitted schedule and the teacher's gain say so, and the discrepancy is not seen to "
        "grow along the trace, as IW-OPD expects it to."
    )
    assert sentence(**(RISING | LATE)) == (
        "These data support neither prescription, since they contradict each other: the fitted "
        "schedule speaks for discounting early tokens, the teacher's gain for discounting late "
        "ones."
    )
    assert sentence(**(FALLING | EARLY)).endswith(
        "the teacher's gain speaks for discounting early tokens, the fitted schedule for "
        "discounting late ones."
    )
    assert sentence(**(UNKNOWN | FEW)).startswith("These data do not say")


def test_the_sentence_of_the_schedule_gives_status_and_direction() -> None:
    def sentence(**changed: Any) -> str:
        return prescribe(evidence(**changed)).basis[0].sentence

    assert sentence() == (
        "The schedule fitted to forced branches on correct spines is weight 1 everywhere "
        "(status flat; the constant is chosen)."
    )
    assert "rises along the trace (status ok): early teacher tokens" in sentence(**RISING)
    assert "falls along the trace (status ok): late teacher tokens" in sentence(**FALLING)
    assert "says nothing (status insufficient; 2 problems)" in sentence(**UNKNOWN)


def test_the_sentence_of_the_gain_gives_both_changes_with_intervals() -> None:
    def sentence(**changed: Any) -> str:
        return prescribe(evidence(**changed)).basis[1].sentence

    assert sentence(**LATE) == (
        "Continued by the teacher instead of the student, a prefix gains +0.20 in the share of "
        "correct answers on average (95% interval 0.10 to 0.30; 60 problems, 20 of them with an "
        "incorrect spine); from the start of a trace to its end that changes by -0.30 (95% "
        "interval -0.50 to -0.10), and for each share of the trace still to be written by -0.30 "
        "(95% interval -0.50 to -0.10), so late prefixes gain less than the shorter way left to "
        "write explains."
    )
    assert sentence(**EARLY).endswith(
        "so early prefixes gain less than the longer way left to write explains."
    )
    assert sentence().endswith("so no fall beyond the shorter way left to write is seen.")
    assert "-0.20 to 0.40, which includes 0" in sentence()
    assert sentence(**FEW).endswith("which is too little to be read.")
    unknown = GainChange(missing("a"), missing("a"), missing("a"), 0)
    assert sentence(gain=unknown) == "What the teacher's continuation gains is not known (a)."
    no_change = GainChange(NONE, missing("a change needs two fractions"), missing("b"), 60)
    assert "is not known (a change needs two fractions)" in sentence(gain=no_change)


def test_the_sentence_of_the_discrepancy_says_whether_it_grows() -> None:
    def sentence(slope: Estimate, **changed: Any) -> str:
        changed["discrepancy"] = Slope(slope, 900, 60)
        return prescribe(evidence(**changed)).basis[2].sentence

    assert sentence(RISES) == (
        "From the start of a trace to its end the discrepancy |log q - log p| changes by +0.3000 "
        "nats a token (95% interval 0.1000 to 0.5000; 60 spines: -0.3000 on correct ones and "
        "+0.3000 on incorrect ones): it grows, as IW-OPD expects."
    )
    one_kind = {"correct": FALLS, "incorrect": missing("no spine is incorrect")}
    assert "60 spines): it grows" in sentence(RISES, by_spine=one_kind)
    assert sentence(FALLS).endswith("it falls, where IW-OPD expects it to grow.")
    assert sentence(NONE).endswith("the growth that IW-OPD expects is not seen.")
    assert sentence(missing("no spine was scored")) == (
        "Whether the discrepancy |log q - log p| grows is not known (no spine was scored)."
    )
    assert "no interval: 2 problems are too few" in sentence(NO_INTERVAL)


def test_what_limits_the_verdict_is_said_where_it_applies() -> None:
    said = " ".join(prescribe(evidence()).remarks)
    assert "falls from 1.5 to 1 on every trace whatever the data" in said
    assert "removes late drift by construction" in said
    assert "copy" not in said
    told = " ".join(prescribe(evidence(told="the answer")).remarks)
    assert "The teacher is told the answer and can copy it" in told
    assert "a leak" in told
    assert "a solution" in " ".join(prescribe(evidence(told="a solution")).remarks)
    wrong = " ".join(prescribe(evidence(schedule_spines="incorrect")).remarks)
    assert "by construction" not in wrong


def test_the_paragraph_is_all_of_it_in_order() -> None:
    made = prescribe(evidence(told="the answer"))
    assert made.paragraph == " ".join(
        [made.sentence, *(strand.sentence for strand in made.basis), *made.remarks]
    )
    assert made.paragraph.count("  ") == 0


def test_nine_spines_do_not_say_that_the_discrepancy_grows() -> None:
    nine, ten = (prescribe(evidence(discrepancy=Slope(RISES, 900, n))) for n in (9, 10))
    assert [made.basis[-1].vote for made in (nine, ten)] == ["unknown", "late"]
    assert "grows" not in nine.basis[-1].sentence and "it grows" in ten.basis[-1].sentence
