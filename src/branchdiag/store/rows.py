"""Rows of Python values into Arrow, exactly as a table's schema says.

Reads and writes no file. Arrow's own conversion is too kind for results that were dear to make: it
cuts 1.5 to 1 in a list, takes True for 1.0 and lets NaN through. Here every value has its column's
type or the row is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from branchdiag.store.schemas import FLAG, INTEGER, REAL, STRING, TOKEN, Column, TableSchema


def to_arrow(rows: Sequence[Mapping[str, Any]], schema: TableSchema) -> pa.Table:
    """`rows` as an Arrow table of exactly ``schema.arrow``.

    A nullable column that a row lacks is null. NumPy scalars and one-dimensional NumPy arrays are
    taken as well as Python's own values.

    Raises:
        ValueError: a row has an unknown column, lacks one, or holds a value that is not of its
            column's type (a whole number for a real one is); the message names table, row and
            column. A bug of the caller.
    """
    names = {column.name for column in schema.columns}
    for index, row in enumerate(rows):
        if unknown := row.keys() - names:
            raise ValueError(f"{_place(schema, rows, index)}: unknown columns {sorted(unknown)}")
    arrays = [_array(rows, column, schema) for column in schema.columns]
    return pa.Table.from_arrays(arrays, schema=schema.arrow)


def key_tuples(table: pa.Table, schema: TableSchema) -> list[tuple[Any, ...]]:
    """The key of every row of `table`, in its order; equal strings are one object."""
    columns = []
    for name in schema.key:
        column = table.column(name)
        if column.type == STRING:  # a table of a million rows may have a hundred different strings
            encoded = column.combine_chunks().dictionary_encode()
            strings = encoded.dictionary.to_pylist()
            columns.append([strings[index] for index in encoded.indices.to_pylist()])
        else:
            columns.append(column.to_pylist())
    return list(zip(*columns, strict=True))


def _array(rows: Sequence[Mapping[str, Any]], column: Column, schema: TableSchema) -> pa.Array:
    fits = _VALUE_CHECKS[column.type]
    values = [row.get(column.name) for row in rows]
    for index, value in enumerate(values):
        if value is None:
            if not column.nullable:
                place = _place(schema, rows, index)
                raise ValueError(f"{place}: column {column.name} is missing and may not be")
        elif not fits(value):
            raise _wrong(rows, index, column, schema)
    try:
        return pa.array(values, type=column.type)
    except (pa.ArrowException, ValueError, OverflowError):
        # Out of the type's range, or a lone surrogate: find the row, since Arrow does not say.
        for index, value in enumerate(values):
            try:
                pa.array([value], type=column.type)
            except (pa.ArrowException, ValueError, OverflowError) as error:
                raise _wrong(rows, index, column, schema) from error
        raise


def _wrong(
    rows: Sequence[Mapping[str, Any]], index: int, column: Column, schema: TableSchema
) -> ValueError:
    value = rows[index][column.name]
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:80] + "..."
    return ValueError(
        f"{_place(schema, rows, index)}: column {column.name} takes {column.type}, "
        f"not {shown} ({type(value).__name__})"
    )


def _place(schema: TableSchema, rows: Sequence[Mapping[str, Any]], index: int) -> str:
    key = ", ".join(f"{name}={rows[index].get(name)!r}" for name in schema.key)
    return f"table {schema.name}, row {index} ({key})"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    # A figure that cannot be computed is missing; NaN would be silently left out or spread.
    if isinstance(value, float | np.floating):
        return not math.isnan(value)
    return _is_whole(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _list_of(fits: Callable[[Any], bool], kinds: str) -> Callable[[Any], bool]:
    """A check of lists; an array is checked by its dtype's kind (and, if real, for NaN) at once."""

    def check(value: Any) -> bool:
        if isinstance(value, np.ndarray):
            is_kind = value.ndim == 1 and value.dtype.kind in kinds
            return is_kind and not (value.dtype.kind == "f" and bool(np.isnan(value).any()))
        return isinstance(value, list | tuple) and all(map(fits, value))

    return check


_VALUE_CHECKS: dict[pa.DataType, Callable[[Any], bool]] = {
    STRING: _is_text,
    INTEGER: _is_whole,
    TOKEN: _is_whole,
    REAL: _is_real,
    FLAG: _is_flag,
    pa.list_(TOKEN): _list_of(_is_whole, "iu"),
    pa.list_(INTEGER): _list_of(_is_whole, "iu"),
    pa.list_(REAL): _list_of(_is_real, "fiu"),
    pa.list_(STRING): _list_of(_is_text, ""),
}
