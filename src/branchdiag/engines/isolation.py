"""An engine in a child process that cannot outlive its parent.

GPU memory is not given back inside a process, and engine processes (vLLM's core, tensor-parallel
workers) can outlive a killed parent and keep the GPU. So the engine runs in a process group of its
own below a supervisor, which needs no import and so starts at once: when the parent dies, however
it dies, or the engine ends, the supervisor kills every descendant (it is their subreaper, so that
orphans come back to it). Requests go down a socket as pickles between these processes alone, and
completions come back as they finish; what the engine prints goes to a log file.

    parent  ->  supervisor (watches the parent)  ->  engine  ->  whatever it starts

Knows no model and no engine but by name of the function that makes one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from branchdiag.engines.base import Completion, Key, Request
from branchdiag.errors import MissingRequirement

START_FAILED = "the engine's process ended before it was ready"
CLOSE_SECONDS = 20.0
"""Given to an engine to close in order before its group is killed."""


class EngineCrashed(RuntimeError):
    """A bug in the engine's process; the text is its traceback or how it ended."""


class IsolatedEngine:
    """Writes tokens with an engine that lives in a child process.

    The process starts with the first use and again after an interrupted `generate`.

    Args:
        name: the engine's.
        factory: "module:function" that makes the engine.
        arguments: its keyword arguments (picklable).
        log_path: file that the child's output is appended to; None discards it.
        environment: the child's variables; None: this process's.
    """

    def __init__(
        self,
        name: str,
        factory: str,
        arguments: Mapping[str, Any],
        *,
        log_path: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._environment = environment
        self._order = (factory, dict(arguments))
        self._log_path = None if log_path is None else Path(log_path)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._finalizer: weakref.finalize[..., IsolatedEngine] | None = None

    def generate(
        self, requests: Sequence[Request], owed: Collection[Key] | None = None
    ) -> Iterator[Completion]:
        """Complete the owed requests in the child, yielding each as it finishes.

        Raises:
            BranchdiagError: as raised by the engine.
            MissingRequirement: the child was killed.
            EngineCrashed: any other exception there, with its traceback.
        """
        self._send(("generate", (list(requests), None if owed is None else set(owed))))
        done = False
        try:
            while True:
                kind, value = self._receive()
                if kind == "done":
                    done = True
                    return
                yield value
        finally:
            if not done:  # whatever is still on its way belongs to nobody
                self._kill()

    def use_adapter(self, directory: str, number: int) -> None:
        """As the engine's own `use_adapter`, where it has one."""
        self._send(("use_adapter", (directory, number)))
        self._receive()

    def describe(self) -> dict[str, Any]:
        """What the engine says of itself."""
        self._send(("describe", None))
        _, value = self._receive()
        return dict(value)

    def close(self) -> None:
        """End the child and all that it started."""
        if self._process is None or self._connection is None:
            return
        with contextlib.suppress(OSError, EOFError):
            self._connection.send(("close", None))
            if self._connection.poll(CLOSE_SECONDS):
                self._connection.recv()
        self._kill()

    def _send(self, message: tuple[str, Any]) -> None:
        if self._process is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None

    def _receive(self) -> tuple[str, Any]:
        assert self._connection is not None
        try:
            kind, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._ended() from None
        if kind == "error":
            self._kill()
            raise value
        if kind == "bug":
            self._kill()
            raise EngineCrashed(value)
        return kind, value

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        if self._log_path is None:
            log: Any = subprocess.DEVNULL
        else:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            log = self._log_path.open("ab")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "branchdiag.engines.isolated", str(theirs.fileno()),
                 str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the parent, which decides
                env={**(self._environment or os.environ), "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        finally:
            theirs.close()
            if log is not subprocess.DEVNULL:
                log.close()
        self._connection = Connection(ours.detach())
        self._finalizer = weakref.finalize(self, _end, self._process, self._connection)
        self._connection.send(self._order)

    def _ended(self) -> Exception:
        """The child is gone and said nothing: why, as far as one can see."""
        assert self._process is not None
        status = self._process.wait()
        self._kill()
        tail = _tail(self._log_path)
        if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return MissingRequirement(
                "the engine's process was killed, usually for want of memory" + tail,
                where=f"engine {self.name}",
                fix="a smaller engine.batch_size or engine.max_num_seqs, then run again",
            )
        return EngineCrashed(f"the engine's process ended with status {status}{tail}")

    def _kill(self) -> None:
        self._process = self._connection = None
        if self._finalizer is not None:
            self._finalizer()


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """Let the supervisor, on SIGTERM, kill all below it and end; also at exit of the parent."""
    connection.close()
    process.terminate()
    process.wait()


def _tail(log_path: Path | None, lines: int = 15) -> str:
    """The last lines of the child's log, for an error message."""
    if log_path is None or not log_path.exists():
        return ""
    text = log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(["; the end of its log:", *text, f"(all of it: {log_path})"])
