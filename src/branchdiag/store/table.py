"""A table of a run: a directory of Parquet parts that a reader may open at any moment.

``pandas.read_parquet(DIRECTORY)`` sees an empty part that carries the schema and, after it, the
parts that were finished, each whole: a part is written under a name that begins with a dot,
flushed and renamed, and each row is in exactly one part. Knows nothing of what the rows mean, of
other tables or of who may write: it asks.

There is no merging of parts into fewer. Putting one file in the place of many is not one step on a
POSIX file system: between the first rename and the last removal a reader of the directory would
see rows twice or not at all, and swapping the whole directory makes a reader that has listed the
old one fail on the next file. A part costs little; who writes tiny ones should collect more rows.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from branchdiag.errors import SettingsConflict
from branchdiag.store.atomic import flush_directory, temporary_name, user_errors, write_bytes
from branchdiag.store.parts import (
    SCHEMA_PART,
    UnreadablePart,
    missing_columns,
    part_bytes,
    part_name,
    part_number,
    read_part,
)
from branchdiag.store.rows import key_tuples, to_arrow
from branchdiag.store.schemas import TableSchema

if TYPE_CHECKING:
    import pandas as pd

UNREADABLE_PREFIX = ".unreadable-"
REMOVED_PREFIX = ".removed-"


class Table:
    """The rows of one table, read and appended to; not for several threads at once.

    Args:
        directory: where the parts lie; its name is the table's.
        schema: key, columns and version.
        may_write: asked before anything is changed on disk. While it says no, the table only
            reads: it makes no file, looks at the directory anew each time, and merely skips
            what it cannot read.
        warn: called once for each part that cannot be read.

    Attributes:
        set_aside: the files that could not be read, where they lie now. A writer moves them to a
            name beginning with ``.unreadable-``, which neither pandas nor this class reads; their
            rows are not in `keys` any more, so they are owed again.
        warnings: what `warn` was told.
    """

    def __init__(
        self,
        directory: Path,
        schema: TableSchema,
        *,
        may_write: Callable[[], bool] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = directory
        self.schema = schema
        self.set_aside: list[Path] = []
        self.warnings: list[str] = []
        self._may_write = may_write or (lambda: True)
        self._warn = warn
        self._reported: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Look at the directory anew next time: somebody else may have written to it."""
        self._keys: set[tuple[Any, ...]] = set()
        self._rows_of_part: dict[str, int] = {}
        self._listed = False  # whether the two above are all there is, for as long as we write
        self._begun = False
        self._last_number: int | None = None

    def exists(self) -> bool:
        """Whether the table was begun, with or without rows."""
        with user_errors(self.directory):
            return (self.directory / SCHEMA_PART).exists() or bool(self.part_paths())

    def create(self) -> None:
        """Begin the table, without rows; nothing happens where it exists.

        The directory appears together with the part that carries the schema. A schema part that
        is damaged, or too old to have all columns, is replaced.

        Raises:
            StorageError: the disk will not take it.
        """
        if self._begun:
            return
        self._require_writing()
        empty = part_bytes(self.schema.arrow.empty_table())
        with user_errors(self.directory):
            if not self.directory.is_dir() or not any(self.directory.iterdir()):
                self._make_directory(empty)
            elif not self._schema_part_is_current():
                write_bytes(self.directory / SCHEMA_PART, empty)
        self._begun = True

    def append(self, rows: Sequence[Mapping[str, Any]]) -> Path | None:
        """Write `rows` as one new part, durably and all at once; returns its path.

        No rows only begin the table. After an exception from the disk or a keyboard interrupt the
        part is there whole or not at all, and `keys` tells which.

        Raises:
            ValueError: a row does not fit the schema (see `to_arrow`), or its key is there
                already, in `rows` or in the table. A bug of the caller: nothing was written.
            RuntimeError: this process may not write. A bug of the caller.
            StorageError: the disk will not take it.
        """
        self._require_writing()
        self.create()
        table = to_arrow(rows, self.schema)
        if not table.num_rows:
            return None
        self._load()
        keys = key_tuples(table, self.schema)
        self._refuse_duplicates(keys)
        path = self.directory / part_name(self._next_number())
        self._listed = False  # until the part is known to be there
        write_bytes(path, part_bytes(table))
        self._rows_of_part[path.name] = len(keys)
        self._keys.update(keys)
        self._listed = True
        return path

    def keys(self) -> set[tuple[Any, ...]]:
        """The keys of all rows, as tuples in the order of ``schema.key``; a copy.

        Reads the key columns only, and of a part only once. To ask for one key, use ``in``.
        """
        self._load()
        return set(self._keys)

    def __contains__(self, key: object) -> bool:
        self._load()
        return key in self._keys

    def n_rows(self) -> int:
        """Number of rows in the parts that can be read."""
        self._load()
        return sum(self._rows_of_part.values())

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, or some of their columns, sorted by key: the order of writing leaves no trace.

        Page checksums are verified. A table that was never begun has no rows.

        Raises:
            KeyError: there is no such column.
            SettingsConflict: a part was written by another version of the table.
            StorageError: the disk would not give a part.
        """
        wanted = self._columns(columns)
        needed = [*wanted, *(name for name in self.schema.key if name not in wanted)]
        parts = list(self.scan(needed))
        if not parts:
            return self.schema.arrow.empty_table().select(wanted)
        whole = pa.concat_tables(parts)
        return whole.sort_by([(name, "ascending") for name in self.schema.key]).select(wanted)

    def scan(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """As `read`, a part at a time in the order of writing, for tables too large for memory."""
        wanted = self._columns(columns)
        for path in self.part_paths():
            part = self._read(path, wanted)
            if part is not None:
                yield part

    def check(self) -> None:
        """Read every part whole, so that damage outside the key columns is found (and set aside).

        `keys` alone does not see it. Raises as `read`.
        """
        for _ in self.scan():
            pass

    def frame(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """`read`, as a DataFrame with the types that ``pandas.read_parquet`` gives."""
        frame: pd.DataFrame = self.read(columns).to_pandas()
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """`read`, as dictionaries of Python values."""
        rows: list[dict[str, Any]] = self.read().to_pylist()
        return rows

    def part_paths(self) -> list[Path]:
        """The files that pandas would read, the schema part left out, in the order of writing."""
        with user_errors(self.directory):
            try:
                names = [entry.name for entry in self.directory.iterdir()]
            except FileNotFoundError:
                return []
        return [
            self.directory / name
            for name in sorted(names)
            if not name.startswith((".", "_")) and name != SCHEMA_PART
        ]

    def lacking(self) -> dict[Path, list[str]]:
        """Parts that are older than some columns, with those columns' names; damaged ones left
        out.
        """
        found = {}
        for path in self.part_paths():
            try:
                names = missing_columns(path, self.schema)
            except (UnreadablePart, SettingsConflict, FileNotFoundError):
                continue  # whoever reads the rows is told
            if names:
                found[path] = names
        return found

    def part_rows(self, path: Path) -> list[dict[str, Any]]:
        """The rows of one part, in its order; none where it cannot be read and was set aside."""
        part = self._read(path, self._columns(None))
        return [] if part is None else list(part.to_pylist())

    def replace_part(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a part again with the same rows and further columns, in one step for a reader.

        Raises:
            ValueError: a row does not fit the schema, or the keys are not the part's. A bug of the
                caller: nothing was written.
            RuntimeError: this process may not write. A bug of the caller.
            StorageError: the disk will not take it.
        """
        self._require_writing()
        table = to_arrow(rows, self.schema)
        former = self._read(path, self.schema.key)
        keys = [] if former is None else key_tuples(former, self.schema)
        if key_tuples(table, self.schema) != keys:
            raise ValueError(f"table {self.schema.name}: the rows are not those of {path.name}")
        write_bytes(path, part_bytes(table))

    def remove(self) -> None:
        """Remove the table with all its rows, in one step for every reader.

        The directory is renamed to a name that begins with ``.removed-`` and then emptied; what a
        kill leaves of it is removed when the run's lock is taken next.
        """
        self._require_writing()
        self.forget()
        removed = self.directory.with_name(
            f"{REMOVED_PREFIX}{self.directory.name}-{secrets.token_hex(4)}"
        )
        with user_errors(self.directory):
            try:
                self.directory.rename(removed)
            except FileNotFoundError:
                return
            flush_directory(removed.parent)
            shutil.rmtree(removed)

    def _load(self) -> None:
        """Bring the keys up to date with the directory."""
        writing = self._may_write()
        if self._listed and writing:
            return
        paths = self.part_paths()
        if not self._rows_of_part.keys() <= {path.name for path in paths}:
            self.forget()
        try:
            for path in paths:
                if path.name in self._rows_of_part:
                    continue
                part = self._read(path, self.schema.key)
                if part is not None:
                    self._keys.update(key_tuples(part, self.schema))
                    self._rows_of_part[path.name] = part.num_rows
        except BaseException:
            self.forget()
            raise
        self._listed = writing

    def _read(self, path: Path, columns: Sequence[str]) -> pa.Table | None:
        """A part's columns; None where it cannot be read and was set aside, or is gone."""
        try:
            return read_part(path, self.schema, columns)
        except UnreadablePart as error:
            self._put_aside(path, str(error))
        except SettingsConflict as error:
            # Parts of two versions are never mixed, so where the table was begun by this one it is
            # the part's version that is damaged.
            if not self._begun_by_this_version():
                raise
            self._put_aside(path, error.what)
        except FileNotFoundError:
            pass  # removed or set aside by the writer since it was listed
        return None

    def _put_aside(self, path: Path, reason: str) -> None:
        text = f"{self.schema.name}: {path.name} cannot be read ({reason})"
        if self._may_write():
            target = path.with_name(UNREADABLE_PREFIX + path.name)
            if target.exists():
                target = target.with_name(f"{target.name}-{secrets.token_hex(4)}")
            with user_errors(path):
                path.rename(target)
                flush_directory(self.directory)
            if path.name in self._rows_of_part:
                self.forget()  # its keys were read before its damage showed
            path = target
            text += f" and was set aside as {target.name}; its rows will be made again"
        elif path.name in self._reported:
            return
        else:
            text += "; its rows are left out here"
        self._reported.add(path.name)
        self.set_aside.append(path)
        self.warnings.append(text)
        if self._warn:
            self._warn(text)

    def _make_directory(self, schema_part: memoryview) -> None:
        """Make the directory with the schema part in it, in one step."""
        parent = self.directory.parent
        parent.mkdir(parents=True, exist_ok=True)
        temporary = parent / temporary_name()
        try:
            temporary.mkdir()
            write_bytes(temporary / SCHEMA_PART, schema_part)
            temporary.rename(self.directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush_directory(parent)

    def _schema_part_is_current(self) -> bool:
        try:
            return not missing_columns(self.directory / SCHEMA_PART, self.schema)
        except SettingsConflict:
            # Written by another version: whether that is a conflict, the parts with rows decide.
            return bool(self.part_paths())
        except (UnreadablePart, FileNotFoundError):
            return False

    def _begun_by_this_version(self) -> bool:
        try:
            missing_columns(self.directory / SCHEMA_PART, self.schema)
        except (SettingsConflict, UnreadablePart, FileNotFoundError):
            return False
        return True

    def _refuse_duplicates(self, keys: list[tuple[Any, ...]]) -> None:
        seen = set()
        for key in keys:
            if key in seen or key in self._keys:
                place = "in the part to be written" if key in seen else "in the table already"
                raise ValueError(f"table {self.schema.name}: the key {key} is {place}")
            seen.add(key)

    def _next_number(self) -> int:
        if self._last_number is None:
            with user_errors(self.directory):
                names = [entry.name for entry in self.directory.iterdir()]
            self._last_number = max(map(part_number, names), default=0)
        self._last_number += 1
        return self._last_number

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        known = [column.name for column in self.schema.columns]
        for name in columns or ():
            if name not in known:
                raise KeyError(f"the table {self.schema.name} has no column {name}")
        return known if columns is None else list(columns)

    def _require_writing(self) -> None:
        if not self._may_write():
            raise RuntimeError(f"the table {self.schema.name} is written without the run's lock")
