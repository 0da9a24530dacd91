"""Rows of problem files: what is good, and everything that is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchdiag.errors import UsageError
from branchdiag.problems import Problem, load_problems

GOOD = {"id": "a", "problem": "1 + 1 = ?", "answer": "2", "solution": "It is \\boxed{2}."}


def write_jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refused(source: str) -> str:
    with pytest.raises(UsageError) as raised:
        load_problems([source])
    return str(raised.value)


def test_a_good_row(tmp_path: Path) -> None:
    loaded = load_problems([write_jsonl(tmp_path / "set.jsonl", [GOOD])])
    assert loaded.problems == (Problem("set/a", "set", "1 + 1 = ?", "2", "It is \\boxed{2}."),)


def test_every_fault_of_every_source_is_listed_at_once(tmp_path: Path) -> None:
    first = tmp_path / "first.jsonl"
    lines = [
        json.dumps(GOOD).encode(),
        b'{"id": "b", "problem": "x"',
        b"[1]",
        b'{"id": "c", "problem": "\xff", "answer": 1}',
        b"",
        json.dumps({"id": "a", "problem": " ", "answer": ["2"]}).encode(),
        json.dumps({"problem": 3, "answer": None}).encode(),
        json.dumps({"id": True, "problem": "x", "answer": True}).encode(),
        b'{"id": "d", "problem": "\\ud800", "answer": Infinity}',
    ]
    first.write_bytes(b"\n".join(lines))
    second = write_jsonl(tmp_path / "second.jsonl", [{**GOOD, "answer": " ", "solution": None}])
    with pytest.raises(UsageError) as raised:
        load_problems([str(first), second])
    text = str(raised.value)
    for expected in (
        f"{first}, row 2: not valid JSON",
        f"{first}, row 3: not a JSON object but a list",
        f"{first}, row 4: not UTF-8",
        f"{first}, row 6, id: 'a' is already the id of row 1",
        f"{first}, row 6, problem: empty",
        f"{first}, row 6, answer: must be text or a number, not a list",
        f"{first}, row 7, id: missing",
        f"{first}, row 7, problem: must be text, not a number",
        f"{first}, row 7, answer: missing",
        f"{first}, row 8, id: must be text or a number, not a truth value",
        f"{first}, row 8, answer: must be text or a number, not a truth value",
        f"{first}, row 9, problem: half of a surrogate pair",
        f"{first}, row 9, answer: no finite number",
        f"{second}, row 1, answer: empty",
    ):
        assert expected in text
    assert text.count(", row ") == 14
    assert "row 1," not in text.replace(f"{second}, row 1,", "")


def test_only_twenty_faults_are_printed_and_the_rest_counted(tmp_path: Path) -> None:
    rows = [{"problem": "x", "answer": None} for _ in range(33)]
    text = refused(write_jsonl(tmp_path / "x.jsonl", rows))
    assert text.count("answer: missing") == 20
    assert "and 13 more" in text


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.parquet"])
def test_an_empty_file_holds_no_problems(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"problem": pa.array([], pa.string())}), path)
    else:
        path.write_text("\n" if name.endswith("jsonl") else "", encoding="utf-8")
    assert f"{path}: holds no problems" in refused(str(path))


def test_a_missing_column_is_one_fault_that_names_the_columns(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"question": "q", "final": "1"}] * 5)
    text = refused(path)
    assert text.count("the columns are question, final") == 2
    assert f"say which one it is: {path},problem=COLUMN" in text
    assert "no column 'nope'" in refused(f"{path},problem=question,answer=nope")
    assert len(load_problems([f"{path},problem=question,answer=final"]).problems) == 5


def test_mapped_columns_are_named_in_faults(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [{"q": "", "a": "1"}])
    assert "row 1, problem (column q): empty" in refused(f"{path},problem=q,answer=a")


def test_files_that_are_not_there_or_not_what_they_are_called(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "none.jsonl"))
    (tmp_path / "x.parquet").write_text("no", encoding="utf-8")
    assert "not a readable Parquet file" in refused(str(tmp_path / "x.parquet"))
    (tmp_path / "x.json").write_text(json.dumps(GOOD), encoding="utf-8")
    assert "not a JSON array of objects but an object" in refused(str(tmp_path / "x.json"))
    (tmp_path / "x.csv").write_text("a,b", encoding="utf-8")
    assert "not a JSONL, JSON or Parquet file" in refused(str(tmp_path / "x.csv"))
    (tmp_path / "deep.jsonl").write_text("[" * 100_000, encoding="utf-8")
    assert "row 1" in refused(str(tmp_path / "deep.jsonl"))


def test_numbers_are_rendered_exactly_and_text_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    answers = ["42", '"042"', "42.0", "-7", "0.1", "123456789012345678901234567890", '" \\\\pi "']
    path.write_text(
        "".join(f'{{"problem": "p", "answer": {answer}}}\n' for answer in answers), encoding="utf-8"
    )
    loaded = load_problems([str(path)])
    assert [problem.answer for problem in loaded.problems] == [
        "42",
        "042",
        "42",
        "-7",
        "0.1",
        "123456789012345678901234567890",
        " \\pi ",
    ]
    assert [problem.problem_id for problem in loaded.problems][:2] == ["x/1", "x/2"]


def test_parquet_columns_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    integers = pa.table({"id": [7, 8], "problem": ["p", "q"], "answer": pa.array([42, None])})
    pq.write_table(integers, path)
    assert f"{path}, row 2, answer: missing" in refused(str(path))
    floats = pa.table({"problem": ["p", "q"], "answer": [42.0, float("nan")]})
    pq.write_table(floats, path)
    assert f"{path}, row 2, answer: missing" in refused(str(path))
    decimals = pa.table({"problem": ["p", "q"], "answer": [Decimal("42.00"), Decimal("0.50")]})
    pq.write_table(decimals, path)
    assert [p.answer for p in load_problems([str(path)]).problems] == ["42", "0.5"]
    structs = pa.table({"problem": ["p"], "answer": [{"value": 1}]})
    pq.write_table(structs, path)
    assert "row 1, answer: must be text or a number, not an object" in refused(str(path))
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"problem": bad, "answer": ["1"]}), path)
    assert "row 1, problem: not UTF-8" in refused(str(path))


def test_an_answer_is_taken_from_the_last_complete_box_of_the_solution(tmp_path: Path) -> None:
    rows = [
        {"problem": "p", "solution": "\\boxed{1}, no: \\boxed{\\frac{1}{2}} and \\boxed{3"},
        {"problem": "q", "answer": "", "solution": "\\boxed{8}"},
        {"problem": "r", "answer": 9, "solution": "\\boxed{8}"},
    ]
    loaded = load_problems([write_jsonl(tmp_path / "x.jsonl", rows)])
    assert [problem.answer for problem in loaded.problems] == ["\\frac{1}{2}", "8", "9"]
    assert loaded.provenance[0]["n_answers_from_solution"] == 2
    path = write_jsonl(tmp_path / "y.jsonl", [{"problem": "p", "solution": "it is 8"}])
    assert "row 1, answer: missing, and the solution has no complete \\boxed{}" in refused(path)


def test_row_numbers_can_be_the_ids(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [GOOD, GOOD])
    assert "already the id of row 1" in refused(path)
    assert [p.problem_id for p in load_problems([path + ",id="]).problems] == ["x/1", "x/2"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n")
    assert load_problems([str(path)]).problems[0].answer == "2"


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    first = write_jsonl(tmp_path / "a.jsonl", [GOOD])
    second = write_jsonl(tmp_path / "copy" / "a.jsonl", [GOOD])
    loaded = load_problems([first, second])
    assert [p.problem_id for p in loaded.problems] == [f"{first}/a", f"{second}/a"]


text = st.text(min_size=1).filter(
    lambda value: value.strip() and value.encode("utf-8", "replace").decode() == value
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(text, st.one_of(text, st.integers()), st.one_of(st.none(), text)), min_size=1
    )
)
def test_any_text_survives_jsonl_and_parquet(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str | int, str | None]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    records = [{"problem": p, "answer": a, "solution": s} for p, a, s in rows]
    wanted = [(p, str(a), s) for p, a, s in rows]
    escaped = write_jsonl(folder / "a.jsonl", records)
    plain = folder / "b.jsonl"
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    plain.write_bytes("".join(lines).encode("utf-8"))
    columns = {name: [record[name] for record in records] for name in ("problem", "solution")}
    answers = [str(record["answer"]) for record in records]
    table = pa.table(
        {
            "problem": pa.array(columns["problem"], pa.string()),
            "solution": pa.array(columns["solution"], pa.large_string()),
            "answer": pa.array(answers).dictionary_encode(),
        }
    )
    pq.write_table(table, folder / "c.parquet")
    for path in (escaped, str(plain), str(folder / "c.parquet")):
        got = [(p.problem, p.answer, p.solution) for p in load_problems([path]).problems]
        assert got == wanted
