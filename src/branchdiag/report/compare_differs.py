"""What is not the same in all runs that are compared, and what each difference changes.

Takes manifests; gives rows of the comparison document. An input is the same where its identity is
(the content of weights, data and template), whatever it is called. Knows no statistic. The settings
are those of the protocol (arXiv 2605.21606).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from branchdiag.report.compare_document import DifferingKey

EFFECTS = {
    "spine": "other spines: the same problems, but other places in them",
    "teacher": "another teacher's view: other places become candidates, other tokens are forced",
    "candidates": "other places become candidates, or other tokens are forced",
    "dropout": "the dropout scores h_mc, mi and log_kappa alone",
    "continuation": "viability is measured another way, and is not the same quantity",
    "label": "other rules for labels: counts of labels and AUROCs, not viability or d",
    "report": "how intervals and bins are made, not what is measured",
    "engine": "how the work is carried; another engine or precision draws other samples",
    "prefixes": "the position-bias diagnostic alone",
    "align": "the gradient-alignment diagnostic alone",
}
LATER = ("prefixes", "align")
INPUT_EFFECTS = {
    "student": "whose traces and continuations: everything",
    "teacher": "whose tokens are forced, and where",
    "teacher template": EFFECTS["teacher"],
    "problems": "which problems: figures of other problems are not paired",
    "seed": "other draws of the same",
    "engine": EFFECTS["engine"],
    "branchdiag": "another version of the program",
}


def what_differs(manifests: Sequence[Mapping[str, Any]]) -> tuple[list[DifferingKey], list[str]]:
    """What is not the same in all runs, inputs first, then the protocol's keys in their order.

    Returns:
        The differing keys with each run's value, and the names of the inputs that are the same.
    """
    rows: list[DifferingKey] = []
    same = []
    identities = [_identities(manifest) for manifest in manifests]
    for name in INPUT_EFFECTS:
        if len({key[name] for key, _ in identities}) == 1:
            same.append(name)
        else:
            values = [shown[name] for _, shown in identities]
            rows.append({"key": name, "values": values, "means": INPUT_EFFECTS[name]})
    flat = [_flat(manifest.get("protocol", {})) for manifest in manifests]
    for key in dict.fromkeys(key for settings in flat for key in settings):
        section = key.split(".")[0]
        if key in ("name", "problems"):
            continue  # a label, and what the problems row says already
        if section in LATER and not all(key in settings for settings in flat):
            continue  # made before there was such a diagnostic
        values = [settings.get(key) for settings in flat]
        if any(value != values[0] for value in values):
            rows.append({"key": key, "values": values, "means": EFFECTS.get(section, "")})
    return rows, same


def _identities(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides whether an input is the same, and what is shown of it, by name."""
    inputs = manifest.get("inputs", {})
    student, teacher = inputs.get("student", {}), inputs.get("teacher", {})
    template = manifest.get("phases", {}).get("B", {}).get("content", {}).get("teacher_template")
    identity = {
        "student": student.get("content_id"),
        "teacher": teacher.get("content_id"),
        "teacher template": template,
        "problems": inputs.get("data_id"),
        "seed": manifest.get("seed"),
        "engine": inputs.get("engine_name"),
        "branchdiag": manifest.get("branchdiag"),
    }
    shown = identity | {
        "student": _model_words(student),
        "teacher": _model_words(teacher),
        "problems": _problem_words(inputs),
    }
    return identity, shown


def _model_words(model: Mapping[str, Any]) -> str:
    """Name and revision; the weights' identity, shortened, where a path has no revision."""
    which = model.get("revision") or model.get("content_id") or "unknown"
    return f"{model.get('name', 'unknown')} @ {which[:12]}"


def _problem_words(inputs: Mapping[str, Any]) -> str:
    made = inputs.get("problems", {})
    asked = made.get("asked", {})
    parts = [f"{entry.get('n')} of {entry.get('source')}" for entry in made.get("provenance", [])]
    extra = [
        f"{name} {asked[name]}" for name in ("limit", "seed") if asked.get(name) not in (None, "")
    ]
    words = ", ".join(parts) or "unknown"
    return words + (f" ({', '.join(extra)})" if extra else "")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
