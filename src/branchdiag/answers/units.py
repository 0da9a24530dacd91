r"""Units, currency, percent and degree signs around a value.

Reads canonical strings (`normalise`), gives the bare value and the unit. Decides when two units may
stand for each other: one side without a unit is the same answer (the problem named the unit), two
known units must agree, a unit this module does not know ("5 apples") is not compared. Nothing is
converted: 1 m is not 100 cm. Knows nothing of how bare values are compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from branchdiag.answers.rational import rational

PERCENT = "percent"

_SYNONYMS = {
    "degree": "degree", "deg": "degree", "circ": "degree", PERCENT: PERCENT, "percentage": PERCENT,
    "pct": PERCENT, "percentage point": PERCENT,
    "radian": "radian", "rad": "radian", "dollar": "dollar", "usd": "dollar", "buck": "dollar",
    "cent": "cent", "euro": "euro", "pound sterling": "sterling", "yen": "yen", "rupee": "rupee",
    "mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm", "m": "m", "meter": "m",
    "km": "km", "kilometer": "km", "inch": "inch", "inche": "inch", "in": "inch", "ft": "foot",
    "foot": "foot", "feet": "foot", "yd": "yard", "yard": "yard", "mi": "mile", "mile": "mile",
    "mg": "mg", "g": "g", "gram": "g", "kg": "kg", "kilogram": "kg", "lb": "pound",
    "pound": "pound", "oz": "ounce", "ounce": "ounce", "ton": "ton", "ml": "ml",
    "milliliter": "ml", "l": "liter", "liter": "liter", "gallon": "gallon", "gal": "gallon",
    "s": "second", "sec": "second", "second": "second", "min": "minute", "minute": "minute",
    "h": "hour", "hr": "hour", "hour": "hour", "day": "day", "week": "week", "month": "month",
    "year": "year", "yr": "year", "mph": "mph", "mile per hour": "mph", "km/h": "km/h",
    "kmh": "km/h", "kph": "km/h", "kilometer per hour": "km/h", "m/s": "m/s",
    "meter per second": "m/s", "hz": "hz", "am": "am", "pm": "pm", "unit": "unit",
    "celsius": "celsius", "fahrenheit": "fahrenheit",
}  # fmt: skip
"""Names of a unit, in the singular and lower case, to one name."""

_LENGTHS = (
    r"cm|mm|km|m|in|inch(?:es)?|feet|foot|ft|yards?|miles?|(?:centi|kilo|milli)?met(?:er|re)s?"
)
_BARE = (
    rf"(?:sq|square|cubic) ?(?:units?|{_LENGTHS})|units?|cm|mm|km|inch(?:es)?|ft|feet|foot|yards?"
    r"|miles?|mph|kg|grams?|lbs?|pounds?|ounces?|oz|ml|gallons?|lit(?:er|re)s?|degrees?|radians?"
    r"|(?:centi|kilo|milli)?met(?:er|re)s?|dollars?|cents?|seconds?|sec|minutes?|mins?|hours?|hrs?"
    r"|days?|weeks?|months?|years?|[aApP]\.?[mM]\.?"
)
"""Units that need no \\text: letters that nobody means as a product."""
_TEXT_UNIT = re.compile(r"(.+?)\\text\{([^{}]{1,40})\}(?:\^(?:([0-9])|\{(-?[0-9])\}))?")
_WORD_UNIT = re.compile(rf"(.*[0-9}})\]]) ?({_BARE})(?:\^([23]))?")
_SIGN_UNIT = re.compile(r"(.+?)(\^\\circ ?(?:C|F|\\text\{[CF]\})?|\\%|\\\$)")
_MODULUS = re.compile(r"(.+?)\\p?mod(?:\{([^{}]+)\}| ?([0-9]+))")
_CURRENCY = re.compile(r"(-?)(\\\$|\\pounds ?|[€£¥₹])(-?.+)")
_CURRENCIES = {"\\$": "dollar", "\\pounds": "sterling", "£": "sterling", "€": "euro", "¥": "yen",
               "₹": "rupee"}  # fmt: skip
_AREA = re.compile(r"(square|sq|cubic|cu)\.? ?(.+)|(.+?) (squared|cubed)")
_NOT_A_UNIT = re.compile(r"(?:and|or|if|when|where|for|mod|base|not|is|are|to|no|with|=|,)\b|\\")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that multiply: two million is not two. Powers of ten."""


@dataclass(frozen=True)
class Measure:
    """A value and what it counts.

    Attributes:
        value: the canonical string without unit and magnitude.
        unit: a known unit's name (with its power), else the text as typed; None without a unit.
        known: whether the unit is one this module can compare.
        magnitude: power of ten from a word such as "million".
    """

    value: str
    unit: str | None = None
    known: bool = False
    magnitude: int = 0


def measure(canonical: str) -> Measure:
    """Splits a canonical answer into value and unit; without a unit the value is everything."""
    currency = _CURRENCY.fullmatch(canonical)
    if currency:
        inner = measure(currency[1] + currency[3])
        unit = _CURRENCIES[currency[2].strip()]
        return Measure(inner.value, unit, True, inner.magnitude)
    sign = _SIGN_UNIT.fullmatch(canonical)
    if sign and not _TRIGONOMETRIC.search(sign[1]):
        scale = sign[2][-2:].strip("}")[-1]
        name = {"%": PERCENT, "$": "dollar", "C": "celsius", "F": "fahrenheit"}.get(scale, "degree")
        return Measure(sign[1], name, True)
    modulus = _MODULUS.fullmatch(canonical)
    if modulus:
        return Measure(modulus[1], f"modulo {modulus[2] or modulus[3]}", True)
    words = _TEXT_UNIT.fullmatch(canonical)
    if words and "\\text" not in words[1] and not _NOT_A_UNIT.match(words[2].strip()):
        named = _named(words[1], words[2], words[3] or words[4])
        if named.known or any(sign.isdigit() for sign in words[1]):
            return named
    bare = _WORD_UNIT.fullmatch(canonical)
    return _named(bare[1], bare[2], bare[3]) if bare else Measure(canonical)


def agree(predicted: Measure, gold: Measure) -> bool:
    """Whether two units may stand for each other."""
    return not (predicted.known and gold.known) or predicted.unit == gold.unit


def scaled(measure: Measure) -> Fraction | None:
    """The value with its magnitude multiplied out; None where it is not a plain number."""
    number = rational(measure.value)
    return None if number is None else number * 10**measure.magnitude


def _named(value: str, text: str, power: str | None) -> Measure:
    words = text.lower().replace(".", "").replace("-", " ").split()
    magnitude = 0
    if words and words[0].removesuffix("s") in MAGNITUDES:
        magnitude = MAGNITUDES[words.pop(0).removesuffix("s")]
        if words[:1] == ["of"]:
            words.pop(0)
    name = " ".join(words)
    if not name:
        return Measure(value.strip(), None, False, magnitude)
    area = _AREA.fullmatch(name)
    if area:
        name = area[2] or area[3]
        power = "2" if (area[1] or area[4]).startswith("sq") else "3"
    known = _SYNONYMS.get(_singular(name))
    full = (known or name) + (f"^{power}" if power else "")
    return Measure(value.strip(), full, known is not None, magnitude)


def _singular(name: str) -> str:
    name = re.sub(r"metre", "meter", name).replace("litre", "liter")
    if name in _SYNONYMS:
        return name
    words = name.split(" ")
    return " ".join([words[0].removesuffix("s"), *words[1:]])
