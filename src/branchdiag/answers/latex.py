r"""A small LaTeX reader: text to a tree of nodes, spelling differences removed on the way.

Reads one answer, gives nodes for `normalise`. Commands that change only the look are dropped,
synonyms are replaced, arguments are attached as TeX attaches them (`\frac12` is one half; an
exponent takes a whole number, as plain writers mean it). Knows nothing of numbers, lists or what
answers are equal. Unknown commands stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from branchdiag.answers import tables

MAX_DEPTH = 20
"""Groups, arguments, scripts and brackets nest at most this deep in an answer."""

_TOKEN = re.compile(
    r"(?P<word>[A-Za-z]+)|(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|(?P<command>\\[A-Za-z]+\*?|\\.)"
    r"|(?P<space>\s+)|(?P<character>.)",
    re.DOTALL,
)
_LIST_WORDS = re.compile(r"(?<![^\W\d_])(?:and|or)(?![^\W\d_])")
_LETTER_UNIT = re.compile(r"(?![dei]$)[A-Za-z](?:[/ ][A-Za-z]|\^?[0-9])*")
_COUNTED = re.compile(r"([-+]?[0-9][0-9.,]*) ?([^\W\d_].*)")
_SILENT_IN_TEXT = (tables.TEXT, tables.FONTS, tables.DROPPED, tables.DELIMITERS)
_COMMANDS_OF_CHARACTERS = {"%": r"\%", "*": r"\cdot"}
_TWO_LETTERS = re.compile(r"[^\W\d_]{2}")
_SCRIPT_RUN = re.compile(f"([{''.join(tables.SUPERSCRIPTS)}]+)|([{''.join(tables.SUBSCRIPTS)}]+)")
_ROW_GAP = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*[a-z]{2}\s*\]")
_INVISIBLE = re.compile("[\xad\u200b-\u200f\u2060-\u2064\ufeff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")


class TooDeepError(ValueError):
    """The text nests deeper than `MAX_DEPTH`."""


Kind = Literal["word", "number", "command", "space", "thin", "join", "character"]


@dataclass
class Atom:
    """A leaf: a run of letters, a number, a command without arguments, a sign, or spacing."""

    kind: Kind
    text: str


@dataclass
class Text:
    r"""Words in \text{...}; white space collapsed, braces kept."""

    content: str


@dataclass
class Group:
    """Braces that belong to no command."""

    nodes: list[Node]


@dataclass
class Command:
    """A command with its arguments."""

    name: str
    arguments: list[list[Node]]
    option: list[Node] | None = None


@dataclass
class Script:
    """A superscript or a subscript."""

    sign: str
    nodes: list[Node] = field(default_factory=list)


Node = Atom | Text | Group | Command | Script


def read(text: str) -> list[Node]:
    """The nodes of an answer.

    Raises:
        TooDeepError: groups, arguments or scripts nest deeper than `MAX_DEPTH`.
    """
    return _Reader(_tokens(_unicode_to_latex(text))).nodes(0)


def atom(node: Node | None, kind: Kind, *texts: str) -> bool:
    """Whether a node is an atom of this kind (and one of these texts)."""
    return isinstance(node, Atom) and node.kind == kind and (not texts or node.text in texts)


def is_single(nodes: list[Node]) -> bool:
    """Whether nodes need no braces: one sign, letter, digit or command without arguments."""
    if len(nodes) != 1 or not isinstance(nodes[0], Atom):
        return False
    only = nodes[0]
    return only.kind in ("command", "character") or len(only.text) == 1


def _unicode_to_latex(text: str) -> str:
    def script(match: re.Match[str]) -> str:
        if match[1]:
            return "^{" + "".join(tables.SUPERSCRIPTS[sign] for sign in match[1]) + "}"
        return "_{" + "".join(tables.SUBSCRIPTS[sign] for sign in match[2]) + "}"

    text = _CONTROL.sub(" ", _INVISIBLE.sub("", text))
    text = _SCRIPT_RUN.sub(script, text).translate(tables.TRANSLATION)
    text = text.replace("**", "^").replace("<=", r"\leq ").replace(">=", r"\geq ")
    return re.sub(r"\.{3,}", r"\\ldots ", _ROW_GAP.sub(r"\\\\", text))


def _tokens(text: str) -> list[Atom]:
    tokens = []
    for match in _TOKEN.finditer(text):
        kind: Kind = match.lastgroup  # type: ignore[assignment]
        tokens.append(Atom(kind, match[0]))
    return _without_math_delimiters(tokens)


def _without_math_delimiters(tokens: list[Atom]) -> list[Atom]:
    r"""Drops $, \( and \[; a single $ at the start is the currency sign."""
    dollars = [i for i, token in enumerate(tokens) if atom(token, "character", "$")]
    if len(dollars) == 1 and all(atom(t, "space") or t.text == "-" for t in tokens[: dollars[0]]):
        tokens[dollars[0]] = Atom("command", r"\$")
    return [
        token
        for token in tokens
        if not atom(token, "character", "$")
        and not atom(token, "command", r"\(", r"\)", r"\[", r"\]")
    ]


class _Reader:
    """Reads tokens once, left to right."""

    def __init__(self, tokens: list[Atom]) -> None:
        self.tokens = tokens
        self.position = 0
        self.closing = _pairs(tokens, "(", ")") | _pairs(tokens, "{", "}")

    def nodes(self, depth: int, closing: str | None = None) -> list[Node]:
        """Nodes up to the closing sign (taken too) or the end of the tokens."""
        if depth > MAX_DEPTH:
            raise TooDeepError
        nodes: list[Node] = []
        while (token := self._next()) is not None:
            if closing is not None and token.text == closing and token.kind == "character":
                break
            if token.text != "}" or token.kind != "character":  # a stray brace is dropped
                nodes.extend(self._node(token, depth))
        return _over(nodes)

    def _next(self) -> Atom | None:
        if self.position >= len(self.tokens):
            return None
        self.position += 1
        return self.tokens[self.position - 1]

    def _peek(self) -> Atom | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def _skip_space(self) -> None:
        while self.position < len(self.tokens) and self.tokens[self.position].kind == "space":
            self.position += 1

    def _node(self, token: Atom, depth: int) -> Iterable[Node]:
        if token.kind == "character":
            if token.text == "{":
                return [Group(self.nodes(depth + 1, "}"))]
            if token.text in "^_":
                return [self._script(token.text, depth)]
            return [_character(token.text)]
        if token.kind == "command":
            return self._command(token.text[1:].rstrip("*") or "*", depth)
        if token.text == "sqrt":
            return [self._root(depth, whole_number=True)]
        if token.kind == "word" and token.text in tables.WORDS:
            return [Atom("command", tables.WORDS[token.text])]
        return [token]

    def _command(self, name: str, depth: int) -> Iterable[Node]:
        name = tables.SYNONYMS.get(name, name)
        if name in tables.CHARACTERS:
            sign = tables.CHARACTERS[name]
            return [Atom("command" if sign[0] == "\\" else "character", sign)]
        if name in tables.DELIMITERS:
            self._skip_space()
            if atom(self._peek(), "character", "."):
                self.position += 1
            return []
        if name in tables.DROPPED:
            return []
        if name == "!":
            return [Atom("join", "")]
        if name == ",":
            return [Atom("thin", " ")]
        if name in tables.SPACES or (len(name) == 1 and (name in ":;>" or name.isspace())):
            return [Atom("space", " ")]
        if name in tables.DROPPED_WITH_ARGUMENT:
            self._argument(depth)
            return []
        if name == "textcolor":
            self._argument(depth)
            return self._argument(depth) or []
        if name in tables.TEXT:
            return self._text(name, depth)
        if name in tables.FONTS:
            return [Group(self._argument(depth) or [])]
        if name == "sqrt":
            return [self._root(depth)]
        wanted = 2 if name in tables.TWO_ARGUMENTS else 1 if name in tables.ONE_ARGUMENT else 0
        if not wanted:
            return [Atom("command", "\\" + name)]
        read = [self._argument(depth) for _ in range(wanted)]
        return [Command(name, [argument for argument in read if argument is not None])]

    def _option(self, depth: int) -> list[Node] | None:
        self._skip_space()
        if not atom(self._peek(), "character", "["):
            return None
        self.position += 1
        return self.nodes(depth + 1, "]")

    def _argument(self, depth: int, *, whole_number: bool = False) -> list[Node] | None:
        """A group, or one digit, letter or command, as TeX takes it."""
        self._skip_space()
        token = self._peek()
        if token is None or atom(token, "character", "}"):
            return None
        if depth > MAX_DEPTH:
            raise TooDeepError
        self.position += 1
        if atom(token, "character", "{"):
            return self.nodes(depth + 1, "}")
        if len(token.text) > 1 and (
            token.kind == "word" or (token.kind == "number" and not whole_number)
        ):
            self.position -= 1  # the first letter or digit; the rest stays
            self.tokens[self.position] = Atom(token.kind, token.text[1:])
            if token.text[1] == ".":
                self.tokens[self.position] = Atom("character", token.text[1:])
            return [Atom(token.kind, token.text[0])]
        return list(self._node(token, depth + 1))

    def _script(self, sign: str, depth: int) -> Script:
        self._skip_space()
        minus: list[Node] = []
        if atom(self._peek(), "character", "-", "+"):
            minus = [Atom("character", self.tokens[self.position].text)]
            self.position += 1
        self._parentheses_to_braces()
        return Script(sign, minus + (self._argument(depth, whole_number=True) or []))

    def _root(self, depth: int, *, whole_number: bool = False) -> Command:
        """A root: in braces, of one digit or letter, or, as plain writers do, in parentheses."""
        option = self._option(depth)
        self._parentheses_to_braces()
        argument = self._argument(depth, whole_number=whole_number)
        return Command("sqrt", [] if argument is None else [argument], option)

    def _parentheses_to_braces(self) -> None:
        """Plain writers' sqrt(5) and x^(1/2): the parentheses ahead become braces."""
        self._skip_space()
        if atom(self._peek(), "character", "("):
            closing = self.closing.get(self.position)
            if closing is not None:
                self.tokens[self.position] = Atom("character", "{")
                self.tokens[closing] = Atom("character", "}")

    def _text(self, name: str, depth: int) -> Iterable[Node]:
        r"""The argument of \text and its like: words stay text, anything else is mathematics."""
        self._skip_space()
        if not atom(self._peek(), "character", "{"):
            return self._argument(depth) or []
        closing = self.closing.get(self.position)
        content = _plain(self.tokens[self.position + 1 : closing])
        is_text = bool(_TWO_LETTERS.search(_LIST_WORDS.sub("", content))) or bool(
            _LETTER_UNIT.fullmatch(content)
        )
        if not is_text or (name == "operatorname" and content in tables.FUNCTIONS):
            return self._argument(depth) or []
        self.position = len(self.tokens) if closing is None else closing + 1
        counted = _COUNTED.fullmatch(content)
        if counted:
            return [*_tokens(counted[1]), Text(counted[2])]
        return [Text(content)]


def _pairs(tokens: list[Atom], opener: str, closer: str) -> dict[int, int]:
    """Positions of matching signs, opening to closing."""
    pairs: dict[int, int] = {}
    stack: list[int] = []
    for i, token in enumerate(tokens):
        if token.kind == "character":
            if token.text == opener:
                stack.append(i)
            elif token.text == closer and stack:
                pairs[stack.pop()] = i
    return pairs


def _plain(tokens: list[Atom]) -> str:
    pieces = []
    for token in tokens:
        if token.kind == "command":
            name = token.text[1:]
            known = any(name in table for table in _SILENT_IN_TEXT)
            blank = name in tables.SPACES or (not name.isalpha() and name not in "%$#&_")
            pieces.append("" if known else " " if blank else token.text)
        elif token.kind != "character" or token.text not in "{}~":
            pieces.append(token.text)
        elif token.text == "~":
            pieces.append(" ")
    return " ".join("".join(pieces).split())


def _character(sign: str) -> Atom:
    if sign in _COMMANDS_OF_CHARACTERS:
        return Atom("command", _COMMANDS_OF_CHARACTERS[sign])
    return Atom("space", " ") if sign in '~"\\' else Atom("character", sign)


def _over(nodes: list[Node]) -> list[Node]:
    r"""{a \over b} and {a \choose b} as \frac and \binom."""
    for name, command in (("\\over", "frac"), ("\\choose", "binom")):
        for i, node in enumerate(nodes):
            if atom(node, "command", name):
                return [Command(command, [nodes[:i], nodes[i + 1 :]])]
    return nodes
