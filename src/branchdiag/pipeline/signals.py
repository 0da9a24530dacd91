"""Ctrl-C and SIGTERM: stop between two checkpoints, never inside one.

Knows nothing of phases. A second signal of the same kind stops at once.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an Exception: nothing may swallow it on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int]]:
        return Interrupted, (self.number,)

    @property
    def exit_status(self) -> int:
        """130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class Guard:
    """Turns SIGINT and SIGTERM into `Interrupted`, held back while a checkpoint is written."""

    def __init__(self) -> None:
        self._shielded = False
        self._pending: int | None = None

    @contextmanager
    def installed(self) -> Iterator[Guard]:
        """Handle the signals inside; give back the former handlers after."""
        former = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold signals back inside; raise after, if one came."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
            if self._pending is not None:
                number, self._pending = self._pending, None
                raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # asked twice: stop at once
        if self._shielded:
            self._pending = number
        else:
            raise Interrupted(number)
