"""Cuts, requests, grades and shares of the prefixes, without a model."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.grade import Grade
from branchdiag.errors import UsageError
from branchdiag.phases.p1_prefixes import requests_of
from branchdiag.phases.p2_grade import grade_row
from branchdiag.phases.p3_document import told_to_teacher
from branchdiag.phases.p3_position_bias import (
    PrefixShares,
    first_accuracy,
    prefix_shares,
    scored_tokens,
)
from branchdiag.phases.prefixes import cut_of, cuts_of, fraction_text
from branchdiag.protocol import Protocol, validate
from branchdiag.stage_settings import PrefixSettings

TENTHS = PrefixSettings().fractions
PROMPTS = {"student": (1, 2), "teacher": (1, 2, 3, 4)}


def spine(length: int = 20, **changed: Any) -> dict[str, Any]:
    return {
        "problem_id": "p",
        "n_spine_tokens": length,
        "spine_ids": list(range(100, 100 + length)),
        "correct": True,
        "boxed_position": 15,
    } | changed


def test_a_fraction_is_cut_as_it_is_written() -> None:
    assert cut_of(0.29, 100) == 29  # 0.29 * 100 is 28.999... in binary
    assert cut_of(0.7, 10) == 7
    assert cut_of(0.0, 10) == 0
    assert fraction_text(0) == "0.0"


@given(st.integers(0, 99), st.integers(1, 3000))
def test_cuts_are_the_floor_of_the_decimal_fraction(hundredths: int, length: int) -> None:
    assert cut_of(hundredths / 100, length) == math.floor(Fraction(hundredths, 100) * length)


@given(st.integers(1, 60))
def test_every_fraction_has_a_cut_and_every_cut_one_name(length: int) -> None:
    cuts = cuts_of(length, TENTHS)
    assert {cut_of(fraction, length) for fraction in TENTHS} == set(cuts)
    assert list(cuts) == sorted(cuts)
    assert all(cut < length for cut in cuts)
    for cut, name in cuts.items():
        assert name == min(fraction for fraction in TENTHS if cut_of(fraction, length) == cut)


def test_prefixes_that_coincide_are_continued_once_under_the_smaller_name() -> None:
    assert cuts_of(3, TENTHS) == {0: 0.0, 1: 0.4, 2: 0.7}


def test_a_request_is_the_writers_prompt_and_the_prefix() -> None:
    settings = PrefixSettings(fractions=(0.0, 0.5), rollouts=2, max_response_tokens=30)
    made = {request.key: request for request in requests_of(spine(), PROMPTS, settings, 0)}
    assert len(made) == 2 * 2 * 2
    teacher = made["p", 10, "teacher", 1]
    assert teacher.prompt_ids == (1, 2, 3, 4, *range(100, 110))
    assert made["p", 0, "student", 0].prompt_ids == (1, 2)
    # Prefix and continuation together have one budget, the same for both writers.
    assert teacher.sampling.max_new_tokens == 20
    assert made["p", 10, "student", 0].sampling.max_new_tokens == 20
    assert (teacher.sampling.temperature, teacher.sampling.top_p) == (1.0, 1.0)
    assert teacher.sampling.top_k == -1


def test_seeds_differ_and_more_fractions_or_samples_change_none() -> None:
    def seeds(**changed: Any) -> dict[Any, int]:
        settings = PrefixSettings(**changed)
        return {r.key: r.seed for r in requests_of(spine(200), PROMPTS, settings, 7)}

    few, many = seeds(fractions=(0.2, 0.5), rollouts=2), seeds(rollouts=4)
    assert len(set(many.values())) == len(many) == 10 * 2 * 4
    assert all(many[key] == seed for key, seed in few.items())
    other_run = {
        r.key: r.seed for r in requests_of(spine(200), PROMPTS, PrefixSettings(rollouts=4), 8)
    }
    assert not set(other_run.values()) & set(many.values())


def test_the_prefix_may_hold_the_box_and_is_marked() -> None:
    sample = {
        "problem_id": "p",
        "fraction": "0.8",
        "writer": "student",
        "sample": 0,
        "finish_reason": "length",
        "n_tokens": 4,
    }
    grade = Grade(False, "no answer")
    rows = {cut: grade_row({**sample, "cut": cut}, spine(), None, grade) for cut in (15, 16)}
    assert rows[15]["after_box"] is False  # the box begins with the first token after the cut
    assert rows[16]["after_box"] is True
    assert rows[15]["truncated"] is True
    unboxed = grade_row({**sample, "cut": 16}, spine(boxed_position=None), None, grade)
    assert unboxed["after_box"] is False


def grades(cuts: dict[int, tuple[int, int]], of: int = 4, name: str = "p") -> list[dict[str, Any]]:
    """Rows: cut -> successes of student and teacher."""
    return [
        {
            "problem_id": name,
            "cut": cut,
            "writer": writer,
            "after_box": cut >= 16,
            "correct": index < won,
        }
        for cut, both in cuts.items()
        for writer, won in zip(("student", "teacher"), both, strict=True)
        for index in range(of)
    ]


def test_fractions_that_share_a_cut_share_its_samples() -> None:
    spines = {"p": spine(3), "q": spine(20, correct=False)}
    rows = grades({0: (1, 2), 1: (3, 4)}) + grades({0: (0, 0), 10: (0, 1)}, name="q")
    made = prefix_shares(spines, rows, (0.0, 0.5))
    assert made.problems == ["p", "q"]
    assert made.share_PF["student"].tolist() == [[0.25, 0.75], [0.0, 0.0]]
    assert made.share_PF["teacher"].tolist() == [[0.5, 1.0], [0.0, 0.25]]
    assert made.correct_P.tolist() == [True, False]
    shared = prefix_shares({"p": spine(3)}, grades({0: (1, 2)}), (0.0, 0.1, 0.3))
    assert shared.share_PF["student"].tolist() == [[0.25, 0.25, 0.25]]


def test_prefixes_after_a_box_are_known() -> None:
    made = prefix_shares({"p": spine(20)}, grades({0: (1, 1), 16: (0, 0)}), (0.0, 0.8))
    assert made.after_box_PF.tolist() == [[False, True]]


def test_no_grade_at_all_is_no_error() -> None:
    made = prefix_shares({"p": spine()}, [], TENTHS)
    assert made.share_PF["student"].shape == (0, 10)


def test_tokens_come_from_phase_b_and_from_the_other_spines_alike() -> None:
    positions = [
        {"problem_id": "b", "position": t, "teacher_logprob": -1.0, "student_logprob": q}
        for t, q in enumerate((-1.5, -0.75, -1.0))
    ]
    ratios = [{"problem_id": "a", "position": t, "log_ratio": v} for t, v in enumerate((-0.5, 0.5))]
    made = scored_tokens({"a": False, "b": True}, positions, ratios)
    assert made.spine.tolist() == ["a", "a", "b", "b", "b"]
    assert made.columns["step"].tolist() == [0.5, 0.5, 0.5, 0.25, 0.0]
    assert made.columns["before"].tolist() == [0.0, 0.5, 0.0, 0.5, 0.75]
    assert made.columns["r"].tolist() == pytest.approx([0.25, 0.75, 1 / 6, 0.5, 5 / 6])
    assert made.correct.tolist() == [False, False, True, True, True]
    assert made.of_group("incorrect").tolist() == [True, True, False, False, False]
    assert made.of_group("all").all()


def test_room_at_the_first_prefix_must_be_shown_of_both_writers() -> None:
    student = np.where(np.arange(40) < 3, 1.0, 0.0)  # 0.075, and may be next to nothing
    teacher = np.where(np.arange(40) % 2 == 0, 0.06, 0.07)  # 0.065, and surely above 0.05
    shares = PrefixShares(
        problems=[f"p{n}" for n in range(40)],
        fractions=(0.0,),
        share_PF={"student": student[:, np.newaxis], "teacher": teacher[:, np.newaxis]},
        correct_P=np.ones(40, np.bool_),
        after_box_PF=np.zeros((40, 1), np.bool_),
    )
    found = first_accuracy(
        shares, {"resamples": 400, "level": 0.95, "seed": 0, "max_dropped_share": 0.1}
    )
    assert found.value == pytest.approx(student.mean()) and not found.is_above(0.05)


def test_a_spine_that_phase_b_scored_later_counts_once() -> None:
    positions = [
        {"problem_id": "b", "position": t, "teacher_logprob": -1.5, "student_logprob": -1.0}
        for t in range(3)
    ]
    ratios = [{"problem_id": "b", "position": t, "log_ratio": -0.5} for t in range(3)]
    made = scored_tokens({"b": True}, positions, ratios)
    assert made.spine.tolist() == ["b"] * 3 and made.n_spines_left_out == 0


def test_a_template_file_that_shows_the_answer_leaks_it_as_the_answer_context_does(
    tmp_path: Path,
) -> None:
    def told(context: str) -> str | None:
        return told_to_teacher(validate({"teacher": {"context": context}}, where="test"))

    leaky, hint = tmp_path / "leaky.txt", tmp_path / "hint.txt"
    leaky.write_text("{problem} It is {answer}.")
    hint.write_text("{problem} Take care.")
    assert told("answer") == told(str(leaky)) == "the answer"
    assert told("solution") == "a solution"
    assert told("none") is None and told(str(hint)) is None


def test_a_token_that_a_side_excludes_leaves_its_spine_without_sums() -> None:
    positions = [
        {"problem_id": "b", "position": t, "teacher_logprob": q, "student_logprob": -1.0}
        for t, q in enumerate((-1.0, None))
    ]
    made = scored_tokens({"b": True}, positions, [])
    assert (made.n_missing, made.n_spines_left_out) == (1, 1)
    assert np.isnan(made.columns["weight"]).all()


@pytest.mark.parametrize("wrong", [[], [0.5, 0.2], [0.1, 0.1], [1.0], [-0.1]])
def test_fractions_that_make_no_sense_are_refused(wrong: list[float]) -> None:
    with pytest.raises(UsageError, match=r"prefixes\.fractions"):
        validate({"prefixes": {"fractions": wrong}}, where="test")


def test_the_defaults_are_tenths_eight_samples_and_plain_sampling() -> None:
    settings = Protocol().prefixes
    assert settings.fractions == tuple(n / 10 for n in range(10))
    assert (settings.rollouts, settings.temperature, settings.top_p) == (8, 1.0, 1.0)
