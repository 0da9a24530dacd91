"""The report document: what `report.json` and `--json` hold, as types, and its way into JSON and
back.

One plain tree of dictionaries, lists, strings and numbers: everything that the page and the
terminal show is read from here, so that a figure on paper and one in a script are the same. A
number that could not be computed is null and stands beside a `reason`; JSON here never holds NaN.
Knows nothing of how a number was computed (arXiv 2605.21606, Phase G), of tables or of drawing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from branchdiag.errors import UsageError
from branchdiag.report.leaderboard import LeaderboardGroup

DOCUMENT_VERSION = 1
REQUIRED = ("counts", "scores", "scores_relative", "slope", "finding", "finding_status", "report")


class Counts(TypedDict):
    """How many of what. `candidates` = diversity + real_uncertain + gray + unlabelled."""

    problems: int
    correct_spines: int
    incorrect_spines: int
    ungraded_spines: int
    fallback_spines: int  # correct ones that the sampled second try wrote
    truncated_spines: int  # of all, cut off by the budget
    usable_problems: int  # with at least one diversity or real-uncertain candidate
    problems_with_real_uncertain: int
    candidates: int
    diversity: int
    real_uncertain: int
    gray: int
    unlabelled: int


class SourceCounts(TypedDict):
    """The counts of one problem set."""

    source: str
    problems: int
    correct_spines: int
    usable_problems: int
    candidates: int
    diversity: int
    real_uncertain: int
    gray: int


class PaperCompat(TypedDict):
    """The paper's folded figure max(a, 1 - a) with its folded interval."""

    auroc: float | None
    ci_low: float | None
    ci_high: float | None


class ScoreEntry(TypedDict):
    """How one score tells real-uncertain candidates from diversity ones."""

    name: str
    sign: int
    auroc: float | None
    ci_low: float | None
    ci_high: float | None
    auprc: float | None
    auprc_ci_low: float | None
    auprc_ci_high: float | None
    prevalence: float | None
    stratified_auroc: float | None
    stratified_ci_low: float | None
    stratified_ci_high: float | None
    n_positive: int
    n_negative: int
    n_problems: int
    n_problems_positive: int
    n_dropped_resamples: int
    n_missing: int
    n_pairs: int  # of a positive and a negative of one problem
    paper_compat: PaperCompat
    alias_of: str | None
    reason: str | None  # why the AUROC or its interval is missing
    auprc_reason: str | None
    stratified_reason: str | None


class RelativeEntry(ScoreEntry):
    """The same against a label relative to the control, with its permuted null."""

    null_mean: float | None
    p: float | None
    null_reason: str | None


class Slope(TypedDict):
    """Within-problem slope of d = child - control viability on relative position."""

    estimate: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None


class OverallEffect(TypedDict):
    """What the teacher's tokens are worth wherever they stand: means over all candidates."""

    d: Slope  # forced less free viability
    advantage: Slope  # of choosing among the forced tokens as the teacher does
    sentence: str


class Stage(TypedDict):
    """One step of the attrition: after `phase` there are `n` of `unit`."""

    phase: str
    unit: str
    n: int
    note: str
    of: NotRequired[int]  # what `n` is a share of


class Control(TypedDict):
    """What is left of a finding where the student would have succeeded unforced."""

    candidates: int  # with a control
    viable: int  # whose control is viable (V0 at or above the diversity share)
    real_uncertain_where_control_viable: int
    mean_child_viability: float | None
    mean_control_viability: float | None
    threshold: str  # for example "5 of 6"


class Sensitivity(TypedDict):
    """The counts and the AUROC of `one_minus_r` under another way to label."""

    name: str  # label, label_finished, label_strict, control_viable
    description: str
    diversity: int
    real_uncertain: int
    gray: int
    unlabelled: int
    auroc: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str | None


class Truncation(TypedDict):
    """How many continuations the budget cut off; each counts as a failure."""

    samples: int
    truncated: int


class Agreement(TypedDict):
    """Share of spine positions where two backends have the same most likely token."""

    argmax: float | None
    n_positions: int
    backends: list[str]
    reason: str | None


class ModelInfo(TypedDict):
    """Whose traces and whose tokens."""

    student: str
    student_revision: str | None
    teacher: str
    teacher_revision: str | None
    bundled: bool


class RunInfo(TypedDict):
    """Which run."""

    name: str
    directory: str
    command: str
    seed: int
    finished: str | None  # UTC, ISO 8601


class PhaseTime(TypedDict):
    """How long a phase took in all."""

    phase: str
    seconds: float


