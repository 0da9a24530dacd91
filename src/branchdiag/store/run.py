"""A run's directory: its manifest, its tables, its figures and logs, and who may write to it.

Reads and writes ``run.json``, ``.lock`` and, through `Table`, a directory a table. Whoever writes
holds the lock; whoever only reads needs none and leaves no file behind. Knows nothing of phases or
of what the manifest says beyond its format number.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.store.atomic import TEMPORARY_PREFIX, storage_error, user_errors, write_json
from branchdiag.store.lock import Holder, Lock, holder

if TYPE_CHECKING:
    from typing import Self

    from branchdiag.store.schemas import TableSchema
    from branchdiag.store.table import Table

MANIFEST = "run.json"
LOCK = ".lock"
REPORT_FILES = ("report.html", "report.json")
RUN_FORMAT = 1

_LEFTOVERS = (TEMPORARY_PREFIX, ".removed-")


class RunDirectory:
    """One run on disk. Make it with `create` or `open`.

    Attributes:
        path: the directory, absolute.
        manifest: what ``run.json`` says; change it and call `save_manifest`. Read again when the
            lock is taken, since another process may have changed it until then.
        warnings: parts of tables that could not be read, a line each; `warn` is told them too.

    A subclass may keep other tables under another manifest's name: it is then no run to others.
    """

    manifest_name: ClassVar[str] = MANIFEST

    def __init__(self, path: Path | str, *, warn: Callable[[str], None] | None = None) -> None:
        self.path = _absolute(path)
        self.warnings: list[str] = []
        self.manifest: dict[str, Any] = _load_manifest(self.path, self.manifest_name)
        self._warn = warn
        self._lock = Lock(self.path / LOCK)
        self._lock_of_parent = False
        self._tables: dict[str, Table] = {}

    @classmethod
    def open(cls, path: Path | str, *, warn: Callable[[str], None] | None = None) -> Self:
        """The run at `path`; makes and changes nothing.

        Raises:
            UsageError: there is no run, or its manifest is damaged.
            SettingsConflict: a newer branchdiag made it.
            StorageError: it may not be read.
        """
        return cls(path, warn=warn)

    @classmethod
    def create(cls, path: Path | str, *, warn: Callable[[str], None] | None = None) -> Self:
        """The run at `path`, begun if there is none yet.

        Raises:
            UsageError: something that is no run is there already.
            RunInUse: another process is just beginning it.
            StorageError: the disk will not take it.
            SettingsConflict: as `open`.
        """
        path = _absolute(path)
        with user_errors(path):
            if (path / cls.manifest_name).exists():
                return cls(path, warn=warn)
            if path.exists() and not path.is_dir():
                what = f"{path.name} is a file, not a directory"
                raise UsageError(what, where=str(path), fix="choose another --out")
            path.mkdir(parents=True, exist_ok=True)
            foreign = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
        if foreign and cls.manifest_name not in foreign:
            raise UsageError(
                f"{path.name} holds files but no run ({', '.join(sorted(foreign)[:3])})",
                where=str(path),
                fix="choose another --out, or empty the directory if you do not need it",
            )
        lock = Lock(path / LOCK)
        lock.acquire()  # two processes may begin the same run at once
        try:
            if not (path / cls.manifest_name).exists():
                now = datetime.now(UTC).isoformat(timespec="seconds")
                write_json(path / cls.manifest_name, {"format": RUN_FORMAT, "created": now})
        finally:
            lock.release()
        return cls(path, warn=warn)

    @property
    def figures(self) -> Path:
        """Directory of the figures; made if this process holds the lock."""
        return self._directory("figures")

    @property
    def logs(self) -> Path:
        """Directory of the logs; made if this process holds the lock."""
        return self._directory("logs")

    @property
    def locked(self) -> bool:
        """Whether this process may write the run: it holds it, or its parent does for it."""
        return self._lock.held or self._lock_of_parent

    def holder(self) -> Holder | None:
        """Who is writing the run now, in any process; changes nothing."""
        return holder(self.path / LOCK)

    @contextmanager
    def lock(self) -> Iterator[RunDirectory]:
        """Hold the run: only inside may its files be changed.

        On entry, removes what killed processes left (temporaries, tables half removed), reads the
        manifest again and makes the tables look at their directories again.

        Raises:
            RunInUse: another process holds it.
            StorageError: the disk does not allow it.
        """
        self._lock.acquire()
        try:
            self._tidy()
            manifest = _load_manifest(self.path, self.manifest_name)
            self.manifest.clear()
            self.manifest.update(manifest)
            for table in self._tables.values():
                table.forget()
            yield self
        finally:
            self._lock.release()

    def write_under_the_parents_lock(self) -> None:
        """Let this process write a run whose lock its parent holds and waits with.

        For a child that does one phase and ends: the parent writes nothing meanwhile.
        """
        self._lock_of_parent = True

    def remove_reports(self) -> None:
        """Remove the report, its page and its figures: what they speak of is removed.

        Raises:
            RuntimeError: the lock is not held. A bug of the caller.
            StorageError: the disk does not allow it.
        """
        self._require_lock()
        with user_errors(self.path):
            for name in REPORT_FILES:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "figures", ignore_errors=True)

    def save_manifest(self) -> None:
        """Write `manifest` to its file, all at once.

        Raises:
            RuntimeError: the lock is not held. A bug of the caller.
            ValueError, TypeError, StorageError: as `write_json`.
        """
        self._require_lock()
        write_json(self.path / self.manifest_name, self.manifest)

    def touch(self) -> None:
        """Make this the latest run (see `latest_run`).

        Raises:
            RuntimeError: the lock is not held. A bug of the caller.
            StorageError: the disk does not allow it.
        """
        self._require_lock()
        with user_errors(self.path / self.manifest_name):
            # The exact time: the kernel's own stamp is coarser than two quick commands.
            os.utime(self.path / self.manifest_name, ns=(time.time_ns(),) * 2)

    @classmethod
    def schemas(cls) -> Mapping[str, TableSchema]:
        """The tables that the directory may hold."""
        from branchdiag.store.schemas import TABLES

        return TABLES

    def table(self, name: str) -> Table:
        """The table `name`; the same object each time. It writes only while the lock is held.

        Raises:
            KeyError: there is no table of that name.
        """
        from branchdiag.store.table import Table

        schemas = self.schemas()
        if name not in schemas:
            raise KeyError(f"there is no table {name!r}; there are {', '.join(schemas)}")
        if name not in self._tables:
            self._tables[name] = Table(
                self.path / name,
                schemas[name],
                may_write=lambda: self.locked,
                warn=self._pass_warning,
            )
        return self._tables[name]

    def _pass_warning(self, text: str) -> None:
        self.warnings.append(text)
        if self._warn:
            self._warn(text)

    def _directory(self, name: str) -> Path:
        path = self.path / name
        if self.locked:
            with user_errors(path):
                path.mkdir(exist_ok=True)
        return path

    def _tidy(self) -> None:
        with user_errors(self.path):
            _remove_leftovers(self.path)
            for entry in self.path.iterdir():
                if entry.is_dir():
                    _remove_leftovers(entry)

    def _require_lock(self) -> None:
        if not self.locked:
            raise RuntimeError(f"{self.path} is written without its lock")


def latest_run(root: Path | str) -> Path | None:
    """The run directly under `root` that was touched or saved last; None where there is none."""
    try:
        manifests = [path / MANIFEST for path in _absolute(root).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(error, _absolute(root)) from error
    dated = []
    for manifest in manifests:
        try:
            dated.append((manifest.stat().st_mtime_ns, manifest.parent))
        except OSError:  # no run, or one that is being moved away
            continue
    return max(dated)[1] if dated else None


def _remove_leftovers(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.name.startswith(_LEFTOVERS):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _absolute(path: Path | str) -> Path:
    path = Path(path)
    with suppress(RuntimeError):  # no such user: the name is taken as it stands
        path = path.expanduser()
    return path.absolute()


def _load_manifest(path: Path, name: str) -> dict[str, Any]:
    file = path / name
    try:
        manifest = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise _no_run(path, name) from None
    except OSError as error:
        raise storage_error(error, file) from error
    except ValueError as error:
        manifest = error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int):
        raise UsageError(
            f"{name} is damaged: it does not say what the run is",
            where=str(file),
            fix="put back a copy of that file, or make the run anew with another --out",
        )
    if manifest["format"] > RUN_FORMAT:
        raise SettingsConflict(
            f"A newer branchdiag made this run (format {manifest['format']}, not {RUN_FORMAT})",
            where=str(file),
            fix="update branchdiag",
        )
    return manifest


def _no_run(path: Path, name: str) -> UsageError:
    with user_errors(path):
        what = f"{path} is not a run" if path.exists() else f"There is no run at {path}"
        latest = latest_run(path) or latest_run(path.parent)
    hint = f"did you mean {latest}?" if latest else "`branchdiag run-all --out DIR` makes one"
    return UsageError(f"{what}: no {name}", where=str(path), fix=hint)
