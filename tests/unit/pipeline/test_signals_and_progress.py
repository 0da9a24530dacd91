"""Signals stop between checkpoints and never inside one; progress goes to standard error."""

from __future__ import annotations

import os
import pickle
import signal

import pytest

from branchdiag.phases import PHASES
from branchdiag.pipeline.progress import Plain, Silent, create_reporter, duration
from branchdiag.pipeline.signals import Guard, Interrupted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_an_exception_with_its_status(number: int, status: int) -> None:
    guard = Guard()
    with pytest.raises(Interrupted) as stop, guard.installed():
        os.kill(os.getpid(), number)
        signal.pause()
    assert stop.value.exit_status == status


def test_a_signal_waits_for_the_end_of_a_checkpoint() -> None:
    guard, written = Guard(), []
    with pytest.raises(Interrupted), guard.installed():
        with guard.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            written.append("part")
        written.append("never")
    assert written == ["part"]


def test_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Guard().installed():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_interruption_crosses_processes() -> None:
    assert pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM))).exit_status == 143


@pytest.mark.parametrize(("units", "ended"), [(4, "5/5 done in "), (3, "4/5 after ")])
def test_a_phase_that_stopped_early_is_not_called_done(
    units: int, ended: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Plain()
    reporter.start(PHASES["A"], 5, 1)
    reporter.advance(units, 0)
    reporter.finish()
    last = capsys.readouterr().err.splitlines()[-1]
    assert ended in last
    assert ("done" in last) == (units == 4)


def test_plain_progress_counts_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Plain(every_seconds=0.0)
    reporter.start(PHASES["E"], total=10, done=4)
    reporter.advance(3, 120)
    reporter.finish()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "E continue" in printed.err and "10 units, 4 kept from before" in printed.err
    assert "7/10" in printed.err and "tokens/s" in printed.err


def test_reporters_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(create_reporter("none"), Silent)
    assert isinstance(create_reporter("auto"), Plain)  # the tests' standard error is no terminal
    bars = create_reporter("rich")
    bars.start(PHASES["A"], total=2, done=0)
    bars.advance(2, 10)
    bars.note("[bold]not markup[/bold]")
    bars.finish()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (200, "3 min"), (7500, "2 h 5 min"), (0, "0 s")]
)
def test_durations_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words
