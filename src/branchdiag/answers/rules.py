r"""Answers that algebra would misread: words, choice letters, numerals in a base, ratios and times.

Each rule reads two canonical strings (`normalise`) and decides (True, False) or passes (None).
They close the false positives of math-verify: "yes" = "sey" (letters taken as a product),
4210_5 = 4210_7 (subscript dropped), 12:30 = 24:60 (taken as a quotient). Knows nothing of sympy.
"""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_ONLY_TEXT = re.compile(r"\\text\{[^{}]*\}")
_WORDS = re.compile(r"[^\W\d_]+(?:(?:[ \-'.&/]|[.,] )[^\W\d_]+)*")
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_AND = re.compile(r", (?:and )?| and ")
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_ARTICLE = re.compile(r"(?:an?|the) (?=[^\W\d_]{2})")
_GEOMETRY = re.compile(
    r"\\(?:angle|triangle|overline|vec|overleftrightarrow|odot|hat|overarc|square|bigtriangleup)"
    r"(?:\{(?=[A-Z]{2})| ?(?=[A-Z]))[A-Z]+\}?"
)
_CHOICE = re.compile(r"\(([A-Z])\)|([A-Z])")
_CHOICE_AND_MORE = re.compile(r"\(([A-Z])\).+|([A-Z])\).+")
_NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
)
_NOTHING = ("no solution", "no solutions", "no real solution", "no real solutions", "empty set")
_BASE_WORDS = {word: str(base) for base, word in enumerate(_NUMBER_WORDS.split(), start=2)}
_NUMERAL = re.compile(
    r"\(?(?=[A-Z]*[0-9])([0-9A-Z]+)\)?"
    r"(?:_(?:([0-9])|\{([0-9]+)\}|\\text\{([a-z]+)\}|\{\\text\{([a-z]+)\}\}|\{([a-z]+)\})"
    r"|\(?(?:base|\\text\{\(?base) ?([0-9]+|[a-z]+)\)?\}?\)?)"
)
_SUBSCRIPT = re.compile(r"[0-9]_(\{[^{}]*\}|.)")
_BARE_NUMERAL = re.compile(r"[0-9A-Z]+")
_RATIO = re.compile(r"[0-9](?:\})?:(?:\{|\\[a-z]+\{)?[0-9]|[a-z]:[a-z]|[0-9]:[a-z]|[a-z]:[0-9]")


def words(predicted: str, gold: str) -> bool | None:
    r"""Text answers compare as strings, without regard to case, articles and white space.

    Names joined by "and" or commas compare in any order.

    The gold answer is text where it is one `\text{...}`, or where both answers are bare words of at
    least two letters. A bare word against a formula (`xy` against `x \cdot y`) passes: it may be a
    product. A formula as gold is never equal to text.
    """
    if "=" in predicted:
        return None  # named, as in `x = \text{even}`: the value is compared later
    gold_text, predicted_text = _phrase(gold), _phrase(predicted)
    if _GEOMETRY.fullmatch(gold) or _GEOMETRY.fullmatch(predicted):
        return _key(gold) == _key(predicted)
    if r"\emptyset" in (gold, predicted) and (gold_text or predicted_text):
        return _key(gold) == _key(predicted)
    if _ONLY_TEXT.fullmatch(gold) or (gold_text and predicted_text):
        return _key(gold) == _key(predicted)
    if _ONLY_TEXT.fullmatch(predicted) and not gold_text:
        return False
    return None


def choice(predicted: str, gold: str) -> bool | None:
    r"""A letter of a multiple choice: (C) is C, and `\textbf{(C)}\ 12` is (C)."""
    wanted = _CHOICE.fullmatch(gold)
    if wanted is None or "=" in predicted:
        return None
    letter = wanted[1] or wanted[2]
    given = _CHOICE.fullmatch(predicted)
    if given is None and wanted[1]:
        given = _CHOICE_AND_MORE.fullmatch(predicted)
    if given is not None:
        return (given[1] or given[2]) == letter
    if wanted[1]:
        return predicted.strip("(). ").upper() == letter
    return None


def base(predicted: str, gold: str) -> bool | None:
    """Numerals in a base: digits are equal, and so are the bases where both are written."""
    wanted, given = _numeral(gold), _numeral(predicted)
    if wanted is None and given is None:
        return None
    if wanted is not None and given is not None:
        return wanted == given
    numeral, other = (wanted, predicted) if wanted is not None else (given, gold)
    if "=" in other:
        return None
    if numeral is not None and _BARE_NUMERAL.fullmatch(other):
        return numeral[0] == other
    return False if wanted is not None else None


def ratio(predicted: str, gold: str) -> bool | None:
    """Ratios and times of day compare as they are written: 12:30 is not 24:60, nor 2/5."""
    if _RATIO.search(gold) is None and _RATIO.search(predicted) is None:
        return None
    return _key(predicted) == _key(gold)


def subscripts(predicted: str, gold: str) -> bool | None:
    """False where both have numbers in a base and the bases differ, anywhere in the answer."""
    given, wanted = (sorted(_SUBSCRIPT.findall(text)) for text in (predicted, gold))
    return False if given and wanted and given != wanted else None


def primes(predicted: str, gold: str) -> bool | None:
    """False where one answer has more primes than the other: f'(x) is not f(x)."""
    return None if predicted.count("'") == gold.count("'") else False


def has_text(canonical: str) -> bool:
    r"""Whether words are left in a formula (`x \text{ if } x > 0`): algebra cannot read them."""
    return any(match[1] not in ("and", "or") for match in _TEXT.finditer(canonical))


def same_text(predicted: str, gold: str) -> bool:
    """Whether two answers with words in them are the same up to case and white space."""
    return _key(predicted) == _key(gold)


def _phrase(canonical: str) -> bool:
    plain = _TEXT.sub(lambda match: match[1], canonical)
    return bool(_WORDS.fullmatch(plain.rstrip(".")) and _TWO_LETTERS.search(plain))


def _key(canonical: str) -> str:
    plain = _TEXT.sub(lambda match: f" {match[1]} ", canonical).casefold()
    plain = " ".join(_HYPHEN.sub(" ", plain).split()).strip(" .,;:!\"'()")
    plain = _ARTICLE.sub("", plain)
    if plain in _NOTHING:
        return r"\emptyset"
    if not _WORDS.fullmatch(plain):
        return "".join(plain.split())
    return ", ".join(sorted(_AND.split(plain)))


def _numeral(canonical: str) -> tuple[str, str] | None:
    match = _NUMERAL.fullmatch(canonical)
    if match is None:
        return None
    written = next(group for group in match.groups()[1:] if group)
    number = written if written.isdigit() else _BASE_WORDS.get(written)
    return None if number is None else (match[1], number)
