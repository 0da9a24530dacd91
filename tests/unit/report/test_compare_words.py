"""What a comparison says: each verdict in its words, what may be compared, and what differs."""

from __future__ import annotations

from typing import Any

import pytest

from branchdiag.report.compare_differs import what_differs
from branchdiag.report.compare_document import DifferingKey
from branchdiag.report.compare_page import headlines
from branchdiag.report.compare_sentences import (
    FIGURES,
    comparability,
    figure_difference,
    notes,
    pair_summary,
    sentence,
)
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.run_differences import EQUAL, Difference, Verdict


def found(verdict: Verdict, **changes: Any) -> Difference:
    values: dict[str, Any] = {
        "name": "d_slope",
        "first": -0.07,
        "second": 0.03,
        "estimate": Estimate(0.10, 0.04, 0.16),
        "low": 0.01,
        "high": 0.19,
        "p": 0.004,
        "n_problems": 42,
        "verdict": verdict,
        "few": None,
    }
    return Difference(**(values | changes))


def said(verdict: Verdict, **changes: Any) -> str:
    return sentence(found(verdict, **changes), "A", "B", 0.95)


def test_a_difference_is_stated_with_both_values_and_both_intervals() -> None:
    text = said("higher")
    assert text.startswith("B and A differ in slope of d on r: 0.030 against -0.070, +0.100")
    for part in ("95% interval 0.040 to 0.160", "0.010 to 0.190", "p 0.004", "42 problems"):
        assert part in text
    assert "not told apart" not in text


def test_no_difference_is_said_of_the_problems_and_not_of_the_runs() -> None:
    text = said("not told apart", estimate=Estimate(0.10, -0.02, 0.21), low=-0.1, high=0.3, p=0.2)
    assert "not told apart in slope of d on r by these 42 problems" in text
    assert "differ" not in text


def test_one_that_does_not_survive_the_others_is_not_called_a_difference() -> None:
    text = said("alone", low=-0.01, high=0.21)
    assert "not told apart" in text
    assert "leaves out 0, but with all figures taken together it is -0.010 to 0.210" in text


def test_an_interval_that_the_swap_does_not_bear_out_says_so() -> None:
    assert "swapping the runs inside problems gives p 0.081" in said("not told apart", p=0.081)


def test_what_is_missing_or_too_few_names_its_reason() -> None:
    missing = Estimate(None, None, None, "no problem has a value in both runs")
    none: dict[str, Any] = {"first": None, "second": None, "low": None, "high": None, "p": None}
    text = said("not compared", estimate=missing, **none)
    assert text == "Slope of d on r is not compared: no problem has a value in both runs."
    text = said("too few", few="8 problems inform it in both runs, where 10 are needed")
    assert text.startswith("Too few data to say whether B and A differ in slope of d on r: 8 prob")
    text = said("equal", estimate=Estimate(0.0, None, None, EQUAL), low=None, high=None)
    assert text == "Slope of d on r is the same in A and B in each of 42 problems."
    wide = Estimate(0.1, None, None, "250 of 2000 resamples drew no problem")
    assert "no interval: 250 of 2000" in said("not told apart", estimate=wide)


def test_every_figure_has_words_and_a_zero_has_no_sign() -> None:
    for name in FIGURES:
        text = sentence(
            found("not told apart", name=name, estimate=Estimate(-1e-9, -0.01, 0.01)),
            "A",
            "B",
            0.95,
        )
        assert FIGURES[name].what in text
        assert ", 0.0" in text
        assert "-0.0," not in text and "-0.00 " not in text


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (["higher", "not told apart"], "differ in problems solved by the spine (higher in B), and"),
        (["not told apart", "not told apart"], "not told apart by these 42 problems in any of 2"),
        (["alone", "not told apart"], "By its own interval problems solved by the spine would be"),
        (["equal", "too few"], "Too few shared data"),
        (["equal", "equal"], "the same in every figure"),
        (["not compared"], "nothing that can be paired"),
    ],
)
def test_a_pair_is_summed_up(verdicts: list[Verdict], words: str) -> None:
    names = list(FIGURES)
    figures = [
        figure_difference(found(verdict, name=name), "A", "B", 0.95)
        for name, verdict in zip(names, verdicts, strict=False)
    ]
    assert words in pair_summary(figures, "A", "B")


def run_entry(label: str, **changes: Any) -> Any:
    return {"label": label, "level": 0.95, "failed_units": 0, **changes}


def key(name: str) -> DifferingKey:
    return {"key": name, "values": [1, 2], "means": ""}


SHARED = {
    "problems": 40,
    "only_first": 0,
    "only_second": 0,
    "changed": 0,
    "diagnosed": 20,
    "same_spines": 40,
    "same_places": 77,
    "same_children": 60,
}


def compared(*keys: str, **counts: int) -> tuple[str, str]:
    can, cannot = comparability(
        SHARED | counts, [key(name) for name in keys], run_entry("A"), run_entry("B", level=0.9)
    )
    return " ".join(can), " ".join(cannot)


