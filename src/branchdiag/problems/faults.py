"""What is wrong with a problem file, and refusing it with everything said at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from branchdiag.errors import UsageError

SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file, a row (from 1) or a field of a row."""

    file: str
    row: int | None
    field: str | None
    what: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        field = "" if self.field is None else f", {self.field}"
        return f"{self.file}{row}{field}: {self.what}"


def refuse(faults: Sequence[Fault]) -> None:
    """Raise for the faults, all of them in one error; nothing where there are none.

    Raises:
        UsageError: one line a fault, the first 20 of them, and how many more there are.
    """
    if not faults:
        return
    lines = [str(fault) for fault in faults[:SHOWN_FAULTS]]
    if len(faults) > SHOWN_FAULTS:
        lines.append(f"and {len(faults) - SHOWN_FAULTS} more")
    raise UsageError(
        "the problems cannot be used:\n    " + "\n    ".join(lines),
        fix="mend or remove these rows; other column names are mapped as "
        "SOURCE,problem=COLUMN,answer=COLUMN,solution=COLUMN,id=COLUMN (id= : row numbers)",
    )
