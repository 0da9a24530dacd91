"""What a comparison reads of each run, and what it refuses.

Opens finished runs to read: manifest, report.json, and the tables from which paired differences and
curves come. Takes no lock and writes nothing. Knows no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag.errors import Incomplete, UsageError
from branchdiag.report.document import Report, from_json
from branchdiag.store.run import RunDirectory

if TYPE_CHECKING:
    import pandas as pd

MAX_RUNS = 6
"""As many as one figure can hold in colours that everyone can tell apart."""
TABLES = ("problems", "spines", "candidates", "labels", "curves")
NEEDED = ("run", "model", "settings", "control", "truncation", "caveats")
"""Parts of a report that a comparison reads, beyond those that `from_json` asks for."""


@dataclass(frozen=True)
class ComparedRun:
    """A finished run as it is compared.

    label: its name, lengthened by the directories above where two runs share one. frames: the
    tables of `TABLES`; `candidates` and `labels` hold the primary group alone.
    """

    label: str
    path: Path
    manifest: Mapping[str, Any]
    report: Report
    frames: Mapping[str, pd.DataFrame]


def read_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """The runs in the order they were named.

    Raises:
        UsageError: fewer than two, more than `MAX_RUNS`, one named twice, or one that is none.
        SettingsConflict: a run of a newer version.
        Incomplete: one is not finished, or parts of it cannot be read.
    """
    if len(paths) < 2:
        raise UsageError(
            "a comparison takes two runs or more" + (", and one is named" if paths else ""),
            where=str(paths[0]) if paths else None,
            fix="branchdiag compare RUN RUN; `branchdiag report RUN` shows one alone",
        )
    if len(paths) > MAX_RUNS:
        raise UsageError(
            f"a comparison takes at most {MAX_RUNS} runs, and {len(paths)} are named",
            fix="compare fewer at a time; the first one named is what the others are held against",
        )
    runs = [_open(path) for path in paths]
    seen: dict[Path, Path] = {}
    for path, run in zip(paths, runs, strict=True):
        real = run.path.resolve()
        if real in seen:
            raise UsageError(
                f"one and the same run is named twice: {seen[real]} and {path}",
                where=str(real),
                fix="name two different runs",
            )
        seen[real] = path
    reports = [_report(run) for run in runs]  # every run is looked at before any table is read
    names = labels_of([run.path for run in runs])
    return [
        ComparedRun(name, run.path, run.manifest, report, _frames(run, report))
        for name, run, report in zip(names, runs, reports, strict=True)
    ]


def labels_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths, whole names, that tell all of them apart."""
    parts = [path.parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _open(path: Path) -> RunDirectory:
    for name, what, command in (
        ("evaluation.json", "an evaluation", "branchdiag evaluate MODEL MODEL compares models"),
        ("training.json", "a training run", "branchdiag evaluate compares what came of it"),
    ):
        if (path / name).is_file():
            raise UsageError(
                f"{path} is {what} and no diagnosis", where=str(path / name), fix=command
            )
    return RunDirectory.open(path)


def _report(run: RunDirectory) -> Report:
    """Its report, if the run is finished."""
    again = run.manifest.get("command", f"branchdiag run-all --out {run.path}")
    phases = run.manifest.get("phases", {})
    file = run.path / "report.json"
    if phases.get("G", {}).get("status") != "complete" or not file.is_file():
        holder = run.holder()
        raise Incomplete(
            f"{run.path.name} is not finished: it has no report yet"
            + (f" ({holder} is at work on it)" if holder else ""),
            where=str(run.path),
            fix=again,
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the report cannot be read ({error})", where=str(file), fix="branchdiag verify"
        ) from None
    report = from_json(text, where=str(file))
    absent = [key for key in NEEDED if key not in report]
    if absent:
        raise UsageError(
            f"the report lacks {', '.join(absent)}",
            where=str(file),
            fix="the run's own command with --restart-from G writes it anew",
        )
    return report


def _frames(run: RunDirectory, report: Report) -> dict[str, pd.DataFrame]:
    from branchdiag.phases.groups import primary_ids
    from branchdiag.pipeline.fitting import candidate_settings

    frames = {name: run.table(name).frame() for name in TABLES}
    if run.warnings:
        raise Incomplete(
            f"{len(run.warnings)} parts of the run cannot be read: {run.warnings[0]}",
            where=str(run.path),
            fix="the same run-all command makes them again; branchdiag verify lists them",
        )
    spines = frames["spines"]
    correct = dict(zip(spines["problem_id"], spines["correct"], strict=True))
    rows: list[Any] = frames["candidates"].to_dict("records")
    kept = primary_ids(
        rows,
        {
            name: None if value is None or value != value else value
            for name, value in correct.items()
        },
        candidate_settings(run.manifest),
    )
    for name in ("candidates", "labels"):
        frame = frames[name]
        frames[name] = frame[frame["candidate_id"].isin(kept)].reset_index(drop=True)
    counts = report["counts"]
    for name, told, held in (
        ("problems", counts["problems"], len(frames["problems"])),
        ("candidates", counts["candidates"], len(frames["candidates"])),
        ("labels", counts["candidates"] - counts["unlabelled"], _labelled(frames["labels"])),
    ):
        if told != held:
            raise Incomplete(
                f"the report speaks of {told} {name} and the table holds {held}",
                where=str(run.path / name),
                fix="branchdiag verify says what is missing; the run-all command of the run makes "
                "it again",
            )
    return frames


def _labelled(labels: pd.DataFrame) -> int:
    return int(labels["label"].notna().sum())
