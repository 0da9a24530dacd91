r"""One spelling for answers that differ only in how they are typed.

Reads an answer, gives its canonical string, or its digits where it is an integer. Two answers with
the same canonical string are the same answer; different strings may still be equal (`1/2`, `0.5`).
Knows nothing of grading, units or algebra. Imports nothing heavy.

What is one spelling: spacing, size and font commands, synonyms, redundant braces, `\frac12`,
Unicode signs, thousands separators (`10,\!080`, `58,500`, `10\,000`; `58, 500` and `(58,500)` are
lists), zeros before and after a number (`042`, `42.0`, `.5`), a plus sign in front, a full stop at
the end, "and" and "or" between the items of a list. What is kept: units, currency, percent and
degree signs (`units`), letter case, order, brackets, base subscripts, digits under an overline.
"""

from __future__ import annotations

import re
from functools import lru_cache

from branchdiag.answers import tables
from branchdiag.answers.latex import (
    MAX_DEPTH,
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

MAX_CHARACTERS = 1_000
"""A longer text is not a final answer; it is compared as it stands."""

MAX_PASSES = 8

_INTEGER = re.compile(r"-?[0-9]+")
_SPACED_THOUSANDS = re.compile(r"\s*[-+]?[1-9][0-9]{0,2}(?: [0-9]{3})+\s*")
_FIRST = re.compile(r"[1-9][0-9]{0,2}")
_GROUP = re.compile(r"[0-9]{3}(?:\.[0-9]+)?")
_COMMAND_END = re.compile(r"\\[A-Za-z]+$")
_LOGIC = {r"\land": "and", r"\lor": "or"}


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
    level = deepest = 0
    for sign in text:
        level = max(0, level + (sign in "([{") - (sign in ")]}"))
        deepest = max(deepest, level)
    if deepest > MAX_DEPTH:
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


@lru_cache(maxsize=8192)
def _stable(text: str, thousands: bool) -> str:
    for _ in range(MAX_PASSES):  # one pass can bring parts together that another then reads as one
        before, text = text, _once(text, thousands)
        if text == before:
            break
    return text


def _once(text: str, thousands: bool) -> str:
    if _SPACED_THOUSANDS.fullmatch(text):
        text = "".join(text.split())
    written = _serialise(_trim(_splice(read(text))), thousands)
    return r"\emptyset" if written == r"\{\}" else written


def _is_blank(node: Node) -> bool:
    return isinstance(node, Atom) and node.kind in ("space", "thin", "join")


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


def _splice(nodes: list[Node]) -> list[Node]:
    """Opens braces that change nothing: around everything, around one node, around nothing."""
    solid = [node for node in nodes if not _is_blank(node)]
    if len(solid) == 1 and isinstance(solid[0], Group):
        return _splice(solid[0].nodes)
    spliced: list[Node] = []
    for node in nodes:
        if not isinstance(node, Group):
            spliced.append(node)
            continue
        inner = _trim_blanks(_splice(node.nodes))
        last = spliced[-1] if spliced else None
        after_command = atom(last, "command") or (
            isinstance(last, Command) and last.name == "begin"
        )
        if len(inner) == 1 and not after_command and not atom(inner[0], "character", ","):
            spliced.extend(inner)
        elif inner:
            spliced.append(Group(inner))
    return spliced


def _trim_blanks(nodes: list[Node]) -> list[Node]:
    begin, end = 0, len(nodes)
    while begin < end and _is_blank(nodes[begin]):
        begin += 1
    while end > begin and _is_blank(nodes[end - 1]):
        end -= 1
    return nodes[begin:end]


def _is_comma_group(node: Node) -> bool:
    return (
        isinstance(node, Group) and len(node.nodes) == 1 and atom(node.nodes[0], "character", ",")
    )


def _join_thousands(nodes: list[Node], thousands: bool) -> list[Node]:
    """Numbers written in groups of three digits as one number."""
    joined: list[Node] = []
    level = i = 0
    while i < len(nodes):
        node = nodes[i]
        if isinstance(node, Atom):
            level += (node.text in tables.OPENERS) - (node.text in tables.CLOSERS)
        first = isinstance(node, Atom) and node.kind == "number" and _FIRST.fullmatch(node.text)
        in_list = bool(joined) and atom(joined[-1], "character", ",")
        plain = thousands and level == 0 and not in_list
        run = _thousands_run(nodes, i, plain) if first else None
        if run is None:
            joined.append(node)
            i += 1
        else:
            digits, i = run
            joined.append(Atom("number", digits))
    return joined


def _thousands_run(nodes: list[Node], i: int, plain: bool) -> tuple[str, int] | None:
    """Digits of a number in groups that begins at node i and the node after it, or None."""
    digits = [_text(nodes[i])]
    end = i + 1
    while (found := _separator(nodes, end)) is not None:
        explicit, following = found
        if not (explicit or plain) or not _GROUP.fullmatch(_text(nodes[following])):
            return None  # 2,125,1000 and (1,000) are lists, all of them
        if "." in digits[-1]:
            return None
        digits.append(_text(nodes[following]))
        end = following + 1
    return ("".join(digits), end) if len(digits) > 1 else None


def _separator(nodes: list[Node], i: int) -> tuple[bool, int] | None:
    """Whether what stands at node i separates thousands explicitly, and the number after it."""
    if i >= len(nodes):
        return None
    explicit, j = True, i + 1
    if atom(nodes[i], "character", ","):
        while j < len(nodes) and _is_blank(nodes[j]):
            j += 1
        explicit = any(atom(node, "join") for node in nodes[i + 1 : j])
        if not explicit and j > i + 1:
            return None  # a comma and white space: the next item of a list
    elif not (_is_comma_group(nodes[i]) or atom(nodes[i], "thin") or atom(nodes[i], "join")):
        return None
    return (explicit, j) if j < len(nodes) and atom(nodes[j], "number") else None


def _order_scripts(nodes: list[Node]) -> list[Node]:
    """Subscripts before superscripts."""
    ordered = list(nodes)
    for i in range(1, len(ordered)):
        before, after = ordered[i - 1], ordered[i]
        if not (isinstance(before, Script) and isinstance(after, Script)):
            continue
        if before.sign == "^" and after.sign == "_":
            ordered[i - 1 : i + 1] = [after, before]
    return ordered


def _text(node: Node) -> str:
    return node.text if isinstance(node, Atom) else ""


def _list_words(nodes: list[Node]) -> list[Node]:
    """ "and" and "or" between formulas as commas; kept between words and between inequalities."""
    named = [Atom("word", _LOGIC[_text(node)]) if _text(node) in _LOGIC else node for node in nodes]
    marks = {i for i, node in enumerate(named) if atom(node, "word", "and", "or")}
    if not marks:
        return nodes
    rest = [node for i, node in enumerate(named) if i not in marks]
    if any(isinstance(n, Text) or (atom(n, "word") and len(_text(n)) > 1) for n in rest):
        return nodes
    if any(tables.ORDER_RELATIONS.fullmatch(_text(node)) for node in rest):
        return [Text(_text(node)) if i in marks else node for i, node in enumerate(named)]
    listed: list[Node] = []
    for i, node in enumerate(named):
        if i not in marks:
            listed.append(node)
            continue
        while listed and (_is_blank(listed[-1]) or atom(listed[-1], "character", ",")):
            listed.pop()
        if listed and i + 1 < len(named):
            listed += [Atom("character", ","), Atom("space", " ")]
    return listed


def _serialise(nodes: list[Node], thousands: bool, verbatim: bool = False) -> str:
    """The canonical string of sibling nodes; `verbatim` keeps the zeros of numbers."""
    nodes = _list_words(_join_thousands(_order_scripts(nodes), thousands))
    pieces: list[str] = []
    last: Node | None = None
    spaced = False
    for i, node in enumerate(nodes):
        if _is_blank(node):
            spaced = spaced or not atom(node, "join")
            continue
        piece = _piece(node, last, nodes[i + 1 :], spaced, thousands, verbatim)
        if not piece:
            continue
        if pieces and _needs_space(pieces[-1], piece, last, node, spaced):
            pieces.append(" ")
        pieces.append(piece)
        last, spaced = node, False
    return "".join(pieces).strip()


def _piece(
    node: Node, last: Node | None, rest: list[Node], spaced: bool, thousands: bool, verbatim: bool
) -> str:
    if isinstance(node, Text):
        opens = last is None or (isinstance(last, Atom) and last.kind == "character")
        unit = not (opens and not atom(last, "character", ")", "]", "'", "|"))
        return node.content if len(node.content) == 1 and not unit else rf"\text{{{node.content}}}"
    if isinstance(node, Group):
        return ", " if _is_comma_group(node) else f"{{{_serialise(node.nodes, thousands)}}}"
    if isinstance(node, Command):
        keep = node.name in tables.VERBATIM_DIGITS
        option = "" if node.option is None else f"[{_inner(node.option, thousands)}]"
        arguments = (f"{{{_inner(a, thousands, keep)}}}" for a in node.arguments)
        return f"\\{node.name}{option}{''.join(arguments)}"
    if isinstance(node, Script):
        return _script(node, last, thousands)
    if node.kind == "number":
        return node.text if verbatim else _number(node.text, last, rest, spaced)
    if node.kind == "character":
        if node.text in ",;":
            return node.text + " "
        if node.text == "+" and _is_unary(last) and rest and not _is_blank(rest[0]):
            return ""
    return node.text


def _inner(nodes: list[Node], thousands: bool, verbatim: bool = False) -> str:
    return _serialise(_trim_blanks(_splice(nodes)), thousands, verbatim)


def _is_unary(last: Node | None) -> bool:
    return last is None or atom(last, "character", "(", "[", ",", ";", "=", "<", ">")


def _number(text: str, last: Node | None, rest: list[Node], spaced: bool) -> str:
    """Without zeros that say nothing: after a letter (A05) and before repeating digits they do."""
    whole, _, fraction = text.partition(".")
    if spaced or not atom(last, "word"):
        whole = whole.lstrip("0") or "0"
    follows = next((node for node in rest if not _is_blank(node)), None)
    repeats = isinstance(follows, Command) and follows.name in tables.VERBATIM_DIGITS
    if not repeats and not atom(follows, "command", r"\ldots"):
        fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def _script(node: Script, last: Node | None, thousands: bool) -> str:
    inner = _trim_blanks(_splice(node.nodes))
    if not inner:
        return ""
    if node.sign == "^" and all(atom(item, "character", "'") for item in inner):
        return "'" * len(inner)
    if node.sign == "^" and len(inner) == 1 and atom(last, "number") and _text(inner[0]) == "o":
        return r"^\circ"
    content = _serialise(inner, thousands=False)
    return node.sign + (content if is_single(inner) else f"{{{content}}}")


def _needs_space(before: str, piece: str, last: Node | None, node: Node, spaced: bool) -> bool:
    """White space is kept only where the next reading would otherwise take two parts for one."""
    if _COMMAND_END.search(before):
        return piece[0] in tables.LETTERS
    if before[-1].isdigit() or before[-1] == ".":
        return piece[0].isdigit()
    if spaced and atom(last, "word") and atom(node, "word"):
        return len(_text(last or node)) > 1 or len(_text(node)) > 1
    return False
