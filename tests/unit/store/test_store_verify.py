"""Sound tables verify clean; each kind of fault is found, in its table, and nothing else is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from branchdiag.store.fingerprint import derive_seed, tokens_hash
from branchdiag.store.run import RunDirectory
from branchdiag.store.schemas import TABLES, TableSchema
from branchdiag.store.verify import Finding, verify_tables

Rows = dict[str, list[dict[str, Any]]]

ARMS: list[tuple[str, list[int]]] = [
    ("child:7", [7]),
    ("child:8", [8]),
    ("control", []),
    ("spine", [4]),
]


def filled(schema: TableSchema, **values: Any) -> dict[str, Any]:
    """A row with these values and something fitting in every other column."""
    fillers = {"string": "x", "double": 0.5, "int32": 0, "int64": 0, "bool": True}
    return {
        column.name: values.get(column.name, fillers.get(str(column.type), []))
        for column in schema.columns
    }


def sound_rows() -> Rows:
    """Two problems of three positions, a candidate at position 1 of each, two samples an arm."""
    rows: Rows = {name: [] for name in TABLES}

    def add(table: str, **values: Any) -> None:
        rows[table].append(filled(TABLES[table], **values))

    for problem_id in ("p1", "p2"):
        prompt, spine = [1, 2, len(problem_id)], [3, 4, 5]
        add("spines", problem_id=problem_id, prompt_ids=prompt, spine_ids=spine, n_spine_tokens=3)
        for position, token_id in enumerate(spine):
            add("positions", problem_id=problem_id, position=position, token_id=token_id)
        candidate: dict[str, Any] = {
            "candidate_id": f"{problem_id}@1",
            "problem_id": problem_id,
            "position": 1,
        }
        add(
            "candidates",
            **candidate,
            spine_token_id=4,
            child_ids=[7, 8],
            child_texts=["a", "b"],
            child_teacher=[0.5, 0.4],
            child_student=[0.1, 0.2],
            n_children=2,
        )
        add("dropout", **candidate)
        add("labels", **candidate)
        for arm, forced in ARMS:
            ids = [*prompt, *spine[:1], *forced]
            for sample in range(2):
                key = {**candidate, "arm": arm, "sample": sample}
                add(
                    "continuations",
                    **key,
                    seed=derive_seed(0, candidate["candidate_id"], arm, sample),
                    prompt_hash=tokens_hash(ids),
                    n_prompt_tokens=len(ids),
                    token_ids=[9] * (sample + 1),
                    n_tokens=sample + 1,
                )
                add("grades", **key)
    return rows


def make_run(path: Path, rows: Rows) -> RunDirectory:
    """A run with these rows, in two parts a table, whatever is wrong with them."""
    run = RunDirectory.create(path)
    with run.lock():
        for name, of_table in rows.items():
            if not of_table:
                continue
            table = run.table(name)
            table.create()
            for number, start in enumerate(range(0, len(of_table), 5), start=1):
                # Past `append`, which would refuse some of it.
                part = pa.Table.from_pylist(of_table[start : start + 5], schema=table.schema.arrow)
                target = table.directory / f"part-{number:08d}-0123abcd.parquet"
                pq.write_table(part, target, write_page_checksum=True)
    return run


def findings_of(path: Path, rows: Rows) -> list[Finding]:
    return verify_tables(make_run(path, rows))


def test_sound_tables_have_no_findings(tmp_path: Path) -> None:
    assert findings_of(tmp_path / "run", sound_rows()) == []


def test_an_empty_run_and_one_in_the_middle_of_a_phase_have_none(tmp_path: Path) -> None:
    assert verify_tables(RunDirectory.create(tmp_path / "empty")) == []
    rows = sound_rows()
    for name in ("labels", "grades", "dropout"):
        rows[name] = []
    del rows["continuations"][3:]
    assert findings_of(tmp_path / "run", rows) == []


def change(table: str, number: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table][number].update(values)


def repeat(table: str, number: int) -> Callable[[Rows], None]:
    return lambda rows: rows[table].append(copy.deepcopy(rows[table][number]))


def drop(table: str, number: int) -> Callable[[Rows], None]:
    return lambda rows: rows[table].__delitem__(number)


ALL_FAULTS: list[tuple[Callable[[Rows], None], set[tuple[str, str]], str]] = [
    (repeat("positions", 0), {("positions", "key")}, "p1, position=0"),
    (repeat("continuations", 3), {("continuations", "key"), ("continuations", "seed")}, "p1@1"),
    (change("labels", 0, label="x", position=0), {("labels", "reference")}, "p1@1"),
    (drop("dropout", 0), set(), ""),
    (
        drop("spines", 1),
        {("positions", "reference")},
        "3 rows refer to nothing in spines, for example problem_id=p2",
    ),
    (
        drop("candidates", 0),
        {(name, "reference") for name in ("dropout", "continuations", "labels")},
        "candidate_id=p1@1, problem_id=p1",
    ),
    (drop("positions", 1), {("candidates", "reference")}, "problem_id=p1, position=1"),
    (drop("continuations", 0), {("grades", "reference")}, "arm=child:7, sample=0"),
    (change("dropout", 0, problem_id="p2"), {("dropout", "reference")}, "p1@1"),
    (change("dropout", 1, mi=float("nan")), {("dropout", "not a number")}, "mi holds NaN"),
    (
        change("candidates", 1, child_teacher=[0.5, float("nan")]),
        {("candidates", "not a number")},
        "child_teacher holds NaN",
    ),
    (
        change("candidates", 1, child_texts=["a", None]),
        {("candidates", "missing")},
        "child_texts holds a missing element",
    ),
    (change("spines", 0, n_spine_tokens=4), {("spines", "length")}, "spine_ids"),
    (change("continuations", 5, n_tokens=7), {("continuations", "length")}, "token_ids"),
    (change("candidates", 0, n_children=3), {("candidates", "length")}, "child_ids"),
    (
        change("candidates", 0, candidate_id="p1@01"),
        {("candidates", "name")}
        | {(name, "reference") for name in ("dropout", "continuations", "labels")},
        "candidate_id is not problem_id@position",
    ),
    (change("positions", 4, token_id=99), {("positions", "token")}, "p2@1"),
    (change("positions", 5, position=3), {("positions", "token")}, "p2@3"),
    (
        change("candidates", 1, spine_token_id=99),
        {("candidates", "token"), ("continuations", "prompt")},  # the arm `spine` forces it
        "p2@1",
    ),
    (change("continuations", 2, prompt_hash="0" * 16), {("continuations", "prompt")}, "child:8 0"),
    (change("continuations", 4, n_prompt_tokens=5), {("continuations", "prompt")}, "control 0"),
    (change("spines", 0, prompt_ids=[1, 2, 9]), {("continuations", "prompt")}, "8 rows whose"),
    (
        change("candidates", 0, child_ids=[7, 9]),
        {("continuations", "prompt")},
        "2 rows of an arm that their candidate does not have",
    ),
    (
        change("continuations", 1, arm="other"),
        {("continuations", "prompt"), ("grades", "reference")},
        "p1@1 other 1",
    ),
    (change("continuations", 1, seed=derive_seed(0, "p1@1", "child:7", 0)),
     {("continuations", "seed")}, "1 rows have another row's seed"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "expected", "text"), ALL_FAULTS)
def test_each_fault_is_found_where_it_is_and_nowhere_else(
    tmp_path: Path,
    fault: Callable[[Rows], None],
    expected: set[tuple[str, str]],
    text: str,
) -> None:
    rows = sound_rows()
    fault(rows)
    findings = findings_of(tmp_path / "run", rows)
    assert {(finding.table, finding.check) for finding in findings} == expected
    assert text in "\n".join(map(str, findings))


@pytest.mark.parametrize(
    "damage", ["flipped", "torn", "foreign", "other version", "missing", "directory"]
)
def test_a_damaged_part_is_reported_by_name_and_stays(tmp_path: Path, damage: str) -> None:
    run = make_run(tmp_path / "run", {**sound_rows(), "grades": []})
    part = run.table("labels").part_paths()[0]
    if damage == "flipped":
        data = bytearray(part.read_bytes())
        data[100] ^= 0xFF
        part.write_bytes(data)
    elif damage == "torn":
        part.write_bytes(part.read_bytes()[:200])
    elif damage == "foreign":
        pq.write_table(pa.table({"x": [1]}), part)
    elif damage == "other version":
        metadata = {"table": "labels", "version": "0"}
        pq.write_table(pq.read_table(part).replace_schema_metadata(metadata), part)
    elif damage == "missing":  # Parquet has no null in a column that was declared without
        rows = pq.read_table(part)
        fields = [field.with_nullable(True) for field in rows.schema]
        schema = pa.schema(fields, rows.schema.metadata)
        changed = [{**row, "label": None, "arms": None} for row in rows.to_pylist()]
        pq.write_table(pa.Table.from_pylist(changed, schema=schema), part)
    else:
        part.unlink()
        part.mkdir()
    findings = verify_tables(run)
    assert [(f.table, f.check, f.where) for f in findings] == [("labels", "part", part.name)]
    assert part.exists()
    with run.lock():  # even the holder of the lock only looks
        assert verify_tables(run) == findings
    assert part.exists()


def test_a_table_of_many_parts_is_checked_across_them(tmp_path: Path) -> None:
    rows = sound_rows()
    rows["positions"] *= 2  # every key is in two different parts
    findings = findings_of(tmp_path / "run", rows)
    assert [(f.table, f.check) for f in findings] == [("positions", "key")]
    assert "6 rows" in findings[0].message
