"""Exact values of plain numbers, against Python's fractions and decimals."""

from decimal import Decimal as ExactDecimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from branchdiag.answers.normalise import normalise
from branchdiag.answers.rational import decimal, is_terminating, rational, rounds_to


def value(text: str) -> Fraction | None:
    return rational(normalise(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5.5", "-11/2"),
        (r"-\frac12", "-1/2"),
        (r"\frac{-1}{2}", "-1/2"),
        ("1/-2", "-1/2"),
        (r"1\frac45", "9/5"),
        (r"-1\frac{1}{2}", "-3/2"),
        ("2 1/2", "5/2"),
        ("21/2", "21/2"),
        (r"6.72\times10^{-5}", "672/10000000"),
        ("6.72e-5", "672/10000000"),
        ("2^{10}", "1024"),
        (r"0.\overline{3}", "1/3"),
        (r"0.\overline{03}", "1/33"),
        (r"0.1\overline{6}", "1/6"),
        (r"0.10\overline{6}", "8/75"),
        ("(5)", "5"),
    ],
)
def test_values_are_exact(text: str, expected: str) -> None:
    assert value(text) == Fraction(expected)


@pytest.mark.parametrize(
    "text",
    [r"\frac{1}{0}", "0^{-1}", "9^{99999}", "9^{9^9}", "1/2/3", r"3\frac{5}{2}", "x", "1,2", "",
     "1e400000", r"10\%", "9" * 5000 + ".5"],
)  # fmt: skip
def test_what_is_no_plain_number_is_none(text: str) -> None:
    assert value(text) is None


@given(st.fractions())
def test_every_spelling_of_a_fraction_has_its_value(number: Fraction) -> None:
    above, below = abs(number.numerator), number.denominator
    sign = "-" if number < 0 else ""
    assert value(f"{above * (1 if number >= 0 else -1)}/{below}") == number
    assert value(rf"{sign}\frac{{{above}}}{{{below}}}") == number
    whole, rest = divmod(above, below)
    assert value(rf"{sign}{whole}\frac{{{rest}}}{{{below}}}") == number


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=9
    )
)
def test_every_decimal_has_its_value(number: ExactDecimal) -> None:
    assert value(f"{number:f}") == Fraction(number)


@given(st.integers(1, 999), st.integers(1, 999), st.integers(1, 12))
def test_rounding_needs_six_digits_and_no_short_decimal(
    above: int, below: int, places: int
) -> None:
    exact = Fraction(above, below)
    typed = decimal(normalise(str(round(ExactDecimal(above) / ExactDecimal(below), places))))
    if typed is None:
        return
    # the independent way: compare with the rounded quotient itself
    expected = typed.significant >= 6 and not is_terminating(exact)
    assert rounds_to(exact, typed) == expected
    other = decimal(normalise(str(ExactDecimal(above) / ExactDecimal(below) + 1)))
    assert other is None or not rounds_to(exact, other)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_terminating_decimals_are_those_of_two_and_five(above: int, below: int) -> None:
    number = Fraction(above, below)
    assert is_terminating(number) == (10**60 % number.denominator == 0)
