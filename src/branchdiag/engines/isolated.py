"""The child's side of `isolation`: a supervisor, and below it the process that runs the engine.

`python -m branchdiag.engines.isolated SOCKET PARENT` is started by `IsolatedEngine` alone. Reads
and writes the socket; prints to the log that its output was sent to. The supervisor imports nothing
heavy, forks the engine's process and then only watches: its parent dead or SIGTERM means that
everything below it is killed. Linux gives the strongest form (subreaper); elsewhere the process
group is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

import psutil

from branchdiag.errors import BranchdiagError

PR_SET_CHILD_SUBREAPER = 36
WATCH_SECONDS = 0.1
KILL_SECONDS = 30.0
"""A process that the kernel does not let go (a hung driver) is given up after this."""


def main(socket: int, parent: int) -> int:
    """Supervise one engine; returns the status to exit with."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    engine = os.fork()
    if engine == 0:
        _run_engine(socket, supervisor)
    os.close(socket)
    stop = False

    def on_terminate(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, on_terminate)
    status = None
    # Polling the parent's id needs no pipe that a fork of the parent could hold open.
    while status is None and not stop and os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
        pid, code = os.waitpid(engine, os.WNOHANG)
        if pid == engine:
            status = os.waitstatus_to_exitcode(code)
    kill_descendants()
    return 128 + abs(status) if status is not None and status < 0 else status or 0


def kill_descendants() -> None:
    """Kill every process below this one, and those that they leave behind, until none is left."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    give_up = time.monotonic() + KILL_SECONDS
    while (children := _descendants(os.getpid())) and time.monotonic() < give_up:
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _descendants(pid: int) -> list[int]:
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process.pid for process in below]


def _run_engine(socket: int, supervisor: int) -> None:
    """The engine's process: make it, then serve until told to close. Never returns."""
    from branchdiag.engines.workers import die_with_parent

    die_with_parent(supervisor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(socket)
    status = 0
    engine: Any = None
    try:
        factory, arguments = connection.recv()
        module, _, function = factory.partition(":")
        engine = getattr(importlib.import_module(module), function)(**arguments)
        _serve(connection, engine)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        status = 0  # the parent is gone, the supervisor sees to the rest
    except BranchdiagError as error:
        connection.send(("error", error))
        status = error.exit_status
    except BaseException:
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        with contextlib.suppress(OSError):
            connection.send(("bug", text))
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(connection: Connection, engine: Any) -> None:
    while True:
        kind, value = connection.recv()
        if kind == "generate":
            requests, owed = value
            for completion in engine.generate(requests, owed):
                connection.send(("completion", completion))
            connection.send(("done", None))
        elif kind == "use_adapter":
            engine.use_adapter(*value)
            connection.send(("taken", None))
        elif kind == "describe":
            connection.send(("description", engine.describe()))
        elif kind == "close":
            engine.close()
            connection.send(("closed", None))
            return


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
