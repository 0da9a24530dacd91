"""The leaderboard in the report document: entries, what was compared, and the sentences under it.

Takes rows of the table `leaderboard` and counts; makes the plain tree that page, terminal and JSON
show. Computes no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from branchdiag.report.wording import number, percent, plural

SHOWN_NAMES = 6


class LeaderboardGroup(TypedDict):
    """One group of candidates: every score and signal, best first, aliases with their first."""

    group: str
    description: str
    entries: list[dict[str, Any]]  # the table's columns, with `meaning` and `aliases`
    reference: str | None
    best: str | None
    n_declared: int
    n_compared: int
    n_candidates: int
    n_positive: int
    n_negative: int
    n_problems: int
    power: dict[str, float | None]
    sentences: list[str]
    reason: str | None  # why nothing, or no interval, could be computed


def leaderboard_group(
    group: str,
    description: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    level: float,
    meanings: Mapping[str, str],
    reference: str | None,
    best: str | None,
    n_compared: int,
    n_candidates: int,
    n_positive: int,
    n_problems: int,
    power: Mapping[str, float | None],
    reason: str | None,
    notes: Sequence[str] = (),
) -> LeaderboardGroup:
    """A group as the document holds it; a missing column of a row becomes null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    entries = []
    for row in sorted(rows, key=_place):
        entry = {name: row.get(name) for name in columns if name != "group"}
        entry["meaning"] = meanings[row["name"]]
        entry["aliases"] = [
            {"name": other["name"], "opposite": bool(other["alias_opposite"])}
            for other in rows
            if other["alias_of"] == row["name"]
        ]
        entries.append(entry)
    made: LeaderboardGroup = {
        "group": group,
        "description": description,
        "entries": entries,
        "reference": reference,
        "best": best,
        "n_declared": len(rows),
        "n_compared": n_compared,
        "n_candidates": n_candidates,
        "n_positive": n_positive,
        "n_negative": n_candidates - n_positive,
        "n_problems": n_problems,
        "power": dict(power),
        "sentences": [],
        "reason": reason,
    }
    made["sentences"] = [*sentences(made, level), *notes]
    return made


def _place(row: Mapping[str, Any]) -> tuple[bool, int]:
    """By rank; what has none (aliases, what was not measured) after all others, in given order."""
    rank = row["rank"]
    return rank is None, 0 if rank is None else int(rank)


def ranked(group: LeaderboardGroup) -> list[dict[str, Any]]:
    """The entries that were compared, best first."""
    return [entry for entry in group["entries"] if entry["rank"] is not None]


def sentences(group: LeaderboardGroup, level: float) -> list[str]:
    """How many were compared, what could have been seen, which is best, and what differs."""
    if not group["n_compared"] or group["best"] is None:
        return [f"Nothing could be compared: {group['reason'] or 'no entry was measured'}."]
    made = [_multiplicity(group, level), _power(group, level)]
    return [*made, *([] if group["reason"] else [_best(group), _reference(group)])]


def _multiplicity(group: LeaderboardGroup, level: float) -> str:
    n, aliases = group["n_compared"], sum(bool(e["alias_of"]) for e in group["entries"])
    text = (
        f"{plural(n, 'score or signal', 'scores and signals')} that differ once centred in their "
        f"problem were compared, of {group['n_declared']} declared"
    )
    if aliases:
        text += f" ({aliases} {'is an alias' if aliases == 1 else 'are aliases'})"
    if group["reason"]:
        return f"{text}; there are no intervals: {group['reason']}."
    return (
        f"{text}. Of as many without information about {number((1 - level) * n, 1)} would lie "
        f"outside their own {percent(level)} interval by chance; simultaneous intervals hold all "
        "of them together."
    )


def _power(group: LeaderboardGroup, level: float) -> str:
    power = group["power"]
    alone, clustered = power["critical"], power["critical_clustered"]
    together = power["critical_simultaneous"]
    counted = (
        f"With {plural(group['n_positive'], 'positive')} and "
        f"{plural(group['n_negative'], 'negative')} an AUROC under "
    )
    test = f"could not have been told from 0.5 (two-sided, {percent(level)}"
    found = f"To be found in four studies of five it had to be {number(power['detectable'])}."
    null = "the null spread of independent candidates, Hanley and McNeil 1982"
    if alone is None or clustered is None or together is None:
        return f"{counted}{number(alone)} {test}; {null}). {found}"
    return (
        f"{counted}{number(max(alone, clustered))} {test}: the larger of "
        f"{number(alone)} by {null}, and {number(clustered)} by resampling whole problems), nor "
        f"one under {number(together)} with all {group['n_compared']} taken together. {found}"
    )


def _best(group: LeaderboardGroup) -> str:
    entries = {entry["name"]: entry for entry in ranked(group)}
    others = [e for e in entries.values() if e["name"] != group["best"]]
    worse = [e for e in others if e["vs_best_high"] is not None and e["vs_best_high"] < 0]
    left = len(others) - len(worse)
    auroc = number(entries[str(group["best"])]["auroc"])
    text = f"The best that needs no rollout is {group['best']}, {auroc}"
    if not others:
        return f"{text}."
    return (
        f"{text}; {left} of the {plural(len(others), 'other')} cannot be told from it with all "
        "pairs taken together."
    )


def _reference(group: LeaderboardGroup) -> str:
    if group["reference"] is None:
        return "1 - r took no part, so nothing is compared with it."
    named = []
    for words, end, way in (("better", "vs_reference_low", 1), ("worse", "vs_reference_high", -1)):
        names = [e["name"] for e in ranked(group) if e[end] is not None and way * float(e[end]) > 0]
        shown = ", ".join(names[:SHOWN_NAMES])
        more = len(names) - SHOWN_NAMES
        if names:
            named.append(f"{words} than 1 - r: {shown}" + (f" and {more} more" if more > 0 else ""))
    if not named:
        return "None can be told from 1 - r with all comparisons with it taken together."
    return f"With all comparisons with it taken together, {'; '.join(named)}."
