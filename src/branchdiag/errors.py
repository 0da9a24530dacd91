"""What a user can mend: one base class that says what is wrong, where, and what to do.

Knows nothing of the rest of the package. The command line prints these without a traceback and ends
with their exit status; anything else that escapes is a bug and keeps its traceback (status 1).
"""

from __future__ import annotations

from typing import Any


class BranchdiagError(Exception):
    """Base of every error that a user can mend.

    Args:
        what: one sentence, what is wrong.
        where: the file, row, field, setting or device it concerns.
        fix: what to do about it.
    """

    exit_status = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments would be lost on the way from a worker process.
        return _rebuild, (type(self), self.what, self.where, self.fix)

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"  where: {self.where}")
        if self.fix:
            parts.append(f"  fix:   {self.fix}")
        return "\n".join(parts)


def _rebuild(kind: type[BranchdiagError], what: str, where: str, fix: str) -> BranchdiagError:
    return kind(what, where=where, fix=fix)


class UsageError(BranchdiagError):
    """An argument, a setting or an input file cannot be used (exit status 2)."""

    exit_status = 2


class SettingsConflict(BranchdiagError):
    """The run directory was made with other settings, models or data (exit status 3)."""

    exit_status = 3


class Incomplete(BranchdiagError):
    """Work is left; the same command goes on (exit status 4)."""

    exit_status = 4


class MissingRequirement(BranchdiagError):
    """A package, device, model or data set is not available on this machine (exit status 5)."""

    exit_status = 5


class TooManyFailures(BranchdiagError):
    """More units failed than a result can stand on (exit status 6)."""

    exit_status = 6
