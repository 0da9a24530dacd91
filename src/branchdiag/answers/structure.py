r"""The shape of an answer: lists, sets, tuples, intervals, matrices, assignments, plus-minus.

Reads a canonical string (`normalise`), gives its parts. Purely textual: knows nothing of values,
grading or sympy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Kind = Literal["list", "set", "bracket", "matrix"]

_OPEN = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle"}
_TOKEN = re.compile(r"\\begin\{[a-z]+\*?\}|\\end\{[a-z]+\*?\}|\\[A-Za-z]+|\\.|[^\\]", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{([pb]?matrix)\}(.*)\\end\{\1\}", re.DOTALL)
_ARRAY = re.compile(r"[(\[]\\begin\{array\}\{[^{}]*\}(.*)\\end\{array\}[)\]]", re.DOTALL)
_ARRAY_MATRIX = re.compile(r"[(\[]\\begin\{matrix\}(.*)\\end\{matrix\}[)\]]", re.DOTALL)
_NAME = (
    r"(?:\\text\{[^{}]*\}|\([A-Za-z](?:, [A-Za-z])+\)|\[[A-Z]{3,}\]|m?\\(?:angle|triangle) ?[A-Z]+|"
    r"\\(?:vec|overline|hat)\{[A-Za-z]+\}|\\?[A-Za-z]+)"
    r"(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9, ]+\}))?'*(?:\([A-Za-z0-9](?:, [A-Za-z0-9])*\))?"
)
_ASSIGNMENT = re.compile(
    rf"({_NAME}) ?(=|\\in(?![A-Za-z])|\\(?:approx|equiv)(?![A-Za-z])) ?(.+)", re.DOTALL
)
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
_ORDER = re.compile(r"[<>]|\\(?:leq|geq|neq)(?![A-Za-z])")
_SET_BUILDER = re.compile(
    r"\\\{ ?[A-Za-z](?:\\in ?\\mathbb\{R\})? ?(?::|\\mid ?|\|) ?(.+)\\\}", re.DOTALL
)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z]) ?")
_PREFIX = re.compile(r"\\text\{[^{}]*[:=]\}(.+)", re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """Parts of an answer.

    Attributes:
        kind: `list` (bare, no order), `set` (in braces, no order), `bracket` (an ordered tuple or
            an interval) or `matrix`.
        items: canonical strings; a matrix has its rows joined.
        brackets: the brackets of a `bracket`, as "(]".
        shape: rows and columns of a `matrix`.
    """

    kind: Kind
    items: tuple[str, ...]
    brackets: str = ""
    shape: tuple[int, int] = (0, 0)


def parts(canonical: str) -> Parts | None:
    """How an answer is made up of others, or None for a single one."""
    items = split(canonical)
    if len(items) > 1:
        return Parts("list", tuple(items))
    matrix = (
        _MATRIX.fullmatch(canonical)
        or _ARRAY.fullmatch(canonical)
        or _ARRAY_MATRIX.fullmatch(canonical)
    )
    if matrix:
        return _matrix(matrix[matrix.lastindex or 1])
    inner = _inside(canonical)
    if inner is None:
        return None
    opener, content, closer = inner
    items = split(content)
    if opener == r"\{" and closer == r"\}":
        return Parts("set", tuple(items) if content else ())
    if len(items) > 1:
        return Parts("bracket", tuple(items), _round(opener) + _round(closer))
    return None


def split(canonical: str, separators: Collection[str] = ",;") -> list[str]:
    """The items between separators outside of all brackets; one item if they do not balance."""
    items, start, level, environment, position = [], 0, 0, 0, 0
    for match in _TOKEN.finditer(canonical):
        token, position = match[0], match.end()
        if token.startswith(r"\begin{"):
            environment += 1
        elif token.startswith(r"\end{"):
            environment -= 1
        elif token in "([{" or token in (r"\{", r"\langle"):
            level += 1
        elif token in ")]}" or token in (r"\}", r"\rangle"):
            level -= 1
        elif token in separators and level == 0 and environment == 0:
            items.append(canonical[start : match.start()].strip())
            start = position
    if level or environment:
        return [canonical]
    items.append(canonical[start:].strip())
    return items if all(items) else [canonical]


def assignment(canonical: str) -> tuple[str, str, str] | None:
    r"""Name, sign and value of `x = 5`, `f(x) = 2x`, `(x, y) = (1, 2)`, `x \in [0, 1]`; else None.

    Of a chain (`x = 2 + 3 = 5`) the value is the last part.
    """
    match = _ASSIGNMENT.fullmatch(canonical)
    if match is None or _ORDER.search(match[3]):
        return None
    if any("=" in item for item in split(match[3])[1:]):
        return None  # x = 1, y = 2 is a list of assignments
    value = split(match[3], "=")[-1]
    return None if value.startswith("=") or value.endswith("=") else (match[1], match[2], value)


def equation_values(canonical: str) -> list[str]:
    """The values that an equation states: the last of `a + b = 7`, both of `1/3 = 0.333`."""
    sides = split(canonical, "=")
    if len(sides) < 2 or len(split(canonical)) > 1 or _ORDER.search(canonical):
        return []
    values = [side for side in sides if not _LETTERS.search(side)]
    if len(values) == len(sides):
        return values
    return values[-1:] if values and values[-1] == sides[-1] != "0" else []


def without_prefix(canonical: str) -> str:
    r"""Without a leading `\text{...:}` or a closing `\approx ...`; a set builder's condition."""
    match = _PREFIX.fullmatch(canonical)
    if match:
        return match[1].strip()
    exact = split(canonical, (r"\approx",))
    if len(exact) > 1 and _ASSIGNMENT.fullmatch(canonical) is None:
        return exact[0]
    builder = _SET_BUILDER.fullmatch(canonical)
    return builder[1].strip() if builder and _ORDER.search(builder[1]) else canonical


