"""Files that are there whole or not at all, whatever kills the process.

Writes one file at a time: a temporary in the same directory whose name begins with ``.part-`` (so
that ``pandas.read_parquet`` of the directory never sees it), flushed to disk, renamed, and the
directory flushed. Turns what the operating system says about a full, read-only or forbidden disk
into an error that tells what to do. Knows nothing of runs, tables or formats other than JSON.

After SIGKILL or a power cut a temporary may be left; `branchdiag.store.run` removes those of a run
when it next takes the run's lock.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from branchdiag.errors import MissingRequirement

TEMPORARY_PREFIX = ".part-"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_DIRECTORY_FLUSH_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


class StorageError(MissingRequirement):
    """The disk will not take or give a file: full, read-only, forbidden or failing (status 5)."""


def storage_error(error: OSError, path: Path) -> StorageError:
    """The user's version of `error`, which came up at `path`: what is wrong and what to do."""
    reason = error.strerror or str(error)
    again = "; the same command then goes on where it stopped"
    if error.errno in _NO_SPACE:
        what = f"No space left to write {path.name} ({reason})"
        fix = (
            "free space there (`df -h` shows how much is left), or choose another place with --out"
        )
    elif error.errno in _FORBIDDEN:
        what = f"{path.name} may not be written or read ({reason})"
        fix = "make the directory writable for you, or choose another place with --out"
    elif error.errno in _GONE:
        what = f"The directory of {path.name} is not there ({reason})"
        fix = "see whether it was moved, removed or unmounted"
    else:
        what = f"The system would not write or read {path.name} ({reason})"
        fix = "see whether the path is right and the disk sound, or choose another with --out"
    return StorageError(what, where=str(path), fix=fix + again)


@contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """Inside, every OSError becomes a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def flush_directory(directory: Path) -> None:
    """Flush the names in `directory` to disk, where the file system can do that.

    Raises:
        OSError: the disk failed.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems have no such call; the rename itself still happened.
        if error.errno not in _DIRECTORY_FLUSH_UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def temporary_name() -> str:
    """A name for a temporary that no other process has taken."""
    return TEMPORARY_PREFIX + secrets.token_hex(8)


def write_bytes(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Replace or create `path` with `data`, durably and all at once.

    A symbolic link is followed: what it points to is replaced. When this returns the bytes are on
    disk under their name; when it raises (a keyboard interrupt too), the former file is untouched
    and no temporary is left, unless the interrupt came after the rename.

    Raises:
        StorageError: the disk is full, read-only, forbidden, gone or failing.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(temporary_name())
    with user_errors(path):
        try:
            _write_flushed(temporary, memoryview(data).cast("B"))
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        flush_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    r"""As `write_bytes`, in UTF-8; what UTF-8 cannot hold (a lone surrogate) becomes ``\udxxx``."""
    # Model text ends up here: one malformed character must not cost the file at the end of a run.
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, obj: Any) -> None:
    """As `write_text`, for anything JSON can hold, indented.

    Raises:
        ValueError: `obj` holds NaN or an infinity (a number that is missing is None).
        TypeError: `obj` holds something that JSON cannot.
        StorageError: as `write_bytes`.
    """
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _write_flushed(path: Path, data: memoryview) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def require_writable(file: Path) -> None:
    """Say before minutes of work that a file could not be written at their end.

    Makes the directories above it; leaves nothing else behind.

    Raises:
        StorageError: it cannot be written there.
    """
    probe = file.parent / temporary_name()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"{file.name} cannot be written there ({error.strerror or error})",
            where=str(file),
            fix="choose another place with --out",
        ) from error
