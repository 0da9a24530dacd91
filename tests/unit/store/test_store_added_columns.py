"""Columns that are added to a table whose rows are there already."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from branchdiag.store.schemas import REAL, STRING, Column, TableSchema
from branchdiag.store.table import Table

OLD = TableSchema("wide", "S", ("name",), (Column("name", STRING, "Key."), Column("a", REAL, "A.")))
NEW = dataclasses.replace(OLD, columns=(*OLD.columns, Column("b", REAL, "B.", nullable=True)))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    table = Table(tmp_path / "wide", OLD)
    table.append([{"name": "x", "a": 1.0}, {"name": "y", "a": 2.0}])
    table.append([{"name": "z", "a": 3.0}])
    return tmp_path / "wide"


def test_parts_name_what_they_lack_until_each_is_replaced(older: Path) -> None:
    table = Table(older, NEW)
    table.create()
    first, second = table.part_paths()
    assert table.lacking() == {first: ["b"], second: ["b"]}
    rows = table.part_rows(first)
    assert rows == [{"name": "x", "a": 1.0, "b": None}, {"name": "y", "a": 2.0, "b": None}]
    table.replace_part(first, [{**row, "b": row["a"] * 10} for row in rows])
    assert table.lacking() == {second: ["b"]}
    assert [row["b"] for row in table.rows()] == [10.0, 20.0, None]
    assert list(pd.read_parquet(older)["b"].dropna()) == [10.0, 20.0]  # parts of both kinds
    table.replace_part(second, [{"name": "z", "a": 3.0, "b": None}])
    assert table.lacking() == {}
    assert table.keys() == {("x",), ("y",), ("z",)} and table.n_rows() == 3


def test_other_rows_are_refused_and_nothing_is_written(older: Path) -> None:
    table = Table(older, NEW)
    first, _ = table.part_paths()
    before = first.read_bytes()
    for rows in ([{"name": "x", "a": 1.0}], [{"name": n, "a": 1.0} for n in "yx"], []):
        with pytest.raises(ValueError, match="not those of"):
            table.replace_part(first, rows)
    reader = Table(older, NEW, may_write=lambda: False)
    with pytest.raises(RuntimeError):
        reader.replace_part(first, reader.part_rows(first))
    assert first.read_bytes() == before
    assert reader.lacking().keys() == set(reader.part_paths())


def test_a_damaged_part_lacks_nothing_that_could_be_added(older: Path) -> None:
    first, second = Table(older, NEW).part_paths()
    first.write_bytes(b"PAR1 torn")
    assert Table(older, NEW).lacking() == {second: ["b"]}
