"""The named sets and hub data sets: local copies, the hub's cache, no hub at all.

The files are written here in the hub's exact layout and columns, with made-up problems.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.problems import data_identity, load_problems, recorded_revisions
from branchdiag.problems.sources import KNOWN_SETS

ANSWERS = ["204", "025", "7", "073"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_math500(root: Path, n: int = 500) -> Path:
    """HuggingFaceH4/MATH-500: test.jsonl, one object a line."""
    rows = [
        {
            "problem": f"What is ${index}^2$?",
            "solution": f"It is $\\boxed{{{index**2}}}$.",
            "answer": str(index**2),
            "subject": "Algebra",
            "level": 1 + index % 5,
            "unique_id": f"test/algebra/{index}.json",
        }
        for index in range(n)
    ]
    root.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (root / "test.jsonl").write_text("".join(lines), encoding="utf-8")
    return root


def write_aime2024(root: Path) -> Path:
    """HuggingFaceH4/aime_2024: id is an integer, every other column text."""
    n = len(ANSWERS)
    table = pa.table(
        {
            "id": pa.array(range(60, 60 + n), pa.int64()),
            "problem": [f"Find ${index}$." for index in range(n)],
            "solution": [f"\\boxed{{{answer}}}" for answer in ANSWERS],
            "answer": ANSWERS,
            "url": ["https://artofproblemsolving.com"] * n,
            "year": ["2024"] * n,
        }
    )
    return write_parquet(table, root, KNOWN_SETS["aime2024"].file)


def write_aime2025(root: Path) -> Path:
    """yentinglin/aime_2025: id and year are integers, the answer text."""
    n = len(ANSWERS)
    table = pa.table(
        {
            "id": pa.array(range(n), pa.int64()),
            "problem": [f"Find ${index}$ again." for index in range(n)],
            "answer": ANSWERS,
            "solution": [""] * n,
            "url": [""] * n,
            "year": pa.array([2025] * n, pa.int64()),
        }
    )
    return write_parquet(table, root, KNOWN_SETS["aime2025"].file)


def write_hmmt2025(root: Path) -> Path:
    """MathArena/hmmt_feb_2025."""
    table = pa.table(
        {
            "problem_idx": pa.array(range(1, 3), pa.int64()),
            "problem": ["Compute the sum.", "Compute the product."],
            "answer": ["103", "\\frac{1}{576}"],
            "problem_type": [["Number Theory"], ["Algebra", "Geometry"]],
        }
    )
    return write_parquet(table, root, KNOWN_SETS["hmmt2025"].file)


def write_parquet(table: pa.Table, root: Path, name: str) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / name)
    return root


WRITERS = {
    "math500": write_math500,
    "aime2024": write_aime2024,
    "aime2025": write_aime2025,
    "hmmt2025": write_hmmt2025,
}


def snapshot(cache: Path, repository: str, commit: str, branch: str | None = None) -> Path:
    """The folder of a snapshot in a hub cache."""
    folder = cache / ("datasets--" + repository.replace("/", "--"))
    if branch:
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / branch).write_text(commit, encoding="utf-8")
    root = folder / "snapshots" / commit
    root.mkdir(parents=True)
    return root


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_named_set_from_a_local_copy(no_hub: Path, tmp_path: Path, name: str) -> None:
    root = WRITERS[name](tmp_path / "copy")
    loaded = load_problems([f"{name}@{root}"])
    record = loaded.provenance[0]
    assert loaded.problems[0].source == name
    assert record["kind"] == "directory"
    assert record["repository"] == KNOWN_SETS[name].repository
    assert (
        record["files"][0]["sha256"]
        == hashlib.sha256((root / KNOWN_SETS[name].file).read_bytes()).hexdigest()
    )
    assert record["n"] == record["n_rows"] == len(loaded.problems)


@pytest.mark.parametrize("name", ["math500", "aime2024", "aime2025"])
def test_a_named_set_from_the_hub_s_cache(no_hub: Path, tmp_path: Path, name: str) -> None:
    known = KNOWN_SETS[name]
    WRITERS[name](snapshot(no_hub, known.repository, known.revision))
    cached = load_problems([name])
    assert cached.provenance[0]["revision"] == known.revision
    assert cached.provenance[0]["revision_from"] == "branchdiag"
    # The repository's folder in a cache is a local copy too, and the problems are the same.
    folder = no_hub / ("datasets--" + known.repository.replace("/", "--"))
    copied = load_problems([f"{name}@{folder}"])
    assert copied.provenance[0]["revision"] == known.revision
    assert data_identity(copied) == data_identity(cached)


def test_the_ids_and_answers_of_the_named_sets(no_hub: Path, tmp_path: Path) -> None:
    sources = [f"{name}@{WRITERS[name](tmp_path / name)}" for name in WRITERS]
    loaded = load_problems(sources)
    by_id = {problem.problem_id: problem for problem in loaded.problems}
    assert len(by_id) == 500 + 4 + 4 + 2
    assert by_id["math500/test/algebra/12.json"].answer == "144"
    assert by_id["aime2024/61"].answer == "025"
    assert by_id["aime2025/3"].answer == "073"
    assert by_id["aime2025/3"].solution is None
    assert by_id["hmmt2025/2"].answer == "\\frac{1}{576}"


def test_a_checksum_or_size_other_than_published_is_reported_not_enforced(
    no_hub: Path, tmp_path: Path
) -> None:
    path = write_hmmt2025(tmp_path) / KNOWN_SETS["hmmt2025"].file
    loaded = load_problems([f"hmmt2025@{path}"])
    notes = " ".join(loaded.provenance[0]["notes"])
    assert KNOWN_SETS["hmmt2025"].sha256 is not None
    assert KNOWN_SETS["hmmt2025"].sha256 in notes
    assert "2 rows here, 30 where published" in notes


def test_hmmt_is_read_from_its_variable(
    no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingRequirement) as raised:
        load_problems(["hmmt2025"])
    assert "HMMT25_PARQUET_PATH" in str(raised.value)
    assert "hmmt2025@./FILE.parquet" in str(raised.value)
    path = write_hmmt2025(tmp_path) / KNOWN_SETS["hmmt2025"].file
    monkeypatch.setenv("HMMT25_PARQUET_PATH", str(path))
    assert len(load_problems(["hmmt2025"]).problems) == 2


def test_a_missing_hub_is_one_error_that_says_what_to_pass_instead(no_hub: Path) -> None:
    with pytest.raises(MissingRequirement) as raised:
        load_problems(["math500:24", "aime2024", "aime2025", "hmmt2025", "openai/gsm8k/main#test"])
    text = str(raised.value)
    assert "math500:24, aime2024, aime2025, hmmt2025, openai/gsm8k/main#test" in text
    assert "HF_HUB_OFFLINE is set" in text
    for name, known in KNOWN_SETS.items():
        folder = known.repository.split("/")[1]
        assert (
            f"hf download {known.repository} {known.file} --repo-type dataset "
            f"--revision {known.revision} --local-dir {folder}"
        ) in text
        assert f"--problems {name}@./{folder}" in text
    assert "--problems ./gsm8k/main#test" in text
    assert "--problems FILE.jsonl" in text
    assert raised.value.exit_status == 5


def test_an_endpoint_without_an_address_is_told_at_once(
    no_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    with pytest.raises(MissingRequirement, match=r"hub\.invalid"):
        load_problems(["math500:24", "openai/gsm8k/main#test"])


def test_a_count_chooses_by_id_and_seed_alone(no_hub: Path, tmp_path: Path) -> None:
    root = write_math500(tmp_path / "a")
    chosen = load_problems([f"math500@{root}:24"], seed=0)
    ids = [problem.problem_id for problem in chosen.problems]
    record = chosen.provenance[0]
    assert record["selected_ids"] == ids
    assert "seed 0" in record["selection_rule"]
    assert (record["n_rows"], record["n"]) == (500, 24)
    everything = [p.problem_id for p in load_problems([f"math500@{root}"]).problems]
    assert ids == [name for name in everything if name in set(ids)]  # in the file's order

    def rank(name: str) -> str:
        return hashlib.sha256(f"0|math500|{name.removeprefix('math500/')}".encode()).hexdigest()

    assert set(ids) == set(sorted(everything, key=rank)[:24])
    more = {p.problem_id for p in load_problems([f"math500@{root}:30"]).problems}
    assert set(ids) < more
    other = [p.problem_id for p in load_problems([f"math500@{root}:24"], seed=1).problems]
    assert other != ids
    lines = (root / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (root / "test.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    turned = load_problems([f"math500@{root}:24"])
    assert {p.problem_id for p in turned.problems} == set(ids)
    with pytest.raises(UsageError, match="501 problems were asked for and there are 500"):
        load_problems([f"math500@{root}:501"])


def test_a_limit_keeps_the_first_of_all(no_hub: Path, tmp_path: Path) -> None:
    sources = [
        f"math500@{write_math500(tmp_path / 'm')}:3",
        f"aime2024@{write_aime2024(tmp_path / 'a')}",
    ]
    loaded = load_problems(sources, limit=5)
    assert [problem.source for problem in loaded.problems] == ["math500"] * 3 + ["aime2024"] * 2
    assert [record["n"] for record in loaded.provenance] == [3, 2]
    assert len(load_problems(sources, limit=100).problems) == 7
    with pytest.raises(UsageError, match="limit of 0"):
        load_problems(sources, limit=0)
    with pytest.raises(UsageError, match="no problems were named"):
        load_problems([])


def test_identity_is_the_content_in_order(no_hub: Path, tmp_path: Path) -> None:
    root = write_aime2024(tmp_path / "a")
    whole = load_problems([f"aime2024@{root}"])
    again = load_problems([f"aime2024@{root}/{KNOWN_SETS['aime2024'].file}"])
    assert data_identity(whole) == data_identity(again)
    assert data_identity(load_problems([f"aime2024@{root}"], limit=3)) != data_identity(whole)
    json.dumps(whole.provenance)


def test_the_revision_that_a_download_noted_is_recorded(no_hub: Path, tmp_path: Path) -> None:
    root = write_math500(tmp_path / "copy", n=3)
    note = root / ".cache" / "huggingface" / "download" / "test.jsonl.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{COMMIT}\netag\n0.0\n", encoding="utf-8")
    record = load_problems([f"math500@{root}"]).provenance[0]
    assert (record["revision"], record["revision_from"]) == (COMMIT, "download")


def test_a_cached_hub_set_needs_no_hub_once_its_revision_is_recorded(no_hub: Path) -> None:
    root = snapshot(no_hub, "owner/name", COMMIT, branch="main")
    shards = [
        pa.table({"question": [f"{shard}.{row}" for row in range(2)], "answer": [1, 2]})
        for shard in range(2)
    ]
    for index, table in enumerate(shards):
        write_parquet(table, root, f"main/test-{index:05d}-of-00002.parquet")
    source = "owner/name/main#test,problem=question"
    first = load_problems([source])  # offline: from what the cache's main is
    assert first.provenance[0]["revision"] == COMMIT
    assert first.provenance[0]["revision_from"] == "cache"
    assert [p.problem_id.removeprefix("owner/name/") for p in first.problems] == [
        "1.1",
        "1.2",
        "2.1",
        "2.2",
    ]
    recorded = recorded_revisions(first.provenance)
    assert recorded == {"owner/name": COMMIT}
    again = load_problems([source], recorded_revisions=recorded)
    assert again.provenance[0]["revision_from"] == "run"
    assert data_identity(again) == data_identity(first)
    (root / "main" / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(UsageError, match="1 of 2 shards"):
        load_problems([source], recorded_revisions=recorded)


def test_two_sources_may_not_share_a_problem_id(no_hub: Path, tmp_path: Path) -> None:
    write_aime2025(snapshot(no_hub, "a/b", COMMIT, branch="main"))
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "b/2", "problem": "p", "answer": "1"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="a/b/2 is also in a"):
        load_problems([str(path), "a/b"])


def test_several_snapshots_need_a_choice(no_hub: Path) -> None:
    known = KNOWN_SETS["math500"]
    for commit in (COMMIT, "f" * 40):
        write_math500(snapshot(no_hub, known.repository, commit), n=3)
    folder = no_hub / "datasets--HuggingFaceH4--MATH-500"
    with pytest.raises(UsageError, match="2 snapshots"):
        load_problems([f"math500@{folder}"])
    assert len(load_problems([f"math500@{folder}/snapshots/{COMMIT}"]).problems) == 3
    write_math500(snapshot(no_hub, known.repository, known.revision), n=4)
    assert len(load_problems([f"math500@{folder}"]).problems) == 4


def test_the_packaged_sets_need_no_hub_and_are_disjoint(no_hub: Path) -> None:
    loaded = load_problems(["bundled", "bundled:evaluate:50", "bundled:distill"])
    texts = [problem.problem for problem in loaded.problems]
    assert len(set(texts)) == len(texts)
    assert [record["kind"] for record in loaded.provenance] == ["bundled"] * 3
    assert loaded.provenance[1]["n"] == 50
    assert loaded.problems[0].problem_id.startswith("bundled/")
