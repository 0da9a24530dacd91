r"""Exact values of answers that are plain numbers, without sympy.

Reads canonical strings (`normalise`), gives fractions: integers, decimals, `\frac{a}{b}`, `a/b`,
mixed numbers, powers, scientific notation, repeating decimals. Everything else is None. Knows
nothing of units, lists or grading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 4000
"""Longer numbers are left alone: Python converts at most 4,300 digits."""
MIN_SIGNIFICANT_DIGITS = 6
"""A decimal with at least so many significant digits may stand for the number it rounds."""

_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_SIGNED = rf"[-+]?{_NUMBER}"
_FRACTION = rf"\\frac\{{({_SIGNED})\}}\{{({_SIGNED})\}}|({_NUMBER})/({_SIGNED})"
_TIMES = r"(?:\\times|\\cdot)"
_FORMS = tuple(
    (name, re.compile(rf"([-+]?)(?:{pattern})"))
    for name, pattern in {
        "number": rf"({_NUMBER})",
        "fraction": _FRACTION,
        "mixed": r"([0-9]+) ?(?:\\frac\{([0-9]+)\}\{([0-9]+)\}|(?<= )([0-9]+)/([0-9]+))",
        "power": rf"(?:({_NUMBER}) ?{_TIMES} ?)?([0-9]+)\^(?:([0-9])|\{{([-+]?[0-9]+)\}})",
        "scientific": rf"({_NUMBER})[eE]([-+]?[0-9]+)",
        "repeating": r"([0-9]+)\.([0-9]*)\\overline\{([0-9]+)\}",
    }.items()
)
_DECIMAL = re.compile(r"-?([0-9]+)\.([0-9]+)")


@dataclass(frozen=True)
class Decimal:
    """A decimal as typed: its exact value, the place of its last digit, its significant digits."""

    value: Fraction
    places: int
    significant: int


def rational(canonical: str) -> Fraction | None:
    """The exact value of a canonical answer that is one plain number, else None."""
    text = canonical
    while text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1]
    if len(text) > MAX_DIGITS:
        return None
    for name, form in _FORMS:
        match = form.fullmatch(text)
        if match:
            sign, *parts = match.groups()
            try:
                value = _value(name, [part for part in parts if part is not None])
            except (ZeroDivisionError, OverflowError):
                return None
            return -value if value is not None and sign == "-" else value
    return None


def decimal(canonical: str) -> Decimal | None:
    """A canonical answer that is a decimal with a fraction part, else None."""
    match = _DECIMAL.fullmatch(canonical)
    if match is None or len(canonical) > MAX_DIGITS:
        return None
    digits = (match[1] + match[2]).lstrip("0")
    return Decimal(Fraction(canonical), len(match[2]), len(digits))


def rounds_to(exact: Fraction, typed: Decimal) -> bool:
    """Whether a typed decimal is the correct rounding of a number that no short decimal equals.

    A decimal with fewer than `MIN_SIGNIFICANT_DIGITS` digits, or a number that is itself a decimal,
    is compared exactly: 0.333333 is one third, 0.3333 is not, 0.0000668 is not 0.0000672.
    """
    if typed.significant < MIN_SIGNIFICANT_DIGITS or is_terminating(exact):
        return False
    return bool(abs(exact - typed.value) * 2 * 10**typed.places <= 1)


def is_terminating(value: Fraction) -> bool:
    """Whether a fraction has a finite decimal expansion."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _value(name: str, parts: list[str]) -> Fraction | None:
    if name == "number":
        return Fraction(parts[0])
    if name == "fraction":
        return Fraction(parts[0]) / Fraction(parts[1])
    if name == "mixed":
        above, below = int(parts[1]), int(parts[2])
        return int(parts[0]) + Fraction(above, below) if above < below else None
    if name == "repeating":
        whole, start, cycle = parts
        start_value = Fraction(f"{whole}.{start or '0'}")
        return start_value + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(start))
    *factor, base, exponent = parts if name == "power" else (parts[0], "10", parts[1])
    if len(exponent) > 5 or abs(int(exponent)) * len(base) > MAX_DIGITS:
        return None
    return Fraction(factor[0] if factor else 1) * Fraction(int(base)) ** int(exponent)