def test_what_is_shared_is_counted() -> None:
    can, cannot = compared("seed")
    assert "40 problems with the same text and answer are in both runs; 20 of them" in can
    assert "77 candidates lie at the same place in both runs, 60 of them" in can
    assert "not paired; problems are" in cannot


def test_other_spines_other_problems_and_changed_ones_are_named() -> None:
    _, cannot = compared(same_spines=3, only_first=5, only_second=2, changed=1)
    assert "On 37 of the shared problems the spines differ" in cannot
    assert "5 problems of A and 2 of B are not in the other run" in cannot
    assert "1 problem of the same name has another text" in cannot


def test_nothing_shared_means_nothing_paired() -> None:
    can, cannot = compared(problems=0, same_spines=0)
    assert "each with its own interval" in can
    assert "nothing is paired" in cannot


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("continuation.temperature", "viability is not the same quantity"),
        ("label.uncertain_share", "Labels follow other rules (label.uncertain_share)"),
        ("candidates.spines", "correct spines and those of the other of incorrect"),
        ("candidates.min_p2", "Other places become candidates"),
        ("teacher", "Other places become candidates"),
        ("teacher template", "Other places become candidates"),
        ("student", "The students differ"),
        ("report.level", "95% and 90%"),
    ],
)
def test_a_setting_that_changes_the_quantity_is_said(name: str, words: str) -> None:
    assert words in compared(name)[1]
    assert words not in compared("seed")[1]


def test_notes_tell_a_seed_from_a_setting_and_a_copy_from_both() -> None:
    runs = [run_entry("A"), run_entry("B", failed_units=3)]
    assert "chance, and a yardstick" in notes([key("seed")], runs, 9, 40)[0]
    assert "which problems were drawn" in notes([key("seed"), key("problems")], runs, 9, 40)[0]
    assert "one run made twice" in notes([], runs, 9, None)[0]
    assert not any("yardstick" in line for line in notes([key("dropout.layers")], runs, 9, 40))
    assert any("too narrow; a figure here stands on 12" in line for line in notes([], runs, 9, 12))
    assert notes([], runs, 9, None)[-1] == "Units that failed and are in no figure: B (3)."


def manifest(**changes: Any) -> dict[str, Any]:
    model = {"name": "m", "revision": None, "content_id": "abc"}
    made: dict[str, Any] = {
        "seed": 0,
        "branchdiag": "0.1.0",
        "inputs": {"student": model, "teacher": model, "engine_name": "transformers"}
        | {"data_id": "x", "problems": {}},
        "phases": {"B": {"content": {"teacher_template": "{problem}"}}},
        "protocol": {"name": "p", "label": {"diversity_share": 0.75}, "engine": {"batch_size": 8}},
    }
    return made | changes


def test_what_differs_goes_by_identity_and_not_by_name() -> None:
    renamed = manifest()
    renamed["inputs"] = renamed["inputs"] | {
        "student": {"name": "another/path", "revision": None, "content_id": "abc"}
    }
    rows, same = what_differs([manifest(), renamed])
    assert rows == []
    assert "student" in same
    renamed["inputs"]["student"]["content_id"] = "xyz"
    rows, _ = what_differs([manifest(), renamed])
    assert [row["key"] for row in rows] == ["student"]
    assert rows[0]["values"] == ["m @ abc", "another/path @ xyz"]


def test_settings_differ_by_key_with_what_they_change() -> None:
    other = manifest(
        seed=4, protocol={"name": "q", "label": {"diversity_share": 0.5}, "new": {"key": [1]}}
    )
    rows, _ = what_differs([manifest(), other])
    by_key = {row["key"]: row for row in rows}
    assert by_key["seed"]["values"] == [0, 4]
    assert by_key["label.diversity_share"]["values"] == [0.75, 0.5]
    assert "AUROC" in by_key["label.diversity_share"]["means"]
    assert by_key["engine.batch_size"]["values"] == [8, None]
    assert by_key["new.key"]["values"] == [None, [1]]
    assert "name" not in by_key


def test_settings_of_a_diagnostic_that_came_later_are_no_difference() -> None:
    newer = manifest()
    newer["protocol"] = newer["protocol"] | {"prefixes": {"rollouts": 8}}
    assert what_differs([manifest(), newer])[0] == []


def test_headlines_of_a_side_diagnostic_are_its_sentences() -> None:
    assert headlines({"paragraph": "One.", "sentences": ["Two."]}) == ["One."]
    assert headlines({"groups": [{"sentences": ["a"]}, {"sentences": ["b", 3]}]}) == ["a", "b"]
    assert headlines({"value": 1.0}) == []
    groups = [{"description": f"on {kind} spines", "sentences": ["x"]} for kind in ("good", "bad")]
    assert headlines({"groups": groups}) == ["On good spines:", "x", "On bad spines:", "x"]
