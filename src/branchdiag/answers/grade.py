r"""Whether an answer equals the reference answer, and which rule said so.

Reads two strings. The rules go from certain to lenient and the first that decides ends it:
integers, equal spelling, words, choice letters, numerals in a base, ratios, plain numbers, then the
parts of units, assignments, lists, tuples and matrices one by one. `cheap_grade` stops there and
imports nothing heavy; `grade_one` hands what is left to sympy and math-verify, and is meant for the
main thread of a worker process that can be killed (`branchdiag.answers.pool`).

Order of arguments matters: the gold answer says what counts (arXiv 2605.21606, appendix J, grades
with math-verify, gold first). Knows nothing of where answers come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from branchdiag.answers import rules, structure, units
from branchdiag.answers.normalise import integer_digits, is_oversize, normalise
from branchdiag.answers.rational import decimal, rational, rounds_to

MAX_ITEMS = 50
"""Longer lists are compared item by item only where they are spelled the same."""
MAX_NESTING = 12
MAX_STEPS = 2000
"""Comparisons of parts in one grading; more are a missing grade."""


@dataclass(frozen=True)
class Grade:
    """The outcome of one comparison.

    Attributes:
        correct: None where the grader could not tell: a missing grade, never a wrong answer.
        path: the rule that decided; a wrapper and what is inside are joined, as `units/integer`.
            Rules: `invalid` (no answer in a box), `oversize` (longer or deeper nested than any
            final answer: wrong), `integer`, `exact`, `words`, `choice`, `base`, `ratio`,
            `rational`, `rounded`, `units`, `percent`, `assignment`, `list`, `bracket`, `matrix`,
            `subscripts`, `primes`, `text`, `numeric`, `equation`, `relation`, `set`,
            `math_verify`, `unparsed` (the gold answer reads as mathematics, the prediction does
            not: wrong). Missing grades: `no_gold`, `gold_unparsed`, `timeout`, `crash`, `memory`,
            `error`.
        detail: what helps to audit the decision; may be empty.
    """

    correct: bool | None
    path: str
    detail: str = ""


Leaf = Callable[[str, str], Grade]
"""Compares two canonical answers without parts: predicted, gold."""

_ALGEBRA = Grade(None, "algebra")
"""Only algebra can tell; never leaves this module."""

_SET_LIKE = re.compile(r"[<>]|\\(?:leq|geq|neq|cup|cap|setminus|in|mathbb|emptyset)(?![A-Za-z])")


def grade_one(predicted: str | None, gold: str) -> Grade:
    """Grades with every rule, sympy and math-verify included.

    May run for ever or exhaust memory on hostile answers: call it in a worker that can be killed.

    Args:
        predicted: content of the box; None or blank is invalid, hence wrong.
        gold: reference answer.
    """
    from branchdiag.answers.symbolic import compare  # heavy: only in workers

    return _grade(predicted, gold, compare)


def cheap_grade(predicted: str | None, gold: str) -> Grade | None:
    """Grades with the rules that need no algebra; None where algebra is needed."""
    grade = _grade(predicted, gold, lambda _predicted, _gold: _ALGEBRA)
    return None if grade.path.endswith(_ALGEBRA.path) else grade


def _grade(predicted: str | None, gold: str, leaf: Leaf) -> Grade:
    if not gold.strip():
        return Grade(None, "no_gold")
    if predicted is None or not predicted.strip():
        return Grade(False, "invalid")
    digits = integer_digits(predicted), integer_digits(gold)
    if None not in digits:
        return Grade(digits[0] == digits[1], "integer")
    if normalise(predicted) == normalise(gold):
        return Grade(True, "exact")
    if is_oversize(predicted):
        return Grade(False, "oversize")
    if is_oversize(gold):
        return Grade(None, "gold_unparsed", "longer or deeper nested than any final answer")
    return _Comparison(leaf).answers(predicted, gold)


class _Comparison:
    """Compares canonical answers part by part; `leaf` compares what has no parts."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.depth = 0
        self.steps = 0

    def answers(self, predicted: str, gold: str) -> Grade:
        """Two answers as typed; `100,200` is a list where the other answer is one."""
        grade = self.values(normalise(predicted), normalise(gold))
        if grade.correct:
            return grade
        ambiguous = [
            normalise(text, thousands=False) != normalise(text) for text in (predicted, gold)
        ]
        listed = [structure.parts(normalise(text)) is not None for text in (predicted, gold)]
        if (ambiguous[0] and listed[1]) or (ambiguous[1] and listed[0]):
            other = self.values(
                normalise(predicted, thousands=False), normalise(gold, thousands=False)
            )
            return grade if other.correct is False else other
        return grade

    def values(self, predicted: str, gold: str) -> Grade:
        """Two canonical strings."""
        if self.depth >= MAX_NESTING:
            return Grade(False, "oversize", "parts of parts")
        if self.steps >= MAX_STEPS:
            return Grade(None, "error", "too many parts")
        self.depth += 1
        self.steps += 1
        try:
            for rule in _ORDER_OF_RULES:
                grade = rule(self, predicted, gold)
                if grade is not None:
                    return grade
            return self._single(predicted, gold)
        finally:
            self.depth -= 1

    def _inside(self, path: str, predicted: str, gold: str) -> Grade:
        grade = self.values(predicted, gold)
        return replace(grade, path=f"{path}/{grade.path}")

    def _certain(self, predicted: str, gold: str) -> Grade | None:
        digits = integer_digits(predicted), integer_digits(gold)
        if None not in digits:
            return Grade(digits[0] == digits[1], "integer")
        if predicted == gold:
            return Grade(True, "exact")
        plain = structure.without_prefix(predicted), structure.without_prefix(gold)
        if plain != (predicted, gold):
            return self.values(*plain)
        return _first_verdict(("words", "choice", "base"), predicted, gold)

    def _ratio(self, predicted: str, gold: str) -> Grade | None:
        return _first_verdict(("ratio",), predicted, gold)

    def _numbers(self, predicted: str, gold: str) -> Grade | None:
        given, wanted = rational(predicted), rational(gold)
        if given is None or wanted is None:
            return None
        if given == wanted:
            return Grade(True, "rational")
        for exact, typed in ((wanted, decimal(predicted)), (given, decimal(gold))):
            if typed is not None and rounds_to(exact, typed):
                return Grade(True, "rounded", f"{typed.significant} significant digits")
        return Grade(False, "rational")

    def _measures(self, predicted: str, gold: str) -> Grade | None:
        given, wanted = units.measure(predicted), units.measure(gold)
        if given.value == predicted and wanted.value == gold:
            return None
        if units.PERCENT in (given.unit, wanted.unit) and given.unit != wanted.unit:
            return self._percent(given, wanted)
        if not units.agree(given, wanted):
            return Grade(False, "units", f"{given.unit}, not {wanted.unit}")
        if given.magnitude != wanted.magnitude:
            scaled = units.scaled(given), units.scaled(wanted)
            if None not in scaled and (scaled[0] == scaled[1] or wanted.magnitude):
                return Grade(scaled[0] == scaled[1], "units", "magnitude")
        return self._inside("units", given.value, wanted.value)

    def _percent(self, given: units.Measure, wanted: units.Measure) -> Grade:
        """10% is 0.1, and 10 where the problem asked for percent; not 1000 nor 0.1%."""
        if given.unit is not None and wanted.unit is not None and given.known and wanted.known:
            return Grade(False, "percent", f"{given.unit}, not {wanted.unit}")
        share, other = rational(given.value), rational(wanted.value)
        if given.unit != units.PERCENT:
            share, other = other, share
        if share is not None and other is not None:
            if share == 100 * other:
                return Grade(True, "percent", "as a share")
            # a bare reference below 1 is a share, not a number of percent
            if given.unit == units.PERCENT and abs(other) < 1:
                return Grade(False, "percent")
        return self._inside("percent", given.value, wanted.value)

    def _named(self, predicted: str, gold: str) -> Grade | None:
        given, wanted = structure.assignment(predicted), structure.assignment(gold)
        if given and wanted:
            if given[0].replace(" ", "") == wanted[0].replace(" ", ""):
                return self._inside("assignment", given[2], wanted[2])
            simple = _SIMPLE_NAME.fullmatch(given[0]) and _SIMPLE_NAME.fullmatch(wanted[0])
            return None if simple and given[1] == wanted[1] == "=" else Grade(False, "assignment")
        if wanted and (wanted[1] != "=" or not _RELATION.search(predicted)):
            return self._inside("assignment", predicted, wanted[2])
        if given and (given[1] != "=" or not _RELATION.search(gold)):
            return self._inside("assignment", given[2], gold)
        if not _RELATION.search(gold):
            stated = structure.equation_values(predicted)
            if stated:
                return self._any("assignment", [self.values(value, gold) for value in stated])
        return None

    def _parts(self, predicted: str, gold: str) -> Grade | None:
        given, wanted = _items(predicted), _items(gold)
        if given is None and wanted is None:
            return None
        if given is None or wanted is None:
            return self._part_and_whole(predicted, gold, given, wanted)
        if wanted.kind in _UNORDERED and given.kind in _UNORDERED:
            return self._unordered(given.items, wanted.items)
        if "matrix" in (given.kind, wanted.kind):
            return self._ordered("matrix", given, wanted, _same_shape(given, wanted))
        if "set" in (given.kind, wanted.kind):
            return Grade(False, "bracket", "a set and an ordered answer")
        # Of two bracketed items the brackets say open or closed; a bare list takes round ones.
        brackets = [part.brackets or "()" for part in (given, wanted)]
        same = brackets[0] == brackets[1] or len(wanted.items) != 2
        return self._ordered("bracket", given, wanted, same)

    def _part_and_whole(
        self,
        predicted: str,
        gold: str,
        given: structure.Parts | None,
        wanted: structure.Parts | None,
    ) -> Grade | None:
        parts = given or wanted
        assert parts is not None
        whole = predicted if given is None else gold
        if parts.kind == "matrix":
            return None if "matrix" in whole else Grade(False, "matrix")
        if _SET_LIKE.search(whole):
            if parts.kind in _UNORDERED:
                return self._single(
                    *((predicted, _as_one(parts)) if given is None else (_as_one(parts), gold))
                )
            return None
        if parts.kind == "bracket":
            return Grade(False, "bracket", "one and several")
        # "3/2 or 1.5" says one value twice
        pairs = [(predicted, item) if given is None else (item, gold) for item in parts.items]
        return self._all("list", self._until_wrong(pairs))

    def _ordered(
        self, path: str, given: structure.Parts, wanted: structure.Parts, same: bool
    ) -> Grade:
        if not same or len(given.items) != len(wanted.items):
            return Grade(False, path, "another shape")
        return self._all(path, self._until_wrong(zip(given.items, wanted.items, strict=True)))

    def _until_wrong(self, pairs: Iterable[tuple[str, str]]) -> list[Grade]:
        """Grades of pairs (predicted, gold) up to the first that is wrong."""
        grades: list[Grade] = []
        for predicted, gold in pairs:
            grades.append(self.values(predicted, gold))
            if grades[-1].correct is False:
                break
        return grades

    def _unordered(self, given: Sequence[str], wanted: Sequence[str]) -> Grade:
        """Matches items one to one; an item that is repeated in the prediction alone is one."""
        rest = list(given)
        found: list[Grade] = []
        for item in wanted:
            if item in rest:
                rest.remove(item)
                found.append(Grade(True, "exact"))
            else:
                found.append(Grade(False, "list", item))
        if max(len(rest), sum(not grade.correct for grade in found)) > MAX_ITEMS:
            return Grade(False, "list", "too many items that are spelled differently")
        for i, item in enumerate(wanted):
            if not found[i].correct:
                found[i], match = self._first(item, rest)
                rest = rest if match is None else [*rest[:match], *rest[match + 1 :]]
        if len(set(wanted)) == len(wanted):
            found += [self._first(item, wanted, flip=True)[0] for item in rest]
        elif rest:
            found.append(Grade(False, "list", rest[0]))
        return self._all("list", found)

    def _first(
        self, item: str, others: Sequence[str], flip: bool = False
    ) -> tuple[Grade, int | None]:
        """The first of `others` that equals an item; with `flip` the item is the prediction."""
        missing = None
        for i, other in enumerate(others):
            grade = self.values(item, other) if flip else self.values(other, item)
            if grade.correct:
                return grade, i
            missing = missing or (grade if grade.correct is None else None)
        return missing or Grade(False, "list", item), None

    @staticmethod
    def _all(path: str, grades: Sequence[Grade]) -> Grade:
        """Wrong if any part is, else missing if any part is, else correct."""
        for verdict in (False, None):
            for grade in grades:
                if grade.correct is verdict:
                    return replace(grade, path=f"{path}/{grade.path}")
        return Grade(True, path, ", ".join(sorted({grade.path for grade in grades})))

    @staticmethod
    def _any(path: str, grades: Sequence[Grade]) -> Grade:
        """Correct if any is, else missing if any is, else wrong."""
        for verdict in (True, None, False):
            for grade in grades:
                if grade.correct is verdict:
                    return replace(grade, path=f"{path}/{grade.path}")
        return Grade(False, path)

    def _single(self, predicted: str, gold: str) -> Grade:
        verdict = _first_verdict(("subscripts", "primes"), predicted, gold)
        if verdict is not None:
            return verdict
        if rules.has_text(predicted) or rules.has_text(gold):
            return Grade(rules.same_text(predicted, gold), "text")
        return self.leaf(predicted, gold)


