"""The last complete box: hand-made cases, the paper code's traps, linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.extract import (
    Extraction,
    after_thinking,
    is_thinking_open,
    last_boxed,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed {5}", "5"),
        ("\\boxed\n {5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed 5", "5"),
        (r"\boxed5", "5"),
        (r"$\boxed 42$.", "42"),
        (r"\boxed -3 is it", "-3"),
        (r"\boxed\frac12", r"\frac12"),
        (r"$\boxed 3\sqrt{2}$.", r"3\sqrt{2}"),
        (r"$\boxed x$", "x"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\frac{1}{2}} and text {}", r"\frac{1}{2}"),
        (r"\boxed{a\\}", r"a\\"),
        (r"\\boxed{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"unbalanced { before \boxed{3} and } after", "3"),
        (r"\boxed{ 6 }", "6"),
        ("\\boxed{a\x00b}", "a\x00b"),
    ],
)
def test_the_last_complete_box_is_the_answer(text: str, answer: str) -> None:
    found = last_boxed(text)
    assert (found.answer, found.status, found.skipped) == (answer, "ok", 0)
    assert found.start is not None
    assert text[found.start : found.end].lstrip("\\").startswith(("boxed", "fbox"))


@pytest.mark.parametrize(
    "later", [r"\boxed", r"\boxed{6", r"in \boxed form", r"\boxed{\frac{1}{2}"]
)
def test_a_malformed_later_box_is_skipped_and_reported(later: str) -> None:
    found = last_boxed(rf"\boxed{{5}} but {later}")
    assert (found.answer, found.status, found.skipped) == ("5", "malformed_last", 1)


@pytest.mark.parametrize("text", [r"\boxed{}", r"\boxed{ }", r"\boxed{\, ~}", r"\boxed{{}}"])
def test_an_empty_box_is_no_answer_even_after_a_full_one(text: str) -> None:
    assert last_boxed(text).status == "empty"
    found = last_boxed(r"\boxed{5} " + text)
    assert (found.answer, found.status) == (None, "empty")


@pytest.mark.parametrize(
    "text", [r"\boxed", r"\boxed{5", r"\boxed{5\}", r"the \boxed form", r"\boxed\{5\}"]
)
def test_without_a_complete_box_there_is_no_answer(text: str) -> None:
    assert last_boxed(text) == Extraction(None, "malformed", skipped=1)


@pytest.mark.parametrize("text", ["", "42", r"\boxedtext{5}", "boxed{5}"])
def test_other_words_are_no_box(text: str) -> None:
    assert last_boxed(text).status == "none"


def test_strict_rule_counts_only_what_follows_closed_thinking() -> None:
    inside, after = r"<think>\boxed{1}</think>", r"<think>\boxed{1}</think> \boxed{2}"
    assert last_boxed(inside).answer == "1"
    assert last_boxed(inside, rule="after_thinking").status == "none"
    found = last_boxed(after, rule="after_thinking")
    assert found.answer == "2"
    assert found.start == after.rindex("\\boxed")


def test_strict_rule_when_the_prompt_opened_thinking() -> None:
    unfinished = r"so it is \boxed{1}"
    assert last_boxed(unfinished, rule="after_thinking").answer == "1"  # no thinking at all
    found = last_boxed(unfinished, rule="after_thinking", thinking_open=True)
    assert found == Extraction(None, "unclosed_thinking")
    closed = unfinished + r"</think> \boxed{2}"
    assert last_boxed(closed, rule="after_thinking", thinking_open=True).answer == "2"


def test_thinking_opened_again_is_not_closed() -> None:
    text = "a</think>b<think>c"
    assert after_thinking(text) is None
    assert is_thinking_open(text)
    assert after_thinking(text + "</think>d") == "d"
    assert after_thinking("plain") == "plain"
    assert after_thinking("plain", thinking_open=True) is None
    assert after_thinking("x[/T]y", tags=("[T]", "[/T]")) == "y"


balanced = st.recursive(
    st.text(st.characters(exclude_characters="\\{}", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3).map("".join)
        | inner.map(lambda text: "{" + text + "}")
        | inner.map(lambda text: "\\{" + text)
        | inner.map(lambda text: r"\frac{" + text + "}{2}")
    ),
    max_leaves=10,
)


@given(
    balanced, st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])), balanced
)
def test_extraction_inverts_boxing(before: str, after: str, content: str) -> None:
    found = last_boxed(f"{before}\\boxed{{x{content}x}}{after}")
    assert found.answer == f"x{content}x"
    assert found.status == "ok"
    assert found.start == len(before)


def brute_force(text: str) -> str | None:
    """Each occurrence on its own, from the right; quadratic, braces only."""
    at = len(text)
    while (at := text.rfind(r"\boxed{", 0, at)) >= 0:
        depth, i = 1, at + len(r"\boxed{")
        while i < len(text) and depth:
            if text[i] == "\\":
                i += 2
                continue
            depth += (text[i] == "{") - (text[i] == "}")
            i += 1
        if not depth and i <= len(text):
            return text[at + len(r"\boxed{") : i - 1]
    return None


@given(
    st.lists(st.sampled_from([r"\boxed{", "{", "}", "x", r"\{", r"\}", "\\\\", " "])).map("".join)
)
def test_agrees_with_matching_each_box_on_its_own(text: str) -> None:
    expected = brute_force(text)
    found = last_boxed(text)
    if expected is None:
        assert found.answer is None
    elif found.status == "empty":
        assert not expected.strip(" {}")
    else:
        assert found.answer == expected.strip()


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "}",
        "\\boxed{",
        "\\boxed",
        "\\boxed ",
        "\\boxed{}",
        "\\boxed1",
        "\\",
        "\\boxed\\a",
        "\\boxed{{",
    ],
)
def test_time_is_linear_on_pathological_text(unit: str) -> None:
    text = "\\boxed{" + unit * (1_000_000 // len(unit))
    started = time.perf_counter()
    last_boxed(text)
    last_boxed(text, rule="after_thinking")
    assert time.perf_counter() - started < 5
