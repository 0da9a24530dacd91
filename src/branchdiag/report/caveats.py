"""The caveats that apply to this run, as sentences made from its own numbers.

Reads the report document alone. Each rule is one function that gives a sentence or None, so that a
caveat is shown where it holds and nowhere else. What the paper's table can and cannot carry (arXiv
2605.21606, table 1: 8 positives among 279 candidates) is the measure of most of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from branchdiag.report.document import Report, ScoreEntry, primary
from branchdiag.report.wording import (
    LOCAL_SCORES,
    count,
    interval,
    number,
    percent,
    plural,
    score_label,
)
from branchdiag.stats.power import detectable_auroc, null_sd

FEW_POSITIVES = 30
FEW_PROBLEMS_POSITIVE = 10
FEW_PROBLEMS = 20
TRUNCATED_SHARE = 0.02
LOW_AGREEMENT = 0.99
NULL_AWAY_FROM_HALF = 0.05

Rule = Callable[[Report], str | None]


def caveats(document: Report) -> list[str]:
    """The sentences that apply, the weightiest first. Reads everything but `caveats` itself."""
    return [sentence for rule in RULES if (sentence := rule(document)) is not None]


def _level(document: Report) -> float:
    section = document["settings"].get("report", {})
    return float(section.get("level", 0.95))


def _position_score(document: Report) -> ScoreEntry | None:
    return next((e for e in document["scores"] if e["name"] == "one_minus_r"), None)


def _bundled(document: Report) -> str | None:
    if not document["model"]["bundled"]:
        return None
    return (
        "This is the bundled model on its own synthetic problems: it shows how the diagnosis works "
        "and says nothing about another model."
    )


def _no_control(document: Report) -> str | None:
    if document["settings"].get("continuation", {}).get("control", True):
        return None
    return (
        "The control arm was switched off, so a failure that comes from the length of the way "
        "still to go cannot be told from one that the forced token causes."
    )


def _one_class(document: Report) -> str | None:
    counts = document["counts"]
    absent = [
        words
        for key, words in (("real_uncertain", "real-uncertain"), ("diversity", "diversity"))
        if not counts[key]  # type: ignore[literal-required]
    ]
    if not absent:
        return None
    return f"No candidate is {' or '.join(absent)}: the scores have nothing to tell apart."


def _few_positives(document: Report) -> str | None:
    counts = document["counts"]
    n1, n0 = counts["real_uncertain"], counts["diversity"]
    if not 0 < n1 < FEW_POSITIVES or not n0:
        return None
    verb = "is" if n1 == 1 else "are"
    return (
        f"Only {plural(n1, 'candidate')} {verb} real-uncertain (the paper had 8 of 279). A score "
        f"without information has an AUROC with a standard deviation of {number(null_sd(n1, n0))}."
    )


def _few_problems_positive(document: Report) -> str | None:
    counts = document["counts"]
    k, n1 = counts["problems_with_real_uncertain"], counts["real_uncertain"]
    if not 0 < k < FEW_PROBLEMS_POSITIVE:
        return None
    verb = "sits" if n1 == 1 else "sit"
    return (
        f"The {plural(n1, 'real-uncertain candidate')} {verb} in {plural(k, 'problem')}; about "
        f"{percent(math.exp(-k), 1)} of the resamples of problems hold none of them and are left "
        "out."
    )


def _power(document: Report) -> str | None:
    counts = document["counts"]
    n1, n0 = counts["real_uncertain"], counts["diversity"]
    if not n1 or not n0:
        return None
    unclear = [
        entry["name"]
        for entry in primary(document["scores"])
        if entry["name"] in LOCAL_SCORES
        and entry["ci_low"] is not None
        and entry["ci_high"] is not None
        and entry["ci_low"] <= 0.5 <= entry["ci_high"]
    ]
    if not unclear:
        return None
    return (
        f"With {count(n1)} positives and {count(n0)} negatives, 80% power needs an AUROC of about "
        f"{number(detectable_auroc(n1, n0, _level(document)))}. That the interval of "
        f"{plural(len(unclear), 'local score')} contains 0.5 ({', '.join(unclear)}) may be want of "
        "power; it does not show that a score is useless."
    )


def _positives_without_control(document: Report) -> str | None:
    control = document["control"]
    n1 = document["counts"]["real_uncertain"]
    if control is None or not n1:
        return None
    left = control["real_uncertain_where_control_viable"]
    if left == n1:
        return None
    return (
        f"{'None' if left == 0 else count(left)} of the {plural(n1, 'real-uncertain candidate')} "
        f"{'lies' if left == 1 else 'lie'} where the student succeeds with nothing forced "
        f"({control['threshold']} continuations). At the other {count(n1 - left)} the way ahead "
        "was hard whatever token came next."
    )


def _horizon_null(document: Report) -> str | None:
    nulls = [
        (abs(entry["null_mean"] - 0.5), entry["null_mean"], entry["name"])
        for entry in primary(document["scores_relative"])
        if entry["null_mean"] is not None
    ]
    away, mean, name = max(nulls, default=(0.0, 0.5, ""))
    if away <= NULL_AWAY_FROM_HALF:
        return None
    return (
        f"A label relative to the control does not remove the horizon: {score_label(name)} has a "
        f"relative AUROC of {number(mean)} when forced arms and control are exchanged at random. "
        "Read each relative AUROC against the mean of its own null, not against 0.5."
    )


def _missing_intervals(document: Report) -> str | None:
    lacking = [
        entry
        for entry in primary(document["scores"])
        if entry["auroc"] is not None and entry["ci_low"] is None
    ]
    if not lacking:
        return None
    names = ", ".join(entry["name"] for entry in lacking)
    reasons = "; ".join(sorted({entry["reason"] or "no reason given" for entry in lacking}))
    return f"No interval could be given for {names}: {reasons}."


def _missing_slope(document: Report) -> str | None:
    slope = document["slope"]
    if slope["ci_low"] is not None:
        return None
    what = "slope" if slope["estimate"] is None else "interval of the slope"
    return f"The {what} against the control could not be computed: {slope['reason'] or 'unknown'}."


def _few_problems(document: Report) -> str | None:
    n = document["counts"]["usable_problems"]
    if not 0 < n < FEW_PROBLEMS:
        return None
    return (
        f"The result rests on {plural(n, 'problem')}: a bootstrap over so few clusters gives "
        "intervals that are too narrow."
    )


def _sensitivity(document: Report) -> str | None:
    entry = _position_score(document)
    if entry is None or entry["ci_low"] is None or entry["ci_high"] is None:
        return None
    low, high = entry["ci_low"], entry["ci_high"]
    other = [
        f"{number(row['auroc'])} under {row['name']}"
        for row in document["sensitivity"]
        if row["auroc"] is not None and not low <= row["auroc"] <= high
    ]
    if not other:
        return None
    return (
        f"The AUROC of one_minus_r depends on how candidates are labelled: {'; '.join(other)}, "
        f"outside its interval {interval(low, high)}."
    )


def _truncated(document: Report) -> str | None:
    truncation = document["truncation"]
    if not truncation["samples"]:
        return None
    share = truncation["truncated"] / truncation["samples"]
    if share < TRUNCATED_SHARE:
        return None
    return (
        f"{percent(share, 1)} of the continuations ({count(truncation['truncated'])} of "
        f"{count(truncation['samples'])}) were cut off by the budget, and without an answer they "
        "count as failures; the label over finished samples alone is given beside."
    )


def _truncated_spines(document: Report) -> str | None:
    counts = document["counts"]
    n, whole = counts["truncated_spines"], counts["problems"]
    if not whole or n / whole < TRUNCATED_SHARE:
        return None
    return (
        f"{count(n)} of the {plural(whole, 'spine')} {'was' if n == 1 else 'were'} cut off by the "
        "budget: a longer one may solve more problems, and other ones."
    )


def _range_restriction(document: Report) -> str | None:
    if not any(entry["name"] == "h_trunc" for entry in document["scores"]):
        return None
    return (
        "Candidates were chosen for a high h_trunc, which narrows its range: the AUROC of h_trunc "
        "and of the other entropies is lower than it would be over all positions"
        + (
            "; the leaderboard shows both."
            if document["settings"].get("candidates", {}).get("random_per_problem")
            else " (--set candidates.random_per_problem=5 measures by how much)."
        )
    )


def _correct_spines_only(document: Report) -> str | None:
    counts = document["counts"]
    left_out = counts["incorrect_spines"] + counts["ungraded_spines"]
    spines = document["settings"].get("candidates", {}).get("spines", "correct")
    if spines == "incorrect":
        return (
            f"Every figure here stands on the student's {count(counts['incorrect_spines'])} "
            "incorrect spines, not on correct ones as in the paper: something in them has gone "
            "wrong already, so fewer continuations can succeed."
        )
    if not left_out:
        return None
    apart = ", and told apart in the leaderboard" if spines == "all" else ", the harder ones"
    return (
        f"Only problems that the student solved stand in these figures: {count(left_out)} of "
        f"{count(counts['problems'])} were left out{apart}."
    )


def _fallback(document: Report) -> str | None:
    counts = document["counts"]
    n = counts["fallback_spines"]
    if not n:
        return None
    verb = "comes" if n == 1 else "come"
    return (
        f"{count(n)} of the {count(counts['correct_spines'])} correct spines {verb} from the "
        "sampled second try, not from greedy decoding."
    )


def _unlabelled(document: Report) -> str | None:
    n = document["counts"]["unlabelled"]
    failed = sum(document.get("errors", {}).values())
    if not n and not failed:
        return None
    parts = []
    if n:
        parts.append(f"{plural(n, 'candidate')} could not be labelled and {_is(n)} left out")
    if failed:
        parts.append(f"{plural(failed, 'unit')} of work failed")
    return " and ".join(parts) + "."


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


def _agreement(document: Report) -> str | None:
    agreement = document["agreement"]
    if agreement is None:
        return None
    if agreement["argmax"] is None:
        return f"Agreement between backends was not measured: {agreement['reason'] or 'unknown'}."
    if agreement["argmax"] >= LOW_AGREEMENT:
        return None
    return (
        f"{' and '.join(agreement['backends'])} have the same most likely token at only "
        f"{percent(agreement['argmax'], 1)} of {plural(agreement['n_positions'], 'position')}: "
        "what was scored and what was sampled are not quite one model."
    )


def _many_scores(document: Report) -> str | None:
    n = len([entry for entry in primary(document["scores"]) if entry["auroc"] is not None])
    if n < 2:
        return None
    return (
        f"{count(n)} scores are compared; every interval is for one score alone, without "
        "correction for their number."
    )


RULES: tuple[Rule, ...] = (
    _bundled,
    _no_control,
    _one_class,
    _few_positives,
    _few_problems_positive,
    _power,
    _positives_without_control,
    _horizon_null,
    _missing_intervals,
    _missing_slope,
    _few_problems,
    _sensitivity,
    _truncated,
    _truncated_spines,
    _range_restriction,
    _correct_spines_only,
    _fallback,
    _unlabelled,
    _agreement,
    _many_scores,
)
