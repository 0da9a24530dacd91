"""One spelling for one answer, and never one spelling for two."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.normalise import (
    MAX_CHARACTERS,
    integer_digits,
    is_oversize,
    normalise,
)

SAME = [
    (
        "42",
        "042",
        "42.",
        "42.0",
        "+42",
        " 42 ",
        "$42$",
        "{42}",
        r"\text{42}",
        r"\boxed{42}",
        "４２",
    ),
    ("10080", r"10,\!080", "10,080", "10{,}080", r"10\,080", "10 080", "10\u2009080"),
    ("11111111100", r"11,\! 111,\! 111,\! 100"),
    ("0.5", ".5", "0.50", "00.5"),
    ("-5", "−5", "- 5"),
    (r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac12", r"\frac 1 2", "½", r"{1 \over 2}", r"\frac1{2}"),
    (r"\frac{5}{9}", r"\frac 59"),
    (r"\frac{9}{19}", r"\frac9{19}"),
    (r"3\sqrt{2}", r"3\sqrt2", r"3 \sqrt 2", "3√2", "3 sqrt(2)", r"3\, \sqrt{2}"),
    (r"\sqrt{12}", "√12", "sqrt(12)"),
    (r"90^\circ", r"90^{\circ}", "90°", r"90^{\circ}."),
    (r"10\%", "10%", "10 percent"),
    (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{π}{2})"),
    (r"\{1, 2\}", r"\left\{1,2\right\}", r"\lbrace 1, 2 \rbrace"),
    (r"4210_5", r"4210_{5}", "4210₅"),
    ("x^2", "x^{2}", "x²", "x**2"),
    ("x^{12}", "x^12", "x¹²"),
    ("x_1^2", "x^2_1"),
    ("1, 2", "1,2", r"1 \text{ and } 2", "1 or 2", r"\text{1 and 2}"),
    (r"\text{Evelyn}", r"\mathrm{Evelyn}", r"\text{ Evelyn }", r"\textbf{Evelyn}"),
    ("(C)", r"\text{(C)}", r"\textbf{(C)}"),
    (r"5\text{cm}", r"5\mbox{ cm}", r"5\,\mathrm{cm}", r"\text{5 cm}"),
    (r"\emptyset", r"\varnothing", "∅", r"\{\}"),
    (r"\$18.9", r"\$18.90", "$18.90"),
]


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_one_spelling_for_one_answer(spellings: tuple[str, ...]) -> None:
    assert {normalise(spelling) for spelling in spellings} == {spellings[0]}


DIFFERENT = [
    ("58,500", "58, 500"),  # a number and a list
    ("58,500", "(58,500)"),
    (r"0.\overline{3}", r"0.\overline{03}"),
    (r"0.1\overline{6}", r"0.10\overline{6}"),
    ("0.333", "0.333..."),
    ("12", "1 2"),
    ("1A05_{16}", "1A5_{16}"),
    ("4210_5", "4210_7"),
    ("x", "X"),
    ("(1,2)", "(1,2]"),
    ("1,2", "2,1"),
    ("2^{10}", r"2^10\cdot 0"),
    ("x^{12}", "x^{1}2"),
    ("1.5", "15"),
    ("-5", "5"),
    ("f'(x)", "f(x)"),
    (r"\overline{AB}", "AB"),
    ("10\\%", "10"),
    ("black and white", "black or white"),
    (r"x<2 \text{ or } x>1", r"x<2 \text{ and } x>1"),
    ("5!", "5"),
    ("12:30", "1230"),
    ("4\x002", "42"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("025", "25"),
        ("-0", "0"),
        ("−7", "-7"),
        ("1,000", "1000"),
        ("42.0", "42"),
        ("42.5", None),
        ("4 2", None),
        ("1, 000", None),
        ("42^\\circ", None),
        ("", None),
        ("x", None),
    ],
)
def test_integers_are_recognised(text: str, digits: str | None) -> None:
    assert integer_digits(text) == digits


def test_a_million_digits_are_an_integer() -> None:
    assert integer_digits("0" + "9" * 10**6) == "9" * 10**6


@given(st.integers())
def test_every_integer_is_its_own_digits(number: int) -> None:
    assert integer_digits(str(number)) == str(number)
    assert integer_digits(f"{number:,}") == str(number)
    assert integer_digits(f"{number}.0") == str(number)


PARTS = [
    *"0123xyabom,.;:()[]{}^_+-=</*!|'%$~&\\\n\x00",
    *(" ", ", ", r"\,", r"\!", "{,}", "000", "123", ".5", "pi", "sqrt", " and ", " or ", "sin"),
    *(r"\frac", r"\sqrt", r"\text{", r"\text{ cm}", r"\text{and}", r"\left", r"\right", r"\pi"),
    *(r"\\", r"\$", r"\%", r"\overline", r"\cdot", r"\circ", r"\prime", r"\mathrm", r"\mathbf{"),
    *(r"\over", r"\begin{pmatrix}", r"\end{pmatrix}", r"\operatorname", r"\ldots", r"\land"),
    *("°", "²", "₁", "…", "√", "½", "é", "\u200b", "[3]", r"\text{m}", r"\hspace{1}", r"\boxed"),
]


TYPED = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


@given(TYPED | st.text(max_size=40), st.booleans())
def test_normalisation_is_idempotent_and_total(text: str, thousands: bool) -> None:
    once = normalise(text, thousands=thousands)
    assert normalise(once, thousands=thousands) == once


@pytest.mark.parametrize(
    "text", ["{" * 500, r"\sqrt" * 400, r"\frac{1}{" * 100, "^" * 500, "(" * 500, "x" * 10**6]
)
def test_oversize_answers_are_left_as_they_are(text: str) -> None:
    assert is_oversize(text)
    started = time.perf_counter()
    normalise(text)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "unit",
    ["1,222,", "x and ", "sqrt(", r"\text{", r"1\,222", "^(", ".", ",", "a. "],
)
def test_time_is_bounded_on_hostile_answers(unit: str) -> None:
    started = time.perf_counter()
    normalise(unit * (MAX_CHARACTERS // len(unit)))
    assert time.perf_counter() - started < 2


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; import branchdiag.answers.pool, branchdiag.answers.clusters, "
        "branchdiag.answers.extract; heavy = set(sys.modules) & "
        "{'sympy', 'math_verify', 'torch', 'mpmath', 'numpy', 'pandas'}; "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
