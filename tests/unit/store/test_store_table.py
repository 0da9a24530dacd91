"""A table takes each row once, reads back what it took, and gives up only what is damaged."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from branchdiag.errors import SettingsConflict
from branchdiag.store.atomic import StorageError
from branchdiag.store.parts import SCHEMA_PART, UnreadablePart, read_part
from branchdiag.store.rows import to_arrow
from branchdiag.store.schemas import REAL, TABLES, TOKEN, Column, TableSchema
from branchdiag.store.table import Table

CONTINUATIONS, SPINES = TABLES["continuations"], TABLES["spines"]
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "continuations", CONTINUATIONS)


def reader(table: Table) -> Table:
    return Table(table.directory, table.schema, may_write=lambda: False)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in CONTINUATIONS.key)


def everything_below(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in directory.rglob("*")
    }


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def offset_of_page(path: Path, column: str) -> int:
    """A byte in the middle of a column's pages."""
    metadata = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [metadata.column(index) for index in range(metadata.num_columns)]
    chunk = next(c for c in chunks if c.path_in_schema.split(".")[0] == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return int(start + chunk.total_compressed_size // 2)


def test_rows_come_back_as_they_were_given_sorted_by_key(table: Table, make_rows: Rows) -> None:
    rows = make_rows(0, 40)
    random.Random(0).shuffle(rows)
    for start in range(0, 40, 7):
        table.append(rows[start : start + 7])
    assert table.rows() == sorted(make_rows(0, 40), key=key)
    assert reader(table).rows() == table.rows()
    assert table.n_rows() == 40
    assert table.keys() == {key(row) for row in rows}


def test_the_result_does_not_depend_on_the_order_of_writing(
    tmp_path: Path, make_rows: Rows
) -> None:
    tables = []
    for seed in range(4):
        table = Table(tmp_path / str(seed), CONTINUATIONS)
        rows = make_rows(0, 30)
        random.Random(seed).shuffle(rows)
        while rows:
            taken = random.Random(len(rows) + seed).randint(1, len(rows))
            table.append(rows[:taken])
            del rows[:taken]
        tables.append(table.read())
    assert all(other.equals(tables[0], check_metadata=True) for other in tables)


def test_the_schema_is_exactly_the_declared_one(table: Table, make_rows: Rows) -> None:
    table.append(make_rows(0, 4))
    (part,) = table.part_paths()
    assert table.read().schema.equals(CONTINUATIONS.arrow, check_metadata=True)
    assert read_part(part, CONTINUATIONS, CONTINUATIONS.arrow.names).schema.equals(
        CONTINUATIONS.arrow, check_metadata=True
    )
    stored = pq.read_schema(part)
    for field in CONTINUATIONS.arrow:
        assert stored.field(field.name).nullable == field.nullable
        assert stored.field(field.name).metadata[b"description"] == field.metadata[b"description"]


def test_pandas_reads_the_directory_as_the_table_does(table: Table, make_rows: Rows) -> None:
    table.create()
    empty = pd.read_parquet(table.directory)
    assert list(empty.columns) == CONTINUATIONS.arrow.names
    assert len(empty) == 0
    table.append(make_rows(4, 8))
    table.append(make_rows(0, 4))
    ours, theirs = table.frame(), pd.read_parquet(table.directory)
    theirs = theirs.sort_values(list(CONTINUATIONS.key)).reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_table_of_every_schema_can_be_begun_and_read(tmp_path: Path) -> None:
    for name, schema in TABLES.items():
        table = Table(tmp_path / name, schema)
        assert not table.exists()
        assert table.read().num_rows == 0  # before it was begun
        table.append([])
        assert table.exists()
        assert table.n_rows() == 0
        assert table.keys() == set()
        assert table.rows() == []
        assert list(pd.read_parquet(tmp_path / name).columns) == schema.arrow.names
        assert table.read().schema.equals(schema.arrow, check_metadata=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TABLES)


def test_some_columns_are_read_in_the_same_order(table: Table, make_rows: Rows) -> None:
    table.append(make_rows(10, 20))
    table.append(make_rows(0, 10))
    whole = table.read()
    for columns in (["seed"], ["n_tokens", "candidate_id"], ["token_ids"], []):
        assert table.read(columns).equals(whole.select(columns))
    assert list(table.frame(["seed"]).columns) == ["seed"]
    with pytest.raises(KeyError, match="continuations has no column colour"):
        table.read(["colour"])


def test_a_flipped_byte_that_reads_back_silently_is_caught_by_the_pages_checksum(
    table: Table, make_rows: Rows
) -> None:
    rng = random.Random(0)
    tokens = [rng.randrange(2**31) for _ in range(2000)]  # zstd stores these as they are
    part = str_path(table.append([{**row, "token_ids": tokens} for row in make_rows(0, 1)]))
    sound = pq.read_table(part)
    flip(part, offset_of_page(part, "token_ids"), 0x01)
    silent = pq.read_table(part)
    assert silent.num_rows == 1
    assert silent["token_ids"] != sound["token_ids"]
    with pytest.raises(UnreadablePart, match="CRC"):
        read_part(part, CONTINUATIONS, ["token_ids"])


def test_missing_nullable_columns_become_null(tmp_path: Path) -> None:
    table = Table(tmp_path / "spines", SPINES)
    table.append([spine_row()])
    (row,) = table.rows()
    assert row["answer"] is None
    assert row["correct"] is None
    assert row["boxed_position"] is None
    assert row["prompt_ids"] == [1, 2, 3]


def spine_row(**changes: Any) -> dict[str, Any]:
    row = {
        "problem_id": "p1",
        "source": "s",
        "problem": "What?",
        "gold_answer": "1",
        "prompt_ids": [1, 2, 3],
        "spine_ids": np.array([4, 5], dtype=np.int64),
        "n_spine_tokens": np.int64(2),
        "text": "a\x00b\u2028\U0001f600",
        "grade_path": "integer",
        "spine_mode": "greedy",
        "finish_reason": "stop",
        "seed": 2**63 - 1,
    }
    return {**row, **changes}


def test_extreme_values_come_back(tmp_path: Path) -> None:
    table = Table(tmp_path / "spines", SPINES)
    row = spine_row(spine_ids=(), n_spine_tokens=0, correct=np.bool_(True), boxed_position=0)
    table.append([row])
    (found,) = table.rows()
    assert found["spine_ids"] == []
    assert found["seed"] == 2**63 - 1
    assert found["text"] == row["text"]
    assert found["correct"] is True


@pytest.mark.parametrize(
    ("table_name", "changes", "complaint"),
    [
        ("spines", {"colour": 1}, r"unknown columns \['colour'\]"),
        ("spines", {"seed": None}, "column seed is missing"),
        ("spines", {"seed": 1.0}, r"column seed takes int64, not 1.0 \(float\)"),
        ("spines", {"seed": True}, "column seed takes int64, not True"),
        ("spines", {"seed": "1"}, "column seed takes int64, not '1'"),
        ("spines", {"seed": 2**63}, "column seed takes int64, not 9223372036854775808"),
        ("spines", {"n_spine_tokens": 2**31}, "column n_spine_tokens takes int32"),
        ("spines", {"n_spine_tokens": 1.5}, "column n_spine_tokens takes int32, not 1.5"),
        ("spines", {"correct": 1}, "column correct takes bool, not 1"),
        ("spines", {"correct": "True"}, "column correct takes bool"),
        ("spines", {"text": b"bytes"}, "column text takes string, not b'bytes'"),
        ("spines", {"text": "\ud800"}, "column text takes string"),
        ("spines", {"text": 3}, "column text takes string, not 3"),
        ("spines", {"spine_ids": [1, 2.5]}, r"column spine_ids takes list<item: int32>"),
        ("spines", {"spine_ids": [1, None]}, "column spine_ids"),
        ("spines", {"spine_ids": [True]}, "column spine_ids"),
        ("spines", {"spine_ids": [2**31]}, "column spine_ids"),
        ("spines", {"spine_ids": np.array([1.5])}, "column spine_ids"),
        ("spines", {"spine_ids": np.ones((2, 2), dtype=int)}, "column spine_ids"),
        ("spines", {"spine_ids": "12"}, "column spine_ids"),
        ("spines", {"spine_ids": 3}, "column spine_ids"),
        ("dropout", {"mi": float("nan")}, "column mi takes double, not nan"),
        ("dropout", {"mi": np.float32("nan")}, "column mi takes double"),
        ("dropout", {"mi": True}, "column mi takes double, not True"),
        ("dropout", {"mi": "0.5"}, "column mi takes double, not '0.5'"),
        ("dropout", {"mi": 2**60 + 1}, "column mi takes double"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_table_row_and_column(
    tmp_path: Path, table_name: str, changes: dict[str, Any], complaint: str
) -> None:
    table = Table(tmp_path / table_name, TABLES[table_name])
    fitting: dict[str, Any] = {
        "spines": spine_row,
        "dropout": lambda **changed: {
            "candidate_id": "p1@3",
            "problem_id": "p1",
            "h_full": 1,
            "h_mc": np.float32(0.5),
            "mi": 0.1,
            "kappa": 1e12,
            "trace": float("inf"),
            **changed,
        },
    }
    name = table.schema.key[0]
    rows = [fitting[table_name](**{name: "first"}), fitting[table_name](**{name: "bad", **changes})]
    with pytest.raises(
        ValueError, match=rf"^table {table_name}, row 1 \({name}='bad'\): {complaint}"
    ):
        table.append(rows)
    assert table.n_rows() == 0
    assert table.part_paths() == []
    table.append(rows[:1])


def test_reals_in_lists_are_checked_too() -> None:
    candidates = TABLES["candidates"]
    column = next(c for c in candidates.columns if c.name == "child_teacher")
    schema = TableSchema("t", "C", ("problem_id",), (candidates.columns[1], column))
    good = [{"problem_id": "p", "child_teacher": value} for value in ([0.5, 1], np.ones(2))]
    assert to_arrow(good, schema).column(1).to_pylist() == [[0.5, 1.0], [1.0, 1.0]]
    for value in ([0.5, float("nan")], np.array([0.5, np.nan]), [None], ["a"]):
        with pytest.raises(ValueError, match="child_teacher"):
            to_arrow([{"problem_id": "p", "child_teacher": value}], schema)


def test_a_key_twice_is_a_bug_and_writes_nothing(table: Table, make_rows: Rows) -> None:
    with pytest.raises(ValueError, match=r"\('p0@3', 'child:7', 0\) is in the part to be written"):
        table.append([*make_rows(0, 3), *make_rows(0, 1)])
    assert table.n_rows() == 0
    table.append(make_rows(0, 3))
    with pytest.raises(ValueError, match="is in the table already"):
        table.append(make_rows(2, 5))
    again = Table(table.directory, CONTINUATIONS)
    with pytest.raises(ValueError, match="is in the table already"):
        again.append(make_rows(2, 5))
    assert again.n_rows() == table.n_rows() == 3
    assert len(table.part_paths()) == 1


def test_keys_have_python_types_whatever_was_appended(table: Table, make_rows: Rows) -> None:
    (row,) = make_rows(0, 1)
    table.append([{**row, "sample": np.int32(0), "candidate_id": np.str_("p0@3")}])
    assert table.keys() == reader(table).keys() == {("p0@3", "child:7", 0)}
    assert ("p0@3", "child:7", 0) in table
    assert ("p0@3", "child:7", 1) not in table
    with pytest.raises(ValueError, match="already"):
        table.append([row])


def test_keys_are_a_copy(table: Table, make_rows: Rows) -> None:
    table.append(make_rows(0, 4))
    table.keys().clear()
    assert len(table.keys()) == 4


def test_part_names_sort_in_the_order_of_writing_across_processes(
    tmp_path: Path, make_rows: Rows
) -> None:
    written = []
    for start in range(0, 24, 2):  # a new object each time, as a new process would
        table = Table(tmp_path / "continuations", CONTINUATIONS)
        written.append(table.append(make_rows(start, start + 1)))
        written.append(table.append(make_rows(start + 1, start + 2)))
    assert table.part_paths() == sorted(map(str_path, written)) == written
    firsts = [part.column("seed")[0].as_py() for part in table.scan()]
    assert firsts == [2**62 + number for number in range(24)]


def str_path(path: Path | None) -> Path:
    assert path is not None
    return path


def test_part_names_are_never_given_again(table: Table, make_rows: Rows) -> None:
    names = []
    for _ in range(3):
        part = str_path(table.append(make_rows(0, 1)))
        names.append(part.name)
        part.write_bytes(b"torn")
        table = Table(table.directory, CONTINUATIONS)
        assert table.keys() == set()
    table.remove()
    names.append(str_path(table.append(make_rows(0, 1))).name)
    assert len(set(names)) == 4
    numbers = [name.split("-")[1] for name in names]
    assert numbers == ["00000001", "00000002", "00000003", "00000001"]


@pytest.mark.parametrize(
    "damage", ["flipped", "torn", "empty", "other table", "version", "text", "directory"]
)
def test_an_unreadable_part_is_set_aside_once_and_its_rows_are_owed_again(
    table: Table, make_rows: Rows, damage: str
) -> None:
    table.append(make_rows(0, 4))
    bad = str_path(table.append(make_rows(4, 8)))
    table.append(make_rows(8, 12))
    if damage == "flipped":
        flip(bad, offset_of_page(bad, "sample"))
    elif damage == "torn":
        bad.write_bytes(bad.read_bytes()[:-100])
    elif damage == "empty":
        bad.write_bytes(b"")
    elif damage == "other table":
        pq.write_table(pa.table({"candidate_id": ["p1@3"]}), bad)
    elif damage == "version":  # in a table that this version began
        metadata = {"table": "continuations", "version": "3"}
        pq.write_table(pq.read_table(bad).replace_schema_metadata(metadata), bad)
    elif damage == "text":
        bad.rename(bad.with_name("notes.txt"))
        bad = bad.with_name("notes.txt")
        bad.write_text("not a part")
    else:
        bad.unlink()
        bad.mkdir()
        (bad / "x.parquet").write_bytes(b"x")
    told: list[str] = []
    fresh = Table(table.directory, CONTINUATIONS, warn=told.append)
    good = {key(row) for row in [*make_rows(0, 4), *make_rows(8, 12)]}
    assert fresh.keys() == good
    (aside,) = fresh.set_aside
    assert aside.exists()
    assert aside.parent == table.directory
    assert aside.name == f".unreadable-{bad.name}"
    assert told == fresh.warnings
    assert len(told) == 1
    assert "continuations" in told[0]
    assert bad.name in told[0]
    assert len(pd.read_parquet(table.directory)) == 8
    owed = [row for row in make_rows(0, 12) if key(row) not in fresh]
    fresh.append(owed)
    assert fresh.rows() == sorted(make_rows(0, 12), key=key)
    later = Table(table.directory, CONTINUATIONS, warn=told.append)
    assert later.rows() == fresh.rows()
    assert len(told) == 1


def test_damage_outside_the_keys_is_found_by_read_and_by_check(
    table: Table, make_rows: Rows
) -> None:
    table.append(make_rows(0, 4))
    for find in (lambda t: t.read(), lambda t: t.check(), lambda t: list(t.scan())):
        bad = str_path(table.append(make_rows(4, 30)))
        flip(bad, offset_of_page(bad, "token_ids"))
        assert len(table.keys()) == 30  # the keys themselves are sound
        find(table)
        assert len(table.set_aside) == 1
        assert table.keys() == {key(row) for row in make_rows(0, 4)}
        assert table.n_rows() == 4
        table.set_aside.clear()
    assert len(table.warnings) == 3
    table.append(make_rows(4, 30))
    assert table.read().num_rows == 30


def test_any_flipped_byte_is_noticed_or_changes_nothing(table: Table, make_rows: Rows) -> None:
    part = str_path(table.append(make_rows(0, 4)))
    names = CONTINUATIONS.arrow.names
    sound, data, copy = read_part(part, CONTINUATIONS, names), part.read_bytes(), part.parent / "x"
    keys, noticed = list(CONTINUATIONS.key), 0
    for offset in range(0, len(data), 7):
        changed = bytearray(data)
        changed[offset] ^= random.Random(offset).randrange(1, 256)
        copy.write_bytes(changed)
        for columns in (names, keys):
            try:
                assert read_part(copy, CONTINUATIONS, columns).equals(sound.select(columns))
            except (UnreadablePart, SettingsConflict):
                noticed += 1
    assert noticed > len(data) / 14  # of 2 readings of every 7th byte, a quarter


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_torn_part_is_unreadable(table: Table, make_rows: Rows, data: st.DataObject) -> None:
    part = str_path(table.append(make_rows(0, 4)))
    content = part.read_bytes()
    torn = content[: data.draw(st.integers(0, len(content) - 1))]
    part.write_bytes(torn + bytes(data.draw(st.sampled_from([0, len(content) - len(torn)]))))
    with pytest.raises(UnreadablePart):
        read_part(part, CONTINUATIONS, CONTINUATIONS.arrow.names)
    part.unlink()
    table.forget()


def test_a_reader_changes_nothing_on_disk_and_skips_what_it_cannot_read(
    table: Table, make_rows: Rows
) -> None:
    table.append(make_rows(0, 4))
    bad = str_path(table.append(make_rows(4, 8)))
    bad.write_bytes(b"torn")
    (table.directory / ".part-left").write_bytes(b"left over")
    before = everything_below(table.directory)
    told: list[str] = []
    looking = Table(table.directory, CONTINUATIONS, may_write=lambda: False, warn=told.append)
    for _ in range(2):
        assert looking.keys() == {key(row) for row in make_rows(0, 4)}
        assert looking.read().num_rows == looking.n_rows() == 4
        assert looking.exists()
    assert looking.set_aside == [bad]
    assert len(told) == 1
    assert everything_below(table.directory) == before
    for change in (looking.create, looking.remove, lambda: looking.append(make_rows(8, 9))):
        with pytest.raises(RuntimeError, match="without the run's lock"):
            change()
    nothing = Table(table.directory.parent / "other", CONTINUATIONS, may_write=lambda: False)
    assert not nothing.exists()
    assert nothing.rows() == []
    assert not nothing.directory.exists()
    assert everything_below(table.directory) == before


def test_a_reader_sees_what_is_written_meanwhile(table: Table, make_rows: Rows) -> None:
    looking = reader(table)
    assert looking.n_rows() == 0
    for stop in range(1, 5):
        table.append(make_rows(stop - 1, stop))
        assert looking.n_rows() == looking.read().num_rows == len(looking.keys()) == stop
    table.remove()
    assert looking.n_rows() == looking.read().num_rows == 0
    table.append(make_rows(9, 10))
    assert looking.keys() == {key(row) for row in make_rows(9, 10)}


def test_an_error_of_the_disk_is_not_taken_for_damage(
    table: Table, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = str_path(table.append(make_rows(0, 4)))

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    fresh = Table(table.directory, CONTINUATIONS)
    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetFile", fail)
        with pytest.raises(StorageError, match="Input/output"):
            fresh.keys()
    assert part.exists()
    assert fresh.set_aside == []
    assert fresh.n_rows() == 4


def test_after_an_interrupted_append_keys_tell_whether_it_was_written(
    table: Table, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.append(make_rows(0, 4))
    for interrupted_step, written in (("fsync", False), ("replace", True)):
        step = getattr(os, interrupted_step)

        def do_then_interrupt(*arguments: Any, step: Any = step) -> None:
            step(*arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(os, interrupted_step, do_then_interrupt)
            with pytest.raises(KeyboardInterrupt):
                table.append(make_rows(4, 8))
        assert (key(make_rows(4, 5)[0]) in table) == written
        assert table.n_rows() == (8 if written else 4)
    assert sorted(p.name[:5] for p in table.directory.iterdir()) == ["part-"] * 3
    assert table.rows() == sorted(make_rows(0, 8), key=key)


def test_a_full_disk_costs_no_row(
    table: Table, make_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.append(make_rows(0, 4))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fail)
        with pytest.raises(StorageError, match="No space left"):
            table.append(make_rows(4, 8))
    assert table.n_rows() == 4
    table.append(make_rows(4, 8))
    assert table.n_rows() == len(pd.read_parquet(table.directory)) == 8


def test_removal_removes_everything_and_the_table_can_be_begun_again(
    table: Table, make_rows: Rows
) -> None:
    table.remove()  # nothing there yet
    table.append(make_rows(0, 4))
    str_path(table.append(make_rows(4, 8))).write_bytes(b"torn")
    table.check()
    table.remove()
    assert not table.exists()
    assert list(table.directory.parent.iterdir()) == []
    assert table.keys() == set()
    table.append(make_rows(2, 6))
    assert table.rows() == sorted(make_rows(2, 6), key=key)


def test_a_schema_part_that_is_damaged_or_lost_is_made_again(table: Table, make_rows: Rows) -> None:
    table.append(make_rows(0, 4))
    schema_part = table.directory / SCHEMA_PART
    for damage in (lambda: schema_part.write_bytes(b"torn"), schema_part.unlink):
        damage()
        assert reader(table).n_rows() == 4
        assert table.exists()
        fresh = Table(table.directory, CONTINUATIONS)
        fresh.append([])
        assert pq.read_table(schema_part).schema.equals(CONTINUATIONS.arrow)
        assert len(pd.read_parquet(table.directory)) == 4
        assert fresh.set_aside == []


def test_an_empty_directory_is_no_obstacle(table: Table, make_rows: Rows) -> None:
    table.directory.mkdir()
    assert not table.exists()
    table.append(make_rows(0, 4))
    assert len(pd.read_parquet(table.directory)) == 4


def with_columns(*columns: Column, version: int = 1) -> TableSchema:
    return dataclasses.replace(
        CONTINUATIONS, columns=(*CONTINUATIONS.columns, *columns), version=version
    )


def test_a_column_added_later_is_null_in_old_rows_here_and_in_pandas(
    table: Table, make_rows: Rows
) -> None:
    table.append(make_rows(0, 4))
    newer = Table(table.directory, with_columns(Column("extra", REAL, "Added later.", True)))
    assert newer.rows() == [{**row, "extra": None} for row in sorted(make_rows(0, 4), key=key)]
    newer.append([{**row, "extra": 0.5} for row in make_rows(4, 8)])
    assert newer.set_aside == []
    assert newer.read(["extra"]).column(0).to_pylist() == [None] * 4 + [0.5] * 4
    frame = pd.read_parquet(table.directory)
    assert frame["extra"].isna().sum() == 4
    older = Table(table.directory, CONTINUATIONS)
    assert older.rows() == sorted(make_rows(0, 8), key=key)
    assert older.set_aside == []


@pytest.mark.parametrize(
    "schema",
    [with_columns(version=2), with_columns(Column("extra", TOKEN, "Never missing."))],
)
def test_parts_of_another_version_are_a_conflict_and_stay(
    table: Table, make_rows: Rows, schema: TableSchema
) -> None:
    table.append(make_rows(0, 4))
    before = everything_below(table.directory)
    for may_write in (True, False):
        other = Table(table.directory, schema, may_write=lambda may=may_write: may)
        for use in (other.keys, other.read):
            with pytest.raises(SettingsConflict, match="another version"):
                use()
    names = {path: size for path, size in before.items() if SCHEMA_PART not in path}
    after = everything_below(table.directory)
    assert {path: size for path, size in after.items() if SCHEMA_PART not in path} == names


@pytest.mark.parametrize("damaged", ["x", "lo", "\x00"])
def test_a_damaged_name_of_a_nullable_column_is_no_older_part(tmp_path: Path, damaged: str) -> None:
    columns = (Column("id", TOKEN, "Key."), *(Column(n, REAL, n, True) for n in ("lo", "hi")))
    schema = TableSchema("bounds", "G", ("id",), columns)
    part = str_path(Table(tmp_path / "bounds", schema).append([{"id": 1, "lo": 0.1, "hi": 0.2}]))
    fields = [f.with_name(damaged) if f.name == "hi" else f for f in schema.arrow]
    values = pq.read_table(part).columns
    damaged_schema = pa.schema(fields, schema.arrow.metadata)
    pq.write_table(pa.Table.from_arrays(values, schema=damaged_schema), part)
    fresh = Table(tmp_path / "bounds", schema)
    assert fresh.keys() == set()
    assert fresh.set_aside == [part.with_name(f".unreadable-{part.name}")]
    assert "its columns are not the table's" in fresh.warnings[0]


def test_pandas_reads_at_any_moment_while_a_writer_appends(
    table: Table, tmp_path: Path, make_rows: Rows, start_python: Any
) -> None:
    script = """
        import json, sys
        from pathlib import Path
        from branchdiag.store.schemas import TABLES
        from branchdiag.store.table import Table
        rows = json.loads(Path(sys.argv[2]).read_text())
        table = Table(Path(sys.argv[1]), TABLES["continuations"])
        for start in range(0, len(rows), 3):
            table.append(rows[start : start + 3])
    """
    (tmp_path / "rows.json").write_text(json.dumps(make_rows(0, 360)))
    writer = start_python(script, table.directory, tmp_path / "rows.json")
    looking, counts = reader(table), []
    while writer.poll() is None:
        if not table.directory.exists():
            continue
        frame = pd.read_parquet(table.directory)
        assert len(frame) % 3 == 0
        assert not frame.duplicated(list(CONTINUATIONS.key)).any()
        assert frame["seed"].is_unique
        counts.append(len(frame))
        n_rows = looking.n_rows()
        assert len(frame) <= n_rows <= len(looking.keys())
    assert writer.returncode == 0, writer.stderr.read()
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert table.rows() == sorted(make_rows(0, 360), key=key)
    assert looking.set_aside == []
