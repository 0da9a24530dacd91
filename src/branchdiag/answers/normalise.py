r"""One spelling for answers that differ only in how they are typed.

Reads an answer, gives its canonical string, or its digits where it is an integer. Two answers with
the same canonical string are the same answer; different strings may still be equal (`1/2`, `0.5`).
Knows nothing of grading, units or algebra. Imports nothing heavy.

What is one spelling: spacing, size and font commands, synonyms, redundant braces, `\frac12`, Unicode
signs, thousands separators (`10,\!080`, `58,500`, `10\,000`; `58, 500` and `(58,500)` are lists),
zeros before and after a number (`042`, `42.0`, `.5`), a plus sign in front, a full stop at the end,
"and" and "or" between the items of a list. What is kept: units, currency, percent and degree signs
(`units`), letter case, order, brackets, base subscripts, digits under an overline.
"""

from __future__ import annotations

import re
from functools import lru_cache

from branchdiag.answers import tables
from branchdiag.answers.latex import (
    Atom,
    Command,
    Group,
    Node,
    Script,
    Text,
    TooDeepError,
    atom,
    is_single,
    read,
)

MAX_CHARACTERS = 10_000
"""A longer text is not a final answer; it is compared as it stands."""

_INTEGER = re.compile(r"-?[0-9]+")
_COMMAND_END = re.compile(r"\\[A-Za-z]+$")
_THREE_DIGITS = re.compile(r"[0-9]{3}(?:\.[0-9]+)?")
_FIRST_DIGITS = re.compile(r"[1-9][0-9]{0,2}")


@lru_cache(maxsize=8192)
def normalise(text: str, *, thousands: bool = True) -> str:
    """The canonical spelling of an answer.

    Idempotent; linear in the length for answers that are not pathological. A text longer than
    `MAX_CHARACTERS` or nested too deep only has its white space collapsed.

    Args:
        text: the content of a box, or a reference answer.
        thousands: whether a comma between digit groups without white space separates thousands;
            otherwise it separates the items of a list.
    """
    if len(text) <= MAX_CHARACTERS:
        try:
            return _stable(text, thousands)
        except TooDeepError:
            pass
    return " ".join(text.split())


def is_oversize(text: str) -> bool:
    """Whether a text is longer or nested deeper than any final answer."""
    if len(text) > MAX_CHARACTERS:
        return True
    try:
        read(text)
    except TooDeepError:
        return True
    return False


def integer_digits(text: str) -> str | None:
    """The canonical digits of an integer answer ("042", "42.0" and "42." are "42"), else None.

    A string, because Python refuses to convert more than 4,300 digits; of any length.
    """
    stripped = text.strip()
    plain = stripped.removeprefix("+").removesuffix(".")
    if not _INTEGER.fullmatch(plain):
        plain = normalise(text)
        if not _INTEGER.fullmatch(plain):
            return None
    digits = plain.removeprefix("-").lstrip("0") or "0"
    return "-" + digits if plain.startswith("-") and digits != "0" else digits


def _stable(text: str, thousands: bool) -> str:
    for _ in range(8):
        before, text = text, _once(text, thousands)
        if text == before:
            break
    return text


def _once(text: str, thousands: bool) -> str:
    return _serialise(_trim(_splice(read(text))), thousands=thousands, top=True)


def _trim(nodes: list[Node]) -> list[Node]:
    """Without white space around and punctuation at the end."""
    begin, end = 0, len(nodes)
    while begin < end and _is_blank(nodes[begin]):
        begin += 1
    while end > begin and (
        _is_blank(nodes[end - 1]) or atom(nodes[end - 1], "character", ".", ",", ";", ":")
    ):
        end -= 1
    return nodes[begin:end]


def _is_blank(node: Node) -> bool:
    return isinstance(node, Atom) and node.kind in ("space", "thin", "join")


def _splice(nodes: list[Node]) -> list[Node]:
    """Opens groups that change nothing: around everything, around one node, empty ones."""
    solid = [node for node in nodes if not _is_blank(node)]
    if len(solid) == 1 and isinstance(solid[0], Group):
        return _splice(solid[0].nodes)
    spliced: list[Node] = []
    for node in nodes:
        if not isinstance(node, Group):
            spliced.append(node)
            continue
        inner = _splice(node.nodes)
        after_command = bool(spliced) and atom(spliced[-1], "command")
        if len(inner) == 1 and not after_command and not atom(inner[0], "character", ","):
            spliced.extend(inner)
        elif inner:
            spliced.append(Group(inner))
    return spliced


def _serialise(nodes: list[Node], *, thousands: bool, top: bool = False) -> str:
    nodes = _list_words(_join_thousands(nodes, thousands, top))
    pieces: list[str] = []
    spaced = False
    for i, node in enumerate(nodes):
        if _is_blank(node):
            spaced = True
            continue
        previous = nodes[i - 1] if i else None
        piece = _piece(nodes, i, thousands)
        if pieces and _needs_space(pieces[-1], piece, previous, node, spaced):
            pieces.append(" ")
        if piece:
            pieces.append(piece)
        spaced = False
    return "".join(pieces).strip()
