"""The comparison document: what `compare --json` prints, as types, and how it is put together.

One plain tree, from which page, terminal and figures are made. A number that could not be computed
is null beside a reason. Takes manifests, reports and differences; computes no statistic, reads no
file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from branchdiag.schedule import Direction

FORMAT = "branchdiag.comparison"
VERSION = 1

SERIES = {"forced": "failure_by_r", "control": "control_by_r", "d": "d_by_r"}


class DifferingKey(TypedDict):
    """One thing that is not the same in all runs."""

    key: str
    values: list[Any]  # in the order of the runs; null where a run has no such key
    means: str  # what it changes


class RunEntry(TypedDict):
    """One run, as it is named and as its report sums it up."""

    label: str
    name: str
    directory: str
    report: str
    student: str
    student_revision: str | None
    teacher: str
    teacher_revision: str | None
    context: str | None
    protocol: str
    seed: int
    finished: str | None
    level: float
    counts: dict[str, Any]
    finding: str
    finding_status: str
    slope: dict[str, Any]
    control: dict[str, Any] | None
    truncation: dict[str, Any]
    caveats: list[str]
    failed_units: int


class CurveEntry(TypedDict):
    """One run's curves by position: name -> points with r, y, lo, hi, n and reason."""

    label: str
    series: dict[str, list[dict[str, Any]]]


class BoardRow(TypedDict):
    """One score or signal in every run; null where a run did not measure it."""

    name: str
    kind: str
    sign: int
    paper: str | None
    entries: list[dict[str, Any] | None]  # auroc, ci_low, ci_high, rank, alias_of, reason


class ScheduleEntry(TypedDict):
    """What `fit-schedule` makes of a run: its document cut to what is shown."""

    label: str
    status: str
    reason: str | None
    direction: Direction
    w_min: float
    tau: float | None
    s: float | None
    headline: str
    fitted: dict[str, Any] | None  # the band of the fit, whatever its status


class FigureDifference(TypedDict):
    """A figure of two runs on the same problems, second less first."""

    name: str
    what: str
    unit: str
    first: float | None
    second: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    joint_low: float | None
    joint_high: float | None
    p: float | None
    n_problems: int
    verdict: str
    sentence: str
    reason: str | None


class PairEntry(TypedDict):
    """Two runs held against each other."""

    first: str
    second: str
    shared: dict[str, int]
    comparable: list[str]
    not_comparable: list[str]
    figures: list[FigureDifference]
    summary: str


class Comparison(TypedDict):
    """The whole document."""

    schema: str
    version: int
    created: str
    branchdiag: str
    command: str
    level: float
    resamples: int
    runs: list[RunEntry]
    differs: list[DifferingKey]
    same: list[str]
    curves: list[CurveEntry]
    leaderboard: list[BoardRow]
    schedules: list[ScheduleEntry]
    schedules_reason: str | None
    pairs: list[PairEntry]
    sections: dict[str, list[dict[str, Any] | None]]
    notes: list[str]
    page: str | None


def run_entry(label: str, report: Mapping[str, Any]) -> RunEntry:
    """A run as the comparison sums it up, from its report."""
    settings, model = report["settings"], report["model"]
    return {
        "label": label,
        "name": report["run"]["name"],
        "directory": report["run"]["directory"],
        "report": str(report["report"]),
        "student": model["student"],
        "student_revision": model["student_revision"],
        "teacher": model["teacher"],
        "teacher_revision": model["teacher_revision"],
        "context": settings.get("teacher", {}).get("context"),
        "protocol": settings.get("name", ""),
        "seed": report["run"]["seed"],
        "finished": report["run"]["finished"],
        "level": settings.get("report", {}).get("level", 0.95),
        "counts": dict(report["counts"]),
        "finding": report["finding"],
        "finding_status": report["finding_status"],
        "slope": dict(report["slope"]),
        "control": dict(report["control"]) if report["control"] else None,
        "truncation": dict(report["truncation"]),
        "caveats": list(report["caveats"]),
        "failed_units": sum(report.get("errors", {}).values()),
    }


def curve_entry(label: str, rows: Iterable[Mapping[str, Any]]) -> CurveEntry:
    """A run's curves of failure, control and d, from the rows of its table `curves`."""
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in SERIES}
    names = {series: name for name, series in SERIES.items()}
    for row in sorted(rows, key=lambda row: (row["series"], row["bin"])):
        if row["series"] in names:
            points[names[row["series"]]].append(
                {"r": row["x"]} | {key: row[key] for key in ("y", "lo", "hi", "n", "reason")}
            )
    return {"label": label, "series": points}


def leaderboard_rows(reports: Sequence[Mapping[str, Any]]) -> list[BoardRow]:
    """Every score and signal of the runs' primary groups, in the first run's order."""
    boards = [_board(report) for report in reports]
    names = [name for name, _ in sorted(boards[0].items(), key=_rank)]
    names += [name for board in boards[1:] for name in board if name not in boards[0]]
    rows: list[BoardRow] = []
    for name in dict.fromkeys(names):
        entries = [board.get(name) for board in boards]
        known = next(entry for entry in entries if entry is not None)
        rows.append(
            {
                "name": name,
                "kind": known.get("kind", "score"),
                "sign": known["sign"],
                "paper": known.get("paper"),
                "entries": [
                    None
                    if entry is None
                    else {key: entry.get(key) for key in _BOARD_KEYS}
                    | {"reason": entry.get("reason") or entry.get("comparison_reason")}
                    for entry in entries
                ],
            }
        )
    return rows


_BOARD_KEYS = ("auroc", "ci_low", "ci_high", "rank", "alias_of", "n_positive", "n_negative")


def _board(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    groups = report.get("leaderboard") or []
    entries = groups[0]["entries"] if groups else report["scores"]
    return {entry["name"]: entry for entry in entries}


def _rank(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, int]:
    rank = item[1].get("rank")
    return (rank is None, rank or 0)


def schedule_entry(label: str, document: Mapping[str, Any], headline: str) -> ScheduleEntry:
    """A fitted schedule's document cut to what is shown beside others."""
    band = document["fits"][document["estimand"]]["band"]
    return {
        "label": label,
        "status": document["status"],
        "reason": document["reason"],
        "direction": document["direction"],
        "w_min": document["w_min"],
        "tau": document["tau"],
        "s": document["s"],
        "headline": headline,
        "fitted": band,
    }
