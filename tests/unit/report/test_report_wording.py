"""How numbers are written, and how untrusted text is made harmless."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.report.wording import (
    count,
    finding_parts,
    interval,
    number,
    p_value,
    percent,
    plural,
    seconds,
    token_text,
    visible,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(0.8349), "0.83"),
        (number(-0.004), "0.00"),
        (number(-0.25), "−0.25"),
        (number(None), "–"),
        (number(1), "1.00"),
        (interval(0.5, 1.0), "[0.50, 1.00]"),
        (interval(None, 1.0), "–"),
        (percent(0.0287, 1), "2.9%"),
        (count(12345), "12,345"),
        (plural(1, "problem"), "1 problem"),
        (plural(0, "problem"), "0 problems"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.0394), "0.039"),
        (p_value(None), "–"),
        (seconds(3.25), "3.2 s"),
        (seconds(61), "1 min 1 s"),
        (seconds(3 * 3600 + 120), "3 h 2 min"),
    ],
)
def test_numbers_are_written_alike_everywhere(written, expected):
    assert written == expected


@given(st.text())
def test_visible_text_holds_nothing_that_steers(text):
    shown = visible(text)
    for char in shown:
        assert char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert visible(shown) == shown
    if text.isprintable():
        assert shown == text


def test_controls_are_named():
    assert visible("a\x1b[31mb\u202ec\x07") == "a⟨U+001B⟩[31mb⟨U+202E⟩c⟨U+0007⟩"
    assert visible("\ud800") == "⟨U+D800⟩"
    assert visible("a\nb", keep="") == "a⟨U+000A⟩b"


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" let", "␣let"), ("\n\n", "↵↵"), ("  ", "␣␣"), ("", ""), ("a b ", "a b␣"),
     ("\\n", "\\n"), (" \x1b", "␣⟨U+001B⟩")],
)  # fmt: skip
def test_a_token_is_one_visible_word(token, shown):
    assert token_text(token) == shown


def test_a_finding_is_told_apart_into_statement_and_evidence():
    finding = "Too few data to say: 3 problems, where 10 are needed: more."
    statement, evidence = finding_parts(finding)
    assert f"{statement} {evidence}" == finding
    assert statement == "Too few data to say:"
    assert finding_parts("Nothing more.") == ("Nothing more.", "")
