"""Progress of the units of a phase: a Rich bar on a terminal, plain lines elsewhere, or nothing.

Writes to standard error only: standard output is for results. Knows nothing of what a unit is.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from branchdiag.phases.base import Phase

PLAIN_SECONDS = 5.0


class Reporter(Protocol):
    """Where the pipeline says how far it is."""

    def start(self, phase: Phase, total: int, done: int) -> None:
        """A phase begins with `done` of `total` units there already."""

    def advance(self, units: int, tokens: int) -> None:
        """Units finished, and the tokens they took."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def finish(self) -> None:
        """The phase has ended."""


class Plain:
    """A line at the start and the end of a phase, and every few seconds between."""

    def __init__(self, every_seconds: float = PLAIN_SECONDS) -> None:
        self._every = every_seconds

    def start(self, phase: Phase, total: int, done: int) -> None:
        self._name = f"{phase.letter} {phase.name:<10}"
        self._total, self._done, self._tokens, self._new = total, done, 0, 0
        self._began = self._last = time.monotonic()
        kept = f", {done} kept from before" if done else ""
        self._print(f"{self._name} {total} units{kept}")

    def advance(self, units: int, tokens: int) -> None:
        self._done += units
        self._new += units
        self._tokens += tokens
        now = time.monotonic()
        if now - self._last >= self._every and self._done < self._total:
            self._last = now
            self._print(f"{self._name} {self._done}/{self._total} {self._pace(now)}")

    def note(self, text: str) -> None:
        self._print(text)

    def finish(self) -> None:
        now = time.monotonic()
        if self._new:
            ended = "done in" if self._done == self._total else "after"  # stopped, or some failed
            self._print(
                f"{self._name} {self._done}/{self._total} {ended} {now - self._began:.1f} s"
            )

    def _pace(self, now: float) -> str:
        elapsed = max(now - self._began, 1e-9)
        left = (self._total - self._done) * elapsed / max(self._new, 1)
        tokens = f", {self._tokens / elapsed:,.0f} tokens/s" if self._tokens else ""
        return f"{self._new / elapsed:,.1f} units/s{tokens}, about {duration(left)} left"

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Silent:
    """Says nothing but notes: they may be warnings."""

    def start(self, phase: Phase, total: int, done: int) -> None: ...

    def advance(self, units: int, tokens: int) -> None: ...

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def finish(self) -> None: ...


class Bars:
    """A Rich bar for the phase under way; finished phases stay above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def start(self, phase: Phase, total: int, done: int) -> None:
        self._tokens = 0
        self._began = time.monotonic()
        self._progress.start()
        self._task = self._progress.add_task(
            f"{phase.letter} {phase.name:<10}", total=total, completed=done, pace=""
        )

    def advance(self, units: int, tokens: int) -> None:
        self._tokens += tokens
        elapsed = max(time.monotonic() - self._began, 1e-9)
        pace = f"{self._tokens / elapsed:,.0f} tok/s" if self._tokens else ""
        self._progress.update(self._task, advance=units, pace=pace)

    def note(self, text: str) -> None:
        from rich.markup import escape

        self._progress.console.print(escape(text))

    def finish(self) -> None:
        self._progress.stop_task(self._task)
        self._progress.stop()


def create_reporter(style: str) -> Reporter:
    """auto | rich | plain | none; auto: rich on a terminal, else plain."""
    if style == "auto":
        style = "rich" if sys.stderr.isatty() else "plain"
    if style == "rich":
        return Bars()
    return Plain() if style == "plain" else Silent()


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
