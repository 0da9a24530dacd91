"""Which files of a data repository hold a split."""

from __future__ import annotations

import pytest

from branchdiag.errors import UsageError
from branchdiag.problems.layout import choose_files


def choose(paths: list[str], config: str | None = None, part: str | None = None) -> tuple[str, ...]:
    return choose_files(paths, config=config, part=part, where="o/n")


def test_the_layouts_of_the_named_sets() -> None:
    assert choose([".gitattributes", "README.md", "test.jsonl"]) == ("test.jsonl",)
    hashed = "data/train-00000-of-00001-243207c6c994e1bd.parquet"
    assert choose(["README.md", hashed, "part1/train-00000-of-00001.parquet"]) == (hashed,)


def test_shards_come_in_order_and_must_be_complete() -> None:
    shards = [f"data/train-{index:05d}-of-00003.parquet" for index in (2, 0, 1)]
    assert choose(shards) == tuple(sorted(shards))
    with pytest.raises(UsageError, match="2 of 3 shards"):
        choose(shards[:2])


def test_configurations_and_splits() -> None:
    paths = [
        f"{config}/{split}-00000-of-00001.parquet"
        for config in ("main", "socratic")
        for split in ("train", "test")
    ]
    assert choose(paths, "main", "test") == ("main/test-00000-of-00001.parquet",)
    for config, part, said in [
        (None, "test", "several configurations"),
        ("other", "test", "no configuration"),
        ("main", None, "several splits: test, train"),
        ("main", "dev", "no split or file"),
    ]:
        with pytest.raises(UsageError) as raised:
            choose(paths, config, part)
        assert said in str(raised.value)


def test_converted_copies_and_named_files() -> None:
    assert choose(["default/test/0000.parquet", "default/train/0000.parquet"], None, "test") == (
        "default/test/0000.parquet",
    )
    paths = ["aime2025-I.jsonl", "aime2025-II.jsonl"]
    assert choose(paths, None, "aime2025-I") == ("aime2025-I.jsonl",)
    assert choose(paths, None, "aime2025-II.jsonl") == ("aime2025-II.jsonl",)


def test_parquet_is_taken_before_jsonl_and_metadata_is_no_data() -> None:
    paths = ["train.jsonl", "train.parquet", "dataset_infos.json", ".cache/train.jsonl"]
    assert choose(paths) == ("train.parquet",)
    with pytest.raises(UsageError, match="no JSONL, JSON or Parquet file"):
        choose(["README.md", "dataset_infos.json"])
