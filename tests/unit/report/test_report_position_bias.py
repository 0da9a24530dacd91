"""The section of the position bias: drawn, printed and laid out from its document alone."""

from __future__ import annotations

import copy
import io
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from branchdiag.phases.p3_position_bias import PrefixShares, analyse, counts_of, scored_tokens
from branchdiag.protocol import Protocol
from branchdiag.report.page import render_page
from branchdiag.report.position_bias import describe, draw
from branchdiag.report.sections import SECTIONS
from branchdiag.report.style import NARROW
from branchdiag.report.wording import number
from branchdiag.stats.arms import Arms
from branchdiag.stats.schedule_data import LabelledCandidates
from branchdiag.stats.schedule_fit import fit_schedule

FRACTIONS = (0.0, 0.3, 0.6, 0.9)
KINDS = ("usual", "nobody wrong", "one fraction", "two problems", "nothing")


def planted(n_problems: int, fractions: tuple[float, ...], share_wrong: float) -> dict[str, Any]:
    """A document from random samples, by the real analysis."""
    generator = np.random.default_rng(0)
    names = [f"p{index:02d}" for index in range(n_problems)]
    wrong = generator.random(n_problems) < share_wrong
    spines = {
        name: {"problem_id": name, "correct": not bad, "n_spine_tokens": 40}
        for name, bad in zip(names, wrong, strict=True)
    }
    spines["odd"] = {"problem_id": "odd", "correct": None, "n_spine_tokens": 12}
    chance = np.where(wrong[:, None], 0.2, 0.5 + 0.5 * np.array(fractions))
    drawn = {
        writer: generator.binomial(4, np.clip(chance + gain, 0, 1)) / 4
        for writer, gain in (("student", 0.0), ("teacher", 0.2))
    }
    grades = [
        {
            "problem_id": name,
            "cut": cut,
            "writer": writer,
            "correct": True,
            "after_box": cut == 36,
            "truncated": writer == "student" and cut == 0,
        }
        for name in names
        for cut in range(0, 4 * 12, 12)[: len(fractions)]
        for writer in ("student", "teacher")
    ]
    shares = PrefixShares(
        names, fractions, drawn, ~wrong, np.zeros((n_problems, len(fractions)), np.bool_)
    )
    ratios = [
        {"problem_id": name, "position": t, "log_ratio": float(generator.normal() * (1 + t / 40))}
        for name in names
        for t in range(40)
    ]
    tokens = scored_tokens({n: row["correct"] for n, row in spines.items()}, [], ratios)
    protocol = Protocol.model_validate(
        {"report": {"resamples": 200}, "prefixes": {"fractions": fractions}}
    )
    document, _ = analyse(
        shares,
        tokens,
        fit_schedule(no_candidates()),
        protocol,
        counts={**counts_of(spines, grades, shares, tokens), "failed_units": 0},
        models={"student": "s", "teacher": "t"},
    )
    return json.loads(json.dumps(document, allow_nan=False))


def no_candidates() -> LabelledCandidates:
    """A run in which no candidate was labelled."""
    arms = Arms.from_lists([], [], [])
    return LabelledCandidates(
        np.empty(0), np.empty(0, str), arms, np.empty(0, object), np.empty((0, 0))
    )


@cache
def document_of(kind: str) -> dict[str, Any]:
    return {
        "usual": lambda: planted(30, FRACTIONS, 0.4),
        "nobody wrong": lambda: planted(12, FRACTIONS, 0.0),
        "one fraction": lambda: planted(12, (0.0,), 0.5),
        "two problems": lambda: planted(2, FRACTIONS, 0.5),
        "nothing": lambda: planted(0, FRACTIONS, 0.0),
    }[kind]()


@pytest.fixture(params=KINDS)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return copy.deepcopy(document_of(request.param))


def printed(document: dict[str, Any], width: int = 80) -> str:
    stream = io.StringIO()
    SECTIONS["prefixes"].show(document, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


def test_every_document_can_be_drawn_and_described(document: dict[str, Any]) -> None:
    figures, texts = draw(document), describe(document)
    assert {name for name in figures if not name.endswith(NARROW)} == set(texts)
    for figure in figures.values():
        figure.canvas.draw()
    assert all("None" not in text and "nan" not in text for text in texts.values())


def test_every_document_prints_its_verdict_in_80_columns(document: dict[str, Any]) -> None:
    text = printed(document)
    assert max(map(len, text.splitlines())) <= 80
    joined = " ".join(text.split())
    assert document["sentence"] in joined
    for strand in document["basis"]:
        assert strand["sentence"] in joined
    assert "nan" not in joined
    assert "None" not in joined


def test_the_page_has_the_paragraph_and_every_number_of_the_changes(
    paper_run: Any, parse: Any, document: dict[str, Any]
) -> None:
    report = {**paper_run.document, "sections": {"prefixes": document}}
    text = render_page(report, paper_run.frames, draw(document))
    page = parse(text)
    (section,) = [n for n in page.all("section") if n.attributes.get("id") == "prefixes"]
    words = " ".join(section.text().split())
    for sentence in (document["sentence"], *document["remarks"]):
        assert " ".join(sentence.split()) in words.replace("‘", "'").replace("’", "'")
    for change in document["gain"].values():
        for name in ("mean", "slope", "per_remaining"):
            if change[name]["value"] is not None:
                assert number(change[name]["value"]) in words
    links = [node.attributes["href"] for node in page.all("a")]
    assert "#prefixes" in links
    assert "nan" not in words


def test_bands_have_the_level_that_their_own_document_was_made_with(paper_run: Any) -> None:
    document = {**copy.deepcopy(document_of("usual")), "level": 0.8}  # of the report: 0.95
    report = {**paper_run.document, "sections": {"prefixes": document}}
    text = render_page(report, paper_run.frames, draw(document))
    caption = "Bands: 80% intervals from resampling whole problems. After figure 1b"
    assert caption in " ".join(text.split())


def test_nothing_of_the_document_is_markup(paper_run: Any, hostile: str) -> None:
    document = copy.deepcopy(document_of("usual"))
    document["context"] = document["sentence"] = hostile
    document["schedule"]["reason"] = document["basis"][0]["sentence"] = hostile
    report = {**paper_run.document, "sections": {"prefixes": document}}
    text = render_page(report, paper_run.frames, draw(document))
    assert "<script" not in text
    printed(document)


def test_what_was_left_out_is_said() -> None:
    document = copy.deepcopy(document_of("usual"))
    text = " ".join(printed(document).split())
    assert "1 spine: could not be graded and took no part" in text
    assert "already hold a box, which does not count" in text
    assert "of the student's continuations were cut off" in text
    assert "teacher's continuations were cut off" not in text


def test_a_verdict_without_data_says_so() -> None:
    document = document_of("nothing")
    assert document["verdict"] == "too_few"
    assert document["schedule"]["status"] == "insufficient"
    assert set(document["schedule"]["curve"]["w"]) == {1.0}
    assert document["gain"]["all"]["slope"]["reason"]
