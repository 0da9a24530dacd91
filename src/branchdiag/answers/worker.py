"""The process that grades: one answer at a time, in its main thread, until it is killed.

Run as `python -m branchdiag.answers.worker MEMORY_BYTES PARENT_PID` by `branchdiag.answers.pool`.
Reads one JSON object a line on standard input, {"predicted", "gold"}, and writes one a line on
standard output, first {"ready": true}, then {"correct", "path", "detail"} for each. Imports sympy
and math-verify; knows nothing of time limits: the parent kills it.

It never outlives its parent: it ends with its standard input, and on Linux the kernel kills it when
the parent dies while it computes. Results do not depend on the process: string hashing is fixed by
the parent, and nothing here draws at random.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import IO, Any

RECURSION_LIMIT = 10_000
"""Frames: the generated parser needs some twenty for each level of nesting."""

_PR_SET_PDEATHSIG = 1
_DETAIL_CHARACTERS = 300
_WARM_UP = ((r"1+\frac{1}{2}\sqrt{x}", r"x^{2}"), ("[1, 2)", "x<2"), ("y=2x", "2x-y=0"))


def main() -> None:
    """Serves until standard input ends."""
    memory_bytes, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills
    _limit(memory_bytes)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a library prints may reach the protocol
    sys.setrecursionlimit(RECURSION_LIMIT)
    from branchdiag.answers.grade import grade_one

    for predicted, gold in _WARM_UP:
        grade_one(predicted, gold)
    _write(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _write(answers, _graded(request["predicted"], request["gold"]))


def _graded(predicted: str, gold: str) -> dict[str, Any]:
    from branchdiag.answers.grade import grade_one

    try:
        grade = grade_one(predicted, gold)
    except MemoryError:
        return {"correct": None, "path": "memory", "detail": "out of memory"}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # math-verify's TimeoutException is no Exception
        detail = f"{type(error).__name__}: {error}"[:_DETAIL_CHARACTERS]
        return {"correct": None, "path": "error", "detail": detail}
    return {
        "correct": grade.correct,
        "path": grade.path,
        "detail": grade.detail[:_DETAIL_CHARACTERS],
    }


def _write(stream: IO[str], message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def _limit(memory_bytes: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(kind, (limit, hard))
        except (OSError, ValueError):
            continue  # macOS refuses limits on the address space


if __name__ == "__main__":
    main()
