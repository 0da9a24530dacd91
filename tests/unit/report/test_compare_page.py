"""The page and the printout of a comparison: whole, harmless, and narrow where the terminal is."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from branchdiag.report.compare_document import (
    FORMAT,
    VERSION,
    Comparison,
    curve_entry,
    leaderboard_rows,
    run_entry,
)
from branchdiag.report.compare_figures import draw_comparison, short
from branchdiag.report.compare_page import render_comparison
from branchdiag.report.compare_sentences import figure_difference, pair_summary
from branchdiag.report.compare_terminal import print_comparison
from branchdiag.report.document import plain
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.run_differences import Difference

Make = Callable[..., Any]


def comparison(runs: list[Any], labels: list[str], *, schedules: bool = True) -> Comparison:
    """A document of fake runs whose differences are one of each verdict."""
    n, level = 40, 0.95
    estimates = {
        "solved": (Estimate(0.0, None, None, "no problem came out differently"), "equal"),
        "spine_tokens": (Estimate(12.0, 3.0, 20.0), "higher"),
        "d": (Estimate(-0.1, -0.3, 0.1), "not told apart"),
        "auroc_one_minus_r": (Estimate(None, None, None, "no positives"), "not compared"),
    }
    pairs = []
    for label in labels[1:]:
        figures = [
            figure_difference(
                Difference(
                    name=name,
                    first=None if estimate.value is None else 0.5,
                    second=None if estimate.value is None else 0.5 + estimate.value,
                    estimate=estimate,
                    low=estimate.ci_low,
                    high=estimate.ci_high,
                    p=0.02,
                    n_problems=n,
                    verdict=verdict,  # type: ignore[arg-type]
                ),
                labels[0],
                label,
                level,
            )
            for name, (estimate, verdict) in estimates.items()
        ]
        pairs.append(
            {
                "first": labels[0],
                "second": label,
                "shared": {"problems": n},
                "comparable": ["40 problems."],
                "not_comparable": ["Candidates are not paired."],
                "figures": figures,
                "summary": pair_summary(figures, labels[0], label),
            }
        )
    band = {"r": [0.1, 0.9], "w": [0.5, 1.0], "low": [0.4, 0.9], "high": [0.7, 1.0]}
    document: Any = {
        "schema": FORMAT,
        "version": VERSION,
        "created": "2026-01-01T00:00:00+00:00",
        "branchdiag": "0.1.0",
        "command": "branchdiag compare",
        "level": level,
        "resamples": 100,
        "runs": [
            run_entry(label, run.document) for label, run in zip(labels, runs, strict=True)
        ],
        "differs": [
            {"key": "teacher.context", "values": labels, "means": "other places"},
            {"key": "continuation.top_k", "values": [-1] * (len(runs) - 1) + [None], "means": ""},
        ],
        "same": ["student"],
        "curves": [
            curve_entry(label, _rows(run))
            for label, run in zip(labels, runs, strict=True)
        ],
        "leaderboard": leaderboard_rows([run.document for run in runs]),
        "schedules": [
            {"label": label, "status": "ok", "reason": None, "direction": "increasing",
             "w_min": 0.5, "tau": 0.3, "s": 0.1, "headline": f"ok {label}", "fitted": band}
            for label in labels
        ]
        if schedules
        else [],
        "schedules_reason": None if schedules else "left out",
        "pairs": pairs,
        "sections": {},
        "notes": ["A note."],
        "page": "compare.html",
    }  # fmt: skip
    made: Comparison = document
    return made


def _rows(run: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = plain(run.frames["curves"].to_dict("records"))
    return [{"reason": None} | row for row in rows]


def printed(document: Comparison, width: int = 80, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_comparison(document, Console(file=stream, width=width, no_color=True))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def known(make: Make) -> Comparison:
    return comparison([make(), make(seed=1, candidates=90)], ["first", "second"])


def page(document: Comparison) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return render_comparison(document, draw_comparison(document))


def test_the_page_stands_alone_and_parses(known: Comparison, parse: Callable[[str], Any]) -> None:
    text = page(known)
    parse(text)
    for word in ("<script", "http://", "https://", "url(http", "@import", "<link"):
        assert word not in text.lower()
    for wanted in ("higher", "not told apart", "the same", "not compared", "teacher.context"):
        assert wanted in text
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))  # figures share none


def test_the_document_is_json_and_its_numbers_are_in_the_page(known: Comparison) -> None:
    json.dumps(known, allow_nan=False)
    text = page(known)
    for pair in known["pairs"]:
        for figure in pair["figures"]:
            if figure["difference"] is not None:
                assert f'<data value="{figure["difference"]}">' in text
    for run in known["runs"]:
        assert f'<data value="{run["slope"]["estimate"]}">' in text


def test_hostile_labels_and_settings_are_harmless(
    make: Make, hostile: str, parse: Callable[[str], Any]
) -> None:
    run = make(candidates=20, positives=3)
    document = comparison([run, run], ["plain", hostile])
    document["runs"][1]["finding"] = hostile
    document["notes"] = [hostile]
    text = page(document)
    parse(text)
    assert "<script" not in text.lower()
    out = printed(document)
    assert "\x1b" not in out
    assert "\u202e" not in out


@pytest.mark.parametrize("kind", [{"correct": 0, "candidates": 0, "positives": 0, "grays": 0},
                                  {"candidates": 40, "control": False},
                                  {"candidates": 40, "intervals": False}])  # fmt: skip
def test_runs_without_something_are_shown_with_reasons(make: Make, kind: dict[str, Any]) -> None:
    document = comparison([make(), make(**kind)], ["whole", "lacking"], schedules=False)
    text = page(document)
    assert "NaN" not in text and ">nan<" not in text
    assert "Not fitted (left out)" in text
    printed(document)


@pytest.mark.parametrize("width", [40, 60, 80, 132])
def test_the_printout_fits_the_terminal(known: Comparison, width: int) -> None:
    for line in printed(known, width).splitlines():
        assert len(line) <= width or line.startswith("page:"), line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_can_be_printed_to(known: Comparison, encoding: str) -> None:
    out = printed(known, encoding=encoding)
    assert "second and first differ in length of the spine" in out.replace("\n", " ")
    assert "page: compare.html" in out


def test_six_runs_have_a_colour_and_a_marker_each(make: Make) -> None:
    runs = [make(seed=seed, candidates=30) for seed in range(6)]
    document = comparison(runs, [f"run {n} with quite a long name indeed" for n in range(6)])
    figures = draw_comparison(document)
    lines = figures["compared_positions"].axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 6
    page(document)


def test_a_long_label_is_cut_in_its_middle() -> None:
    assert short("abc") == "abc"
    cut = short("a" * 50 + "the-end", 20)
    assert len(cut) == 20
    assert cut.endswith("the-end")
