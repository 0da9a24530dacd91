"""What a comparison says in words: of each figure, of a pair, and of what may be compared at all.

Takes numbers, counts and keys; returns text and decides nothing: a verdict comes from
`stats.run_differences`, and a sentence says no more than its interval does. Labels of runs are the
user's; whoever shows them escapes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from branchdiag.report.compare_document import (
    DifferingKey,
    FigureDifference,
    RunEntry,
)
from branchdiag.report.wording import p_value, plural

if TYPE_CHECKING:
    from branchdiag.stats.run_differences import Difference


@dataclass(frozen=True)
class Figure:
    """How a paired figure is called; unit and digits are those of its value."""

    what: str
    unit: str = "share"
    digits: int = 3


FIGURES = {
    "solved": Figure("problems solved by the spine"),
    "spine_tokens": Figure("length of the spine", "tokens", 1),
    "child_viability": Figure("viability after a forced token"),
    "control_viability": Figure("viability with nothing forced"),
    "d": Figure("d, forced less unforced viability"),
    "advantage": Figure("the teacher's advantage", digits=4),
    "failure_slope": Figure("slope of failure on r", "share from start to end"),
    "d_slope": Figure("slope of d on r", "share from start to end"),
    "auroc_one_minus_r": Figure("AUROC of earliness, 1 - r", "AUROC"),
}
CAUTIOUS = 20
"""With fewer problems than this an interval is said to be too narrow."""


def figure_difference(found: Difference, first: str, second: str, level: float) -> FigureDifference:
    """A difference as the document holds it, with its sentence."""
    figure, estimate = FIGURES[found.name], found.estimate
    return {
        "name": found.name,
        "what": figure.what,
        "unit": figure.unit,
        "first": found.first,
        "second": found.second,
        "difference": estimate.value,
        "ci_low": estimate.ci_low,
        "ci_high": estimate.ci_high,
        "joint_low": found.low,
        "joint_high": found.high,
        "p": found.p,
        "n_problems": found.n_problems,
        "verdict": found.verdict,
        "sentence": sentence(found, first, second, level),
        "reason": estimate.reason,
    }


def sentence(found: Difference, first: str, second: str, level: float) -> str:
    """One figure of two runs: differ, or not told apart by this many problems."""
    figure, estimate, n = FIGURES[found.name], found.estimate, found.n_problems
    if estimate.value is None:
        return f"{_capital(figure.what)} is not compared: {estimate.reason}."
    if found.verdict == "equal":
        what = _capital(figure.what)
        return f"{what} is the same in {first} and {second} in each of {_problems(n)}."
    size = f"{_signed(estimate.value, figure.digits)}"
    if estimate.ci_low is None or estimate.ci_high is None:
        spread = f"no interval: {estimate.reason}"
    else:
        ends = _ends(estimate.ci_low, estimate.ci_high, figure.digits)
        spread = f"{100 * level:g}% interval {ends}"
    values = f"{_number(found.second, figure.digits)} against {_number(found.first, figure.digits)}"
    if found.verdict == "too few":
        return (
            f"Too few data to say whether {second} and {first} differ in {figure.what}: "
            f"{found.few} ({values}, {size}; {spread})."
        )
    if found.verdict in ("higher", "lower"):
        together = _ends(found.low, found.high, figure.digits)
        return (
            f"{second} and {first} differ in {figure.what}: {values}, {size} ({spread}; with all "
            f"figures taken together {together}; p {p_value(found.p)}; {_problems(n)})."
        )
    why = ""
    if found.verdict == "alone":
        together = _ends(found.low, found.high, figure.digits)
        why = f"; it leaves out 0, but with all figures taken together it is {together}"
    elif estimate.is_above(0.0) or estimate.is_below(0.0):
        why = f"; but swapping the runs inside problems gives p {p_value(found.p)}"
    return (
        f"{second} and {first} are not told apart in {figure.what} by these {_problems(n)}: "
        f"{values}, {size} ({spread}{why})."
    )


def pair_summary(figures: Sequence[FigureDifference], first: str, second: str) -> str:
    """What the figures of a pair come to, in one or two sentences."""
    by_verdict: dict[str, list[str]] = {}
    for entry in figures:
        by_verdict.setdefault(entry["verdict"], []).append(entry["what"])
    judged = [e for e in figures if e["verdict"] in ("higher", "lower", "alone", "not told apart")]
    if not judged:
        equal, few = by_verdict.get("equal", []), by_verdict.get("too few", [])
        if few:
            same = f" {_capital(_listed(equal))} are the same." if equal else ""
            return f"Too few shared data to tell {second} and {first} apart.{same}"
        if equal:
            return f"{second} and {first} are the same in every figure that could be compared."
        return f"{second} and {first} have nothing that can be paired."
    most = max(entry["n_problems"] for entry in judged)
    told = [
        f"{e['what']} ({e['verdict']} in {second})"
        for e in judged
        if e["verdict"] in ("higher", "lower")
    ]
    alone = by_verdict.get("alone", [])
    if told:
        text = f"{second} and {first} differ in {_listed(told)}"
        text += (
            f", and in none of {len(judged) - len(told)} other figures."
            if (len(judged) > len(told))
            else "."
        )
    else:
        text = (
            f"{second} and {first} are not told apart by these {_problems(most)} in any of "
            f"{plural(len(judged), 'figure')}."
        )
    if alone:
        text += (
            f" By {'its' if len(alone) == 1 else 'their'} own interval {_listed(alone)} would be "
            "told apart, but not with all figures taken together."
        )
    return text


def comparability(
    shared: Mapping[str, int], differs: Collection[DifferingKey], first: RunEntry, second: RunEntry
) -> tuple[list[str], list[str]]:
    """What of two runs can be compared, and what cannot.

    Args:
        shared: counts of `pipeline.compared_pairs.Shared`.
        differs: keys that differ between these two runs.
    """
    a, b = first["label"], second["label"]
    keys = {row["key"] for row in differs}
    sections = {key.split(".")[0] for key in keys if "." in key}
    can, cannot = _by_problem(shared, a, b)
    if {"continuation"} & sections:
        cannot.append(
            "Continuations are drawn or counted another way "
            f"({_keys(keys, 'continuation')}): viability is not the same quantity in both, and a "
            "difference in it or in d may be no more than that."
        )
    if {"label"} & sections:
        cannot.append(
            f"Labels follow other rules ({_keys(keys, 'label')}): counts of labels and AUROCs "
            "stand on other labels. Viability, d and slopes do not depend on labels."
        )
    if "candidates.spines" in keys:
        cannot.append(
            "The main figures of one run are of correct spines and those of the other of incorrect "
            "ones: they are different places, and a difference is no effect of a setting."
        )
    elif {"candidates", "teacher"} & sections or {"teacher", "teacher template"} & keys:
        cannot.append(
            "Other places become candidates or other tokens are forced "
            "(the teacher or its settings differ): a difference is that of what each teacher "
            "proposes where it is unsure, not of one and the same place under two teachers."
        )
    if "student" in keys:
        cannot.append(
            "The students differ: each run has its own student's spines, continuations and "
            "difficulty. Lengths in tokens have one unit only where the tokenizers are the same; r "
            "always has."
        )
    if "report.level" in keys:
        cannot.append(
            f"Intervals beside each other are of different levels ({first['level']:.0%} and "
            f"{second['level']:.0%})."
        )
    return can, cannot


def _by_problem(shared: Mapping[str, int], a: str, b: str) -> tuple[list[str], list[str]]:
    n, same = shared["problems"], shared["same_spines"]
    if not n:
        return (
            [f"The figures of {a} and {b} beside each other, each with its own interval."],
            [
                "The runs share no problem (same text and same answer), so nothing is paired: what "
                "differs may be the problems alone."
            ],
        )
    can = [
        f"{plural(n, 'problem')} with the same text and answer "
        f"{'is' if n == 1 else 'are'} in both runs; {shared['diagnosed']} of them "
        f"{'has' if shared['diagnosed'] == 1 else 'have'} candidates in both. Differences are "
        "taken on these problems."
    ]
    cannot = []
    if same:
        can.append(
            f"On {same} of them the spine is the same, token by token, and "
            f"{plural(shared['same_places'], 'candidate')} "
            f"{'lies' if shared['same_places'] == 1 else 'lie'} at the same place in both runs, "
            f"{shared['same_children']} of them with the same forced tokens."
        )
    if same < n:
        cannot.append(
            f"On {n - same} of the shared problems the spines differ, so their candidates lie at "
            "other places. Candidates are not paired; problems are."
        )
    else:
        cannot.append("Candidates at different positions are not paired; problems are.")
    if shared["only_first"] or shared["only_second"]:
        cannot.append(
            f"{plural(shared['only_first'], 'problem')} of {a} and {shared['only_second']} of {b} "
            "are not in the other run: they take part in each run's own figures, not in "
            "differences."
        )
    changed = shared["changed"]
    if changed:
        has, are = ("has", "is") if changed == 1 else ("have", "are")
        cannot.append(
            f"{plural(changed, 'problem')} of the same name {has} another text or answer in the "
            f"other run, and {are} not taken for the same."
        )
    return can, cannot


def notes(
    differs: Sequence[DifferingKey], runs: Sequence[RunEntry], n_figures: int, least: int | None
) -> list[str]:
    """What to remember of the whole comparison.

    Args:
        differs: what differs between any of the runs.
        runs: as they are named.
        n_figures: paired figures of a pair.
        least: fewest problems that inform a judged figure; None where nothing is judged.
    """
    said = []
    keys = {row["key"] for row in differs}
    if not keys:
        said.append(
            "Nothing differs between these runs: they are one run made twice, or copies of it."
        )
    elif keys <= {"seed", "problems"} and "seed" in keys:
        said.append(
            "No model and no setting differs, only the seed"
            + (" and which problems were drawn" if "problems" in keys else "")
            + ": what differs is chance, and a yardstick for other comparisons."
        )
    level, pairs = runs[0]["level"], len(runs) - 1
    if least is not None:
        said.append(
            f"{n_figures} figures of {plural(pairs, 'pair')} of runs are looked at. "
            "'Differ' asks that the interval that holds for all figures"
            + (" and pairs" if pairs > 1 else "")
            + f" together leaves out 0 at {level:.0%}, and that swapping the two runs inside "
            f"problems at random seldom gives as much (p at most {1 - level:.2g}). Intervals come "
            "from resampling whole problems, the same ones in both runs."
        )
        if least < CAUTIOUS:
            said.append(
                f"With fewer than {CAUTIOUS} problems percentile intervals are too narrow; a "
                f"figure here stands on {least}."
            )
        said.append(
            "A difference speaks of other problems of the same kind, and of other samples. It does "
            "not speak of another training run of a model."
        )
    failed = [f"{run['label']} ({run['failed_units']})" for run in runs if run["failed_units"]]
    if failed:
        said.append(f"Units that failed and are in no figure: {', '.join(failed)}.")
    return said


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _keys(keys: Collection[str], section: str) -> str:
    return ", ".join(sorted(key for key in keys if key.startswith(f"{section}.")))


def _problems(n: int) -> str:
    return plural(n, "problem")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: float | None, digits: int) -> str:
    assert value is not None
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _signed(value: float, digits: int) -> str:
    text = _number(value, digits)
    return text if float(text) <= 0 else f"+{text}"


def _ends(low: float | None, high: float | None, digits: int) -> str:
    if low is None or high is None:
        return "without one"
    return f"{_number(low, digits)} to {_number(high, digits)}"
