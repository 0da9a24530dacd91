"""A run that never ran: tables and a report document of the right shapes, made from a seed.

Failure falls along the spine for forced tokens and for the control alike, so that the picture is
the one a horizon makes; the statistics are written plainly here and share no code with the
package's.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from branchdiag.protocol import Protocol
from branchdiag.report.caveats import caveats
from branchdiag.report.document import Report, relative_entry, score_entry
from branchdiag.report.figures import draw_all
from branchdiag.report.page import render_page
from branchdiag.report.style import inline_svg

SIGNS = {
    "one_minus_r": 1,
    "h_trunc": 1,
    "h_full": 1,
    "h_mc": 1,
    "mi": 1,
    "log_kappa": -1,
    "h_student": 1,
    "log_ratio": -1,
    "kl": 1,
    "margin": -1,
    "control_viability": -1,
    "control_length": 1,
    "position": -1,
}


@dataclass
class FakeRun:
    """A document, its frames and a few candidates to look at."""

    document: Report
    frames: dict[str, pd.DataFrame]
    examples: list[dict[str, Any]]


def make_run(
    *,
    problems: int = 84,
    correct: int = 62,
    candidates: int = 280,
    positives: int = 8,
    grays: int = 11,
    rollouts: int = 6,
    control: bool = True,
    intervals: bool = True,
    seed: int = 0,
) -> FakeRun:
    """A run of that size; `intervals=False` leaves every interval out, with a reason."""
    rng = np.random.default_rng(seed)
    labels = _labels(rng, min(correct, 61), candidates, positives, grays, rollouts, control)
    values = _score_values(rng, labels)
    rows = [_score_row(rng, "absolute", name, values, intervals) for name in SIGNS]
    relative = [_score_row(rng, "relative", name, values, intervals) for name in SIGNS]
    curves = _curves(rng, labels, values)
    document = _document(labels, rows, relative, problems, correct, rollouts, control, intervals)
    document["caveats"] = caveats(document)
    frames = {"curves": curves, "labels": labels, "score_values": values}
    return FakeRun(document, frames, _examples(labels))


def _labels(
    rng: np.random.Generator,
    problems: int,
    n: int,
    positives: int,
    grays: int,
    rollouts: int,
    control: bool,
) -> pd.DataFrame:
    order = rng.permutation(n)
    kind = np.array(["diversity"] * n, dtype=object)
    # Positives lie early and in a few problems; the rest anywhere.
    kind[order[:positives]] = "real_uncertain"
    kind[order[positives : positives + grays]] = "gray"
    rows = []
    for i in range(n):
        early = kind[i] == "real_uncertain"
        r = float(rng.beta(1.4, 4) if early else rng.uniform(0.03, 0.97))
        problem = int(rng.integers(0, max(1, min(6, problems)))) if early else i % max(problems, 1)
        p = {"real_uncertain": 0.12, "gray": 0.55, "diversity": 0.86 + 0.1 * r}[kind[i]]
        children = int(rng.integers(2, 4))
        wins = [int(rng.binomial(rollouts, p)) for _ in range(children)]
        v0 = int(rng.binomial(rollouts, min(0.98, p + 0.04)))
        arms = [f"child:{100 + k}" for k in range(children)] + (["control"] if control else [])
        successes = wins + ([v0] if control else [])
        mean = sum(wins) / children / rollouts
        rows.append(
            {
                "candidate_id": f"aime24-{problem:02d}@{int(r * 4000)}",
                "problem_id": f"aime24-{problem:02d}",
                "position": int(r * 4000),
                "r": r,
                "arms": arms,
                "successes": successes,
                "samples": [rollouts] * len(arms),
                "truncated": [0] * len(arms),
                "n_children": children,
                "mean_child_viability": mean,
                "control_viability": v0 / rollouts if control else None,
                "control_length": float(rng.normal(4000 * (1 - r), 300)) if control else None,
                "d": mean - v0 / rollouts if control else None,
                "control_viable": v0 >= math.ceil(0.75 * rollouts) if control else None,
                "label": kind[i],
                "label_finished": kind[i],
                "label_strict": kind[i],
                "share_truncated": 0.03,
            }
        )
    columns = ["candidate_id", "problem_id", "position", "r", "arms", "successes", "samples"]
    columns += ["truncated", "n_children", "mean_child_viability", "control_viability"]
    columns += ["control_length", "d", "control_viable", "label", "label_finished"]
    columns += ["label_strict", "share_truncated"]
    return pd.DataFrame(rows, columns=columns)


def _score_values(rng: np.random.Generator, labels: pd.DataFrame) -> pd.DataFrame:
    n = len(labels)
    positive = (labels["label"] == "real_uncertain").to_numpy(float)
    entropy = rng.gamma(5, 0.18, n) + 0.12 * positive
    return pd.DataFrame(
        {
            "candidate_id": labels["candidate_id"],
            "problem_id": labels["problem_id"],
            "label": labels["label"],
            "r": labels["r"],
            "one_minus_r": 1 - labels["r"],
            "h_trunc": entropy,
            "h_full": entropy * 1.1 + rng.normal(0, 0.05, n),
            "h_mc": entropy * 1.15 + rng.normal(0, 0.05, n),
            "mi": rng.gamma(2, 0.01, n),
            "log_kappa": rng.normal(4, 1.2, n),
            "h_student": entropy + rng.normal(0, 0.2, n),
            "log_ratio": rng.normal(0, 0.6, n) - 0.4 * positive,
            "kl": rng.gamma(1.5, 0.1, n),
            "margin": rng.beta(2, 3, n),
            "control_viability": labels["control_viability"],
            "control_length": labels["control_length"],
            "position": labels["position"],
        }
    )


def _auroc(values: np.ndarray, positive: np.ndarray) -> float | None:
    up, down = values[positive], values[~positive]
    if not len(up) or not len(down):
        return None
    wins = (up[:, None] > down).sum() + 0.5 * (up[:, None] == down).sum()
    return float(wins / (len(up) * len(down)))


def _score_row(
    rng: np.random.Generator, figure: str, name: str, values: pd.DataFrame, intervals: bool
) -> dict[str, Any]:
    told = values[values["label"].isin(["real_uncertain", "diversity"])].dropna(subset=[name])
    positive = (told["label"] == "real_uncertain").to_numpy()
    area = _auroc(SIGNS[name] * told[name].to_numpy(float), positive)
    if figure == "relative" and area is not None:
        area = 0.5 + 0.35 * (area - 0.5)
    has = area is not None and intervals
    wide = 0.1 + 0.04 * rng.random()
    low = max(0.0, area - 1.3 * wide) if has else None
    high = min(1.0, area + wide) if has else None
    missing = "only one class among the labelled candidates"
    unspread = "312 of 2000 resamples had no value (one class only), more than 10%"
    return {
        "figure": figure,
        "name": name,
        "sign": SIGNS[name],
        "auroc": area,
        "ci_low": low,
        "ci_high": high,
        "auprc": None if area is None else 0.03 + 0.2 * max(0, area - 0.5),
        "auprc_ci_low": 0.01 if has else None,
        "auprc_ci_high": 0.31 if has else None,
        "prevalence": positive.mean() if len(positive) else None,
        "stratified_auroc": None if area is None else 0.5 + 0.8 * (area - 0.5),
        "stratified_ci_low": 0.41 if has else None,
        "stratified_ci_high": 0.93 if has else None,
        "n_positive": int(positive.sum()),
        "n_negative": int((~positive).sum()),
        "n_problems": told["problem_id"].nunique(),
        "n_problems_positive": told.loc[positive, "problem_id"].nunique(),
        "n_dropped_resamples": 13 if has else 312 if area is not None else 0,
        "n_missing": 0,
        "n_pairs": 31 if area is not None else 0,
        "compat_auroc": None if area is None else max(area, 1 - area),
        "compat_ci_low": 0.5 if has else None,
        "compat_ci_high": max(high, 1 - low) if has else None,
        "null_mean": 0.5 + (0.16 if name in {"one_minus_r", "control_length"} else 0.0)
        if figure == "relative" and area is not None
        else None,
        "p": float(rng.random()) if figure == "relative" and area is not None else None,
        "alias_of": "one_minus_r" if name == "position" and area is not None else None,
        "reason": missing if area is None else None if intervals else unspread,
        "auprc_reason": missing if area is None else None if intervals else unspread,
        "stratified_reason": missing if area is None else None if intervals else unspread,
        "null_reason": missing if area is None else None,
    }


def _binned(
    rng: np.random.Generator, name: str, x: np.ndarray, y: np.ndarray, bins: int = 10
) -> list[dict[str, Any]]:
    order = np.argsort(x, kind="stable")
    rows = []
    for index, part in enumerate(p for p in np.array_split(order, bins) if len(p)):
        means = y[part[rng.integers(0, len(part), (200, len(part)))]].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975]) if len(part) > 1 else (np.nan, np.nan)
        rows.append(
            {
                "series": name,
                "bin": index,
                "x": x[part].mean(),
                "y": y[part].mean(),
                "lo": low,
                "hi": high,
                "n": len(part),
            }
        )
    return rows


def _curves(rng: np.random.Generator, labels: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    columns = ["series", "bin", "x", "y", "lo", "hi", "n"]
    if labels.empty:
        return pd.DataFrame(columns=columns)
    r = labels["r"].to_numpy()
    failure = 1 - labels["mean_child_viability"].to_numpy(float)
    rows = _binned(rng, "failure_by_r", r, failure)
    fit = np.minimum.accumulate([row["y"] for row in rows])
    for name, level in (("decreasing", fit), ("increasing", [failure.mean()] * len(rows))):
        rows += [
            {**row, "series": f"failure_by_r_{name}", "y": y, "lo": None, "hi": None}
            for row, y in zip(list(rows), level, strict=False)
            if row["series"] == "failure_by_r"
        ]
    if labels["d"].notna().all():
        rows += _binned(rng, "control_by_r", r, 1 - labels["control_viability"].to_numpy(float))
        rows += _binned(rng, "d_by_r", r, labels["d"].to_numpy(float))
    rows += _binned(rng, "teacher_advantage_by_r", r, rng.normal(0.004, 0.05, len(r)))
    for name, sign in SIGNS.items():
        column = values[name].to_numpy(float)
        if np.isfinite(column).all():
            rank = (sign * column).argsort().argsort() / len(column)
            rows += _binned(rng, f"failure_by_{name}", rank, failure)
    return pd.DataFrame(rows, columns=columns)


def _document(
    labels: pd.DataFrame,
    rows: list[dict[str, Any]],
    relative: list[dict[str, Any]],
    problems: int,
    correct: int,
    rollouts: int,
    control: bool,
    intervals: bool,
) -> Report:
    n = {k: int((labels["label"] == k).sum()) for k in ("diversity", "real_uncertain", "gray")}
    usable = labels.loc[labels["label"] != "gray", "problem_id"].nunique()
    carrying = labels.loc[labels["label"] == "real_uncertain", "problem_id"].nunique()
    viable = labels["control_viable"].fillna(False).astype(bool)
    has_d = control and len(labels) > 0
    samples = sum(map(len, labels["samples"])) * rollouts
    slope = {"estimate": None, "ci_low": None, "ci_high": None, "reason": "no control arm"}
    if has_d:
        slope = {"estimate": 0.0214, "ci_low": -0.0391, "ci_high": 0.0874, "reason": None}
        if not intervals:
            slope |= {"ci_low": None, "ci_high": None, "reason": "one problem only"}
    sensitivity = [
        ("label", "The paper's label"),
        ("label_finished", "Continuations that the budget cut off are dropped"),
        ("label_strict", "Only an answer after closed thinking counts"),
    ]
    first = rows[0]
    counts = {
        "problems": problems,
        "correct_spines": correct,
        "incorrect_spines": problems - correct,
        "ungraded_spines": 0,
        "fallback_spines": min(2, correct),
        "truncated_spines": 0,
        "usable_problems": int(usable),
        "problems_with_real_uncertain": int(carrying),
        "candidates": len(labels),
        **n,
        "unlabelled": 0,
    }
    return {
        "version": 1,
        "run": {
            "name": "qwen3-4b-paper",
            "directory": "runs/qwen3-4b-paper",
            "command": "branchdiag run-all --model Qwen/Qwen3-4B",
            "seed": 0,
            "finished": "2026-11-21T14:42:00Z",
        },
        "model": {
            "student": "Qwen/Qwen3-4B",
            "student_revision": "1cfa9a7208912126459214e8b04321603b3df60c",
            "teacher": "Qwen/Qwen3-4B",
            "teacher_revision": "1cfa9a7208912126459214e8b04321603b3df60c",
            "bundled": False,
        },
        "counts": counts,
        "per_source": [
            {
                "source": name,
                "problems": size,
                "correct_spines": size * correct // problems if problems else 0,
                "usable_problems": size * int(usable) // problems if problems else 0,
                "candidates": len(labels) * size // 84,
                "diversity": n["diversity"] * size // 84,
                "real_uncertain": n["real_uncertain"] * size // 84,
                "gray": n["gray"] * size // 84,
            }
            for name, size in (("math500:24", 24), ("aime2024", 30), ("aime2025", 30))
        ],
        "scores": [score_entry(row) for row in rows],
        "scores_relative": [relative_entry(row) for row in relative] if has_d else [],
        "slope": slope,
        "finding": (
            "Early tokens fail more often, but no more than the longer way still to go explains: "
            "the share of wrong answers after a forced token is 0.15 higher at the start of a "
            "trace than at its end (95% interval 0.08 to 0.22), with nothing forced it is 0.10 "
            "higher at the start than at the end (95% interval 0.04 to 0.17), and the difference "
            "that forcing makes to the share of right answers, set against continuing freely from "
            "the same place, is 0.02 lower at the start than at the end (95% interval −0.04 to "
            "0.09, which includes 0, permutation p 0.42; 280 candidates in 61 problems); the "
            "AUROC of early position is 0.83 (95% interval 0.66 to 0.97; 8 real-uncertain "
            "candidates in 4 problems)."
        ),
        "finding_status": "no_more_than_horizon",
        "control": {
            "candidates": len(labels),
            "viable": int(viable.sum()),
            "real_uncertain_where_control_viable": int(
                (viable & (labels["label"] == "real_uncertain")).sum()
            ),
            "mean_child_viability": float(labels["mean_child_viability"].mean()),
            "mean_control_viability": float(labels["control_viability"].astype(float).mean()),
            "threshold": "5 of 6",
        }
        if has_d
        else None,
        "sensitivity": [
            {
                "name": name,
                "description": text,
                **n,
                "unlabelled": 0,
                "auroc": first["auroc"],
                "ci_low": first["ci_low"],
                "ci_high": first["ci_high"],
                "reason": first["reason"],
            }
            for name, text in sensitivity
        ],
        "attrition": [
            {"phase": "A", "unit": "problems", "n": problems, "note": ""},
            {
                "phase": "A",
                "unit": "correct spines",
                "n": correct,
                "note": "2 by the second try",
                "of": problems,
            },
            {"phase": "B", "unit": "positions scored", "n": 4000 * correct, "note": ""},
            {
                "phase": "B",
                "unit": "plausible positions",
                "n": 310 * correct,
                "note": "",
                "of": 4000 * correct,
            },
            {"phase": "C", "unit": "candidates", "n": len(labels), "note": "at most 5 a problem"},
            {"phase": "E", "unit": "continuations", "n": samples, "note": "6 an arm"},
            {
                "phase": "F",
                "unit": "labelled candidates",
                "n": len(labels),
                "note": "",
                "of": len(labels),
            },
        ],
        "truncation": {"samples": samples, "truncated": samples // 20},
        "agreement": {
            "argmax": 0.9931,
            "n_positions": 4000,
            "backends": ["vllm 0.11.0", "transformers 5.19"],
            "reason": None,
        },
        "caveats": [],
        "settings": Protocol().model_dump(mode="json"),
        "versions": {"branchdiag": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "backend": {
            "engine": "transformers",
            "E": {"name": "transformers", "device": "cpu", "dtype": "float32"},
        },
        "timing": [
            {"phase": phase, "seconds": s}
            for phase, s in zip("ABCDEFG", [14, 3, 0.2, 4, 41, 6, 3.5], strict=True)
        ],
        "report": "runs/qwen3-4b-paper/report.html",
    }


HOSTILE = (
    '<script>alert("x")</script> [bold]not bold[/bold] \x1b[31mred\x1b[0m \u202egnp.exe $x$ & \\'
)


def _examples(labels: pd.DataFrame) -> list[dict[str, Any]]:
    views = []
    for row in (
        labels.sort_values(["label", "r"], ascending=[False, True]).head(3).to_dict("records")
    ):
        children = [
            {
                "arm": arm,
                "text": text,
                "teacher": q,
                "student": p,
                "successes": won,
                "samples": of,
                "is_spine": text == " let",
            }
            for arm, text, q, p, won, of in zip(
                row["arms"], [" let", "\n\n", " so"], [0.61, 0.24, 0.05], [0.72, 0.11, 0.04],
                row["successes"], row["samples"], strict=False,
            )
            if arm != "control"
        ]  # fmt: skip
        views.append(
            {
                "candidate_id": row["candidate_id"],
                "problem_id": row["problem_id"],
                "problem": "Find the number of ways to place 3 rooks. " + HOSTILE,
                "gold_answer": "336",
                "position": row["position"],
                "r": row["r"],
                "label": row["label"],
                "h_trunc": 1.12,
                "before": "First, choose the columns.\nThe order does not matter. So now",
                "token": " let",
                "after": " us count the pairs of rows that are left.",
                "children": children,
                "control": {
                    "arm": "control",
                    "text": "",
                    "teacher": None,
                    "student": None,
                    "is_spine": False,
                    "successes": row["successes"][-1],
                    "samples": row["samples"][-1],
                },
                "continuations": [
                    {
                        "arm": child["arm"],
                        "sample": k,
                        "answer": "336" if k < child["successes"] else HOSTILE,
                        "correct": k < child["successes"],
                        "truncated": k == 5,
                        "n_tokens": 812 + k,
                        "text": " us count them. \\boxed{336}",
                    }
                    for child in children
                    for k in range(child["samples"])
                ],
            }
        )
    return views


RUNS: dict[str, dict[str, Any]] = {
    "paper_size": {},
    "small": {"problems": 6, "correct": 4, "candidates": 9, "positives": 2, "grays": 1},
    "one_candidate": {"problems": 2, "correct": 1, "candidates": 1, "positives": 1, "grays": 0},
    "empty": {"problems": 5, "correct": 0, "candidates": 0, "positives": 0, "grays": 0},
    "no_positive": {"candidates": 40, "positives": 0},
    "only_positives": {"candidates": 12, "positives": 12, "grays": 0},
    "no_control": {"candidates": 40, "control": False},
    "no_intervals": {"candidates": 40, "intervals": False},
}


@functools.cache
def known_run(kind: str) -> FakeRun:
    """The run of that kind, made once."""
    return make_run(**RUNS[kind])


@functools.cache
def known_figures(kind: str) -> dict[str, Figure]:
    """Its figures, drawn once."""
    return draw_all(known_run(kind).document, known_run(kind).frames)


@pytest.fixture(scope="session")
def paper_run() -> FakeRun:
    """61 problems, 280 candidates, 8 positives. Do not write into it."""
    return known_run("paper_size")


@pytest.fixture(scope="session")
def paper_figures() -> dict[str, Figure]:
    """The figures of that run."""
    return known_figures("paper_size")


@pytest.fixture(scope="session", params=list(RUNS))
def run_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of run, the degenerate ones as well."""
    return str(request.param)


