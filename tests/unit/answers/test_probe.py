"""Equality by values, against sympy's own simplification and exact arithmetic."""

import random

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from branchdiag.answers import probe
from branchdiag.answers.formula import UnparsedError, parse
from branchdiag.answers.normalise import normalise
from branchdiag.answers.relations import as_set, same_sets

x, y = sympy.symbols("x y")


def formula(text: str) -> sympy.Expr:
    return parse(normalise(text))


@given(st.integers(-(10**40), 10**40), st.integers(-(10**40), 10**40))
def test_integers_are_equal_exactly_when_they_are(one: int, other: int) -> None:
    assert probe.equal(sympy.Integer(one), sympy.Integer(other)) is (one == other)
    assert probe.equal(sympy.Integer(one), sympy.Integer(one + 1)) is False


def test_large_and_small_constants_are_not_confused() -> None:
    for one, other in [
        ("2^{5000}", "2^{5000}-1"),
        ("1+10^{-3000}", "1"),
        ("10^{-3000}", "2\\cdot 10^{-3000}"),
        ("\\sqrt{10^{100}+1}", "10^{50}"),
    ]:
        assert probe.equal(formula(one), formula(other)) is False
        assert probe.equal(formula(one), formula(f"0+{one}")) is True


def test_zero_is_found_through_cancellation() -> None:
    for text in ["\\sin(\\pi)", "\\sqrt2\\cdot\\sqrt2-2", "e^{i\\pi}+1", "(x+1)^2-x^2-2x-1"]:
        assert probe.equal(sympy.Integer(0), formula(text)) is True, text
        assert probe.equal(sympy.Integer(0), formula(text + "+10^{-60}")) is False, text


ATOMS = [x, y, sympy.Integer(2), sympy.Integer(3), sympy.Rational(1, 2), sympy.sqrt(2), sympy.pi]


def random_expression(draw: random.Random, depth: int) -> sympy.Expr:
    if not depth:
        return draw.choice(ATOMS)
    a, b = (random_expression(draw, depth - 1) for _ in range(2))
    return draw.choice([a + b, a - b, a * b, a**2, a * (b + 1), a / 3 + b])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_expansion_on_random_polynomials(seed: int) -> None:
    draw = random.Random(seed)
    one, other = random_expression(draw, 3), random_expression(draw, 3)
    for other_form in (
        other,
        sympy.expand(one),
        one + other - other,
        one + sympy.Rational(1, 10**9),
    ):
        expected = sympy.expand(one - other_form) == 0
        assert probe.equal(one, other_form) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (r"\sqrt{x^2}", "|x|", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\sqrt{x}\sqrt{y}", r"\sqrt{xy}", True),
        (r"\ln x^2", r"2\ln x", True),
        (r"\arcsin x", r"\frac{\pi}{2}-\arccos x", True),
        (r"\sqrt[3]{-27}", "-3", True),
        (r"(-8)^{2/3}", "4", True),
        (r"\sqrt{-4}", "2i", True),
        (r"\frac{1}{x}", r"\frac{x}{x^2}", True),
        ("f(x)+f(y)", "f(y)+f(x)", True),
        ("f(x)", "f(y)", False),
        ("n!", r"n\cdot(n-1)!", True),
        (r"\lfloor x \rfloor", "x", False),
        ("9^{9^{9^9}}", "42", False),
        ("x^{9^{9^9}}", "x", False),
    ],
)
def test_identities_of_school_mathematics(one: str, other: str, expected: bool) -> None:
    assert probe.equal(formula(one), formula(other)) is expected


def test_what_cannot_be_computed_is_neither_equal_nor_different() -> None:
    assert probe.equal(formula("9^{9^{9^9}}"), formula("8^{9^{9^9}}")) is None
    assert probe.equal(sympy.nan, sympy.Integer(1)) is None


def test_proportional_gives_the_sign_of_the_factor() -> None:
    assert probe.proportional(2 * x - 4, 2 - x) == -1
    assert probe.proportional(2 * x - 4, x - 2) == 1
    assert probe.proportional(x - 2, x - 3) == 0
    assert probe.proportional(x, y) == 0


@pytest.mark.parametrize("text", [r"\foo", "a'' + \\$", r"\text{if } x", r"\frac{1}", "5+", "(]"])
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(UnparsedError):
        formula(text)


def test_the_parser_reads_neighbours_as_factors_and_letters_as_they_are() -> None:
    assert probe.equal(formula("2(3)"), sympy.Integer(6))
    assert probe.equal(formula(r"x+1\frac12"), x + sympy.Rational(3, 2))
    assert probe.equal(formula("adb"), formula("abd"))
    assert probe.equal(formula("R"), formula("r")) is False
    assert probe.equal(formula("A^T"), formula("A")) is False


def test_sets_compare_by_members() -> None:
    pairs = [
        ("|x|>1", r"(-\infty,-1)\cup(1,\infty)", True),
        (r"x\neq 0", r"\mathbb{R}\setminus\{0\}", True),
        (r"(0,\sqrt{8})", r"(0,2\sqrt{2})", True),
        (r"(0,2]\cup\{5\}", r"\{5\}\cup(0,2]", True),
        ("[0,1)", "(0,1)", False),
        ("x<1", "x<2", False),
    ]
    for one, other, expected in pairs:
        sets = as_set(formula(one)), as_set(formula(other))
        assert sets[0] is not None and sets[1] is not None
        assert same_sets(*sets) is expected, (one, other)
