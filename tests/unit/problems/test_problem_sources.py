"""The grammar of problem sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchdiag.errors import UsageError
from branchdiag.problems.sources import KNOWN_SETS, labels, parse_source


def test_the_paper_s_sources_parse() -> None:
    source = parse_source("math500:24")
    assert (source.kind, source.name, source.n, source.label) == ("known", "math500", 24, "math500")
    assert [parse_source(name).kind for name in KNOWN_SETS] == ["known"] * 4


@pytest.mark.parametrize(
    ("text", "name", "n", "label"),
    [
        ("bundled", "diagnose", None, "bundled"),
        ("bundled:diagnose", "diagnose", None, "bundled"),
        ("bundled:20", "diagnose", 20, "bundled"),
        ("bundled:evaluate", "evaluate", None, "bundled:evaluate"),
        ("bundled:distill:7", "distill", 7, "bundled:distill"),
    ],
)
def test_packaged_sets(text: str, name: str, n: int | None, label: str) -> None:
    source = parse_source(text)
    assert (source.kind, source.name, source.n, source.label) == ("bundled", name, n, label)


def test_a_known_set_from_a_directory_or_at_another_revision() -> None:
    assert parse_source("math500@./copy:5").place == Path("copy")
    assert parse_source("math500@/data/MATH-500").place == Path("/data/MATH-500")
    assert parse_source("aime2024@refs/pr/1").revision == "refs/pr/1"
    assert parse_source("hmmt2025@../h.parquet").place == Path("../h.parquet")


def test_hub_sets_with_configuration_revision_split_and_count() -> None:
    source = parse_source("hub:openai/gsm8k/main@abc#test:3,problem=question,id=")
    assert source.kind == "hub"
    assert (source.name, source.config, source.revision, source.part) == (
        "openai/gsm8k",
        "main",
        "abc",
        "test",
    )
    assert source.n == 3
    assert source.columns == {"problem": "question", "id": ""}
    assert parse_source("openai/gsm8k").kind == "hub"
    assert parse_source("o/n#data/x.jsonl").part == "data/x.jsonl"


def test_files_with_mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = parse_source("my set, new.jsonl:10 , problem = question,answer=final")
    assert (source.kind, source.name, source.n) == ("path", "my set, new.jsonl", 10)
    assert source.columns == {"problem": "question", "answer": "final"}
    assert source.label == "my set, new"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_source("owner/name").kind == "path"
    assert parse_source("owner/name#test").part == "test"
    assert parse_source("hub:owner/name").kind == "hub"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("math50", "did you mean math500?"),
        ("", "empty"),
        (":3", "no such problems"),
        ("bundled:train", "no packaged set"),
        ("math500:0", "count of 0"),
        ("math500@", "nothing follows the @"),
        ("hmmt2025@main", "local file"),
        ("a.jsonl,question=q", "no field"),
        ("a.jsonl,anwser=q", "did you mean answer?"),
        ("a.jsonl,answer=", "mapped to no column"),
        ("a.jsonl,answer=x,answer=y", "mapped twice"),
        ("hub:gsm8k", "OWNER/NAME"),
        ("hub:a/b#", "OWNER/NAME"),
    ],
)
def test_what_cannot_be_parsed_says_why(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_source(text)
    assert said in str(raised.value)


def test_labels_are_short_unless_two_would_be_equal() -> None:
    sources = [parse_source(text) for text in ("a/x.jsonl:3", "b/x.jsonl,id=", "math500:24")]
    assert labels(sources) == ["a/x.jsonl", "b/x.jsonl", "math500"]


@pytest.mark.parametrize(
    "pair", [("math500:2", "math500:3"), ("bundled", "bundled:diagnose"), ("./a.jsonl", "a.jsonl")]
)
def test_the_same_data_twice_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="named twice"):
        labels([parse_source(text) for text in pair])
