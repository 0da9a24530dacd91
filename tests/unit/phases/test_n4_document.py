"""The document of the alignment, and what is drawn, printed and written from it alone."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from branchdiag.phases.n4_alignment import Group, Measured, alignment_rows, to_arrays
from branchdiag.phases.n4_document import make_document
from branchdiag.protocol import Protocol
from branchdiag.report.alignment import describe, draw
from branchdiag.report.alignment_terminal import show
from branchdiag.stats.alignment_estimates import evaluate
from branchdiag.store.rows import to_arrow
from branchdiag.store.schemas import TABLES

CONTEXTS = ("answer", "none")


def node_rows(seed: int, *, n_problems: int = 12, gain: float = 2.0) -> list[dict[str, Any]]:
    """Nodes as N4 reads them, the teacher of `answer` tilted towards what succeeds."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(n_problems):
        for position in (3, 9, 20):
            truth = rng.uniform(0.2, 0.9, 3)
            p = rng.dirichlet(np.full(3, 4.0))
            tilted = p * np.exp(gain * truth)
            first, second = rng.binomial(3, truth), rng.binomial(3, truth)
            name = f"s{seed}p{problem}"
            rows.append(
                {
                    "candidate_id": f"{name}@{position}",
                    "problem_id": name,
                    "position": position,
                    "r": (position + 0.5) / 30,
                    "spine_correct": seed == 0,
                    "support_ids": [4, 5, 6],
                    "student": list(0.9 * p),
                    "student_excluded": 0.1,
                    "arms": {
                        "successes": (first + second).tolist(),
                        "samples": [6, 6, 6],
                        "first_successes": first.tolist(),
                        "first_samples": [3, 3, 3],
                    },
                    "views": {
                        "answer": view(0.8 * tilted / tilted.sum()),
                        "none": view(0.9 * p),
                    },
                }
            )
    return rows


def view(teacher: np.ndarray) -> dict[str, Any]:
    return {
        "teacher": teacher.tolist(),
        "teacher_excluded": 1 - float(teacher.sum()),
        "forward_kl": 0.1,
    }


def group(name: str, rows: list[dict[str, Any]], seed: int) -> Group:
    found = evaluate(
        to_arrays(rows, CONTEXTS), bins=3, resamples=200, level=0.95, seed=seed,
        max_dropped_share=0.1,
    ) if rows else None  # fmt: skip
    return Group(name, f"candidates of {name}", rows, found)


def document_of(*groups: Group, contexts: tuple[str, ...] = CONTEXTS, **align: Any) -> Any:
    rows = [row for one in groups for row in one.nodes]
    counts = {
        "candidates": 80, "nodes": 80, "measured": len(rows), "beyond_budget": 5, "not_graded": 2,
        "too_few_samples": 0, "arms": 3 * len(rows), "samples_of_phase_e": 60, "new_samples": 40,
    }  # fmt: skip
    settings = {"contexts": contexts, **align}
    protocol = Protocol.model_validate({"align": settings, "report": {"resamples": 200}})
    context: Any = SimpleNamespace(protocol=protocol)
    known = Measured(rows, counts)
    present = [name for name in contexts if any(name in row["views"] for row in rows)]
    return make_document(context, known, present, groups)


@pytest.fixture(scope="module")
def two_groups() -> list[Group]:
    return [
        group("primary", node_rows(0), 0),
        group("incorrect_spines", node_rows(1, gain=12.0), 1),
        group("random_positions", [], 2),
    ]


def test_groups_stand_apart_and_incorrect_spines_are_held_against_correct_ones(
    two_groups: list[Group],
) -> None:
    document = document_of(*two_groups)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    primary, incorrect, nothing = document["groups"]
    assert primary["n_nodes"] == incorrect["n_nodes"] == 36
    assert nothing["reason"] == "no node of this group was measured" and not nothing["sentences"]
    assert primary["status"] == "one_best" and primary["best"] == "answer"
    between = {(row["figure"], row["context"]): row for row in document["between"]}
    row = between["advantage", "answer"]
    values = [g["contexts"][0]["advantage"]["value"] for g in (incorrect, primary)]
    assert row["value"] == pytest.approx(values[0] - values[1])
    assert row["sentence"].startswith(
        "Advantage of the teacher told the answer, incorrect spines less correct ones: "
    )
    assert document_of(two_groups[0])["between"] == []


