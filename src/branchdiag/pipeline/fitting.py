"""From a run's labels to `fitted.json` and its figure.

Reads the manifest and the `labels`, `candidates` and `spines` tables of a run (Phase F must be
done); writes one JSON file, described by `schedule_schema.json` in the package, and one figure as
PNG and SVG beside it. Fits PW-OPSD's weight (arXiv 2605.21606, equation 6), whose authors chose
theirs by hand; the statistics are in `branchdiag.stats`. Candidates that the report tells apart
from its own take no part. Changes nothing in the run and needs no lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag.api import open_run
from branchdiag.errors import Incomplete, SettingsConflict, UsageError
from branchdiag.phases import labelled
from branchdiag.schedule import Schedule
from branchdiag.store.atomic import require_writable
from branchdiag.store.run import RunDirectory

if TYPE_CHECKING:
    from branchdiag.protocol import CandidateSettings
    from branchdiag.stats.schedule_band import FitSettings
    from branchdiag.stats.schedule_data import Estimand, LabelledCandidates
    from branchdiag.stats.schedule_fit import FittedSchedule

FIGURE_SUFFIXES = (".png", ".svg")
USABLE = ("complete", "incomplete")
"""States of Phase F under which its labels may be read: `incomplete` lacks units that failed, which
are counted in the document."""


@dataclass(frozen=True)
class WrittenSchedule:
    """What was made: the JSON document, and where it and its figures lie."""

    document: dict[str, Any]
    path: Path
    figures: list[Path]


def fit_run(
    run: Path | None,
    *,
    estimand: Estimand | None = None,
    preset: str | None = None,
    out: Path = Path("fitted.json"),
    settings: FitSettings | None = None,
) -> WrittenSchedule:
    """Fit a run's labels, or take a preset, and write the schedule with its figure.

    Args:
        run: directory of the run. None: the latest in runs/, or no run at all for a preset.
        estimand: what is fitted; by default viability, held against the control. Naming one takes
            its result even where the control explains it.
        preset: a published schedule that is written instead of a fit. What a named run comes to
            stands beside it.
        out: the JSON file; the figures take its name.
        settings: of bootstrap and permutation; by default those of `FitSettings`.

    Raises:
        UsageError: no such run or preset, an output that cannot be JSON, or an estimand for a
            preset without a run.
        Incomplete: the run has no labels yet, or some of them cannot be read.
        StorageError: the disk will not take the files.
    """
    _check_output(out)
    fitted = None
    if preset is not None:
        schedule = Schedule.preset(preset)  # a wrong name is said before anything is fitted
        if run is None and estimand is not None:
            raise UsageError(
                "an estimand is fitted to a run, and none is named",
                where="--estimand",
                fix="name the run, or leave --estimand out: a preset alone is fitted to nothing",
            )
    if preset is None or run is not None:
        from branchdiag.stats.schedule_document import to_schedule

        fitted = fitted_schedule(open_run(run).path, estimand=estimand, settings=settings)
        schedule = to_schedule(fitted, preset=preset)
    schedule.save(out)
    return WrittenSchedule(schedule.document, out, _draw(schedule, fitted, out))


def labelled_candidates(run: RunDirectory) -> LabelledCandidates:
    """What a fit reads of a run.

    Raises:
        Incomplete: Phase F is not done, or parts of its tables cannot be read.
    """
    phases = run.manifest.get("phases", {})
    if phases.get("F", {}).get("status") not in USABLE:
        again = run.manifest.get("command", f"branchdiag run-all --out {run.path}")
        raise Incomplete(
            "the run has no labels yet: Phase F is not done", where=str(run.path), fix=again
        )
    tables = labelled.read_tables(run)
    if run.warnings:
        raise Incomplete(
            f"{len(run.warnings)} parts of the run cannot be read: {run.warnings[0]}",
            where=str(run.path),
            fix="the same run-all command makes them again; branchdiag verify lists them",
        )
    return labelled.labelled_candidates(tables, candidate_settings(run.manifest))


def candidate_settings(manifest: Mapping[str, Any]) -> CandidateSettings:
    """How a run chose its candidates.

    Raises:
        SettingsConflict: another version of branchdiag wrote settings that this one does not know.
    """
    from pydantic import ValidationError

    from branchdiag.protocol import CandidateSettings

    try:
        return CandidateSettings.model_validate(manifest.get("protocol", {}).get("candidates", {}))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(["candidates", *map(str, fault["loc"])])
        raise SettingsConflict(
            f"the run's settings are not those of this version: {fault['msg']}",
            where=f"run.json, {key}",
            fix=f"read it with the branchdiag that made it ({manifest.get('branchdiag')})",
        ) from None


def fitted_schedule(
    path: Path, *, estimand: Estimand | None = None, settings: FitSettings | None = None
) -> FittedSchedule:
    """The schedule that a run's labels allow; writes nothing.

    Raises:
        UsageError: there is no run.
        Incomplete: the run has no labels yet, or some of them cannot be read.
    """
    from branchdiag.stats.schedule_document import run_provenance
    from branchdiag.stats.schedule_fit import fit_schedule

    run = RunDirectory.open(path)
    return fit_schedule(
        labelled_candidates(run),
        estimand=estimand,
        settings=settings,
        provenance=run_provenance(run.manifest, run.path.name),
    )


def _check_output(out: Path) -> None:
    """Say before minutes of fitting what would fail after them."""
    if out.suffix.lower() in FIGURE_SUFFIXES:
        raise UsageError(
            f"{out.name} is the name of a picture, and the schedule is JSON",
            where=str(out),
            fix=f"--out {out.with_suffix('.json')}; the figure is written beside it",
        )
    if out.is_dir():
        raise UsageError(
            f"{out} is a directory", where=str(out), fix=f"--out {out / 'fitted.json'}"
        )
    require_writable(out)


def _draw(schedule: Schedule, fitted: FittedSchedule | None, out: Path) -> list[Path]:
    from branchdiag.report.schedule_figure import draw_schedule
    from branchdiag.report.style import save_figures

    return save_figures({out.stem: draw_schedule(schedule, fitted)}, out.parent)
