"""Grading in processes that can be killed.

Reads pairs (predicted, gold), gives `Grade`s. Integers and whatever else needs no algebra are
answered here; the rest goes to worker processes (`branchdiag.answers.worker`), which start only
when they are first needed, each grading one answer at a time in its main thread. An answer that
takes too long costs its worker: it is killed, and the answer is tried once more in a fresh one
before its grade is missing. A missing grade is never a wrong answer. Knows nothing of what the
answers are for.

Workers are plain subprocesses, not `multiprocessing` ones: nothing of the caller's main module is
imported again, and they need no guard in scripts and notebooks.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from branchdiag.answers.grade import Grade, cheap_grade
from branchdiag.errors import MissingRequirement

MEMORY_BYTES = 4 << 30
"""Address space of a worker."""
STARTUP_TIMEOUT_S = 180.0
MAX_FAILED_STARTS = 3
ATTEMPTS = 2
"""Tries of an answer that timed out, ran out of memory or crashed its worker."""

_RETRIED = ("timeout", "crash", "memory")
_LONGEST_WAIT_S = 1.0
"""Python sees a signal that comes in the instant before a wait begins only when the wait ends."""
_WINDOW = 64  # pairs in flight for each worker: how far `imap` reads ahead
_WORTH_A_START = 8  # waiting pairs: a worker takes a second to start, most answers milliseconds

Pair = tuple[str | None, str]


class GradingPool:
    """Grades answers in killable workers.

    A context manager. Results are remembered by (predicted, gold) as long as the pool lives. Use it
    from the thread that made it.

    Args:
        workers: most worker processes at a time.
        timeout_s: wall-clock seconds for one grading before its worker is killed.
        memory_bytes: address space of a worker.

    Attributes:
        started: workers started so far; 0 as long as no answer needed algebra.
    """

    def __init__(
        self, workers: int = 2, timeout_s: float = 10.0, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError("a grading pool needs a worker and a positive time limit")
        self.timeout_s = timeout_s
        self.started = 0
        self._limit = workers
        self._memory_bytes = memory_bytes
        self._memo: dict[Pair, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._closed = False
        # Kills the workers where the pool is dropped or the interpreter ends without `close`.
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, os.getpid())

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers. Grades that were not given yet are lost."""
        if not self._closed:
            self._closed = True
            self._finalizer()
            self._selector.close()

    def grade(self, predicted: str | None, gold: str) -> Grade:
        """One grade (see `grade_many`)."""
        return self.grade_many([(predicted, gold)])[0]

    def grade_many(self, pairs: Iterable[Pair]) -> list[Grade]:
        """Grades of pairs (predicted, gold), in order.

        Raises:
            MissingRequirement: workers cannot start on this machine.
        """
        return list(self.imap(pairs))

    def begin(self, pairs: Iterable[Pair]) -> None:
        """Hands pairs over without waiting; `grade_many` of the same takes what there is by then.

        Raises:
            MissingRequirement: workers cannot start on this machine.
        """
        for pair in pairs:
            self._submit(pair)
        self._advance(wait=False)

    def has(self, pairs: Iterable[Pair]) -> bool:
        """Whether all these have their grades: `grade_many` of them would not wait."""
        self._advance(wait=False)
        return all(pair in self._memo and self._memo[pair].grade for pair in pairs)

    def imap(self, pairs: Iterable[Pair]) -> Iterator[Grade]:
        """Grades as a stream, in order; reads ahead no further than the workers need.

        Raises:
            MissingRequirement: workers cannot start on this machine.
        """
        waiting: deque[_Task] = deque()
        for pair in pairs:
            waiting.append(self._submit(pair))
            self._advance(wait=False)
            while waiting and (waiting[0].grade or len(waiting) >= _WINDOW * self._limit):
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, task: _Task) -> Grade:
        while task.grade is None:
            self._advance(wait=True)
        return task.grade

    def _submit(self, pair: Pair) -> _Task:
        if self._closed:
            raise ValueError("the grading pool is closed")
        task = self._memo.get(pair)
        if task is None:
            task = self._memo[pair] = _Task(pair)
            task.grade = _graded_here(pair)
            if task.grade is None:
                self._queue.append(task)
        return task

    def _advance(self, wait: bool) -> None:
        """Hands out work and takes in results; with `wait`, waits for the next event."""
        self._dispatch()
        timeout = 0.0
        if wait:
            now = time.monotonic()
            soonest = min((w.deadline for w in self._workers), default=now)
            timeout = min(max(0.0, soonest - now), _LONGEST_WAIT_S)
        for key, _ in self._selector.select(timeout if self._workers else 0):
            self._receive(key.data)
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline <= now]:
            self._lose(worker, "timeout", f"more than {self.timeout_s:g} s")
        self._dispatch()

    def _dispatch(self) -> None:
        while self._queue:
            worker = next((w for w in self._workers if w.is_idle), None)
            if worker is None:
                starting = sum(not w.is_ready for w in self._workers)
                if len(self._workers) < self._limit and starting * _WORTH_A_START < len(
                    self._queue
                ):
                    self._start()
                    continue
                return
            task = self._queue.popleft()
            try:
                worker.send(task, self.timeout_s)
            except OSError:  # it died while idle; the answer is not to blame
                self._queue.appendleft(task)
                self._lose(worker, "crash", "the worker was gone")

    def _start(self) -> None:
        worker = _Worker(self._memory_bytes)
        self.started += 1
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)

    def _receive(self, worker: _Worker) -> None:
        for message in worker.read():
            if "ready" in message:
                worker.is_ready = True
                worker.deadline = float("inf")
                continue
            task, worker.task = worker.task, None
            worker.deadline = float("inf")
            self._failed_starts = 0
            if task is not None:
                grade = Grade(**message)
                self._finish(task, grade)
                if grade.path == "memory":
                    self._lose(worker, "memory", "")  # what is left of it is not to be trusted
                    return
        if worker.is_gone:
            self._lose(worker, "crash", "")

    def _lose(self, worker: _Worker, path: str, detail: str) -> None:
        """Kills a worker and decides what becomes of the answer it was at."""
        self._selector.unregister(worker.output)
        self._workers.remove(worker)
        status, errors = worker.kill()
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise MissingRequirement(
                    "The processes that grade answers cannot start on this machine.",
                    where=errors[-500:] or f"exit status {status}",
                    fix="Run `branchdiag doctor`; see that math-verify and sympy can be imported.",
                )
        elif worker.task is not None:
            self._finish(worker.task, Grade(None, path, detail or f"exit status {status}"))

    def _finish(self, task: _Task, grade: Grade) -> None:
        task.attempts += 1
        if grade.correct is None and grade.path in _RETRIED and task.attempts < ATTEMPTS:
            self._queue.appendleft(task)
        else:
            task.grade = grade