def test_notes_say_what_is_ours_and_what_was_left_out(two_groups: list[Group]) -> None:
    document = document_of(two_groups[0], contexts=(*CONTEXTS, "solution"), budget=100)
    text = " ".join(document["notes"])
    assert "our reconstruction" in text and "too wide rather than too narrow" in text
    assert "The context solution was left out" in text
    assert "exponential depth windows, whose law is not published" in text
    assert "5 nodes it did not pay for" in text and "2 nodes could not be graded" in text
    assert document["contexts"][2]["n_nodes"] == 0
    plain = " ".join(document_of(two_groups[0])["notes"])
    assert "depth windows" not in plain and "left out: no problem" not in plain


def test_nodes_that_lack_a_context_are_counted(two_groups: list[Group]) -> None:
    rows = node_rows(0)
    for row in rows[:6]:
        del row["views"]["answer"]
    document = document_of(group("primary", rows, 0))
    entry = document["groups"][0]["contexts"][0]
    assert entry["n_nodes"] == entry["advantage"]["n_nodes"] == 30 and entry["n_without"] == 6
    assert "6 nodes of 36 have no teacher told the answer" in " ".join(document["notes"])


def test_figures_and_their_descriptions_come_from_the_document(two_groups: list[Group]) -> None:
    document = document_of(*two_groups)
    figures, texts = draw(document), describe(document)
    assert list(figures) == [
        f"alignment_{what}_{name}"
        for name in ("primary", "incorrect_spines")
        for what in ("advantage", "cosine", "losses")
    ]
    assert figures.keys() == texts.keys()
    assert "told the answer: 0." in texts["alignment_advantage_primary"]
    for figure in figures.values():
        figure.savefig(io.BytesIO(), format="png", dpi=40)


def test_nothing_to_draw_is_said_in_the_figures() -> None:
    rows = node_rows(0)
    for row in rows:
        row["arms"] |= {"successes": [6, 6, 6], "first_successes": [3, 3, 3]}
    document = document_of(group("primary", rows, 0))
    assert document["groups"][0]["has_cosine"] is False
    texts = [
        text.get_text()
        for name, figure in draw(document).items()
        for axes in figure.axes
        for text in axes.texts
        if "advantage" not in name
    ]
    assert [text.replace("\n", " ") for text in texts] == [
        "not computed: no node has a defined cosine",
        "not computed: no node has a defined cosine under any context",
    ]


def test_the_terminal_fits_80_columns_and_takes_ascii(two_groups: list[Group]) -> None:
    document = document_of(*two_groups)
    for encoding in ("utf-8", "ascii"):
        raw = io.BytesIO()
        console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=80)
        show(document, console)
        console.file.flush()
        text = raw.getvalue().decode(encoding)
        assert max(map(len, text.splitlines())) <= 80
        assert "told the answer" in text and "nothing: no node of this group" in text
        assert "Advantage of the teacher" in text


def test_every_estimate_is_a_row_of_the_table(two_groups: list[Group]) -> None:
    schema = TABLES["alignment"]
    rows = [row for one in two_groups for row in alignment_rows(one)]
    keys = [tuple(row[name] for name in schema.key) for row in rows]
    assert len(set(keys)) == len(keys)
    to_arrow(rows, schema)
    figures = {row["figure"] for row in rows}
    assert {"advantage", "advantage_slope", "cosine_jsd", "pooled_jsd", "corrected_jsd"} <= figures
    assert {"split_half", "signal_share"} <= figures
    for row in rows:
        assert row["value"] is not None or row["reason"]
