"""One part of a table: a Parquet file with page checksums, and whether it can be believed.

Turns an Arrow table into a part's bytes and a part's file back into an Arrow table, or says why it
is no part of this table. Knows nothing of the directory that the file lies in.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from branchdiag.errors import SettingsConflict
from branchdiag.store.atomic import storage_error
from branchdiag.store.schemas import TableSchema

SCHEMA_PART = "part-00000000-schema.parquet"
_NAME = re.compile(r"part-(\d{8,})-[0-9a-f]{8}\.parquet$")


class UnreadablePart(Exception):
    """The file is not a sound part of this table; the message is the reason."""


def part_name(number: int) -> str:
    """A name that sorts by `number` and was never given before (32 random bits)."""
    return f"part-{number:08d}-{secrets.token_hex(4)}.parquet"


def part_number(name: str) -> int:
    """The number in a part's name, whatever stands before it; 0 for any other name."""
    match = _NAME.search(name)
    return int(match.group(1)) if match else 0


def part_bytes(table: pa.Table) -> memoryview:
    """`table` as a Parquet file: zstd, a checksum a page."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return memoryview(sink.getvalue())


def read_part(path: Path, schema: TableSchema, columns: Sequence[str]) -> pa.Table:
    """The named columns of one part, with the checksums of their pages verified.

    A nullable column that the part is too old to have is null.

    Raises:
        UnreadablePart: the file is torn, damaged or of another table.
        SettingsConflict: it is sound, but written by another version of this table.
        StorageError: the disk would not give it.
        FileNotFoundError: it is not there (any more).
    """
    with _opened(path) as file:
        present = _check_schema(file.schema_arrow, schema, path)
        wanted = [name for name in columns if name in present]
        # One thread: a part is small, and the pool costs more than it gives.
        table = file.read(columns=wanted, use_threads=False)
        n_rows = file.metadata.num_rows
    if wanted and table.num_rows != n_rows:
        raise UnreadablePart(f"{table.num_rows} rows where {n_rows} were announced")
    kept = pa.schema([schema.arrow.field(name) for name in columns], schema.arrow.metadata)
    arrays = [
        table.column(name) if name in present else pa.nulls(n_rows, kept.field(name).type)
        for name in columns
    ]
    return pa.Table.from_arrays(arrays, schema=kept)


def missing_columns(path: Path, schema: TableSchema) -> list[str]:
    """The columns of today's schema that the part is too old to have; raises as `read_part`."""
    with _opened(path) as file:
        present = _check_schema(file.schema_arrow, schema, path)
    return [column.name for column in schema.columns if column.name not in present]


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """The open file; what Arrow says of damage, here or in the body, becomes `UnreadablePart`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (FileNotFoundError, MemoryError):
        raise
    except OSError as error:
        # Arrow says OSError of a damaged file too, but only the system's own have a number.
        if error.errno is not None and not path.is_dir():
            raise storage_error(error, path) from error
        raise UnreadablePart(_first_line(error)) from error
    except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
        raise UnreadablePart(_first_line(error)) from error


def _check_schema(found: pa.Schema, schema: TableSchema, path: Path) -> set[str]:
    """Names of the columns that the part has, where it is a part of this table."""
    metadata = found.metadata or {}
    if metadata.get(b"table") != schema.name.encode():
        raise UnreadablePart(f"it is not a part of the table {schema.name}")
    if metadata.get(b"version") != str(schema.version).encode():
        version = metadata.get(b"version", b"?").decode(errors="replace")
        raise _other_version(path, f"version {version} of the table, not {schema.version}")
    present = set(found.names)
    missing = [column for column in schema.columns if column.name not in present]
    unknown = present - {column.name for column in schema.columns}
    # Columns are only ever added: more of them is a newer branchdiag's part, fewer is an older
    # one's. Both at once, or one name twice, is a damaged name.
    if len(present) != len(found.names) or (missing and unknown):
        raise UnreadablePart("its columns are not the table's")
    for column in schema.columns:
        if column.name in present:
            field = found.field(column.name)
            if field.type != column.type or field.nullable != column.nullable:
                missing_too = ", missing values allowed" if field.nullable else ""
                raise UnreadablePart(f"its column {column.name} is {field.type}{missing_too}")
        elif not column.nullable:
            raise _other_version(path, f"no column {column.name}")
    return present


def _other_version(path: Path, how: str) -> SettingsConflict:
    return SettingsConflict(
        f"This part was written by another version of branchdiag: {how}",
        where=str(path),
        fix="use the version that made the run, or start the phase again with --restart-from",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
