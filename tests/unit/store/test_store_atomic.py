"""A file is there whole or not at all, and what the disk refuses is said in the user's words."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from branchdiag.errors import BranchdiagError
from branchdiag.store.atomic import StorageError, write_bytes, write_json, write_text

OLD, NEW = b"the old content", b"the new content, which is longer"


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """Also where the tests run in the background, which may ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", NEW * 100_000, memoryview(NEW), bytearray(NEW)])
def test_what_was_written_is_what_is_read(tmp_path: Path, data: Any) -> None:
    write_bytes(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == bytes(data)
    assert names(tmp_path) == ["a"]


def test_an_arrow_buffer_is_written_as_it_is(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", memoryview(pa.py_buffer(NEW)))
    assert (tmp_path / "a").read_bytes() == NEW


def test_an_existing_file_is_replaced(old_file: Path) -> None:
    write_bytes(old_file, NEW)
    assert old_file.read_bytes() == NEW
    assert names(old_file.parent) == ["file.bin"]


def test_file_is_flushed_then_renamed_then_its_directory_is_flushed(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    flush, rename = os.fsync, os.replace

    def recorded_flush(handle: int) -> None:
        status = os.fstat(handle)
        kind = "directory" if stat.S_ISDIR(status.st_mode) else f"file of {status.st_size}"
        if kind == "directory":
            assert os.path.samestat(status, old_file.parent.stat())
        steps.append(f"flush {kind}")
        flush(handle)

    def recorded_rename(source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        assert source.parent == target.parent == old_file.parent
        assert source.name.startswith(".part-")
        assert source.read_bytes() == NEW
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_flush)
    monkeypatch.setattr(os, "replace", recorded_rename)
    write_bytes(old_file, NEW)
    assert steps == [f"flush file of {len(NEW)}", "rename", "flush directory"]


def test_short_writes_are_gone_on_with(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    write_bytes(old_file, NEW)
    assert old_file.read_bytes() == NEW


def fail_with_no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)  # the interpreter delivers it here at the latest


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("fault", "expected"), [(fail_with_no_space, StorageError), (interrupt, KeyboardInterrupt)]
)
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(
    old_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    fault: Any,
    expected: type[BaseException],
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, step, fault)
        with pytest.raises(expected):
            write_bytes(old_file, NEW)
    assert old_file.read_bytes() == OLD
    assert names(old_file.parent) == ["file.bin"]


def test_a_failure_in_the_middle_of_the_data_leaves_the_old_file(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    left = [write, write, fail_with_no_space]
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, data: left.pop(0)(handle, data[:5]))
        with pytest.raises(StorageError):
            write_bytes(old_file, NEW)
    assert not left
    assert old_file.read_bytes() == OLD
    assert names(old_file.parent) == ["file.bin"]


def test_an_interrupt_after_the_rename_leaves_the_new_file_whole(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def rename_then_interrupt(source: Any, target: Any) -> None:
        rename(source, target)
        interrupt()

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", rename_then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bytes(old_file, NEW)
    assert old_file.read_bytes() == NEW
    assert names(old_file.parent) == ["file.bin"]


def test_a_file_system_that_cannot_flush_directories_is_accepted(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = os.fsync

    def flush_files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", flush_files_only)
    write_bytes(old_file, NEW)
    assert old_file.read_bytes() == NEW


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EROFS, "writable"),
        (errno.EACCES, "writable"),
        (errno.ENOENT, "unmounted"),
        (errno.EIO, "disk"),
    ],
)
def test_an_error_names_the_file_and_says_what_to_do(
    old_file: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(StorageError) as caught:
            write_bytes(old_file, NEW)
    error = caught.value
    assert isinstance(error, BranchdiagError)
    assert error.exit_status == 5
    assert error.where == str(old_file)
    assert error.fix is not None
    assert advice in error.fix
    assert "the same command then goes on" in error.fix
    assert os.strerror(number) in error.what


def run_child(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    """Output of a script in a process of its own; it ends with an assertion error if it fails."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REPORT_ERROR = """
import os, sys
from pathlib import Path
from branchdiag.store.atomic import StorageError, write_bytes
def attempt(path, data):
    try:
        write_bytes(Path(path), data)
    except StorageError as error:
        print(error.__cause__.errno, error.where)
    else:
        print("written")
"""


def test_a_file_size_limit_is_reported_and_leaves_the_old_file(old_file: Path) -> None:
    script = f"""
{REPORT_ERROR}
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
attempt(sys.argv[1], b"x" * 10_000)
attempt(sys.argv[1], b"x" * 8_000)
"""
    assert run_child(script, old_file).splitlines() == [f"{errno.EFBIG} {old_file}", "written"]
    assert old_file.read_bytes() == b"x" * 8_000
    assert names(old_file.parent) == ["file.bin"]


IN_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def needs_own_mounts() -> None:
    """Skip where this process may not mount a file system of its own (a container's usual case)."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare here")
    probe = [*IN_OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this process may not mount a file system")


def test_a_really_full_disk_is_reported_and_after_freeing_space_it_goes_on(tmp_path: Path) -> None:
    needs_own_mounts()
    script = f"""
{REPORT_ERROR}
import subprocess
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
attempt(disk / "a", b"old" * 10_000)
attempt(disk / "a", b"new" * 12_000)
assert (disk / "a").read_bytes() == b"old" * 10_000
assert os.listdir(disk) == ["a"]
(disk / "a").unlink()
attempt(disk / "a", b"new" * 12_000)
assert (disk / "a").read_bytes() == b"new" * 12_000
"""
    output = run_child(script, tmp_path, prefix=IN_OWN_MOUNTS).splitlines()
    assert output == ["written", f"{errno.ENOSPC} {tmp_path / 'a'}", "written"]


def test_a_really_read_only_file_system_is_reported(tmp_path: Path) -> None:
    needs_own_mounts()
    script = f"""
{REPORT_ERROR}
import subprocess
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], check=True)
attempt(disk / "a", b"old")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
attempt(disk / "a", b"new")
assert (disk / "a").read_bytes() == b"old"
"""
    output = run_child(script, tmp_path, prefix=IN_OWN_MOUNTS).splitlines()
    assert output == ["written", f"{errno.EROFS} {tmp_path / 'a'}"]


def test_a_directory_of_somebody_else_is_reported() -> None:
    # Permission bits do not bind root: the child becomes another user first.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "a").write_bytes(OLD)
        directory.chmod(0o555)
        script = f"""
{REPORT_ERROR}
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
attempt(sys.argv[1], b"new")
"""
        assert run_child(script, directory / "a") == f"{errno.EACCES} {directory / 'a'}\n"
        assert (directory / "a").read_bytes() == OLD
        directory.chmod(0o755)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not there"):
        write_bytes(tmp_path / "nowhere" / "a", NEW)


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real"
    target.write_bytes(OLD)
    (tmp_path / "link").symlink_to(target)
    write_bytes(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == NEW
    assert names(tmp_path / "there") == ["real"]


def test_the_users_mask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_readers_never_see_a_torn_file(tmp_path: Path, start_python: Any) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"0" * 300_000)
    script = """
        import sys
        from pathlib import Path
        from branchdiag.store.atomic import write_bytes
        for turn in range(60):
            write_bytes(Path(sys.argv[1]), bytes([48 + turn % 10]) * (300_000 + turn))
    """
    writer = start_python(script, path)
    seen = set()
    while writer.poll() is None:
        content = path.read_bytes()
        assert len(set(content)) == 1
        seen.add(len(content))
    assert writer.returncode == 0
    assert len(seen) > 2
    assert names(tmp_path) == ["a"]


def test_json_is_what_was_given(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "names": {"é": "Δ \u2028 \ud800 \\ud800"}}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
    assert "é" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(
    old_file: Path, value: object
) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(old_file, {"x": value})
    assert old_file.read_bytes() == OLD
    assert names(old_file.parent) == ["file.bin"]


def test_text_that_utf8_cannot_hold_costs_no_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x \ud800 é\r\n")
    assert (tmp_path / "a").read_bytes() == b"x \\ud800 \xc3\xa9\r\n"
