r"""From a canonical answer to a sympy object. Imported only inside worker processes.

The parser is math-verify's (latex2sympy2_extended), fed with a spelling that avoids what it gets
wrong: it adds neighbouring numbers as if they were a mixed number (`2(3)` = 5,
`3\binom{4}{2}` = 9), reads `d` before a letter as a differential, drops primes and an exponent T,
ignores commands it does not know, and folds letter case. Commands that no rule here knows raise
instead. Knows nothing of comparison.
"""

from __future__ import annotations

import re
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

from branchdiag.answers import tables
from branchdiag.answers.latex import Atom, Command, Group, Node, Script, Text, atom, read

_ALLOWED = (
    tables.names(
        "pi infty cdot times div leq geq neq cup cap setminus in emptyset lfloor rfloor lceil "
        "rceil circ alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa "
        "lambda mu nu xi rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda "
        "Xi Pi Sigma Upsilon Phi Psi Omega sum prod int rightarrow ell"
    )
    | tables.FUNCTIONS
)
_SIGNS = frozenset([r"\{", r"\}", r"\%", "\\\\"])
_COMMANDS = tables.names("frac binom sqrt bar overline hat vec tilde dot mathbb begin end")
_ENVIRONMENTS = tables.names("matrix pmatrix bmatrix vmatrix")
_CALCULUS = re.compile(r"\\int(?![A-Za-z])|\\frac\{d")
_CONFIG = ConversionConfig(lowercase_symbols=False)
IMAGINARY = {sympy.Symbol("i"): sympy.I}


class UnparsedError(ValueError):
    """A text that is no formula this parser reads."""


def parse(canonical: str) -> Any:
    """The sympy object of a canonical answer: an expression, relation, set, tuple or matrix.

    The letter i is the imaginary unit, e is Euler's number, letter case counts.

    Raises:
        UnparsedError: it is not a formula, or has a command that is not known here.
    """
    spelling = _Speller(calculus=_CALCULUS.search(canonical) is not None).spell(read(canonical))
    try:
        parsed = latex2sympy(
            spelling, convert_degrees=True, normalization_config=None, conversion_config=_CONFIG
        )
    except (RecursionError, MemoryError):
        raise
    except Exception as error:  # the generated parser raises bare Exception and many others
        raise UnparsedError(str(error).split("\n")[0]) from error
    if parsed is None or isinstance(parsed, (bool, str, list)):
        raise UnparsedError(f"no formula: {type(parsed).__name__}")
    if "i" in canonical and isinstance(parsed, (sympy.Basic, sympy.MatrixBase)):
        parsed = _with_imaginary_unit(parsed)
    return parsed


def _with_imaginary_unit(parsed: Any) -> Any:
    """Symbol i becomes the imaginary unit without evaluating anything else."""
    if isinstance(parsed, sympy.MatrixBase):
        return parsed.applyfunc(_with_imaginary_unit)
    if parsed in IMAGINARY:
        return sympy.I
    if not parsed.args or sympy.Symbol("i") not in parsed.free_symbols:
        return parsed
    arguments = [_with_imaginary_unit(argument) for argument in parsed.args]
    try:
        return parsed.func(*arguments, evaluate=False)
    except TypeError:
        return parsed.func(*arguments)


class _Speller:
    """Writes nodes in the spelling that the parser reads as meant."""

    def __init__(self, calculus: bool) -> None:
        self.calculus = calculus

    def spell(self, nodes: list[Node]) -> str:
        solid = [
            n for n in nodes if not (isinstance(n, Atom) and n.kind in ("space", "thin", "join"))
        ]
        written: list[str] = []
        i = 0
        while i < len(solid):
            mixed = self._mixed(solid, i)
            if mixed is not None:
                written.append(mixed)
                i += 2
            else:
                written.append(self._node(solid, i))
                i += 1
            if i < len(solid) and _multiplies(solid[i - 1], solid[i]):
                written.append(r"\cdot ")
        return "".join(written)

    def _mixed(self, nodes: list[Node], i: int) -> str | None:
        """1\\frac{1}{2} as a sum in parentheses."""
        whole, fraction = nodes[i], nodes[i + 1] if i + 1 < len(nodes) else None
        if not (
            atom(whole, "number") and isinstance(fraction, Command) and fraction.name == "frac"
        ):
            return None
        parts = [self.spell(argument) for argument in fraction.arguments]
        if len(parts) != 2 or not all(part.isdigit() for part in parts) or "." in _text(whole):
            return None
        if int(parts[0]) >= int(parts[1]):
            return None
        return rf"({_text(whole)}+\frac{{{parts[0]}}}{{{parts[1]}}})"

    def _node(self, nodes: list[Node], i: int) -> str:
        node = nodes[i]
        if isinstance(node, Text):
            raise UnparsedError(f"words: {node.content[:40]}")
        if isinstance(node, Group):
            return f"{{{self.spell(node.nodes)}}}"
        if isinstance(node, Script):
            inner = self.spell(node.nodes)
            # the parser takes ^{T} for a transposition; a space keeps it an exponent
            return f"{node.sign}{{{' ' if inner == 'T' else ''}{inner.rstrip()}}}"
        if isinstance(node, Command):
            return self._command(node)
        if node.kind == "command":
            name = node.text[1:]
            if node.text in _SIGNS:
                return node.text
            if name not in _ALLOWED:
                raise UnparsedError(f"command {node.text}")
            return node.text + " "
        if node.kind == "word":
            letters = node.text if self.calculus else node.text.replace("d", "{d}")
            primes = 0
            while atom(
                nodes[i + 1 + primes] if i + 1 + primes < len(nodes) else None, "character", "'"
            ):
                primes += 1
            return letters + (f"_{{p{primes}}}" if primes else "")
        if node.text == "'":
            if i and (atom(nodes[i - 1], "word") or atom(nodes[i - 1], "character", "'")):
                return ""
            raise UnparsedError("a prime after something other than a letter")
        return node.text

    def _command(self, node: Command) -> str:
        if node.name not in _COMMANDS:
            raise UnparsedError(f"command \\{node.name}")
        if node.name in ("begin", "end"):
            environment = (
                "".join(_text(item) for item in node.arguments[0]) if node.arguments else ""
            )
            if environment not in _ENVIRONMENTS:
                raise UnparsedError(f"environment {environment}")
            return rf"\{node.name}{{{environment}}}"
        option = "" if node.option is None else f"[{self.spell(node.option)}]"
        arguments = "".join(f"{{{self.spell(argument)}}}" for argument in node.arguments)
        return rf"\{node.name}{option}{arguments}"


def _multiplies(left: Node, right: Node) -> bool:
    """Whether two neighbours are factors that the parser might add up instead."""
    factors = ("frac", "binom", "sqrt")
    is_left = atom(left, "number") or atom(left, "character", ")")
    is_left = is_left or (isinstance(left, Command) and left.name in factors)
    is_right = atom(right, "number") or atom(right, "character", "(") or isinstance(right, Group)
    return is_left and (is_right or (isinstance(right, Command) and right.name in factors))


def _text(node: Node) -> str:
    return node.text if isinstance(node, Atom) else ""
