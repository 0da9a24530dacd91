"""The document of the position bias: everything that page, terminal and `--json` show.

Takes curves, changes, the fitted schedule and the prescription; writes a plain tree that JSON can
hold. A number that could not be computed is null beside a reason. Computes no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from branchdiag.protocol import Protocol
    from branchdiag.stats.estimate import Estimate
    from branchdiag.stats.position_bias import GainChange
    from branchdiag.stats.prescription import Prescription
    from branchdiag.stats.prescription_sentences import Evidence
    from branchdiag.stats.schedule_fit import FittedSchedule

POSITION_BIAS = "position_bias.json"
FORMAT, VERSION = "branchdiag.position_bias", 1
ALL, CORRECT, INCORRECT = "all", "correct", "incorrect"
GROUPS = (ALL, CORRECT, INCORRECT)
POINT = ("x", "y", "lo", "hi", "n", "reason")


def make_document(
    *,
    prescription: Prescription,
    evidence: Evidence,
    curves: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    slopes: Mapping[str, Any],
    schedule: Mapping[str, Any],
    counts: Mapping[str, Any],
    context: str,
    settings: Mapping[str, Any],
    models: Mapping[str, str],
) -> dict[str, Any]:
    """The document.

    Args:
        curves: rows of `prefix_curves`.
        changes: group -> change of the teacher's gain, `before_box` where prefixes after a box
            could be left out.
        slopes: group -> change of the discrepancy.
        schedule: of `schedule_entry`.
        counts: what everything stands on.
        context: of the run's teacher.
    """
    return {
        "schema": FORMAT,
        "version": VERSION,
        "verdict": prescription.verdict,
        "sentence": prescription.sentence,
        "basis": [asdict(strand) for strand in prescription.basis],
        "remarks": list(prescription.remarks),
        "paragraph": prescription.paragraph,
        "counts": dict(counts),
        "curves": _curves(curves),
        "gain": dict(changes),
        "discrepancy": dict(slopes),
        "iw_opd": {"gamma": evidence.gamma},
        "schedule": {**schedule, "spines": evidence.schedule_spines},
        "context": context,
        "level": evidence.level,
        "models": dict(models),
        "settings": dict(settings),
    }


def told_to_teacher(protocol: Protocol) -> str | None:
    """What the teacher's prompt gives away, whichever setting or file it comes from."""
    from branchdiag.prompts import teacher_template

    fields = teacher_template(protocol.teacher, protocol.spine.prompt).fields
    if "answer" in fields:
        return "the answer"
    return "a solution" if "solution" in fields else None


def _curves(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Group -> series -> points, from left to right."""
    tree: dict[str, dict[str, list[dict[str, Any]]]] = {group: {} for group in GROUPS}
    for row in sorted(rows, key=lambda row: int(row["bin"])):
        point = {name: row[name] for name in POINT}
        tree[row["group"]].setdefault(row["series"], []).append(point)
    return tree


def estimate_entry(estimate: Estimate) -> dict[str, Any]:
    """A number with its interval, or the reason why there is none."""
    return {
        "value": estimate.value,
        "low": estimate.ci_low,
        "high": estimate.ci_high,
        "reason": estimate.reason,
    }


def change_entry(change: GainChange) -> dict[str, Any]:
    """The changes of the gain in a group, with how many problems they stand on."""
    changes = {"mean": change.mean, "slope": change.slope, "per_remaining": change.per_remaining}
    entries = {name: estimate_entry(estimate) for name, estimate in changes.items()}
    return {"n_problems": change.n_problems, **entries}


def schedule_entry(fitted: FittedSchedule) -> dict[str, Any]:
    """The schedule that the run's labels allow, with the fits that it stands on.

    `curve` is the weight that `fit-schedule` would write (1 everywhere where nothing was
    supported); `fits` has each estimand's own curve with its band, whatever became of it.
    """
    from branchdiag.stats.schedule_document import CURVE_AT, make_document, to_schedule

    document = make_document(fitted)
    weights = to_schedule(fitted).curve(CURVE_AT)
    kept = ("status", "reason", "estimand", "direction", "w_min", "tau", "s", "counts")
    return {
        **{name: document[name] for name in kept},
        "curve": {"r": [float(r) for r in CURVE_AT], "w": [float(w) for w in weights]},
        "fits": {
            name: {key: fit[key] for key in ("status", "reason", "direction", "band")}
            for name, fit in document["fits"].items()
        },
    }
