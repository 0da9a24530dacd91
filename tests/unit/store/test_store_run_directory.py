"""A run directory says what it is, has one writer and any readers, and tidies up after kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.store.lock import RunInUse
from branchdiag.store.run import RunDirectory, latest_run

Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "a")


def everything_below(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")
    }


def test_a_new_run_can_be_opened_and_says_when_it_was_made(run: RunDirectory) -> None:
    opened = RunDirectory.open(run.path)
    assert opened.manifest == run.manifest
    assert set(opened.manifest) == {"format", "created"}
    assert opened.path == run.path
    assert opened.path.is_absolute()


def test_creating_an_existing_run_opens_it(run: RunDirectory) -> None:
    with run.lock():
        run.manifest["model"] = "m"
        run.save_manifest()
    assert RunDirectory.create(run.path).manifest["model"] == "m"


def test_relative_and_home_paths_are_understood(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path.parent)
    monkeypatch.setenv("HOME", str(run.path.parent))
    for name in ("a", "./a", "~/a"):
        opened = RunDirectory.open(Path(name))
        monkeypatch.chdir("/")
        assert opened.table("spines").rows() == []
        assert opened.path.samefile(run.path)
        monkeypatch.chdir(run.path.parent)
    with pytest.raises(UsageError):
        RunDirectory.open(Path("~no-such-user-here/a"))


@pytest.mark.parametrize("kind", ["nothing", "empty", "files", "a file"])
def test_what_is_no_run_is_refused_with_advice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "elsewhere"
    if kind == "a file":
        path.write_text("x")
    elif kind != "nothing":
        path.mkdir()
    if kind == "files":
        (path / "thesis.tex").write_text("x")
    before = everything_below(tmp_path)
    with pytest.raises(UsageError, match=r"run\.json") as caught:
        RunDirectory.open(path)
    assert caught.value.where == str(path)
    assert "run-all" in str(caught.value.fix)
    assert everything_below(tmp_path) == before


def test_the_parent_of_runs_is_refused_with_the_latest_run(run: RunDirectory) -> None:
    with pytest.raises(UsageError) as caught:
        RunDirectory.open(run.path.parent)
    assert str(run.path) in str(caught.value.fix)


def test_a_run_is_not_begun_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        RunDirectory.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        RunDirectory.create(tmp_path / "thesis.tex")


def test_a_run_is_begun_where_a_killed_process_began_it(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".part-0123").write_text('{"format"')
    run = RunDirectory.create(tmp_path)
    with run.lock():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "run.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "1"}', b"\xff\xfe", '{"format": 1'], ids=repr
)
def test_a_damaged_manifest_is_a_clear_error(run: RunDirectory, text: str | bytes) -> None:
    file = run.path / "run.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for make in (RunDirectory.open, RunDirectory.create):
        with pytest.raises(UsageError, match="damaged") as caught:
            make(run.path)
        assert caught.value.where == str(file)


def test_a_run_of_a_newer_version_is_a_conflict(run: RunDirectory) -> None:
    (run.path / "run.json").write_text('{"format": 99}')
    with pytest.raises(SettingsConflict, match="newer branchdiag"):
        RunDirectory.open(run.path)


def test_reading_makes_no_file_and_needs_no_lock(run: RunDirectory, make_rows: Rows) -> None:
    with run.lock():
        run.table("continuations").append(make_rows(0, 4))
        (run.path / "continuations" / ".part-left").write_text("x")
        before = everything_below(run.path)
        looking = RunDirectory.open(run.path)  # while another holds it
        assert looking.table("continuations").n_rows() == 4
        assert looking.table("labels").rows() == []
        assert not looking.table("labels").exists()
        assert looking.figures == run.path / "figures"
        assert not looking.logs.exists()
        holder = looking.holder()
        assert holder is not None
        assert holder.pid == os.getpid()
        assert everything_below(run.path) == before
    assert looking.holder() is None


def test_nothing_is_written_without_the_lock(run: RunDirectory, make_rows: Rows) -> None:
    table = run.table("continuations")
    for change in (
        run.save_manifest,
        run.touch,
        table.create,
        table.remove,
        lambda: table.append(make_rows(0, 1)),
    ):
        with pytest.raises(RuntimeError, match="lock"):
            change()
    with run.lock():
        assert run.locked
        run.save_manifest()
        run.touch()
        table.append(make_rows(0, 1))
        assert run.figures.is_dir()
        assert run.logs.is_dir()
    assert not run.locked
    with pytest.raises(RuntimeError, match="lock"):
        table.append(make_rows(1, 2))


def test_the_lock_is_given_back_when_the_body_fails(run: RunDirectory) -> None:
    with pytest.raises(KeyboardInterrupt), run.lock():
        raise KeyboardInterrupt
    with run.lock(), pytest.raises(RunInUse), RunDirectory.open(run.path).lock():
        pass


def test_taking_the_lock_reads_the_manifest_and_the_tables_anew(
    run: RunDirectory, make_rows: Rows
) -> None:
    table, manifest = run.table("continuations"), run.manifest
    with run.lock():
        table.append(make_rows(0, 2))
    other = RunDirectory.open(run.path)
    with other.lock():
        other.manifest["model"] = "m"
        other.save_manifest()
        other.table("continuations").append(make_rows(2, 4))
    with run.lock():
        assert manifest is run.manifest
        assert manifest["model"] == "m"
        assert table is run.table("continuations")
        with pytest.raises(ValueError, match="already"):
            table.append(make_rows(3, 4))
        assert table.n_rows() == 4


def test_what_killed_processes_left_is_removed_by_the_holder_alone(
    run: RunDirectory, make_rows: Rows
) -> None:
    with run.lock():
        run.table("continuations").append(make_rows(0, 4))
        assert run.figures.is_dir()
    left = [
        run.path / ".part-1",
        run.path / "continuations" / ".part-2",
        run.path / "figures" / ".part-3",
        run.path / ".part-4" / "part-00000000-schema.parquet",
        run.path / ".removed-labels-5" / "part-1.parquet",
    ]
    kept = [
        run.path / "continuations" / ".unreadable-part-x.parquet",
        run.path / "notes.txt",
        run.path / "figures" / "a.png",
    ]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    before = everything_below(run.path)
    assert RunDirectory.open(run.path).table("continuations").n_rows() == 4
    assert RunDirectory.create(run.path).table("continuations").n_rows() == 4
    assert everything_below(run.path) == before
    with run.lock():
        assert not any(path.exists() for path in left)
        assert all(path.exists() for path in kept)
        assert not list(run.path.glob(".removed-*")) + list(run.path.glob(".part-*"))
        assert run.table("continuations").n_rows() == 4


def test_unreadable_parts_of_any_table_are_told_once(run: RunDirectory, make_rows: Rows) -> None:
    told: list[str] = []
    run = RunDirectory.create(run.path, warn=told.append)
    with run.lock():
        part = run.table("continuations").append(make_rows(0, 4))
        assert part is not None
        part.write_bytes(b"torn")
        run.table("continuations").check()
        run.table("continuations").check()
    assert len(told) == 1
    assert told == run.warnings


def test_an_unknown_table_is_named(run: RunDirectory) -> None:
    with pytest.raises(KeyError, match=r"continuation.*there are .*continuations"):
        run.table("continuation")


def test_the_latest_run_is_the_one_touched_or_saved_last(tmp_path: Path) -> None:
    assert latest_run(tmp_path) is None
    assert latest_run(tmp_path / "nowhere") is None
    runs = [RunDirectory.create(tmp_path / name) for name in ("a", "b", "c")]
    (tmp_path / "d").mkdir()
    (tmp_path / "e").write_text("x")
    for run, change in ((runs[1], "touch"), (runs[0], "save_manifest"), (runs[2], "touch")):
        with run.lock():
            getattr(run, change)()
        assert latest_run(tmp_path) == run.path


def test_the_run_directory_imports_neither_arrow_nor_pandas() -> None:
    script = (
        "import sys; import branchdiag.store.run, branchdiag.store.fingerprint;"
        "print([m for m in ('pyarrow', 'pandas', 'numpy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_manifest_is_plain_json(run: RunDirectory) -> None:
    with run.lock():
        run.manifest["phases"] = {"A": {"fingerprint": "fp1:0"}}
        run.save_manifest()
        run.manifest["bad"] = float("nan")
        with pytest.raises(ValueError, match="JSON"):
            run.save_manifest()
    assert json.loads((run.path / "run.json").read_text())["phases"]["A"] == {
        "fingerprint": "fp1:0"
    }
    assert "bad" not in RunDirectory.open(run.path).manifest


def test_a_place_that_may_not_be_entered_is_a_clear_error() -> None:
    script = """
import os, sys
from pathlib import Path
from branchdiag.store.atomic import StorageError
from branchdiag.store.run import RunDirectory, latest_run
import branchdiag.store.table
root = Path(sys.argv[1])
run = RunDirectory.open(root / "open")
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for use in (
    lambda: RunDirectory.create(root / "shut" / "a"),
    lambda: RunDirectory.create(root / "shut"),
    lambda: RunDirectory.open(root / "shut" / "a"),
    lambda: latest_run(root / "shut"),
    lambda: RunDirectory.create(root / ("x" * 300)),
    lambda: RunDirectory.create(root / "open" / "run.json" / "a"),
    lambda: run.table("labels").exists(),
    lambda: run.table("labels").rows(),
):
    try:
        use()
    except StorageError as error:
        print(error.exit_status)
"""
    # Permission bits do not bind root: the child becomes another user first.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        run = RunDirectory.create(root / "open")
        for shut in (root / "shut", run.path / "labels"):
            shut.mkdir()
            shut.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", script, name], capture_output=True, text=True, check=False
        )
        for shut in (root / "shut", run.path / "labels"):
            shut.chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.split() == ["5"] * 8