@pytest.fixture(scope="session")
def any_run(run_kind: str) -> FakeRun:
    """A run of each kind. Do not write into it."""
    return known_run(run_kind)


@pytest.fixture(scope="session")
def drawn(run_kind: str) -> dict[str, Figure]:
    """The figures of each run."""
    return known_figures(run_kind)


@pytest.fixture(scope="session")
def any_page(any_run: FakeRun, drawn: dict[str, Figure]) -> str:
    """The page of each run, with its figures, rendered without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return render_page(any_run.document, any_run.frames, drawn, examples=any_run.examples)


@pytest.fixture(scope="session")
def paper_drawings(paper_figures: dict[str, Figure]) -> dict[str, str]:
    """The same as they stand in the page."""
    return {name: inline_svg(figure, name, "d") for name, figure in paper_figures.items()}


@dataclass
class Node:
    """An element of a page: tag, attributes, and what is inside, in order."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str]

    def all(self, tag: str | None = None) -> list[Node]:
        """Every element below, in order, of that tag or of any."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                found += [child] if tag in (None, child.tag) else []
                found += child.all(tag)
        return found

    def text(self) -> str:
        """All text inside, white space made single."""
        return " ".join(self._raw().split())

    def _raw(self) -> str:
        return "".join(c if isinstance(c, str) else c._raw() for c in self.children)


class StrictParser(HTMLParser):
    """Builds the tree of a page and fails where an element is not closed in order."""

    void = frozenset({"meta", "br", "hr", "img", "input", "link", "col"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("document", {}, [])]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute: {names}"
        node = Node(tag, {name: value or "" for name, value in attrs}, [])
        self.open[-1].children.append(node)
        if tag not in self.void:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse_html(text: str) -> Node:
    """The tree of a page.

    Raises:
        AssertionError: it is not well formed.
    """
    parser = StrictParser()
    parser.feed(text)
    parser.close()
    assert [node.tag for node in parser.open] == ["document"], "elements are left open"
    return parser.open[0]


@pytest.fixture(scope="session")
def parse() -> Callable[[str], Node]:
    """`parse_html`, for the tests."""
    return parse_html


@pytest.fixture(scope="session")
def make() -> Callable[..., FakeRun]:
    """`make_run`, for the tests."""
    return make_run


@pytest.fixture(scope="session")
def hostile() -> str:
    """Text that would run, format or steer if it were not made harmless."""
    return HOSTILE
