"""The leaderboard as page, terminal and JSON show it, and what its sentences say."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from branchdiag.report.document import from_json, to_json
from branchdiag.report.leaderboard import leaderboard_group, ranked
from branchdiag.report.page import render_page
from branchdiag.report.terminal import print_summary

POWER = {
    "null_sd": 0.05,
    "critical": 0.61,
    "detectable": 0.64,
    "critical_clustered": 0.62,
    "critical_simultaneous": 0.66,
}


def row(name, rank=None, auroc=None, **more):
    full = {
        "group": "primary", "name": name, "kind": "signal", "paper": f"paper of {name}",
        "sign": 1, "rank": rank, "auroc": auroc, "ci_low": None, "ci_high": None,
        "alias_of": None, "alias_opposite": None, "stratified_auroc": 0.5,
        "relative_auroc": 0.5, "relative_null_mean": 0.51, "relative_p": 0.4,
        "reason": None, "relative_reason": None, "comparison_reason": None,
    }  # fmt: skip
    ends = ("", "_ci_low", "_ci_high", "_low", "_high", "_p")
    full |= {f"{prefix}{end}": None for prefix in ("vs_reference", "vs_best") for end in ends}
    return full | more


def group(reason=None, **more):
    rows = [
        row("one_minus_r", 2, 0.7, vs_best=-0.1, vs_best_low=-0.2, vs_best_high=0.01),
        row("kl", 3, 0.5, vs_reference=-0.2, vs_reference_low=-0.3, vs_reference_high=-0.1,
            vs_best=-0.3, vs_best_low=-0.4, vs_best_high=-0.2),
        row("forward_kl", alias_of="kl", alias_opposite=False),
        row("planted", 1, 0.8, ci_low=0.7, ci_high=0.9, vs_reference=0.1,
            vs_reference_low=0.02, vs_reference_high=0.2),
        row("turned", alias_of="kl", alias_opposite=True),
        row("mi", comparison_reason="this run did not measure it"),
    ]  # fmt: skip
    settings = {
        "level": 0.95,
        "meanings": {r["name"]: f"meaning of {r['name']}" for r in rows},
        "reference": "one_minus_r",
        "best": "planted",
        "n_compared": 3,
        "n_candidates": 400,
        "n_positive": 60,
        "n_problems": 90,
        "power": POWER,
        "reason": reason,
    }
    return leaderboard_group("primary", "the candidates of this report", rows, **settings | more)


def test_best_first_and_aliases_with_their_first() -> None:
    made = group()
    assert [entry["name"] for entry in ranked(made)] == ["planted", "one_minus_r", "kl"]
    assert made["entries"][2]["aliases"] == [
        {"name": "forward_kl", "opposite": False},
        {"name": "turned", "opposite": True},
    ]


def test_sentences_say_what_was_compared_seen_and_told_apart() -> None:
    many, power, best, reference = group()["sentences"]
    assert "3 scores and signals that differ" in many and "of 6 declared (2 are aliases)" in many
    assert "about 0.2 would lie" in many
    assert "60 positives and 340 negatives an AUROC under 0.62 could not have been told" in power
    assert "0.61 by the null" in power and "Hanley and McNeil" in power
    assert "nor one under 0.66 with all 3" in power
    assert "needs no rollout is planted, 0.80; 1 of the 2 others cannot be told from it" in best
    assert "better than 1 - r: planted; worse than 1 - r: kl" in reference


def test_without_intervals_or_entries_the_reason_stands_instead() -> None:
    none = {**POWER, "critical_clustered": None, "critical_simultaneous": None}
    few = group(reason="2 problems are too few to resample", power=none)
    assert len(few["sentences"]) == 2
    assert "no intervals: 2 problems are too few to resample" in few["sentences"][0]
    assert "resampling" not in few["sentences"][1]
    empty = group(reason="one class is empty", n_compared=0, best=None, power={})
    assert empty["sentences"] == ["Nothing could be compared: one class is empty."]


@pytest.fixture
def run_with_leaderboard(make):
    run = make()
    run.document["leaderboard"] = [group()]
    return run


def test_the_page_shows_it_and_stays_well_formed(run_with_leaderboard, parse) -> None:
    run = run_with_leaderboard
    page = parse(render_page(run.document, run.frames, {}))
    (section,) = [n for n in page.all("section") if n.attributes.get("id") == "leaderboard"]
    text = section.text()
    for sentence in group()["sentences"]:
        assert sentence in text
    rows = section.all("tr")[1:]
    assert "planted" in rows[0].text() and "paper of planted" in rows[0].text()
    assert "also forward_kl, turned round turned" in rows[2].text()
    assert "not compared: this run did not measure it" in rows[3].text()
    assert len(rows) == 4


def test_a_report_from_before_it_is_still_shown(make, parse) -> None:
    run = make()
    page = parse(render_page(run.document, run.frames, {}))
    assert not [n for n in page.all("section") if n.attributes.get("id") == "leaderboard"]


def test_the_terminal_shows_the_first_entries_in_80_columns(run_with_leaderboard) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=False)
    print_summary(run_with_leaderboard.document, console)
    text = out.getvalue()
    assert "leaderboard" in text and "planted" in text
    assert max(map(len, text.splitlines())) <= 80 or "runs/" in text


def test_it_goes_through_json(run_with_leaderboard) -> None:
    document = run_with_leaderboard.document
    text = to_json(document)
    assert json.loads(text)["leaderboard"][0]["best"] == "planted"
    assert from_json(text, where="x")["leaderboard"] == document["leaderboard"]
