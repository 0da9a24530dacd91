"""The terminal: 80 columns, no colour needed, nothing of the model's text obeyed."""

from __future__ import annotations

import copy
import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from branchdiag.report.terminal import (
    BAR_CELLS,
    bar,
    print_candidate,
    print_status,
    print_summary,
    safe_text,
)
from branchdiag.report.wording import interval, number, visible


def show(print_it, value, *, width=80, encoding="utf-8", colour=False):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(
        file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None
    )
    print_it(value, console)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_a_summary_fits_80_columns_and_needs_no_colour(any_run):
    text = show(print_summary, any_run.document)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert any_run.document["report"] in text


def test_a_summary_tells_every_score_and_the_finding_last(paper_run):
    lines = show(print_summary, paper_run.document).splitlines()
    for entry in paper_run.document["scores"]:
        if entry["alias_of"]:
            continue
        row = next(line for line in lines if line.startswith(entry["name"] + " "))
        cells = row[len(entry["name"]) :]
        assert ("−" if entry["sign"] < 0 else "+") in cells
        for value in (
            number(entry["auroc"]),
            interval(entry["ci_low"], entry["ci_high"]),
            number(entry["stratified_auroc"]),
            number(entry["auprc"], 3),
            number(entry["paper_compat"]["auroc"]),
        ):
            assert value in cells
    joined = " ".join(" ".join(lines).split())
    assert "no more than the horizon: " + paper_run.document["finding"] in joined
    assert lines[-1] == f"report: {paper_run.document['report']}"
    assert "position ranks the candidates as one_minus_r does" in joined
    assert "and 7 more caveats in the report" in joined


def test_reasons_of_missing_figures_are_told_once(make):
    text = " ".join(show(print_summary, make(positives=0).document).split())
    assert text.count("every score: only one class among the labelled candidates") == 1
    text = " ".join(show(print_summary, make(control=False).document).split())
    assert "slope of d on r: missing (no control arm)" in text


def test_a_narrow_terminal_leaves_the_bars_out(paper_run):
    text = show(print_summary, paper_run.document, width=70)
    assert max(map(len, text.splitlines())) <= 70 or "●" not in text
    assert "●" not in text and "0.83" in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_can_be_printed_to(encoding, paper_run, hostile):
    view = copy.deepcopy(paper_run.examples[0])
    view["before"] = hostile + "数学"
    assert "qwen3" in show(print_summary, paper_run.document, encoding=encoding)
    text = show(print_candidate, view, encoding=encoding)
    assert ("数学" in text) == (encoding == "utf-8")


def entry(**changes):
    return {"auroc": 0.75, "ci_low": 0.5, "ci_high": 1.0, **changes}


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({}, "        ━━━━●━━━━"),
        ({"auroc": None}, "        ┊        "),
        ({"ci_low": None, "ci_high": None, "auroc": 0.0}, "●       ┊        "),
        ({"ci_low": 0.9, "ci_high": 1.0, "auroc": 1.0}, "        ┊     ━━●"),
    ],
)
def test_a_bar_puts_point_interval_and_half_in_place(changes, drawn):
    assert bar(entry(**changes)) == drawn
    assert len(drawn) == BAR_CELLS


def test_a_candidate_shows_its_branches_and_every_continuation(paper_run):
    view = paper_run.examples[1]
    text = show(print_candidate, view)
    assert max(map(len, text.splitlines())) <= 80
    assert view["candidate_id"] in text and "[␣let]" in text
    for branch in view["children"]:
        assert f"{number(branch['teacher'], 3)}" in text
        assert f"{branch['successes']} of {branch['samples']}" in text
    assert "nothing forced" in text
    graded = [line.split() for line in text.splitlines() if " right " in line or " wrong " in line]
    assert len(graded) == len(view["continuations"])
    right = sum(item["correct"] for item in view["continuations"])
    assert sum("right" in line for line in graded) == right


def test_a_candidate_before_its_labels_is_shown(paper_run):
    view = copy.deepcopy(paper_run.examples[0])
    view |= {"label": None, "control": None, "continuations": []}
    for branch in view["children"]:
        branch |= {"successes": None, "samples": None}
    text = show(print_candidate, view)
    assert "ungraded" in text and "–" in text


@pytest.mark.parametrize("colour", [False, True])
def test_hostile_text_neither_formats_nor_steers(paper_run, hostile, colour):
    view = copy.deepcopy(paper_run.examples[0])
    for key in ("candidate_id", "problem", "gold_answer", "before", "token", "after"):
        view[key] = hostile
    for branch in view["children"]:
        branch["text"] = hostile
    document = copy.deepcopy(paper_run.document)
    document |= {"finding": hostile, "caveats": [hostile], "report": hostile}
    status = {**STATUS, "name": hostile, "model": hostile, "next": hostile, "holder": hostile}
    for print_it, value in (
        (print_candidate, view),
        (print_summary, document),
        (print_status, status),
    ):
        text = show(print_it, value, colour=colour)
        assert "\x1b[31m" not in text and "\u202e" not in text
        assert ("\x1b" in text) == colour
        joined = "".join(text.split())
        assert "<script>" in joined and "⟨U+202E⟩gnp.exe" in joined
        assert "[bold]notbold[/bold]" in joined


STATUS = {
    "name": "qwen3-4b-paper",
    "directory": "runs/qwen3-4b-paper",
    "model": "Qwen/Qwen3-4B",
    "protocol": "paper",
    "holder": "process 71 on node3",
    "phases": [
        {"letter": "A", "name": "spine", "state": "done", "done": 84, "total": 84,
         "failed": 0, "seconds": 14.0},
        {"letter": "E", "name": "continue", "state": "partial", "done": 1200, "total": 5580,
         "failed": 3, "seconds": 4000.0},
        {"letter": "F", "name": "label", "state": "waiting", "done": 0, "total": None,
         "failed": 0, "seconds": None},
    ],
    "next": "branchdiag run-all --model Qwen/Qwen3-4B",
    "report": None,
}  # fmt: skip


def test_the_status_tells_where_each_phase_stands():
    text = show(print_status, STATUS)
    rows = {line[0]: " ".join(line.split()) for line in text.splitlines() if line[1:2] == " "}
    assert rows["A"] == "A spine done 84 of 84 14.0 s"
    assert rows["E"] == "E continue partial 1,200 of 5,580 3 1 h 6 min"
    assert rows["F"] == "F label waiting 0 of ?"
    assert "held by process 71 on node3" in text
    assert "go on with: branchdiag run-all --model Qwen/Qwen3-4B" in text


@given(st.text())
def test_safe_text_comes_out_of_markup_as_it_is_shown(text):
    markup = f"[bold]{safe_text(text)}[/bold]"
    assert Text.from_markup(markup, emoji=False).plain == visible(text)


def test_the_terminal_draws_in_nothing_heavy():
    code = (
        "import sys, branchdiag.report.terminal, branchdiag.report.caveats\n"
        "heavy = {'torch', 'pandas', 'numpy', 'scipy', 'matplotlib', 'pyarrow', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