def _graded_here(pair: Pair) -> Grade | None:
    try:
        return cheap_grade(*pair)
    except Exception as error:  # a bug in a rule must cost one grade, not the run
        return Grade(None, "error", f"{type(error).__name__}: {error}"[:300])


class _Task:
    """A pair and, once it is known, its grade."""

    __slots__ = ("attempts", "grade", "pair")

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.attempts = 0
        self.grade: Grade | None = None


class _Worker:
    """A worker process and the answer it is at."""

    def __init__(self, memory_bytes: int) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in `kill`
        self.process = subprocess.Popen(
            # -P: a file named sympy.py in the working directory must not be imported
            [
                sys.executable,
                "-P",
                "-m",
                "branchdiag.answers.worker",
                str(memory_bytes),
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"},
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.is_ready = False
        self.is_gone = False
        self.task: _Task | None = None
        self.deadline = time.monotonic() + STARTUP_TIMEOUT_S
        self._buffer = b""

    @property
    def is_idle(self) -> bool:
        return self.is_ready and self.task is None and not self.is_gone

    def send(self, task: _Task, timeout_s: float) -> None:
        """Gives the worker an answer.

        Raises:
            OSError: the worker is gone.
        """
        predicted, gold = task.pair
        message = json.dumps({"predicted": predicted, "gold": gold}) + "\n"
        self.input.write(message.encode())
        self.input.flush()
        self.task = task
        self.deadline = time.monotonic() + timeout_s

    def read(self) -> list[dict[str, Any]]:
        """Whole messages that have arrived; sets `is_gone` at the end of the stream."""
        data = os.read(self.output.fileno(), 65536)
        self.is_gone = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def kill(self) -> tuple[int, str]:
        """Ends the process; its exit status and what it wrote to standard error."""
        self.process.kill()
        status = self.process.wait()
        for stream in (self.input, self.output):
            with contextlib.suppress(OSError):
                stream.close()
        self.errors.seek(0)
        errors = self.errors.read().decode(errors="replace").strip()
        self.errors.close()
        return status, errors


def _kill_all(workers: list[_Worker], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the process that owns them
    while workers:
        workers.pop().kill()
