"""Fingerprints tell equal content from changed content; seeds and hashes never run together."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.store.fingerprint import (
    derive_seed,
    differences,
    file_hash,
    fingerprint,
    tokens_hash,
)

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
contents = st.dictionaries(st.text(), values, max_size=4)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same content: other order of keys, tuples for lists, 2.0 for 2."""
    if isinstance(value, dict):
        names = list(value)
        rng.shuffle(names)
        return {name: shuffled(value[name], rng) for name in names}
    if isinstance(value, list):
        items = [shuffled(item, rng) for item in value]
        return tuple(items) if rng.random() < 0.5 else items
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value) if rng.random() < 0.5 else value
    return value


def normal(value: Any) -> Any:
    """An independent canonical form, to compare content by: tagged nested tuples."""
    if isinstance(value, dict):
        return ("map", frozenset((name, normal(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return ("list", tuple(normal(item) for item in value))
    return (isinstance(value, bool), value)  # Python: 1 == 1.0 == True, and hashes agree


@given(contents, st.randoms(use_true_random=False))
def test_the_same_content_has_one_fingerprint(content: Any, rng: random.Random) -> None:
    other = shuffled(content, rng)
    assert fingerprint(other) == fingerprint(content)
    assert differences(content, other) == []


@given(contents, contents)
def test_fingerprints_agree_exactly_when_the_content_does(first: Any, second: Any) -> None:
    same = normal(first) == normal(second)
    assert (fingerprint(first) == fingerprint(second)) == same
    assert (differences(first, second) == []) == same


@given(contents, st.lists(st.text(), max_size=2), leaves)
def test_a_single_changed_leaf_changes_the_fingerprint(
    content: dict[str, Any], path: list[str], leaf: Any
) -> None:
    changed = json.loads(json.dumps(content))
    inside = changed
    for name in path:
        inside = inside.setdefault(name, {})
        if not isinstance(inside, dict):
            return
    inside["the changed one"] = leaf
    if normal(changed) != normal(content):
        assert fingerprint(changed) != fingerprint(content)
        assert differences(content, changed)


@given(contents)
def test_content_that_went_through_json_is_unchanged(content: Any) -> None:
    stored = json.loads(json.dumps(content))
    assert fingerprint(stored) == fingerprint(content)
    assert differences(stored, content) == []


def test_a_fingerprint_names_its_rule_and_stays_what_it_is() -> None:
    content = {"b": [1, 2.5, None], "a": {"x": True, "é": "y"}}
    canonical = '{"a":{"x":true,"\\u00e9":"y"},"b":[1,2.5,null]}'
    assert fingerprint(content) == "fp1:" + hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "error", "name"),
    [
        ({"a": {"b": float("nan")}}, ValueError, "a.b"),
        ({"a": [float("inf")]}, ValueError, r"a\[\]"),
        ({"a": {1: 2}}, TypeError, "a: the key 1"),
        ({"a": Path("x")}, TypeError, "a: "),
        ({"a": {1, 2}}, TypeError, "a: set"),
        ({"a": np.float32(1)}, TypeError, "a: float32"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(
    content: Any, error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        fingerprint(content)


def test_differences_name_the_setting_and_both_values() -> None:
    old = {"candidates": {"min_p2": 0.02, "spacing": 20}, "model": "a", "gone": 1, "e": {}}
    new = {"candidates": {"min_p2": 0.05, "spacing": 20}, "model": None, "new": [1, 2]}
    assert differences(old, new) == [
        "candidates.min_p2: 0.02 -> 0.05",
        'model: "a" -> null',
        "gone: 1 -> (absent)",
        "e: {} -> (absent)",
        "new: (absent) -> [1,2]",
    ]


def test_a_difference_deep_in_a_long_value_is_shown() -> None:
    first, second = "x" * 500 + "old" + "y" * 500, "x" * 500 + "new" + "y" * 500
    (line,) = differences({"template": first}, {"template": second})
    assert "old" in line.split(" -> ")[0]
    assert "new" in line.split(" -> ")[1]
    assert len(line) < 200


def test_file_hash_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(300_000)
    (tmp_path / "a").write_bytes(data)
    assert file_hash(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@given(st.lists(st.integers(0, 2**31 - 1)), st.lists(st.integers(0, 2**31 - 1)))
def test_token_hashes_tell_lists_apart(first: list[int], second: list[int]) -> None:
    oracle = hashlib.sha256(b"".join(struct.pack("<q", token) for token in first))
    assert tokens_hash(first) == oracle.hexdigest()[:16]
    assert tokens_hash(np.array(first, dtype=np.int32)) == tokens_hash(tuple(first))  # type: ignore[arg-type]
    assert (tokens_hash(first) == tokens_hash(second)) == (first == second)


key_parts = st.lists(st.text(max_size=5) | st.integers(), max_size=4)


@given(st.integers(0, 2**63), key_parts, key_parts)
def test_seeds_of_different_keys_differ_and_have_63_bits(
    run_seed: int, first: list[Any], second: list[Any]
) -> None:
    seed = derive_seed(run_seed, *first)
    assert 0 <= seed < 2**63
    assert seed == derive_seed(run_seed, *first)
    assert seed != derive_seed(run_seed + 1, *first)
    assert (seed == derive_seed(run_seed, *second)) == (first == second)


def test_parts_of_a_seeds_key_never_run_together() -> None:
    keys: list[tuple[Any, ...]] = [
        (),
        ("",),
        ("", ""),
        ("ab",),
        ("a", "b"),
        ('a","b',),
        ("1",),
        (1,),
        (1, 2),
        (12,),
        (-12,),
        ("a/b",),
        ("a", "/b"),
        ("\ud800",),
        ("\\ud800",),
    ]
    assert len({derive_seed(0, *key) for key in keys}) == len(keys)
    assert derive_seed(0, np.int32(3), "a") == derive_seed(0, 3, "a")  # type: ignore[arg-type]


def test_seeds_of_samples_spread_over_all_63_bits() -> None:
    seeds = [derive_seed(7, "p1", 30, "child:5", sample) for sample in range(2000)]
    assert len(set(seeds)) == len(seeds)
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).mean(axis=0)
    assert np.all(np.abs(bits - 0.5) < 5 * 0.5 / np.sqrt(len(seeds)))
    assert min(abs(a - b) for a, b in pairwise(seeds)) > 1_000_000


def test_a_seed_never_changes_between_versions() -> None:
    parts = ["branchdiag seed 1", 0, "p1", 30, "control", 2]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    expected = int.from_bytes(digest, "big") >> 193
    assert derive_seed(0, "p1", 30, "control", 2) == expected == 7_953_920_076_445_599_363


@pytest.mark.parametrize("part", [True, 1.0, None, b"a"])
def test_a_part_of_another_type_is_refused(part: Any) -> None:
    with pytest.raises(TypeError):
        derive_seed(0, part)
