"""From the rows of problem files to problems: fields, types, ids, answers.

Knows nothing of where a file came from or how it is read. Nothing is guessed and nothing dropped:
one bad row refuses the whole load, with every fault listed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from branchdiag.problems.faults import Fault
from branchdiag.problems.readers import NotText, kind, read_file
from branchdiag.problems.sources import FIELDS

ID_COLUMNS = ("id", "problem_id", "unique_id", "problem_idx")
"""Columns taken as the id where none is mapped: the first that is there, else row numbers."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem with its reference answer; problem_id is "<source>/<id>", unique in a run."""

    problem_id: str
    source: str
    problem: str
    answer: str
    solution: str | None = None


@dataclass(frozen=True)
class ReadProblems:
    """The good problems of a source, the columns that were read, and counts."""

    problems: list[Problem]
    columns: dict[str, str | None]
    n_rows: int
    n_answers_from_solution: int


@dataclass(frozen=True)
class _Row:
    file: str
    number: int
    default_id: str
    values: Mapping[str, Any]


def read_problems(
    files: Sequence[tuple[Path, str]],
    label: str,
    columns: Mapping[str, str],
    source: str,
    faults: list[Fault],
) -> ReadProblems:
    """Read the files of one source; every fault is appended to `faults`.

    Args:
        files: path and the name that faults call it by, in order.
        label: the first part of the problem ids.
        columns: field -> column for what is not under its own name; id -> "" for row numbers.
        source: the source as given, for the advice in a fault.
        faults: appended to; the problems are whole only where nothing was.
    """
    rows: list[_Row] = []
    seen_columns: dict[str, None] = {}
    n_before = len(faults)
    wanted = {*FIELDS, *ID_COLUMNS, *columns.values()}
    for index, (path, name) in enumerate(files):
        numbered, present = read_file(path, name, wanted, faults)
        seen_columns.update(dict.fromkeys(present))
        prefix = f"{index + 1}." if len(files) > 1 else ""
        rows.extend(_Row(name, number, f"{prefix}{number}", row) for number, row in numbered)
    chosen = _choose_columns(tuple(seen_columns), columns)
    if rows:
        faults.extend(_missing_columns(files[0][1], chosen, tuple(seen_columns), source))
    elif len(faults) == n_before:
        faults.append(Fault(files[0][1], None, None, "holds no problems"))
    if any(fault.row is None for fault in faults[n_before:]):
        return ReadProblems([], chosen, len(rows), 0)
    problems: list[Problem] = []
    first_at: dict[str, str] = {}
    n_from_solution = 0
    for row in rows:
        fields, row_faults, from_solution = _check_row(row, chosen)
        identifier = fields.get("id")
        if identifier is not None:
            here = f"row {row.number}" + (f" of {row.file}" if len(files) > 1 else "")
            if first_at.setdefault(identifier, here) != here:
                what = f"{identifier!r} is already the id of {first_at[identifier]}"
                row_faults.append(Fault(row.file, row.number, _named("id", chosen), what))
        faults.extend(row_faults)
        if row_faults:
            continue
        n_from_solution += from_solution
        problems.append(
            Problem(
                problem_id=f"{label}/{identifier}",
                source=label,
                problem=str(fields["problem"]),
                answer=str(fields["answer"]),
                solution=fields["solution"],
            )
        )
    return ReadProblems(problems, chosen, len(rows), n_from_solution)


def _choose_columns(present: Sequence[str], columns: Mapping[str, str]) -> dict[str, str | None]:
    """Field -> column; None where there is none (id: row numbers)."""
    chosen: dict[str, str | None] = {}
    for field in FIELDS:
        names = (columns[field],) if field in columns else ID_COLUMNS if field == "id" else (field,)
        chosen[field] = next((name for name in names if name in present), None)
        if columns.get(field) and chosen[field] is None:
            chosen[field] = columns[field]  # mapped and absent: a fault of the file
    return chosen


def _missing_columns(
    file: str, chosen: Mapping[str, str | None], present: Sequence[str], source: str
) -> list[Fault]:
    there = "the columns are " + (", ".join(present) or "none")
    faults = [
        Fault(file, None, field, f"there is no column {column!r}; {there}")
        for field, column in chosen.items()
        if column is not None and column not in present
    ]
    absent = [field for field in ("problem", "answer") if chosen[field] is None]
    if "answer" in absent and chosen["solution"] is not None:
        absent.remove("answer")
    for field in absent:
        advice = f"say which one it is: {source},{field}=COLUMN"
        faults.append(Fault(file, None, field, f"there is no such column; {there}; {advice}"))
    return faults


def _check_row(
    row: _Row, chosen: Mapping[str, str | None]
) -> tuple[dict[str, str | None], list[Fault], bool]:
    """The fields of a row as text, what is wrong with it, and whether the solution answered."""
    fields: dict[str, str | None] = {}
    faults: list[Fault] = []
    for field in FIELDS:
        column = chosen[field]
        value = row.values.get(column) if column is not None else None
        text, what = _as_text(value, numbers=field in ("id", "answer"))
        if what is None and text is None and field in ("id", "problem") and column is not None:
            what = "missing" if _is_missing(value) else "empty"
        if what is not None:
            faults.append(Fault(row.file, row.number, _named(field, chosen), what))
        fields[field] = text
    if chosen["id"] is None:
        fields["id"] = row.default_id
    from_solution = False
    if fields["answer"] is None and not any(
        fault.field == _named("answer", chosen) for fault in faults
    ):
        fields["answer"] = _boxed(fields["solution"])
        from_solution = fields["answer"] is not None
        if not from_solution:
            column = chosen["answer"]
            missing = column is None or _is_missing(row.values.get(column))
            what = "missing" if missing else "empty"
            if fields["solution"] is not None:
                what += ", and the solution has no complete \\boxed{} to take it from"
            faults.append(Fault(row.file, row.number, _named("answer", chosen), what))
    return fields, faults, from_solution


def _as_text(value: Any, *, numbers: bool) -> tuple[str | None, str | None]:
    """A cell as text (None if missing or blank), or what is wrong with it. Numbers exactly."""
    if _is_missing(value):
        return None, None
    if isinstance(value, NotText):
        return None, "not UTF-8"
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:  # "\ud800" in JSON: no tokenizer and no file takes it
            return None, "half of a surrogate pair, which is no character"
        return (value, None) if value.strip() else (None, None)
    if numbers and isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            return _number_text(value), None
        except (ValueError, OverflowError):
            return None, f"no finite number: {value!r}"
    return None, f"must be text{' or a number' if numbers else ''}, not {kind(value)}"


def _number_text(value: int | float | Decimal) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value.normalize():f}" if isinstance(value, Decimal) else repr(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _boxed(solution: str | None) -> str | None:
    """The answer in the last complete box of a solution."""
    if solution is None:
        return None
    from branchdiag.answers.extract import last_boxed

    answer = last_boxed(solution).answer
    return answer if answer and answer.strip() else None


def _named(field: str, chosen: Mapping[str, str | None]) -> str:
    """A field as a fault calls it: with its column where that has another name."""
    column = chosen[field]
    return field if column in (None, field) else f"{field} (column {column})"