class Report(TypedDict):
    """The whole document. Keys of `REQUIRED` are part of the command line's contract."""

    version: int
    run: RunInfo
    model: ModelInfo
    counts: Counts
    per_source: list[SourceCounts]
    scores: list[ScoreEntry]
    scores_relative: list[RelativeEntry]
    leaderboard: NotRequired[list[LeaderboardGroup]]  # the report's own candidates first
    sections: NotRequired[dict[str, dict[str, Any]]]  # of side diagnostics, by command
    slope: Slope
    overall: NotRequired[OverallEffect]
    finding: str
    finding_status: str
    control: Control | None
    sensitivity: list[Sensitivity]
    attrition: list[Stage]
    truncation: Truncation
    agreement: Agreement | None
    caveats: list[str]
    settings: dict[str, Any]
    versions: dict[str, str]
    backend: dict[str, Any]
    timing: list[PhaseTime]
    report: str | None
    errors: NotRequired[dict[str, int]]  # failed units by phase


_COPIED = (
    "name",
    "sign",
    "auroc",
    "ci_low",
    "ci_high",
    "auprc",
    "auprc_ci_low",
    "auprc_ci_high",
    "prevalence",
    "stratified_auroc",
    "stratified_ci_low",
    "stratified_ci_high",
    "n_positive",
    "n_negative",
    "n_problems",
    "n_problems_positive",
    "n_dropped_resamples",
    "n_missing",
    "n_pairs",
    "alias_of",
    "reason",
    "auprc_reason",
    "stratified_reason",
)


def score_entry(row: Mapping[str, Any]) -> ScoreEntry:
    """A row of the `scores` table as the document holds it; NaN becomes null."""
    entry: dict[str, Any] = {key: plain(row[key]) for key in _COPIED}
    entry["paper_compat"] = {
        "auroc": plain(row["compat_auroc"]),
        "ci_low": plain(row["compat_ci_low"]),
        "ci_high": plain(row["compat_ci_high"]),
    }
    return cast(ScoreEntry, entry)


def relative_entry(row: Mapping[str, Any]) -> RelativeEntry:
    """The same for a row of the `relative` figure, with its null."""
    null = {key: plain(row[key]) for key in ("null_mean", "p", "null_reason")}
    return cast(RelativeEntry, {**score_entry(row), **null})


def score_entries(rows: Iterable[Mapping[str, Any]], figure: str) -> list[ScoreEntry]:
    """The entries of one figure (absolute, finished, strict or relative), in the rows' order."""
    build = relative_entry if figure == "relative" else score_entry
    return [build(row) for row in rows if row["figure"] == figure]


def plain(value: Any) -> Any:
    """The value in JSON's own types: NumPy scalars unwrapped, what is not finite or NA made
    None."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return _plain_record(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Iterable):  # lists, tuples, arrays
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # NaT differs from itself
    if type(value).__name__ == "NAType":
        return None
    raise TypeError(f"a {type(value).__name__} has no place in the report document: {value!r}")


def _plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record in plain types; where a number was lost on the way, its `reason` says so."""
    result = {str(key): plain(value) for key, value in record.items()}
    lost = [key for key, value in record.items() if value is not None and result[str(key)] is None]
    if lost and "reason" in result and not result["reason"]:
        result["reason"] = f"not a finite number: {', '.join(map(str, lost))}"
    return result


def to_json(document: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """The document as JSON text, ASCII alone, without NaN.

    Raises:
        TypeError: it holds something that JSON cannot.
    """
    return json.dumps(_plain_record(document), indent=indent, allow_nan=False)


def from_json(text: str, *, where: str) -> Report:
    """Read `report.json` back.

    Raises:
        UsageError: it is no JSON, no report, or one of a later version.
    """
    fix = "the run's own command with --restart-from G writes it anew"
    try:
        document = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the report is no JSON: {error}", where=where, fix=fix) from None
    absent = (
        [key for key in REQUIRED if key not in document] if isinstance(document, dict) else REQUIRED
    )
    if absent:
        raise UsageError(f"the report lacks {', '.join(absent)}", where=where, fix=fix)
    if document.get("version") != DOCUMENT_VERSION:
        raise UsageError(
            f"the report is of version {document.get('version')}, this program reads "
            f"{DOCUMENT_VERSION}",
            where=where,
            fix=fix,
        )
    return cast(Report, document)


Entry = TypeVar("Entry", ScoreEntry, RelativeEntry)


def primary(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are no alias of another: the rows to draw, in order."""
    return [entry for entry in entries if entry["alias_of"] is None]


def common_reason(entries: Sequence[ScoreEntry]) -> str | None:
    """The reason why no entry has an AUROC, where none has and the reason is one; else None."""
    reasons = {entry["reason"] for entry in entries if entry["auroc"] is None}
    if len(reasons) != 1 or any(entry["auroc"] is not None for entry in entries):
        return None
    return next(iter(reasons)) or "no reason given"
