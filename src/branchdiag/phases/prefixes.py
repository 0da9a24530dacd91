"""The prefixes of a spine: where it is cut, and which fractions share a cut.

Shared by the stages that continue, grade and analyse; knows nothing of them. A fraction is cut at
floor(fraction x L), with the fraction as it is written (0.29 of 100 tokens is 29), so that no
rounding of binary numbers moves a cut. Two fractions of a short spine may cut at one place: the
samples there are drawn once, under the smaller fraction's name, and stand for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

STUDENT, TEACHER = "student", "teacher"
WRITERS = (STUDENT, TEACHER)


def fraction_text(fraction: float) -> str:
    """A fraction as it is written, for seeds and tables: the shortest decimal that is this
    number.
    """
    return repr(float(fraction))


def cut_of(fraction: float, length: int) -> int:
    """Tokens of a spine of that length that are kept: floor(fraction x length), exactly."""
    return math.floor(Fraction(fraction_text(fraction)) * length)


def cuts_of(length: int, fractions: Sequence[float]) -> dict[int, float]:
    """Cut -> the smallest fraction that cuts there, in rising order.

    Args:
        length: of the spine, in tokens.
        fractions: rising.
    """
    cuts: dict[int, float] = {}
    for fraction in fractions:
        cuts.setdefault(cut_of(fraction, length), fraction)
    return cuts
