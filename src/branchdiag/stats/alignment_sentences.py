"""What the alignment of a group of nodes says, in plain sentences that its intervals carry.

Reads estimates and counts and nothing else. Which context aligns best is decided by the advantage,
since it is unbiased in V and defined at every node; by paired differences at the same nodes, whose
intervals hold for all pairs of contexts together. A difference counts when its simultaneous
interval leaves out 0. Nothing is said of a sign by fewer than 10 problems, of a context, a pair or
a group. The statuses:

    too_few          fewer than 10 problems with measured nodes, or no difference has an interval
    one_context      nothing to compare
    one_best         one context is told apart from every other, upwards
    some_told_apart  some pairs of contexts are told apart, and no one context from every other
    not_told_apart   no pair is
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from branchdiag.stats.alignment_estimates import Alignment
from branchdiag.stats.alignment_nodes import ADVANTAGE
from branchdiag.stats.estimate import Estimate
from branchdiag.stats.finding import MIN_PROBLEMS
from branchdiag.stats.leaderboard import Compared

ContextStatus = Literal["too_few", "one_context", "one_best", "some_told_apart", "not_told_apart"]
Words = Mapping[str, str]
"""Context -> what the teacher is told, as in "told the answer"."""


@dataclass(frozen=True)
class BestContext:
    """Which context aligns best, if any is told apart."""

    status: ContextStatus
    best: str | None
    sentence: str


def best_context(alignment: Alignment, words: Words, level: float) -> BestContext:
    """The status and its sentence, by the rule in this module's docstring."""
    advantages = {
        context: series.whole.estimate.value
        for (figure, context, _), series in alignment.series.items()
        if figure == ADVANTAGE and series.whole.estimate.value is not None
    }
    if len(advantages) < 2:
        return BestContext("one_context", None, "Only one teacher context was measured.")
    pairs = {
        (first, second): compared
        for (figure, first, second), compared in alignment.differences.items()
        if figure == ADVANTAGE
    }
    told = {pair: compared for pair, compared in pairs.items() if compared.low is not None}
    if alignment.n_problems < MIN_PROBLEMS or not told:
        return BestContext("too_few", None, _too_few(alignment, pairs))
    better = {}
    for (first, second), compared in told.items():
        assert compared.low is not None and compared.high is not None
        if compared.low > 0:
            better[first, second] = compared
        elif compared.high < 0:
            better[second, first] = compared
    open_pairs = [pair for pair in pairs if pair not in better and pair[::-1] not in better]
    note = _note(len(pairs), level)
    for context in advantages:
        others = [name for name in advantages if name != context]
        if all((context, other) in better for other in others):
            shown = "; ".join(_better(context, other, better, words) for other in others)
            return BestContext(
                "one_best",
                context,
                f"The teacher {words[context]} aligns better than under every other context: "
                f"{shown}. {note}",
            )
    if better:
        shown = "; ".join(_better(*pair, better, words) for pair in better)
        left = "; ".join(_pair(pair, pairs[pair], words) for pair in open_pairs)
        tail = f" Not told apart: {left}." if left else ""
        return BestContext(
            "some_told_apart",
            None,
            f"Some contexts align better than others: {shown}.{tail} {note}",
        )
    shown = "; ".join(_pair(pair, pairs[pair], words) for pair in open_pairs)
    return BestContext(
        "not_told_apart", None, f"The teacher's contexts are not told apart: {shown}. {note}"
    )


def _too_few(alignment: Alignment, pairs: Mapping[tuple[str, str], Compared]) -> str:
    opening = "Too few data to say which context aligns best: "
    if alignment.n_problems < MIN_PROBLEMS:
        return (
            f"{opening}{_counted(alignment.n_problems, 'problem')} with measured nodes, where "
            f"{MIN_PROBLEMS} are needed."
        )
    reason = next((pair.estimate.reason for pair in pairs.values() if pair.estimate.reason), None)
    return f"{opening}no difference has an interval ({reason or 'none varies'})."


def _better(
    first: str, second: str, better: Mapping[tuple[str, str], Compared], words: Words
) -> str:
    """The advantage of `first` less that of `second`, whichever way round it was taken."""
    compared = better[first, second]
    value, low, high = compared.estimate.value, compared.low, compared.high
    assert value is not None and low is not None and high is not None
    if value < 0:
        value, low, high = -value, -high, -low
    digits = _digits(value, low, high)
    return (
        f"{words[first]} {_signed(value, digits)} above {words[second]} ({_number(low, digits)} to "
        f"{_number(high, digits)}, adjusted p {_p(compared.p)})"
    )


def _pair(pair: tuple[str, str], compared: Compared, words: Words) -> str:
    first, second = pair
    opening = f"{words[first]} less {words[second]}"
    if compared.estimate.value is None:
        return f"{opening} is not known ({compared.estimate.reason})"
    if compared.low is None or compared.high is None:
        reason = compared.estimate.reason or "it never varies"
        return f"{opening} {_signed(compared.estimate.value)} (no interval: {reason})"
    digits = _digits(compared.estimate.value, compared.low, compared.high)
    return (
        f"{opening} {_signed(compared.estimate.value, digits)} ({_number(compared.low, digits)} to "
        f"{_number(compared.high, digits)})"
    )


def _note(n_pairs: int, level: float) -> str:
    if n_pairs == 1:
        return (
            f"The difference of advantage is taken at the same nodes, its interval at "
            f"{100 * level:g}%."
        )
    return (
        f"Differences of advantage are taken at the same nodes; their {100 * level:g}% intervals "
        f"hold for all {n_pairs} pairs of contexts together."
    )


