"""What a table's schema is made of: column types, a column, a table.

Knows no table. A version changes when a column's meaning changes; an added column does not change
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

STRING, INTEGER, REAL, FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TOKEN, TOKENS = pa.int32(), pa.list_(pa.int32())
REALS, INTEGERS, STRINGS = pa.list_(pa.float64()), pa.list_(pa.int64()), pa.list_(pa.string())


@dataclass(frozen=True)
class Column:
    """One column: name, Arrow type, what it means (with its unit), whether it may be missing."""

    name: str
    type: pa.DataType
    description: str
    nullable: bool = False


@dataclass(frozen=True)
class TableSchema:
    """A table's name, phase, version, key columns and columns."""

    name: str
    phase: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    version: int = 1

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with each description in its field's metadata."""
        fields = [
            pa.field(c.name, c.type, nullable=c.nullable, metadata={"description": c.description})
            for c in self.columns
        ]
        return pa.schema(fields, metadata={"table": self.name, "version": str(self.version)})