def _first_verdict(names: Sequence[str], predicted: str, gold: str) -> Grade | None:
    for name in names:
        verdict = _RULES[name](predicted, gold)
        if verdict is not None:
            return Grade(verdict, name)
    return None


def _items(canonical: str) -> structure.Parts | None:
    """Parts of an answer, each \\pm read as both of its values."""
    parts = structure.parts(canonical)
    if parts is not None and parts.kind not in _UNORDERED:
        return parts
    items: list[str] = []
    for item in parts.items if parts else (canonical,):
        items += structure.plus_minus(item) or (item,)
    if parts is None:
        return structure.Parts("list", tuple(items)) if len(items) > 1 else None
    return replace(parts, items=tuple(items))


def _as_one(parts: structure.Parts) -> str:
    """Items without order as one formula: inequalities as a union, values as a set in braces."""
    if all(_ORDER.search(item) for item in parts.items):
        return r"\text{or}".join(parts.items)
    return rf"\{{{', '.join(parts.items)}\}}"


def _same_shape(given: structure.Parts, wanted: structure.Parts) -> bool:
    """Equal shapes; a vector may be written as a tuple in round brackets."""
    if given.kind == wanted.kind:
        return given.shape == wanted.shape
    matrix, other = (given, wanted) if given.kind == "matrix" else (wanted, given)
    return other.kind == "bracket" and other.brackets == "()" and 1 in matrix.shape


_ORDER_OF_RULES = (
    _Comparison._certain,
    _Comparison._numbers,
    _Comparison._measures,  # before ratios: 12:30 p.m. is 12:30
    _Comparison._ratio,
    _Comparison._named,
    _Comparison._parts,
)
_UNORDERED = ("list", "set")
_ORDER = re.compile(r"[<>]|\\(?:leq|geq|neq)(?![A-Za-z])")
_SIMPLE_NAME = re.compile(r"\\?[A-Za-z]+(?:_.+)?")
_RELATION = re.compile(r"=|[<>]|\\(?:leq|geq|neq)(?![A-Za-z])")
_RULES: dict[str, Callable[[str, str], bool | None]] = {
    "words": rules.words,
    "choice": rules.choice,
    "base": rules.base,
    "ratio": rules.ratio,
    "subscripts": rules.subscripts,
    "primes": rules.primes,
}
