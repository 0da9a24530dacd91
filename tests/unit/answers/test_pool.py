"""The grading pool with real processes: time limits, crashes, memory, orphans, laziness, order."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from branchdiag.answers import pool as pool_module
from branchdiag.answers.grade import Grade
from branchdiag.answers.pool import GradingPool
from branchdiag.errors import MissingRequirement

ENDLESS = (r"\prod_{k=1}^{10^9}(k+\sqrt{k})", r"\sqrt{2}")
"""A product of a billion factors: sympy never comes back."""
NEEDS_ALGEBRA = (r"\sqrt{12}", r"2\sqrt{3}")


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie that nobody waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_answers_without_algebra_start_no_worker() -> None:
    pairs = [("042", "42"), ("7", "8"), (None, "1"), (r"\dfrac12", "0.5"), ("(1,2)", "(2,1)")]
    with GradingPool(workers=2, timeout_s=5) as pool:
        grades = pool.grade_many(pairs * 200)
        assert pool.started == 0
    assert [grade.correct for grade in grades[:5]] == [True, False, False, True, False]


def test_a_time_out_is_tried_again_once_and_then_missing() -> None:
    pairs = [NEEDS_ALGEBRA, ENDLESS, ("5", "5"), (r"\sqrt{12}", r"3\sqrt{2}"), NEEDS_ALGEBRA]
    with GradingPool(workers=1, timeout_s=1.2) as pool:
        started = time.monotonic()
        grades = pool.grade_many(pairs)
        elapsed = time.monotonic() - started
        assert [grade.correct for grade in grades] == [True, None, True, False, True]
        assert grades[1].path == "timeout"
        assert pool.started == 3  # the first, one for the second try, one for what came after
        assert elapsed < 60
        before = time.monotonic()
        assert pool.grade(*ENDLESS) is grades[1]  # remembered: not tried a third time
        assert time.monotonic() - before < 0.5


def test_results_come_in_order_as_a_stream_and_do_not_depend_on_workers() -> None:
    pairs = [(rf"\sqrt{{{3 * n * n}}}", rf"{n + n % 2}\sqrt{{3}}") for n in range(1, 31)]
    taken: list[int] = []

    def source() -> Iterator[tuple[str, str]]:
        for i, pair in enumerate(pairs * 20):
            taken.append(i)
            yield pair

    with GradingPool(workers=2, timeout_s=30) as two:
        stream = two.imap(source())
        first = next(stream)
        assert len(taken) < len(pairs) * 20  # it reads ahead, but not everything
        grades = [first, *stream]
        assert two.started <= 2
    assert [grade.correct for grade in grades] == [n % 2 == 0 for n in range(1, 31)] * 20


def test_pairs_that_were_begun_are_graded_while_others_are_read() -> None:
    cheap, slow = ("7", "8"), NEEDS_ALGEBRA
    with GradingPool(workers=2, timeout_s=30) as pool:
        pool.begin([cheap, cheap])
        assert pool.has([cheap]) and pool.has([]) and pool.started == 0
        assert not pool.has([("6", "8")])  # never begun
        pool.begin([slow, cheap])
        assert not pool.has([slow, cheap])  # a worker takes longer than this line to start
        assert eventually(lambda: pool.has([slow, cheap]), 120)
        assert [grade.correct for grade in pool.grade_many([cheap, slow])] == [False, True]
        pool.begin([slow])  # remembered
        assert pool.has([slow]) and pool.started == 1


def test_a_few_answers_wait_for_one_worker_and_many_for_several() -> None:
    few = [(rf"\sqrt{{{n}}}", rf"\sqrt{{{n}}}+0") for n in (2, 3, 5)]
    many = [(rf"\sqrt{{{n}}}", rf"\sqrt{{{n}}}+0") for n in range(2, 60)]
    for pairs, started in ((few, 1), (many, 2)):
        with GradingPool(workers=2, timeout_s=30) as pool:
            pool.begin(pairs)
            assert pool.started == started


def test_a_crashed_worker_costs_one_try_and_a_lost_idle_one_costs_none() -> None:
    with GradingPool(workers=1, timeout_s=60) as pool:
        assert pool.grade(*NEEDS_ALGEBRA).correct is True
        os.kill(pool._workers[0].process.pid, signal.SIGKILL)  # idle
        assert pool.grade(r"\sqrt{8}", r"2\sqrt{2}").correct is True
        assert pool.started == 2

        killed: list[int] = []

        def crash_both_tries() -> None:
            while len(killed) < 2:
                for worker in list(pool._workers):
                    busy = worker.task is not None and worker.process.pid not in killed
                    if busy and worker.task is not None and worker.task.pair == ENDLESS:
                        time.sleep(0.2)
                        os.kill(worker.process.pid, signal.SIGSEGV)
                        killed.append(worker.process.pid)
                time.sleep(0.02)

        thread = threading.Thread(target=crash_both_tries)
        thread.start()
        grade = pool.grade(*ENDLESS)
        thread.join()
        assert (grade.correct, grade.path) == (None, "crash")
        assert str(-signal.SIGSEGV) in grade.detail
        assert len(killed) == 2


def test_workers_that_cannot_start_are_an_error_a_user_can_mend() -> None:
    pool = GradingPool(workers=1, timeout_s=5, memory_bytes=20 << 20)
    with pool, pytest.raises(MissingRequirement, match="cannot start"):
        pool.grade(*NEEDS_ALGEBRA)
    assert not pool._workers


def test_memory_is_limited_in_a_worker() -> None:
    code = (
        "import os, sys; from branchdiag.answers import worker; worker._limit(600 << 20)\n"
        "from branchdiag.answers import grade\n"
        "def hungry(*_): return bytearray(1 << 30)\n"
        "grade.grade_one = hungry\n"
        "print(worker._graded('a', 'b')['path'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "memory"


def test_an_exception_in_a_rule_is_a_missing_grade(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_predicted: str | None, _gold: str) -> Grade:
        raise RuntimeError("a bug")

    monkeypatch.setattr(pool_module, "cheap_grade", broken)
    with GradingPool(workers=1, timeout_s=5) as pool:
        assert pool.grade("1", "1") == Grade(None, "error", "RuntimeError: a bug")


PARENT = """
import threading, time
from branchdiag.answers.pool import GradingPool
with GradingPool(workers=2, timeout_s=600) as pool:
    def report():
        while sum(worker.task is not None for worker in pool._workers) < 2:
            time.sleep(0.02)
        print(*(worker.process.pid for worker in pool._workers), flush=True)
    threading.Thread(target=report, daemon=True).start()
    endless = r"\\prod_{k=1}^{10^9}(k+\\sqrt{k})"
    pool.grade_many([(endless, r"\\sqrt{2}"), (endless, r"\\sqrt{3}")])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(sent: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None and parent.stderr is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(is_alive(pid) for pid in workers)
    if sent == signal.SIGINT:
        os.killpg(parent.pid, sent)  # as a terminal does: to the workers too
    else:
        parent.kill()
    assert parent.wait(timeout=30) == (
        -signal.SIGKILL if sent == signal.SIGKILL else -signal.SIGINT
    )
    errors = parent.stderr.read()
    assert errors.count("Traceback") == (sent == signal.SIGINT)  # the parent's own, none of theirs
    assert eventually(lambda: not any(is_alive(pid) for pid in workers))


def test_closing_kills_the_workers_and_a_closed_pool_refuses_work() -> None:
    pool = GradingPool(workers=1, timeout_s=600)
    with pool:
        stream = pool.imap([NEEDS_ALGEBRA, ENDLESS])
        assert next(stream).correct is True
        workers = [worker.process.pid for worker in pool._workers]
    assert workers
    assert eventually(lambda: not any(is_alive(pid) for pid in workers))
    with pytest.raises(ValueError, match="closed"):
        pool.grade("1", "1")


def test_a_file_in_the_working_directory_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    with GradingPool(workers=1, timeout_s=30) as pool:
        assert pool.grade(*NEEDS_ALGEBRA).correct is True


@pytest.mark.parametrize("settings", [(0, 1.0), (1, 0.0)])
def test_impossible_settings_are_refused(settings: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="worker"):
        GradingPool(*settings)
