"""Each caveat: there where it applies, absent where it does not, with the run's own numbers."""

from __future__ import annotations

import copy
import itertools
import statistics

import pytest

from branchdiag.report.caveats import RULES, caveats, detectable_auroc, null_sd


@pytest.mark.parametrize(("n1", "n0"), [(1, 1), (2, 3), (3, 4), (4, 4), (2, 7)])
def test_the_null_deviation_is_that_of_all_orderings(n1, n0):
    areas = []
    for ranks in itertools.combinations(range(n1 + n0), n1):
        below = [r - i for i, r in enumerate(ranks)]  # negatives ranked below each positive
        areas.append(sum(below) / (n1 * n0))
    assert null_sd(n1, n0) == pytest.approx(statistics.pstdev(areas), rel=1e-12)


def test_the_papers_counts_give_its_known_power():
    assert null_sd(8, 271) == pytest.approx(0.1037, abs=5e-4)
    assert detectable_auroc(8, 271) == pytest.approx(0.79, abs=0.005)
    assert detectable_auroc(1, 2) == 1.0
    assert detectable_auroc(8, 271, level=0.99) > detectable_auroc(8, 271)


@pytest.fixture(scope="session")
def base_document(make):
    return make(candidates=600, positives=120, grays=0).document


@pytest.fixture
def sound(base_document):
    """A document to which no caveat applies."""
    document = copy.deepcopy(base_document)
    document["counts"] |= {
        "incorrect_spines": 0,
        "fallback_spines": 0,
        "problems_with_real_uncertain": 40,
        "usable_problems": 61,
    }
    n = document["counts"]["real_uncertain"]
    document["control"]["real_uncertain_where_control_viable"] = n
    document["truncation"]["truncated"] = 0
    document["scores"] = [e for e in document["scores"] if e["name"] == "one_minus_r"]
    document["scores_relative"] = []
    assert caveats(document) == []
    return document


def entry(document, name, **changes):
    return {**copy.deepcopy(document["scores"][0]), "name": name, **changes}


def set_counts(**changes):
    def change(document):
        document["counts"] |= changes

    return change


def set_section(key, **changes):
    def change(document):
        document[key] |= changes

    return change


def add_score(name, **changes):
    def change(document):
        document["scores"].append(entry(document, name, **changes))

    return change


def no_control(document):
    document["settings"]["continuation"]["control"] = False


def away_from_half(document):
    row = entry(document, "control_length", null_mean=0.74, p=0.2, null_reason=None)
    document["scores_relative"] = [row]


def other_label(document):
    document["sensitivity"][1]["auroc"] = 0.31


def no_interval(document):
    reason = "312 of 2000 resamples had no value"
    document["scores"][0] |= {"ci_low": None, "ci_high": None, "reason": reason}


CASES = {
    "bundled": (set_section("model", bundled=True), ["bundled model", "another model"]),
    "no control": (no_control, ["control arm was switched off"]),
    "no positive": (set_counts(real_uncertain=0), ["No candidate is real-uncertain:"]),
    "no negative": (set_counts(diversity=0), ["No candidate is diversity:"]),
    "few positives": (
        set_counts(real_uncertain=8, diversity=271),
        ["Only 8 candidates are real-uncertain", "standard deviation of 0.10"],
    ),
    "one positive": (set_counts(real_uncertain=1), ["Only 1 candidate is real-uncertain"]),
    "few problems with positives": (
        set_counts(problems_with_real_uncertain=3),
        ["in 3 problems", "about 5.0% of the resamples"],
    ),
    "power": (
        add_score("mi", auroc=0.55, ci_low=0.4, ci_high=0.7),
        ["80% power needs an AUROC of about 0.58", "1 local score contains 0.5 (mi)"],
    ),
    "control not viable": (
        set_section("control", real_uncertain_where_control_viable=5),
        ["5 of the 120 real-uncertain candidates lie", "5 of 6", "other 115"],
    ),
    "control never viable": (
        set_section("control", real_uncertain_where_control_viable=0),
        ["None of the 120 real-uncertain candidates"],
    ),
    "horizon null": (away_from_half, ["control length has a relative AUROC of 0.74"]),
    "no interval": (no_interval, ["No interval could be given for one_minus_r: 312 of 2000"]),
    "no slope": (
        set_section("slope", estimate=None, ci_low=None, ci_high=None, reason="one position"),
        ["The slope against the control could not be computed: one position."],
    ),
    "no interval of the slope": (
        set_section("slope", ci_low=None, ci_high=None, reason="one problem"),
        ["The interval of the slope against the control could not be computed: one problem."],
    ),
    "few problems": (set_counts(usable_problems=7), ["rests on 7 problems"]),
    "other label": (other_label, ["0.31 under label_finished", "depends on how candidates"]),
    "truncated": (
        set_section("truncation", samples=1000, truncated=51),
        ["5.1% of the continuations (51 of 1,000)"],
    ),
    "truncated spines": (
        set_counts(truncated_spines=6),
        ["6 of the 84 spines were cut off by the budget"],
    ),
    "range": (add_score("h_trunc", ci_low=0.6), ["chosen for a high h_trunc"]),
    "incorrect": (
        set_counts(incorrect_spines=20, ungraded_spines=2),
        ["22 of 84 were left out"],
    ),
    "fallback": (set_counts(fallback_spines=3), ["3 of the 62 correct spines come"]),
    "unlabelled": (set_counts(unlabelled=4), ["4 candidates could not be labelled and are"]),
    "failed": (lambda d: d.update(errors={"E": 2}), ["2 units of work failed."]),
    "agreement": (
        set_section("agreement", argmax=0.953),
        ["vllm 0.11.0 and transformers 5.19", "only 95.3% of 4,000 positions"],
    ),
    "agreement not measured": (
        set_section("agreement", argmax=None, reason="no greedy spine"),
        ["was not measured: no greedy spine."],
    ),
    "many scores": (add_score("margin", ci_low=0.6), ["2 scores are compared"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_caveat_appears_with_its_numbers_where_it_applies(case, sound):
    change, fragments = CASES[case]
    change(sound)
    told = caveats(sound)
    assert any(all(fragment in sentence for fragment in fragments) for sentence in told), told
    assert all(sentence.endswith(".") for sentence in told)


def test_every_rule_is_set_off_by_some_case(sound):
    heard = set()
    for change, _ in CASES.values():
        document = copy.deepcopy(sound)
        change(document)
        heard |= {rule for rule in RULES if rule(document) is not None}
    assert heard == set(RULES)


def test_borders_are_quiet(sound):
    sound["truncation"] |= {"samples": 1000, "truncated": 19}
    sound["agreement"]["argmax"] = 0.99
    sound["counts"]["real_uncertain"] = 30
    sound["control"]["real_uncertain_where_control_viable"] = 30
    assert caveats(sound) == []


def test_degenerate_runs_have_caveats_and_no_crash(any_run):
    told = any_run.document["caveats"]
    assert told and len(told) == len(set(told))
    assert not any("None " in s and "None of" not in s for s in told)
    assert not any("nan" in s.split() for s in told)
