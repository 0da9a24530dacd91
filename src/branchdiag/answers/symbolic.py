r"""The last rule: algebra. Imported only inside worker processes.

Reads two canonical answers that have no parts, gives a grade. Parses with math-verify's parser
(`formula`), then compares by kind: values (`probe`), equations, inequalities and sets
(`relations`), matrices entry by entry; what none of them can tell goes to math-verify, gold first.
Knows nothing of units, lists or the spelling of answers.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import mpmath
import sympy
from math_verify import grader, verify

from branchdiag.answers import probe
from branchdiag.answers.formula import UnparsedError, parse
from branchdiag.answers.grade import Grade
from branchdiag.answers.rational import MIN_SIGNIFICANT_DIGITS, decimal
from branchdiag.answers.relations import as_set, relations, same_relations, same_sets

_LOGIC = re.compile(r"\\text\{(and|or)\}")

logging.getLogger("math_verify").setLevel(logging.CRITICAL)
grader.TIMEOUT_WARNING_SHOWN = True  # the caller kills the process instead


def compare(predicted: str, gold: str) -> Grade:
    """Grades two canonical answers (`normalise`) by algebra.

    Returns:
        A grade with path `numeric`, `rounded`, `equation`, `relation`, `set`, `matrix`,
        `math_verify`, `unparsed` (wrong) or `gold_unparsed` (missing).

    Raises:
        RecursionError, MemoryError: the answer is too much for the parser.
    """
    try:
        wanted = _read(gold)
    except UnparsedError as error:
        return Grade(None, "gold_unparsed", str(error)[:200])
    try:
        given = _read(predicted)
    except UnparsedError as error:
        return Grade(False, "unparsed", str(error)[:200])
    verdict, path = _compare(wanted, given)
    if verdict is None:  # only now: its answers depend on how far it can simplify
        return Grade(
            bool(verify([wanted], [given], timeout_seconds=0, raise_on_error=True)), "math_verify"
        )
    if verdict is False and path == "numeric" and _rounds(wanted, given, predicted, gold):
        return Grade(True, "rounded")
    return Grade(verdict, path)


def _read(canonical: str) -> Any:
    """Parses an answer; conditions joined by words become a set."""
    pieces = _LOGIC.split(canonical)
    if len(pieces) == 1:
        return parse(canonical)
    if len(set(pieces[1::2])) > 1:
        raise UnparsedError("conditions joined by both `and` and `or`")
    sets = [as_set(parse(piece.strip(" ,;"))) for piece in pieces[::2]]
    if None in sets:
        raise UnparsedError("conditions that describe no set")
    return (sympy.Union if pieces[1] == "or" else sympy.Intersection)(*sets)


def _compare(gold: Any, predicted: Any) -> tuple[bool | None, str]:
    if isinstance(gold, sympy.Expr) and isinstance(predicted, sympy.Expr):
        return probe.equal(gold, predicted), "numeric"
    if _is_matrix(gold) or _is_matrix(predicted):
        return _same_matrices(gold, predicted), "matrix"
    if isinstance(gold, sympy.Expr) or isinstance(predicted, sympy.Expr):
        return False, "numeric"  # a value is no set, and no relation (assignments were opened)
    chains = relations(gold), relations(predicted)
    if chains[0] is not None and chains[1] is not None:
        kind = "equation" if all(isinstance(r, sympy.Eq) for r in chains[0]) else "relation"
        same = same_relations(chains[0], chains[1])
        if same or kind == "equation" or gold.free_symbols != predicted.free_symbols:
            return same, kind
    sets = as_set(gold), as_set(predicted)
    if sets[0] is not None and sets[1] is not None:
        return same_sets(sets[0], sets[1]), "set"
    return None, "math_verify"


def _is_matrix(parsed: Any) -> bool:
    return isinstance(parsed, (sympy.MatrixBase, sympy.MatrixExpr))


def _same_matrices(gold: Any, predicted: Any) -> bool | None:
    if not (_is_matrix(gold) and _is_matrix(predicted)):
        return False
    gold, predicted = gold.doit(), predicted.doit()
    if gold.shape != predicted.shape:
        return False
    try:
        entries = [probe.equal(a, b) for a, b in zip(gold, predicted, strict=True)]
    except (TypeError, ValueError):  # a product that sympy cannot carry out
        return None
    return False if False in entries else None if None in entries else True


def _rounds(gold: Any, predicted: Any, predicted_text: str, gold_text: str) -> bool:
    """Whether one answer is a decimal that rounds the other, a constant that is no decimal."""
    for exact, text in ((gold, predicted_text), (predicted, gold_text)):
        typed = decimal(text)
        if typed is None or typed.significant < MIN_SIGNIFICANT_DIGITS or exact.free_symbols:
            continue
        try:
            value = probe.value_of(exact)
        except ArithmeticError:
            continue
        if isinstance(value, mpmath.mpf):
            error = abs(value - mpmath.mpf(typed.value.numerator) / typed.value.denominator)
            return bool(error * 2 * 10**typed.places <= 1)
    return False
