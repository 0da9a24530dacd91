"""Killed with SIGKILL before every single change on disk, and in every write, a run loses nothing.

Run as a script (`python test_store_crash.py DIRECTORY`) this file is the driver: it forks one child
for every call that changes the disk in a fixed scenario, and the child kills itself there. Run by
pytest it starts the driver and looks at what each child left: every finished step is there, the one
under way is there whole or not at all, pandas reads the tables, the lock is free, and the scenario
goes on from there to the same end.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES

State = dict[str, Any]

# Every call of the store that changes the disk (or its lock) goes through one of these.
CHANGES = [
    (os, name)
    for name in (
        "open",
        "write",
        "pwrite",
        "fsync",
        "replace",
        "rename",
        "mkdir",
        "unlink",
        "rmdir",
        "ftruncate",
        "utime",
    )
] + [(fcntl, "flock")]


def continuation(number: int) -> dict[str, Any]:
    return {
        "candidate_id": f"p{number}@3",
        "problem_id": f"p{number}",
        "arm": "control",
        "sample": 0,
        "seed": number,
        "prompt_hash": "0" * 16,
        "n_prompt_tokens": 1,
        "token_ids": [number] * 50,
        "n_tokens": 50,
        "finish_reason": "stop",
    }


def error_row(number: int) -> dict[str, Any]:
    return {"phase": "E", "unit": str(number), "attempt": "1", "kind": "X", "message": "m"}


def save(run: RunDirectory, stage: str) -> None:
    run.manifest["stage"] = stage
    run.save_manifest()


# What is done to the run, step by step, and what a reader must see after each.
STEPS: list[tuple[Callable[[RunDirectory], object], Callable[[State], object]]] = [
    (
        lambda run: run.table("continuations").append([continuation(n) for n in range(3)]),
        lambda state: state.update(continuations=[0, 1, 2]),
    ),
    (lambda run: save(run, "first"), lambda state: state.update(stage="first")),
    (
        lambda run: run.table("errors").append([error_row(n) for n in range(2)]),
        lambda state: state.update(errors=["0", "1"]),
    ),
    (
        lambda run: run.table("continuations").append([continuation(n) for n in range(3, 5)]),
        lambda state: state.update(continuations=[0, 1, 2, 3, 4]),
    ),
    (lambda run: run.table("errors").append([error_row(2)]),
     lambda state: state.update(errors=["0", "1", "2"])),
    (lambda run: run.touch(), lambda state: None),
    (lambda run: run.table("errors").remove(), lambda state: state.update(errors=[])),
    (
        lambda run: run.table("errors").append([error_row(7)]),
        lambda state: state.update(errors=["7"]),
    ),
    (lambda run: save(run, "last"), lambda state: state.update(stage="last")),
]  # fmt: skip


def states() -> list[State]:
    """What a reader sees after 0, 1, ... steps; before those, a run may not be there at all."""
    seen: list[State] = [{"stage": None, "continuations": [], "errors": []}]
    for _, effect in STEPS:
        state = dict(seen[-1])
        effect(state)
        seen.append(state)
    return seen


def scenario(path: Path, acknowledge: Callable[[], object]) -> None:
    run = RunDirectory.create(path)
    acknowledge()
    with run.lock():
        for do, _ in STEPS:
            do(run)
            acknowledge()


def died_at(directory: Path) -> str | None:
    """The change in which it died; None where it was not killed."""
    lines = (directory / "journal").read_text().splitlines()
    return next((line[8:] for line in lines if line.startswith("died at ")), None)


def driver(root: Path) -> None:
    """Fork a child for every change, to die before it, and one for every write, to die in it."""
    import pyarrow.parquet  # loaded once, before the forks  # noqa: F401

    import branchdiag.store.table  # noqa: F401

    writes = []
    for number in range(10_000):
        directory = root / f"before-{number:04d}"
        if not killed(number, "before", directory):
            break  # it reached the end: there are no more changes
        if died_at(directory) == "write":
            writes.append(number)
    for number in writes:
        assert killed(number, "torn", root / f"torn-{number:04d}")


def killed(number: int, moment: str, directory: Path) -> bool:
    """Whether a child that is to die at change `number` did, or came to the end before."""
    directory.mkdir()
    pid = os.fork()
    if pid == 0:
        die_at(number, moment, directory)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, (moment, number)
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True


def die_at(number: int, moment: str, directory: Path) -> None:
    """Go through the scenario and die at change `number`; ends the process."""
    status, write = 1, os.write
    journal = os.open(directory / "journal", os.O_WRONLY | os.O_CREAT)
    calls = iter(range(1_000_000))

    def dying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) != number:
                return function(*arguments, **options)
            write(journal, f"died at {name}\n".encode())
            if moment == "torn":
                write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return call

    try:
        for module, name in CHANGES:
            setattr(module, name, dying(name, getattr(module, name)))
        scenario(directory / "run", lambda: write(journal, b"done\n"))
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    driver(Path(sys.argv[1]))
    sys.exit()


@pytest.fixture(scope="module")
def crashes() -> Iterator[list[Path]]:
    """The directories that the driver's children left."""
    # SIGKILL loses nothing that the kernel has: in memory it is the same, and the disk is spared.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root:
        subprocess.run([sys.executable, __file__, root], check=True, timeout=300)
        yield sorted(Path(root).iterdir())


