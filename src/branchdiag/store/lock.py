"""One process at a time writes a run.

Takes an exclusive ``flock`` on a file and writes into it who holds it. The kernel gives the lock
back when the holder ends, however it ends; no child of the holder keeps it: the file is closed on
exec, and after a fork. The file is never removed, since a removed lock file can be held twice.
Knows nothing of what the lock protects.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from branchdiag.errors import BranchdiagError
from branchdiag.store.atomic import StorageError, user_errors

_UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
_RETRY_S = 0.02

# Descriptors of the locks this process holds; a forked child closes its copies (see below).
_held_descriptors: set[int] = set()


class RunInUse(BranchdiagError):
    """Another process is writing this run (exit status 3: a conflict with the run)."""

    exit_status = 3


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: process id, host name, time it was taken (UTC, ISO 8601)."""

    pid: int
    host: str
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


class Lock:
    """An exclusive lock on `path`, which is created where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._owner_pid = 0

    @property
    def held(self) -> bool:
        """Whether this process holds it; False in a child forked from the holder."""
        return self._descriptor is not None and self._owner_pid == os.getpid()

    def acquire(self, *, wait_s: float = 0.5) -> None:
        """Take the lock.

        Waits up to `wait_s` seconds: a process just killed may take a moment to end, and
        `holder` takes the lock for an instant to see whether it is free.

        Raises:
            RunInUse: another process (or another `Lock` of this one) holds it.
            StorageError: the file cannot be opened, or its file system has no locks.
        """
        if self.held:
            raise RuntimeError(f"{self.path} is held already")
        deadline = time.monotonic() + wait_s
        while (descriptor := self._try()) is None:
            if time.monotonic() >= deadline:
                raise self._in_use()
            time.sleep(_RETRY_S)
        _held_descriptors.add(descriptor)
        self._descriptor, self._owner_pid = descriptor, os.getpid()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), now)))
        try:
            with user_errors(self.path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode() + b"\n", 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the lock back; nothing happens where this process does not hold it."""
        if self._descriptor is None or not self.held:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            os.ftruncate(descriptor, 0)
        finally:
            _held_descriptors.discard(descriptor)
            os.close(descriptor)

    def _try(self) -> int | None:
        """The descriptor of the locked file, or None where someone else holds it."""
        with user_errors(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if _flock(descriptor, fcntl.LOCK_EX, self.path) and self._is_the_file(descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            return None

    def _is_the_file(self, descriptor: int) -> bool:
        """False where the run was removed meanwhile: that lock would protect nothing."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _in_use(self) -> RunInUse:
        holder = _read(self.path)
        return RunInUse(
            f"This run is in use by {holder or 'another process'}",
            where=str(self.path.parent),
            fix="wait until it ends or stop it (it writes what is finished); another run at the "
            "same time needs another --out",
        )


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path` now, or None. Writes nothing and makes no file.

    Raises:
        StorageError: the file may not be read, or its file system has no locks.
    """
    with user_errors(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            if _flock(descriptor, fcntl.LOCK_SH, path):
                return None
        finally:
            os.close(descriptor)
    return _read(path) or Holder(0, "an unknown host", "an unknown time")


def _flock(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise StorageError(
            f"The file system of this run cannot lock files ({error.strerror})",
            where=str(path),
            fix="choose a place on a local disk with --out",
        ) from error
    return True


def _read(path: Path) -> Holder | None:
    """What the lock file says, where it says anything."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _close_inherited() -> None:
    # flock belongs to the open file, which a fork shares: a child that kept its copy would keep the
    # run locked after the holder is gone. Closing a copy does not unlock; LOCK_UN would.
    for descriptor in _held_descriptors:
        os.close(descriptor)
    _held_descriptors.clear()


os.register_at_fork(after_in_child=_close_inherited)
