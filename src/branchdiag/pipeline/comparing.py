"""Finished runs side by side: what differs, curves, leaderboard, schedules, paired differences.

Reads runs (`compared_runs`) and writes one page; the runs are left as they are. The first run named
is what each of the others is held against. Continues arXiv 2605.21606, which compares models and
protocols by their own intervals alone; statistics are in `stats.run_differences`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from branchdiag import __version__
from branchdiag.errors import UsageError
from branchdiag.pipeline.compared_pairs import paired_differences, shared
from branchdiag.pipeline.compared_runs import ComparedRun, read_runs
from branchdiag.report.compare_differs import what_differs
from branchdiag.report.compare_document import (
    FORMAT,
    VERSION,
    Comparison,
    PairEntry,
    RunEntry,
    ScheduleEntry,
    curve_entry,
    leaderboard_rows,
    run_entry,
    schedule_entry,
)
from branchdiag.report.compare_sentences import (
    comparability,
    figure_difference,
    notes,
    pair_summary,
)
from branchdiag.store.atomic import require_writable

NO_SCHEDULES = "left out: --no-schedules"
JUDGED = ("higher", "lower", "alone", "not told apart")


def compare_runs(
    paths: Sequence[Path],
    *,
    out: Path,
    schedules: bool = True,
    command: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare finished runs and write the page.

    Args:
        paths: two run directories or more; the first is what the others are held against.
        out: the page, an HTML file outside the runs.
        schedules: whether a schedule is fitted to each run (some seconds each).
        command: how this was called, for the document.
        tell: is told what is being done.

    Raises:
        UsageError, SettingsConflict, Incomplete: runs that cannot be compared, or `out` cannot be.
        StorageError: the disk will not take the page.
    """
    from branchdiag.report.compare_page import write_comparison

    tell("reading")
    runs = read_runs(paths)
    check_out(out, [run.path for run in runs])
    document = make_comparison(runs, schedules=schedules, command=command, tell=tell)
    document["page"] = str(out)
    tell("drawing")
    write_comparison(document, out)
    return document


def make_comparison(
    runs: Sequence[ComparedRun],
    *,
    schedules: bool = True,
    command: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """The document; arguments as `compare_runs`. Writes nothing."""
    entries = [run_entry(run.label, run.report) for run in runs]
    differs, same = what_differs([run.manifest for run in runs])
    fitted: list[ScheduleEntry] = []
    if schedules:
        for run in runs:
            tell(f"fitting a schedule to {run.label}")
            fitted.append(_schedule(run))
    pairs = []
    for run, entry in zip(runs[1:], entries[1:], strict=True):
        tell(f"pairing {run.label}")
        pairs.append(_pair(runs[0], run, entries[0], entry, n_pairs=len(runs) - 1))
    judged = [f["n_problems"] for p in pairs for f in p["figures"] if f["verdict"] in JUDGED]
    settings = runs[0].report["settings"]["report"]
    return {
        "schema": FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "branchdiag": __version__,
        "command": command,
        "level": settings["level"],
        "resamples": settings["resamples"],
        "runs": entries,
        "differs": differs,
        "same": same,
        "curves": [curve_entry(run.label, _records(run, "curves")) for run in runs],
        "leaderboard": leaderboard_rows([run.report for run in runs]),
        "schedules": fitted,
        "schedules_reason": None if schedules else NO_SCHEDULES,
        "pairs": pairs,
        "sections": _sections(runs),
        "notes": notes(
            differs,
            entries,
            len(pairs[0]["figures"]),
            min(judged) if judged else None,
        ),
        "page": None,
    }


def check_out(out: Path, runs: Sequence[Path]) -> None:
    """Say before any work what would fail after it.

    Raises:
        UsageError: a directory, another kind of file, or a place inside one of the runs.
        StorageError: nothing can be written there.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"{out.name} is not the name of a page",
            where=str(out),
            fix=f"--out {out.with_suffix('.html') if out.name else 'compare.html'}; --json prints "
            "the document",
        )
    if out.is_dir():
        raise UsageError(f"{out} is a directory", where=str(out), fix=f"--out {out}/compare.html")
    place = out.absolute().parent.resolve()
    for run in runs:
        if place.is_relative_to(run.resolve()):
            raise UsageError(
                f"{out} lies inside {run.name}, and a comparison leaves the runs as they are",
                where=str(out),
                fix="choose another place with --out",
            )
    require_writable(out)


def _schedule(run: ComparedRun) -> ScheduleEntry:
    from branchdiag.pipeline.fitting import fitted_schedule
    from branchdiag.report.schedule_figure import headline
    from branchdiag.stats.schedule_document import make_document

    document = make_document(fitted_schedule(run.path))
    return schedule_entry(run.label, document, headline(document))


def _pair(
    first: ComparedRun,
    second: ComparedRun,
    first_entry: RunEntry,
    second_entry: RunEntry,
    *,
    n_pairs: int,
) -> PairEntry:
    common = shared(first, second)
    level = first.report["settings"]["report"]["level"]
    figures = [
        figure_difference(found, first.label, second.label, level)
        for found in paired_differences(first, second, common, n_pairs=n_pairs)
    ]
    differs, _ = what_differs([first.manifest, second.manifest])
    comparable, not_comparable = comparability(common.counts(), differs, first_entry, second_entry)
    return {
        "first": first.label,
        "second": second.label,
        "shared": common.counts(),
        "comparable": comparable,
        "not_comparable": not_comparable,
        "figures": figures,
        "summary": pair_summary(figures, first.label, second.label),
    }


def _records(run: ComparedRun, name: str) -> list[dict[str, Any]]:
    """A table's rows with None for what is missing."""
    from branchdiag.report.document import plain

    rows: list[Any] = run.frames[name].to_dict("records")
    return [plain(row) for row in rows]


def _sections(runs: Sequence[ComparedRun]) -> dict[str, list[dict[str, Any] | None]]:
    """Documents of the side diagnostics that two runs or more have, by command."""
    made = [run.report.get("sections", {}) for run in runs]
    names = dict.fromkeys(name for sections in made for name in sections)
    return {
        name: [sections.get(name) for sections in made]
        for name in names
        if sum(name in sections for sections in made) > 1
    }