def against_student(alignment: Alignment, context: str, words: Words, level: float) -> str:
    """Whether choosing at these nodes as the teacher does is worth more than as the student."""
    cell = alignment.series[ADVANTAGE, context, ""].whole
    opening = words[context][:1].upper() + words[context][1:]
    stand = f"{_counted(cell.n_nodes, 'node')} in {_counted(cell.n_problems, 'problem')}"
    estimate = cell.estimate
    if estimate.value is None:
        return f"{opening}: no advantage ({estimate.reason})."
    shown = f"advantage {_shown(estimate, level, beside=stand)}"
    if estimate.value == 0 and not estimate.has_interval:
        return f"{opening}, the teacher chooses as the student does: advantage 0 ({stand})."
    if cell.n_problems < MIN_PROBLEMS:
        verdict = "too few problems to tell the teacher's choice from the student's"
    elif estimate.is_above(0.0):
        verdict = "the teacher's choice is better than the student's"
    elif estimate.is_below(0.0):
        verdict = "the teacher's choice is worse than the student's"
    else:
        verdict = "the teacher's choice is not told from the student's"
    return f"{opening}, {verdict}: {shown}."


def along_the_trace(alignment: Alignment, context: str, words: Words, level: float) -> str | None:
    """How the advantage changes from the start of a trace to its end; None where it is 0 always."""
    series = alignment.series[ADVANTAGE, context, ""]
    slope = series.slope
    if slope is None or (series.whole.estimate.value == 0 and not slope.has_interval):
        return None
    if slope.value is None:
        return (
            f"Whether the advantage of the teacher {words[context]} changes along a trace is not "
            f"known ({slope.reason})."
        )
    if series.whole.n_problems < MIN_PROBLEMS:
        problems = _counted(series.whole.n_problems, "problem")
        verdict = f"cannot be said to rise or fall ({problems}, where {MIN_PROBLEMS} are needed)"
    elif slope.is_above(0.0):
        verdict = "rises"
    elif slope.is_below(0.0):
        verdict = "falls"
    else:
        verdict = "is not seen to rise or fall"
    return (
        f"Within problems the advantage of the teacher {words[context]} {verdict} from the start "
        f"of a trace to its end: {_shown(slope, level)}."
    )


def of_cosines(alignment: Alignment, context: str, words: Words, level: float) -> str:
    """The mean cosine of the forward KL's gradient with the ideal, and where there is none."""
    cell = alignment.series["cosine_forward_kl", context, ""].whole
    estimate = cell.estimate
    if estimate.value is None:
        return f"With the teacher {words[context]} there is no cosine: {estimate.reason}."
    return (
        f"With the teacher {words[context]} the forward KL's cosine with the ideal gradient is on "
        f"average {_shown(estimate, level, digits=2)} over the {cell.n_nodes:,} of "
        f"{cell.n_nodes + cell.n_undefined:,} nodes at which it is defined."
    )


def of_noise(alignment: Alignment, level: float) -> str:
    """How much of the ideal gradient is noise of the rollouts."""
    halves, signal = alignment.pooled.split_half, alignment.pooled.signal_share
    if halves.value is None or signal.value is None:
        return f"How noisy the ideal gradient is cannot be said: {halves.reason or signal.reason}."
    return (
        "Success rates from few rollouts are noisy, which pulls every cosine to 0: the ideal "
        "gradients of two halves of the rollouts have a cosine of "
        f"{_shown(halves, level, digits=2)}, and "
        f"{_number(max(0.0, 100 * signal.value), 0)}% of the ideal gradient's squared length is "
        "signal. The advantage has no such bias."
    )


def between(estimate: Estimate, first: str, second: str, what: str, level: float) -> str:
    """Whether a group of nodes is better aligned than another, whose problems are others."""
    opening = f"{what}, {first} less {second}: "
    if estimate.value is None:
        return f"{opening}not known ({estimate.reason})."
    shown = _shown(estimate, level)
    if estimate.is_above(0.0) or estimate.is_below(0.0):
        way = "higher" if estimate.is_above(0.0) else "lower"
        return f"{opening}{shown}, {way} on {first}."
    return f"{opening}{shown}, not told apart."


def _shown(estimate: Estimate, level: float, *, digits: int | None = None, beside: str = "") -> str:
    """A value that is there, its interval or why there is none, and what it stands on."""
    value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
    assert value is not None
    more = f"; {beside}" if beside else ""
    if low is None or high is None:
        places = _digits(value) if digits is None else digits
        return f"{_signed(value, places)} (no interval: {estimate.reason}{more})"
    places = _digits(value, low, high) if digits is None else digits
    return (
        f"{_signed(value, places)} ({100 * level:g}% interval {_number(low, places)} to "
        f"{_number(high, places)}{more})"
    )


def _digits(*values: float) -> int:
    """Decimals that tell a small advantage from 0: three, and more where all values are small."""
    largest = max(map(abs, values))
    return 3 if largest >= 0.01 or largest == 0 else 4 if largest >= 0.001 else 5


def _signed(value: float, digits: int | None = None) -> str:
    text = f"{value:+.{_digits(value) if digits is None else digits}f}"
    return text[1:] if float(text) == 0 else text


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _p(p: float | None) -> str:
    assert p is not None
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1g}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