def plus_minus(canonical: str) -> tuple[str, str] | None:
    r"""Both readings of an item with one \pm (and any \mp), else None."""
    if [sign[1] for sign in _PLUS_MINUS.finditer(canonical)].count("pm") != 1:
        return None
    above = _PLUS_MINUS.sub(lambda sign: "+" if sign[1] == "pm" else "-", canonical)
    below = _PLUS_MINUS.sub(lambda sign: "-" if sign[1] == "pm" else "+", canonical)
    return above.removeprefix("+"), below.removeprefix("+")


def _round(bracket: str) -> str:
    return {r"\langle": "(", r"\rangle": ")"}.get(bracket, bracket)


def _inside(canonical: str) -> tuple[str, str, str] | None:
    """Opening bracket, content and closing bracket of an answer that is bracketed as a whole.

    Half-open intervals mix brackets, so only the kinds are matched: braces with braces.
    """
    tokens = list(_TOKEN.finditer(canonical))
    if len(tokens) < 2 or tokens[0][0] not in _OPEN:
        return None
    level = 0
    for i, match in enumerate(tokens):
        token = match[0]
        level += token in _OPEN or token == "{"
        level -= token in _OPEN.values() or token == "}"
        if level == 0:
            if i < len(tokens) - 1 or (token == r"\}") != (tokens[0][0] == r"\{"):
                return None
            content = canonical[tokens[0].end() : match.start()].strip()
            return tokens[0][0], content, token
    return None


def _matrix(content: str) -> Parts | None:
    rows = split(content.strip().removesuffix(r"\\").replace(r"\\", "\0"), "\0")
    cells = [split(row, "&") for row in rows]
    if len({len(row) for row in cells}) != 1:
        return None
    flat = tuple(cell for row in cells for cell in row)
    return Parts("matrix", flat, shape=(len(cells), len(cells[0])))
