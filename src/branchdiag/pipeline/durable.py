"""Run one phase so that a kill at any instant loses at most a few seconds of it.

Finds which units are owed from the keys that are in the tables, hands them to the phase, and
writes what comes back as Parquet parts. A unit that fails is tried once more with the same seed,
then recorded in `errors` and left owed. Knows no phase by name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from branchdiag.errors import TooManyFailures
from branchdiag.phases.base import Context, Done, Failed, Phase, Unit
from branchdiag.pipeline.progress import Reporter
from branchdiag.pipeline.signals import Guard
from branchdiag.store.run import RunDirectory
from branchdiag.store.table import Table

ATTEMPTS = 2
MAX_FAILED_SHARE = 0.10
MAX_ROWS_HELD = 50_000


@dataclass(frozen=True)
class PhaseResult:
    """What running a phase came to."""

    units: int
    done_now: int
    failed: int
    tokens: int
    wall_s: float

    @property
    def complete(self) -> bool:
        """Whether no unit is owed any more."""
        return self.failed == 0


def done_units(run: RunDirectory, phase: Phase) -> set[Unit]:
    """The units whose rows the phase's last table holds."""
    table = run.table(phase.writes[-1])
    if not table.exists():
        return set()
    columns = table.read(list(phase.unit))
    return set(zip(*(columns[name].to_pylist() for name in phase.unit), strict=True))


def run_phase(context: Context, phase: Phase, reporter: Reporter, guard: Guard) -> PhaseResult:
    """Do what is owed of a phase and write it.

    Raises:
        TooManyFailures: more than a tenth of the units failed twice.
        Interrupted: a signal came; what was finished is written.
    """
    started = time.monotonic()
    for name in phase.writes:
        if not phase.unit:
            context.run.table(name).remove()
        context.run.table(name).create()
    _fill(context, phase, guard)
    units = phase.units(context)
    done = done_units(context.run, phase) if phase.unit else set()
    owed = [unit for unit in units if unit not in done]
    record = context.run.manifest["phases"].get(phase.letter)
    if record is not None:  # for whoever asks how far the run is
        record["units"] = len(units)
        context.run.save_manifest()
    reporter.start(phase, len(units), len(units) - len(owed))
    checkpoint = _Checkpoint(context, phase, reporter, guard)
    failures: dict[Unit, Failed] = {}
    try:
        for _ in range(ATTEMPTS):
            if not owed:
                break
            failures = checkpoint.drain(owed)
            owed = list(failures)
    finally:
        # Also after Ctrl-C and after an error: what is finished is kept.
        checkpoint.write()
        reporter.finish()
    _record(context.run, phase, failures)
    for failure in list(failures.values())[:3]:
        reporter.note(f"  failed: {'/'.join(map(str, failure.unit))}: {failure.message}")
    if len(failures) > MAX_FAILED_SHARE * len(units):
        raise TooManyFailures(
            f"{len(failures)} of {len(units)} units of phase {phase.letter} failed, twice each",
            where=str(context.run.table("errors").directory),
            fix="see the first failures above; the same command tries them again",
        )
    return PhaseResult(
        units=len(units),
        done_now=checkpoint.units,
        failed=len(failures),
        tokens=checkpoint.tokens,
        wall_s=time.monotonic() - started,
    )


def _fill(context: Context, phase: Phase, guard: Guard) -> None:
    """Bring parts that are older than some columns up to date, a part at a time."""
    if phase.fill is None:
        return
    for name in phase.writes:
        table = context.run.table(name)
        for path, columns in table.lacking().items():
            context.note(f"  {name}: {path.name} lacks {', '.join(columns)}; adding that alone")
            rows = phase.fill(context, table.part_rows(path), columns)
            with guard.shielded():
                table.replace_part(path, rows)


class _Checkpoint:
    """Rows finished but not yet written, and the rule for when to write them."""

    def __init__(self, context: Context, phase: Phase, reporter: Reporter, guard: Guard) -> None:
        self._context, self._run, self._phase = context, context.run, phase
        self._reporter, self._guard = reporter, guard
        self._seconds = context.protocol.engine.checkpoint_seconds
        self._held: dict[str, list[Any]] = {name: [] for name in phase.writes}
        self._last = time.monotonic()
        self.units = self.tokens = 0
        # A kill between two tables of a unit leaves rows in the first: they are not written twice.
        self._present = {
            name: set(self._run.table(name).keys()) for name in phase.writes[:-1] if phase.unit
        }

    def drain(self, owed: Sequence[Unit]) -> dict[Unit, Failed]:
        """Take outcomes until the phase has no more; return the failures."""
        failures: dict[Unit, Failed] = {}
        # Closed at once when a signal breaks the loop: the phase's engine must not outlive it.
        with closing(self._phase.work(self._context, owed)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Done):
                    self._hold(outcome)
                else:
                    failures[outcome.unit] = outcome
        return failures

    def _hold(self, outcome: Done) -> None:
        for name, rows in outcome.rows.items():
            self._held[name].extend(rows)
        self.units += 1
        self.tokens += outcome.tokens
        self._reporter.advance(1, outcome.tokens)
        late = time.monotonic() - self._last >= self._seconds
        if late or sum(map(len, self._held.values())) >= MAX_ROWS_HELD:
            self.write()

    def write(self) -> None:
        """Write what is held, in the order of the phase's tables, unbroken by signals."""
        with self._guard.shielded():
            for name in self._phase.writes:
                rows, self._held[name] = self._held[name], []
                table = self._run.table(name)
                if rows:
                    table.append(self._not_present(table, name, rows))
            self._last = time.monotonic()

    def _not_present(self, table: Table, name: str, rows: Sequence[Any]) -> Sequence[Any]:
        present = self._present.get(name)
        if not present:
            return rows
        key = table.schema.key
        return [row for row in rows if tuple(row[column] for column in key) not in present]


def _record(run: RunDirectory, phase: Phase, failures: dict[Unit, Failed]) -> None:
    if not failures:
        return
    attempt = datetime.now(UTC).isoformat(timespec="microseconds")
    run.table("errors").append(
        [
            {
                "phase": phase.letter,
                "unit": "/".join(map(str, unit)),
                "attempt": attempt,
                "kind": failure.kind,
                "message": failure.message[:2000],
            }
            for unit, failure in failures.items()
        ]
    )