def steps_done(directory: Path) -> int:
    """How many steps were finished, `create` being the first."""
    return (directory / "journal").read_text().splitlines().count("done")


def rows_seen(run: RunDirectory, name: str, column: str) -> list[Any]:
    """Through pandas, as a user in the middle of a run, and through the reader: they must agree."""
    table = run.table(name)
    if not (run.path / name).exists():
        assert table.rows() == []
        return []
    frame = pd.read_parquet(run.path / name)
    assert not frame.duplicated(list(TABLES[name].key)).any()
    found = sorted(frame[column].tolist())
    assert found == sorted(table.read([column]).column(0).to_pylist())
    return found


def seen(run: RunDirectory) -> State:
    return {
        "stage": run.manifest.get("stage"),
        "continuations": rows_seen(run, "continuations", "seed"),
        "errors": rows_seen(run, "errors", "unit"),
    }


def hidden(path: Path) -> list[str]:
    return [p.name for p in path.rglob(".*") if p.name != ".lock"]


def possible(directory: Path) -> Iterator[State]:
    """What may be there: the finished steps, or those and the one under way."""
    done = steps_done(directory)
    yield from states()[max(0, done - 1) : done + 1]


def test_every_change_was_died_at(crashes: list[Path]) -> None:
    changes = {died_at(directory) for directory in crashes}
    assert changes == {name for _, name in CHANGES} | {None}
    assert len(crashes) > 100
    (unharmed,) = [directory for directory in crashes if died_at(directory) is None]
    run = RunDirectory.open(unharmed / "run")
    assert seen(run) == states()[-1]
    assert hidden(run.path) == []


def test_after_every_crash_what_was_finished_is_there_and_it_goes_on(crashes: list[Path]) -> None:
    in_flight_seen, left_overs = set(), 0
    for directory in crashes:
        path = directory / "run"
        if steps_done(directory) or (path / "run.json").exists():
            before = sorted(map(str, path.rglob("*")))
            looking = RunDirectory.open(path)
            allowed, found = list(possible(directory)), seen(looking)
            assert found in allowed, (directory.name, died_at(directory))
            assert looking.holder() is None, (directory.name, died_at(directory))
            assert sorted(map(str, path.rglob("*"))) == before  # looking leaves no trace
            if len(allowed) == 2 and allowed[0] != allowed[1]:
                in_flight_seen.add(found == allowed[1])
            left_overs += bool(hidden(path))

        run = RunDirectory.create(path)
        with run.lock():
            assert hidden(path) == []
            numbers = range(5)
            table = run.table("continuations")
            owed = [continuation(n) for n in numbers if (f"p{n}@3", "control", 0) not in table]
            table.append(owed)
            run.table("errors").remove()
            run.table("errors").append([error_row(7)])
            save(run, "last")
        assert seen(RunDirectory.open(path)) == states()[-1]
        assert hidden(path) == []
        assert not run.warnings
    assert in_flight_seen == {True, False}  # both outcomes occurred, so both were tested
    assert left_overs > 20


def test_a_killed_manifest_write_leaves_the_old_or_the_new_one(crashes: list[Path]) -> None:
    stages = set()
    for directory in crashes:
        file = directory / "run" / "run.json"
        if file.exists():
            stages.add(json.loads(file.read_text()).get("stage"))
    assert stages <= {None, "first", "last"}
    assert stages
