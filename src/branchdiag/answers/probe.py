"""Whether two expressions are equal, by their values at high precision. Worker processes only.

Reads sympy trees as they were parsed, unevaluated, and computes them with mpmath at fixed points: a
difference of two formulas that is zero at several random points to 50 digits is zero. This decides
nearly everything that symbolic simplification decides, in bounded time, in both directions, and is
relative: 1e-20 is not 2e-20. Sizes are checked before powers and factorials are computed. Knows
nothing of LaTeX, sets or relations.

Real variables: points where a value leaves the real numbers do not count (a square root of x is
asked for x > 0), except where a formula has the imaginary unit in it. Odd roots of negative numbers
are real, as in school.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import mpmath
import sympy
from sympy.core.function import AppliedUndef

DIGITS = 50
MIN_POINTS = 3
_MAX_EXPONENT = 50_000  # of e, in a power: some 21,700 digits
_MAX_ARGUMENT = 10**15

_FUNCTION_NAMES = (
    "sin cos tan cot sec csc asin acos atan acot asec acsc sinh cosh tanh coth sech csch asinh "
    "acosh atanh acoth exp"
)
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    name: getattr(mpmath, name) for name in _FUNCTION_NAMES.split()
}


class InconclusiveError(ArithmeticError):
    """The value cannot be computed here."""


class UndefinedError(ArithmeticError):
    """The formula has no value at this point."""


class TooLargeError(ArithmeticError):
    """The value is too large (or too near zero) to write down; no sane answer equals it."""


def equal(gold: sympy.Expr, predicted: sympy.Expr) -> bool | None:
    """Whether two expressions have the same values; None if that cannot be told."""
    infinite = [expression in _INFINITE for expression in (gold, predicted)]
    if any(infinite):
        return gold == predicted if all(infinite) or _is_finite(gold, predicted) else None
    return _decide(gold, predicted, _same)


def proportional(gold: sympy.Expr, predicted: sympy.Expr) -> int | None:
    """Sign of the constant c with gold = c x predicted; 0 if there is none, None if unknown."""
    ratios: list[Sample] = []

    def constant(a: Sample, b: Sample) -> bool | None:
        if a.is_zero() or b.is_zero():
            return a.is_zero() and b.is_zero()
        ratios.append(Sample(a.coarse / b.coarse, a.fine / b.fine, a.digits))
        return _same(ratios[0], ratios[-1])

    verdict = _decide(gold, predicted, constant)
    if verdict and ratios:
        first = ratios[0].coarse
        return 1 if mpmath.re(first) > 0 else -1
    return 0 if verdict is False else None


def value_of(expression: sympy.Expr) -> Any:
    """The value of a constant as an mpmath number.

    Raises:
        ArithmeticError: it has none, or cannot be computed.
    """
    with mpmath.workdps(DIGITS):
        return _Evaluator({}).value(expression)


class Sample(NamedTuple):
    """A value at one precision and at twice that precision, and the decimal digits of the first.

    The precision exceeds the size of everything on the way to the value, large or small.
    """

    coarse: Any
    fine: Any
    digits: int

    def is_zero(self, size: Any = 1) -> bool:
        """Whether it is rounding noise: with twice the digits noise all but vanishes."""
        coarse, fine = abs(self.coarse), abs(self.fine)
        noise = max(
            coarse * mpmath.mpf(10) ** -(self.digits // 2),
            size * mpmath.mpf(10) ** -(8 * self.digits // 5),
        )
        return bool(fine == 0 or fine < noise)


def _decide(
    gold: sympy.Expr, predicted: sympy.Expr, compare: Callable[[Sample, Sample], bool | None]
) -> bool | None:
    symbols = sorted(gold.free_symbols | predicted.free_symbols, key=str)
    with_i = gold.has(sympy.I) or predicted.has(sympy.I)
    outside: list[bool | None] = []
    inside = 0
    try:
        for point in _points(symbols):
            try:
                pairs, is_complex = _at(gold, predicted, point)
            except UndefinedError:
                continue
            verdict = compare(*pairs)
            if is_complex and symbols and not with_i:
                outside.append(verdict)
                continue
            if verdict is not True:
                return verdict
            inside += 1
    except TooLargeError:
        return False
    except InconclusiveError:
        return None
    if inside >= (MIN_POINTS if symbols else 1):
        return True
    return True if len(outside) >= MIN_POINTS and all(outside) else None


def _at(
    gold: sympy.Expr, predicted: sympy.Expr, point: Mapping[sympy.Symbol, sympy.Rational]
) -> tuple[tuple[Sample, Sample], bool]:
    """Values of both at two precisions, and whether either left the real numbers.

    Raises:
        TooLargeError: exactly one of them is too large.
        InconclusiveError, UndefinedError: see there.
    """
    digits = DIGITS
    coarse, is_complex, scale = _evaluate((gold, predicted), point, digits)
    if scale > 10:  # 2^2023 - 1 and 2^2023 differ after 609 digits
        digits += scale
        coarse, is_complex, _ = _evaluate((gold, predicted), point, digits)
    fine, _, _ = _evaluate((gold, predicted), point, 2 * digits)
    return (Sample(coarse[0], fine[0], digits), Sample(coarse[1], fine[1], digits)), is_complex


def _evaluate(
    expressions: tuple[sympy.Expr, ...],
    point: Mapping[sympy.Symbol, sympy.Rational],
    digits: int,
) -> tuple[list[Any], bool, int]:
    """Values, whether the real numbers were left, and digits before or after the point."""
    found: list[Any] = []
    is_complex, scale, too_large = False, 0, 0
    with mpmath.workdps(digits):
        values = {symbol: mpmath.mpf(v.p) / v.q for symbol, v in point.items()}
        for expression in expressions:
            evaluator = _Evaluator(values)
            try:
                found.append(evaluator.value(expression))
            except TooLargeError:
                too_large += 1
            is_complex = is_complex or evaluator.complex
            scale = max(scale, evaluator.scale)
    if too_large:
        raise TooLargeError if too_large == 1 else InconclusiveError
    return found, is_complex, scale


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Fixed pseudo-random points: positive ones below and above 1, then ones of mixed sign."""
    if not symbols:
        yield {}
        return
    draw = random.Random(20605)
    for low, high, signs in ((5, 95, 1), (110, 500, 1), (5, 95, 2), (110, 500, 2), (-500, 500, 1)):
        for _ in range(3):
            yield {
                symbol: sympy.Rational(
                    draw.choice((1, -1)[:signs])
                    * (draw.randint(low, high) * 10**6 + draw.randint(1, 10**6)),
                    10**8,
                )
                for symbol in symbols
            }


