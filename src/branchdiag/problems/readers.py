"""JSONL, JSON and Parquet files as numbered rows of plain values.

Rows are numbered from 1: the line of a JSONL file, else the record. Knows nothing of what a problem
is; what cannot be read becomes a fault.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from branchdiag.problems.faults import Fault


def read_file(
    path: Path, name: str, wanted: Collection[str], faults: list[Fault]
) -> tuple[list[tuple[int, Mapping[str, Any]]], list[str]]:
    """Numbered rows and the columns of a file."""
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path, name, wanted, faults)
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        faults.append(Fault(name, None, None, f"cannot be read: {error.strerror or error}"))
        return [], []
    read = _read_json if path.suffix.lower() == ".json" else _read_jsonl
    rows = read(content, name, faults)
    present: dict[str, None] = {}
    for _, row in rows:
        present.update(dict.fromkeys(row))
    return rows, list(present)


def _read_jsonl(
    content: bytes, name: str, faults: list[Fault]
) -> list[tuple[int, Mapping[str, Any]]]:
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        value, what = _parse_json(line)
        if what is None and not isinstance(value, dict):
            what = f"not a JSON object but {kind(value)}"
        if what is not None:
            faults.append(Fault(name, number, None, what))
        else:
            rows.append((number, value))
    return rows


def _read_json(
    content: bytes, name: str, faults: list[Fault]
) -> list[tuple[int, Mapping[str, Any]]]:
    if not content.strip():
        return []
    value, what = _parse_json(content)
    if what is None and not isinstance(value, list):
        what = f"not a JSON array of objects but {kind(value)}"
    if what is not None:
        what += " (one object a line is a .jsonl file)"
        faults.append(Fault(name, None, None, what))
        return []
    rows: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            faults.append(Fault(name, number, None, f"not a JSON object but {kind(row)}"))
    return rows


def _parse_json(content: bytes) -> tuple[Any, str | None]:
    """The value, or what is wrong with it."""
    try:
        return json.loads(content.decode("utf-8")), None
    except UnicodeDecodeError as error:
        return None, f"not UTF-8 (byte {error.start + 1})"
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        return None, f"not valid JSON ({error.msg}, {line}column {error.colno})"
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits; nesting
        return None, f"not usable JSON ({error})"


def _read_parquet(
    path: Path, name: str, wanted: Collection[str], faults: list[Fault]
) -> tuple[list[tuple[int, Mapping[str, Any]]], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            present = list(file.schema_arrow.names)
            table = file.read(columns=[column for column in present if column in wanted])
    except pa.ArrowException as error:
        first = str(error).partition("\n")[0]
        faults.append(Fault(name, None, None, f"not a readable Parquet file: {first}"))
        return [], []
    cells = {column: _cells(table.column(column)) for column in table.column_names}
    return [
        (row + 1, {column: values[row] for column, values in cells.items()})
        for row in range(table.num_rows)
    ], present


class NotText:
    """A cell whose bytes are no UTF-8."""


def _cells(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return NotText()


def kind(value: Any) -> str:
    """What a value is, in words."""
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list",
             dict: "an object", type(None): "null", bytes: "bytes"}  # fmt: skip
    return kinds.get(type(value), type(value).__name__)
