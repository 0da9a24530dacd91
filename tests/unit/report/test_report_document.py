"""The report document: its keys, its way into JSON and back, and what is missing in it."""

from __future__ import annotations

import json
import math
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.errors import UsageError
from branchdiag.report import wording
from branchdiag.report.document import (
    REQUIRED,
    common_reason,
    from_json,
    plain,
    primary,
    relative_entry,
    score_entries,
    to_json,
)
from branchdiag.stats.finding import Status
from branchdiag.stats.scores import SCORES
from branchdiag.store.schemas import SCORES as SCORES_TABLE


def test_a_document_comes_back_from_json_as_it_went_in(any_run):
    text = to_json(any_run.document)
    assert from_json(text, where="report.json") == any_run.document
    assert "NaN" not in text and "Infinity" not in text
    assert text.isascii()


def test_the_keys_that_the_command_line_promises_are_there(paper_run):
    document = json.loads(to_json(paper_run.document))
    assert set(REQUIRED) <= set(document)
    counts = {"problems", "correct_spines", "usable_problems", "candidates", "diversity"}
    assert counts | {"real_uncertain", "gray"} <= set(document["counts"])
    score = {"name", "auroc", "ci_low", "ci_high", "auprc", "n_positive", "n_negative"}
    score |= {"n_problems", "n_problems_positive", "paper_compat"}
    for entry in document["scores"]:
        assert score <= set(entry)
        assert set(entry["paper_compat"]) == {"auroc", "ci_low", "ci_high"}
    for entry in document["scores_relative"]:
        assert score | {"null_mean", "p"} <= set(entry)
    assert {"estimate", "ci_low", "ci_high", "reason"} == set(document["slope"])


def table_row(**changes):
    row = {column.name: 3 for column in SCORES_TABLE.columns}
    row |= {"name": "h_trunc", "figure": "relative", "sign": 1, "alias_of": None}
    row |= {"reason": None, "auprc_reason": None, "stratified_reason": None, "null_reason": None}
    return {**row, **changes}


def test_a_row_of_the_scores_table_becomes_an_entry_with_nothing_lost():
    row = table_row(auroc=0.25, compat_auroc=0.75, null_mean=0.5)
    entry = relative_entry(row)
    flat = {**entry, **{f"compat_{k}": v for k, v in entry["paper_compat"].items()}}
    del flat["paper_compat"]
    assert flat == {key: value for key, value in row.items() if key != "figure"}


def test_a_missing_number_of_a_frame_becomes_null():
    frame = pd.DataFrame([table_row(auroc=np.nan, ci_low=None, alias_of=pd.NA)])
    (entry,) = score_entries(frame.to_dict("records"), "relative")
    assert entry["auroc"] is None and entry["ci_low"] is None and entry["alias_of"] is None
    assert score_entries(frame.to_dict("records"), "absolute") == []


def test_a_number_that_is_not_finite_is_null_and_says_so():
    document = {"slope": {"estimate": float("nan"), "ci_low": -math.inf, "reason": None}}
    slope = json.loads(to_json(document))["slope"]
    assert slope["estimate"] is None and slope["ci_low"] is None
    assert slope["reason"] == "not a finite number: estimate, ci_low"


def test_a_reason_that_is_there_is_kept():
    record = {"auroc": float("nan"), "reason": "one class only"}
    assert plain(record) == {"auroc": None, "reason": "one class only"}


def test_numpy_and_pandas_values_become_plain_ones():
    values = [np.int64(3), np.float32(0.5), np.bool_(True), np.array([1, 2]), pd.NA, pd.NaT]
    assert plain(values) == [3, 0.5, True, [1, 2], None, None]
    assert [type(value) for value in plain(values[:3])] == [int, float, bool]


def test_what_json_cannot_hold_is_refused_by_name():
    with pytest.raises(TypeError, match="complex"):
        to_json({"auroc": 1j})


numbers = st.one_of(st.floats(), st.integers(), st.none(), st.text(), st.booleans())
trees = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), trees, max_size=5))
def test_any_tree_gives_strict_json(tree):
    def refuse(constant):
        raise AssertionError(constant)

    json.loads(to_json(tree), parse_constant=refuse)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[1, 2]", "lacks counts"),
        ('{"counts": {}}', "lacks scores"),
    ],
)
def test_a_file_that_is_no_report_is_refused_with_its_name(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        from_json(text, where="runs/x/report.json")
    assert caught.value.where == "runs/x/report.json"
    assert caught.value.fix


def test_a_report_of_another_version_is_refused(paper_run):
    text = to_json({**paper_run.document, "version": 99})
    with pytest.raises(UsageError, match="version 99"):
        from_json(text, where="x")


def test_aliases_are_left_out_of_the_rows_to_draw(paper_run):
    scores = paper_run.document["scores"]
    assert [e["name"] for e in scores if e not in primary(scores)] == ["position"]


def test_a_common_reason_is_given_only_where_nothing_is_known(make):
    document = make(positives=0).document
    assert common_reason(document["scores"]) == "only one class among the labelled candidates"
    document["scores"][3]["auroc"] = 0.5
    assert common_reason(document["scores"]) is None
    assert common_reason([]) is None


def test_every_declared_score_and_status_has_its_words():
    assert list(wording.SCORE_LABELS) == list(SCORES)
    assert set(wording.LOCAL_SCORES) <= set(SCORES)
    assert set(wording.STATUS_WORDS) == set(get_args(Status))
