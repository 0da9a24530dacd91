"""Work in forked processes: one thread each, for models so small that threads only wait.

A worker is a fork of this process, so it shares the loaded weights and starts in milliseconds. It
is handed task numbers and sends back what it finds; which worker does which task changes nothing. A
worker dies with its parent, at once, whatever kills the parent. CPU on Linux only. Knows nothing of
models: the work is a function.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from branchdiag.errors import BranchdiagError, MissingRequirement

Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

GO_ON = "free some memory, then give the same command: it goes on where it was left"
"""What to do where a worker was killed, unless the work knows better."""


class WorkerFailed(RuntimeError):
    """A bug in a worker; the text is its traceback."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether workers can be forked here."""
    return sys.platform == "linux"


def run_forked(
    tasks: Sequence[int],
    work: Callable[[int], Iterator[list[Result]]],
    n_workers: int,
    *,
    if_killed: str = GO_ON,
) -> Iterator[list[Result]]:
    """Do every task in one of `n_workers` forked processes and yield what they yield.

    The next task goes to whoever is free. Closing the iterator ends the workers.

    Args:
        tasks: numbers, handed out in this order.
        work: what one task yields, in lists that are sent as they come.
        n_workers: processes at most.
        if_killed: what a user can do where a worker was killed.

    Raises:
        BranchdiagError: as raised by the work.
        MissingRequirement: a worker was killed, as by a lack of memory.
        WorkerFailed: any other exception in a worker.
    """
    context: Any = multiprocessing.get_context("fork")
    todo = list(reversed(tasks))
    workers: dict[Connection, Any] = {}
    try:
        for _ in range(min(n_workers, len(tasks))):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, work, os.getpid()), daemon=True, name="worker"
            )
            with warnings.catch_warnings():
                # Python warns of forks beside threads; what a worker does needs no lock of theirs.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            workers[ours] = process
            ours.send(todo.pop())
        while workers:
            for connection in wait(list(workers)):
                assert isinstance(connection, Connection)
                yield from _receive(connection, workers, todo, if_killed)
    finally:
        for connection, process in workers.items():
            process.kill()
            connection.close()
        for process in workers.values():
            process.join()


def _receive(
    connection: Connection, workers: dict[Connection, Any], todo: list[int], if_killed: str
) -> Iterator[list[Any]]:
    """Handle one message of a worker."""
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionResetError):
        process = workers[connection]
        process.join()
        raise MissingRequirement(
            f"a worker process was killed (exit code {process.exitcode}), "
            "usually for want of memory",
            fix=if_killed,
        ) from None
    if kind == "finished":
        yield value
    elif kind == "free":
        if todo:
            connection.send(todo.pop())
        else:
            process = workers.pop(connection)
            connection.send(None)
            connection.close()
            process.join()
    elif kind == "error":
        raise value
    else:
        raise WorkerFailed(value)


def _serve(connection: Connection, work: Callable[[int], Iterator[list[Any]]], parent: int) -> None:
    """A worker's life."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _close_inherited_files(keep=connection.fileno())
    keep_freed_memory()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while (task := connection.recv()) is not None:
            try:
                for finished in work(task):
                    connection.send(("finished", finished))
                connection.send(("free", None))
            except BranchdiagError as error:
                connection.send(("error", error))
            except Exception:
                connection.send(("bug", traceback.format_exc()))


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; else do nothing)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for the next step's tensors.

    It returns large ones to the kernel at once, and every step then pays for mapping the same pages
    again: a softmax over 128 x 640 numbers takes 1.4 ms instead of 0.1 ms on a virtual machine.
    Meant for processes that end with their work.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _close_inherited_files(keep: int) -> None:
    """Close what the parent had open: locks and pipes that must not outlive it in a fork."""
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX") if keep < 1 << 16 else keep + 2)
