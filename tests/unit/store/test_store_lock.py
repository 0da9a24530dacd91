"""One process holds a run; the kernel gives it back; no child keeps it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from branchdiag.errors import BranchdiagError
from branchdiag.store.atomic import StorageError
from branchdiag.store.lock import Lock, RunInUse, holder

HOLD = """
    import sys
    from pathlib import Path
    from branchdiag.store.lock import Lock
    lock = Lock(Path(sys.argv[1]))
    lock.acquire()
    print("held", flush=True)
    sys.stdin.readline()
    lock.release()
    print("released", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def expect(child: Any, line: str) -> None:
    assert child.stdout.readline().strip() == line


def test_the_file_says_who_holds_it_and_since_when(path: Path) -> None:
    lock = Lock(path)
    before = datetime.now(UTC).replace(microsecond=0)
    lock.acquire()
    said = json.loads(path.read_text())
    assert (said["pid"], said["host"]) == (os.getpid(), socket.gethostname())
    assert before <= datetime.fromisoformat(said["started"]) <= datetime.now(UTC)
    assert lock.held
    lock.release()
    assert not lock.held
    assert path.read_text() == ""
    assert holder(path) is None


def test_a_second_process_is_told_who_holds_it(path: Path, start_python: Any) -> None:
    child = start_python(HOLD, path)
    expect(child, "held")
    with pytest.raises(RunInUse) as caught:
        Lock(path).acquire(wait_s=0.05)
    error = caught.value
    assert isinstance(error, BranchdiagError)
    assert error.exit_status == 3
    assert f"process {child.pid} on {socket.gethostname()}" in error.what
    assert error.where == str(path.parent)
    assert error.fix
    found = holder(path)
    assert found is not None
    assert found.pid == child.pid


def test_a_lock_given_back_can_be_taken(path: Path, start_python: Any) -> None:
    child = start_python(HOLD, path)
    expect(child, "held")
    child.stdin.write("\n")
    child.stdin.flush()
    expect(child, "released")
    lock = Lock(path)
    lock.acquire(wait_s=0)
    lock.release()


def test_a_killed_holder_holds_nothing(path: Path, start_python: Any) -> None:
    child = start_python(HOLD, path)
    expect(child, "held")
    child.send_signal(signal.SIGKILL)
    lock = Lock(path)
    lock.acquire()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_waiting_gets_a_lock_that_is_given_back_meanwhile(path: Path, start_python: Any) -> None:
    child = start_python(HOLD, path)
    expect(child, "held")
    child.stdin.write("\n")
    child.stdin.flush()
    lock = Lock(path)
    lock.acquire(wait_s=10)
    lock.release()


def test_of_processes_that_race_exactly_one_gets_it(path: Path, start_python: Any) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from branchdiag.store.lock import Lock, RunInUse
        lock = Lock(Path(sys.argv[1]))
        print("ready", flush=True)
        time.sleep(max(0, float(sys.stdin.readline()) - time.time()))
        try:
            lock.acquire(wait_s=0.3)
        except RunInUse as error:
            print("refused", error.what, flush=True)
        else:
            print("held", flush=True)
            sys.stdin.readline()
    """
    children = [start_python(script, path) for _ in range(4)]
    for child in children:
        expect(child, "ready")
    for child in children:
        child.stdin.write(f"{time.time() + 0.1}\n")
        child.stdin.flush()
    said = {child.pid: child.stdout.readline() for child in children}
    winners = [pid for pid, line in said.items() if line.startswith("held")]
    assert len(winners) == 1
    refused = [line for line in said.values() if line.startswith("refused")]
    assert len(refused) == 3
    assert all(f"process {winners[0]} on" in line for line in refused)


def test_a_second_lock_of_the_same_process_is_refused(path: Path) -> None:
    first = Lock(path)
    first.acquire()
    with pytest.raises(RunInUse, match=str(os.getpid())):
        Lock(path).acquire(wait_s=0)
    with pytest.raises(RuntimeError):
        first.acquire()
    assert first.held
    first.release()
    first.release()


CHILDREN = """
    import multiprocessing, os, subprocess, sys, time
    from pathlib import Path
    from branchdiag.store.lock import Lock
    if __name__ == "__main__":
        lock = Lock(Path(sys.argv[1]))
        lock.acquire()
        kind = sys.argv[2]
        if kind == "subprocess":
            pid = subprocess.Popen(["sleep", "60"], close_fds=False).pid
        elif kind == "fork":
            said, say = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(say, b"held" if lock.held else b"free")
                lock.release()  # must not give back what the parent holds
                os.write(say, b"!")
                time.sleep(60)
                os._exit(0)
            os.close(say)
            assert os.read(said, 4) + os.read(said, 1) == b"free!"
        else:
            process = multiprocessing.get_context(kind).Process(target=time.sleep, args=(60,))
            process.start()
            pid = process.pid
        time.sleep(0.3)
        print(pid, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["subprocess", "fork", "spawn", "forkserver"])
def test_children_of_a_killed_holder_do_not_keep_it(
    path: Path, tmp_path: Path, start_python: Any, kind: str
) -> None:
    script = tmp_path / "holder.py"  # spawn imports the main module from its file
    script.write_text(textwrap.dedent(CHILDREN))
    run = """
        import runpy, sys
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    parent = start_python(run, script, path, kind)
    child_pid = int(parent.stdout.readline())
    try:
        with pytest.raises(RunInUse):
            Lock(path).acquire(wait_s=0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert psutil.Process(child_pid).status() != psutil.STATUS_ZOMBIE  # still alive
        lock = Lock(path)
        lock.acquire(wait_s=1)
        lock.release()
    finally:
        os.kill(child_pid, signal.SIGKILL)


def test_a_file_system_without_locks_is_a_clear_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is at hand to mount; this is the error that such file systems give.
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        with pytest.raises(StorageError, match="cannot lock files") as caught:
            Lock(path).acquire()
        with pytest.raises(StorageError, match="cannot lock files"):
            holder(path)
    assert caught.value.where == str(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        Lock(tmp_path / "nowhere" / ".lock").acquire()


def test_asking_for_the_holder_makes_no_file(path: Path) -> None:
    assert holder(path) is None
    assert not path.exists()


def test_the_lock_of_a_removed_run_protects_nothing_and_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removed = fcntl.flock, []

    def remove_meanwhile(descriptor: int, kind: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", remove_meanwhile)
    lock = Lock(path)
    lock.acquire()
    assert removed
    assert path.stat().st_ino == os.fstat(lock._descriptor or -1).st_ino
    with pytest.raises(RunInUse):
        Lock(path).acquire(wait_s=0)
    lock.release()


@pytest.mark.parametrize("text", ["", "nonsense", '{"pid": 1}', "[]"])
def test_a_lock_file_with_other_content_is_no_obstacle(path: Path, text: str) -> None:
    path.write_text(text)
    lock = Lock(path)
    lock.acquire()
    path.write_text(text)
    with pytest.raises(RunInUse, match="in use by"):
        Lock(path).acquire(wait_s=0)
    assert holder(path) is not None
    lock.release()
