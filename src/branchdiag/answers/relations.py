r"""Equality of equations, inequalities and sets, by `probe` and sympy's set algebra. Worker only.

Reads parsed objects (`formula`). Equations are equal where their difference of sides is the same up
to a constant factor (2x = 10 and x = 5; the numerators count, so y = 1/x and xy = 1); inequalities
likewise, with the sign turned by a negative factor; a chain is a set of inequalities; an inequality
in one variable equals the interval it describes. Knows nothing of LaTeX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sympy
from sympy.core.relational import Relational

from branchdiag.answers.probe import equal, proportional

_LESS = (sympy.StrictLessThan, sympy.LessThan)
_GREATER = (sympy.StrictGreaterThan, sympy.GreaterThan)


def relations(parsed: Any) -> list[Relational] | None:
    """The relations of a relation or chain, else None."""
    if isinstance(parsed, Relational):
        return [parsed]
    if isinstance(parsed, sympy.And):
        parts = list(getattr(parsed, "_unsorted_args", parsed.args))
        if parts and all(isinstance(part, Relational) for part in parts):
            return parts
    return None


def same_relations(gold: Sequence[Relational], predicted: Sequence[Relational]) -> bool | None:
    """Whether two chains hold the same relations, in any order."""
    if len(gold) != len(predicted):
        return False
    return same_members(gold, predicted, _same_relation)


def same_members(
    gold: Iterable[Any], predicted: Iterable[Any], same: Callable[[Any, Any], bool | None]
) -> bool | None:
    """Whether members match one to one; None where some comparison cannot be told."""
    rest = list(predicted)
    unknown = False
    for member in gold:
        verdicts = [same(member, other) for other in rest]
        if True in verdicts:
            rest.pop(verdicts.index(True))
        elif None in verdicts:
            unknown = True
        else:
            return False
    if unknown:
        return None
    return not rest


def as_set(parsed: Any) -> sympy.Set | None:
    """The set an object describes: a set, an inequality in one real variable; else None."""
    if isinstance(parsed, sympy.Set):
        return parsed.doit()
    parts = relations(parsed)
    if parts is None:
        return None
    if any(isinstance(part, sympy.Eq) for part in parts):
        return None
    symbols = set().union(*(part.free_symbols for part in parts))
    if len(symbols) != 1:
        return None
    variable = sympy.Symbol("variable", real=True)
    try:
        sets = [
            part.func(*(side.subs(symbols.copy().pop(), variable) for side in part.args)).as_set()
            for part in parts
        ]
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return sympy.Intersection(*sets)


def same_sets(gold: sympy.Set, predicted: sympy.Set) -> bool | None:
    """Whether two sets have the same members; None where sympy cannot tell."""
    if gold == predicted:
        return True
    pieces = _pieces(gold), _pieces(predicted)
    if pieces[0] is not None and pieces[1] is not None:
        return same_members(pieces[0], pieces[1], _same_piece)
    try:
        empty: bool | None = sympy.SymmetricDifference(gold, predicted).is_empty
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return empty


def _same_relation(gold: Relational, predicted: Relational) -> bool | None:
    a, b = _difference(gold), _difference(predicted)
    if a is None or b is None or a[0] is not b[0]:
        return False
    kind = a[0]
    sign = proportional(a[1], b[1])
    if sign == 0 and kind in (sympy.Eq, sympy.Ne):
        numerators = [sympy.fraction(sympy.together(side))[0] for side in (a[1], b[1])]
        sign = proportional(numerators[0], numerators[1])
    if sign is None:
        return None
    return sign > 0 or (sign < 0 and kind in (sympy.Eq, sympy.Ne))


def _difference(relation: Relational) -> tuple[type, sympy.Expr] | None:
    """Kind and left minus right, greater-than turned into less-than; None for sets."""
    left, right = relation.lhs, relation.rhs
    if not (isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr)):
        return None
    if isinstance(relation, _GREATER):
        left, right = right, left
    kind = type(relation)
    if isinstance(relation, (*_LESS, *_GREATER)):
        strict = isinstance(relation, (sympy.StrictLessThan, sympy.StrictGreaterThan))
        kind = sympy.StrictLessThan if strict else sympy.LessThan
    return kind, sympy.Add(left, sympy.Mul(-1, right, evaluate=False), evaluate=False)


def _pieces(whole: sympy.Set) -> list[Any] | None:
    """Intervals and points of a union of them, else None."""
    parts = whole.args if isinstance(whole, sympy.Union) else (whole,)
    pieces: list[Any] = []
    for part in parts:
        if isinstance(part, sympy.FiniteSet):
            pieces += part.args
        elif isinstance(part, sympy.Interval):
            pieces.append(part)
        else:
            return None
    return pieces


def _same_piece(gold: Any, predicted: Any) -> bool | None:
    if isinstance(gold, sympy.Interval) and isinstance(predicted, sympy.Interval):
        if (gold.left_open, gold.right_open) != (predicted.left_open, predicted.right_open):
            return False
        ends = [equal(gold.start, predicted.start), equal(gold.end, predicted.end)]
        return False if False in ends else None if None in ends else True
    if isinstance(gold, sympy.Expr) and isinstance(predicted, sympy.Expr):
        return equal(gold, predicted)
    return (
        False if isinstance(gold, sympy.Interval) or isinstance(predicted, sympy.Interval) else None
    )
