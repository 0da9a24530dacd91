"""When a side diagnostic may run: what it reads has ended, the report or not."""

from branchdiag.phases import stages_of
from branchdiag.pipeline.stage_runs import unfinished_phases

ENDED = {letter: {"status": "complete"} for letter in "ABCDEFSG"}


def test_a_finished_run_lacks_nothing() -> None:
    assert unfinished_phases(ENDED, stages_of("align")) == []


def test_a_report_that_a_killed_restart_has_removed_is_no_hindrance() -> None:
    without = {letter: record for letter, record in ENDED.items() if letter != "G"}
    assert unfinished_phases(without, stages_of("align")) == []
    under_way = {**without, "N1": {"status": "complete"}, "N2": {"status": "running"}}
    assert unfinished_phases(under_way, stages_of("align")) == []


def test_what_is_read_must_have_ended() -> None:
    killed = {**ENDED, "E": {"status": "running"}, "F": {"status": "owed"}}
    assert unfinished_phases(killed, stages_of("align")) == ["E", "F"]
    failed = {**ENDED, "F": {"status": "incomplete"}}  # some units failed, and are left out
    assert unfinished_phases(failed, stages_of("align")) == []
    assert unfinished_phases({}, stages_of("align")) == ["A", "B", "C", "D", "E", "F", "S"]