def _same(a: Sample, b: Sample) -> bool:
    with mpmath.workdps(2 * a.digits):  # the difference itself: exact for large integers
        difference = Sample(a.coarse - b.coarse, a.fine - b.fine, a.digits)
        return difference.is_zero(max(1, abs(a.fine), abs(b.fine)))


_INFINITE = (sympy.oo, -sympy.oo, sympy.zoo)


def _is_finite(*expressions: sympy.Expr) -> bool:
    for expression in expressions:
        if expression not in _INFINITE:
            try:
                value_of(expression)
            except ArithmeticError:
                return bool(expression.free_symbols)
    return True


class _Evaluator:
    """Computes a tree with mpmath at the working precision."""

    def __init__(self, values: Mapping[sympy.Symbol, Any]) -> None:
        self.values = values
        self.complex = False
        self.scale = 0

    def value(self, node: Any) -> Any:
        try:
            result = self._value(node)
        except (ZeroDivisionError, ValueError) as error:  # a pole
            raise UndefinedError(str(error)) from error
        if mpmath.isnan(result) or mpmath.isinf(result):
            raise UndefinedError(str(type(node)))
        if result != 0:
            self.scale = max(self.scale, abs(int(mpmath.mag(result))) * 3 // 10)
        if isinstance(result, mpmath.mpc):
            if abs(result.imag) <= abs(result.real) * mpmath.mpf(10) ** (5 - mpmath.mp.dps):
                return result.real
            self.complex = True
        return result

    def _value(self, node: Any) -> Any:
        if isinstance(node, sympy.Float):
            typed = sympy.Rational(str(node))
            return mpmath.mpf(typed.p) / typed.q
        if isinstance(node, sympy.Rational):
            return mpmath.mpf(node.p) / node.q
        if isinstance(node, sympy.Symbol):
            if node not in self.values:
                raise InconclusiveError(f"bound variable {node}")
            return self.values[node]
        if node in _CONSTANTS:
            return _CONSTANTS[node]()
        if isinstance(node, (sympy.Add, sympy.Mul)):
            return self._combine(node)
        if isinstance(node, sympy.Pow):
            return self._power(node)
        if isinstance(node, _BINDING):
            done = node.doit()
            if done.has(*_BINDING):
                raise InconclusiveError(type(node).__name__)
            return self._value(done)
        if isinstance(node, AppliedUndef):
            return self._unknown_function(node)
        try:
            arguments = [self.value(argument) for argument in node.args]
        except TooLargeError as error:
            raise InconclusiveError from error
        return self._function(node, arguments)

    def _combine(self, node: Any) -> Any:
        values, too_large = [], 0
        for argument in node.args:
            try:
                values.append(self.value(argument))
            except TooLargeError:
                too_large += 1
        if too_large:
            raise TooLargeError if too_large == 1 else InconclusiveError
        return mpmath.fsum(values) if isinstance(node, sympy.Add) else mpmath.fprod(values)

    def _power(self, node: Any) -> Any:
        base = self.value(node.base)
        exponent = self.value(node.exp)
        if base == 0:
            if mpmath.re(exponent) <= 0:
                raise UndefinedError
            return mpmath.mpf(0)
        if abs(mpmath.re(exponent * mpmath.log(abs(base)))) > _MAX_EXPONENT:
            raise TooLargeError
        if isinstance(base, mpmath.mpf) and base < 0:
            root = _odd_root(node.exp)
            if root is not None:
                power, sign = root
                return sign * (-base) ** (mpmath.mpf(power.p) / power.q)
            if exponent != mpmath.floor(mpmath.re(exponent)):
                self.complex = True
        return mpmath.power(base, exponent)

    def _unknown_function(self, node: Any) -> Any:
        """f(x): some value that depends on the name and the argument alone."""
        arguments = [mpmath.nstr(self.value(argument), 15) for argument in node.args]
        draw = random.Random(f"{node.func.__name__}:{arguments}")
        return mpmath.mpf(draw.randint(1, 10**15)) / 10**14

    def _function(self, node: Any, arguments: list[Any]) -> Any:
        name = type(node).__name__
        if name in (
            "UnevaluatedExpr",
            "Max",
            "Min",
            "Abs",
            "re",
            "im",
            "conjugate",
            "binomial",
            "gamma",
        ):
            return _simple(name, arguments)
        (first, *rest) = arguments or [None]
        if first is None:
            raise InconclusiveError(name)
        if abs(first) > _MAX_ARGUMENT and name not in ("log", "floor", "ceiling", "Mod", "exp"):
            raise TooLargeError if name == "factorial" else InconclusiveError(name)
        if name == "exp" and abs(mpmath.re(first)) > _MAX_EXPONENT:
            raise TooLargeError
        if name in _FUNCTIONS:
            return _FUNCTIONS[name](first)
        if name == "log":
            if first == 0 or (rest and rest[0] in (0, 1)):
                raise UndefinedError
            return mpmath.log(first) / (mpmath.log(rest[0]) if rest else 1)
        if name == "factorial":
            if abs(first) > 10**5:
                raise TooLargeError
            return mpmath.factorial(first)
        if name in ("floor", "ceiling", "Mod") and not any(
            isinstance(a, mpmath.mpc) for a in arguments
        ):
            if name == "Mod":
                return first - rest[0] * mpmath.floor(first / rest[0])
            return mpmath.floor(first) if name == "floor" else mpmath.ceil(first)
        raise InconclusiveError(name)


def _simple(name: str, arguments: list[Any]) -> Any:
    if name in ("Max", "Min"):
        if any(isinstance(argument, mpmath.mpc) for argument in arguments):
            raise UndefinedError
        return max(arguments) if name == "Max" else min(arguments)
    if name == "binomial":
        if max(abs(argument) for argument in arguments) > 10**5:
            raise TooLargeError
        return mpmath.binomial(*arguments)
    if name == "gamma":
        if abs(arguments[0]) > 10**5:
            raise TooLargeError
        return mpmath.gamma(arguments[0])
    function = {"Abs": abs, "re": mpmath.re, "im": mpmath.im, "conjugate": mpmath.conj}.get(name)
    return function(arguments[0]) if function else arguments[0]


def _odd_root(exponent: Any) -> tuple[sympy.Rational, int] | None:
    """p/q with odd q > 1 as a real power of negative numbers: the power and its sign."""
    if isinstance(exponent, sympy.Pow) and exponent.exp == -1 and exponent.base.is_Integer:
        exponent = sympy.Rational(1, exponent.base)
    if isinstance(exponent, sympy.Rational) and exponent.q > 1 and exponent.q % 2:
        return exponent, -1 if exponent.p % 2 else 1
    return None


_BINDING = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
_CONSTANTS: dict[Any, Callable[[], Any]] = {
    sympy.pi: lambda: +mpmath.pi,
    sympy.E: lambda: +mpmath.e,
    sympy.I: lambda: mpmath.mpc(0, 1),
    sympy.EulerGamma: lambda: +mpmath.euler,
}
