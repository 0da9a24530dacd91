"""The objectives by name: one small class a method, built from its settings.

Knows the names without loading torch, so that the command line can offer them. What a method is,
and where it comes from, stands in its own module.
"""

from __future__ import annotations

import dataclasses
import difflib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from branchdiag.errors import UsageError

if TYPE_CHECKING:
    from branchdiag.training.objectives.base import Objective

_CLASSES = {
    "pw-opsd": ("pw_opsd", "PWOPSD"),
    "opsd": ("opsd", "OPSD"),
    "eopd": ("eopd", "EOPD"),
    "reopold": ("reopold", "REOPOLD"),
    "iw-opd": ("iw_opd", "IWOPD"),
}

OBJECTIVE_NAMES = tuple(_CLASSES)
"""What `--objective` takes; the default comes first."""


def objective_class(name: str) -> type[Objective]:
    """The class of an objective.

    Raises:
        UsageError: no objective has this name.
    """
    if name not in _CLASSES:
        raise UsageError(
            f"there is no objective named {name!r}", fix=_closest(name, list(OBJECTIVE_NAMES))
        )
    module, class_name = _CLASSES[name]
    found: type[Objective] = getattr(import_module(f"{__name__}.{module}"), class_name)
    return found


def make_objective(name: str, **settings: Any) -> Objective:
    """An objective with its settings; those not named keep the method's own values.

    Raises:
        UsageError: no objective has this name, the objective has no such setting, or its value is
            outside what the method allows.
    """
    kind = objective_class(name)
    kinds = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    known = list(kinds)
    for setting in settings:
        if setting not in known:
            raise UsageError(
                f"the objective {name} has no setting {setting!r}",
                where="objective.settings",
                fix=_closest(setting, known),
            )
    try:
        return kind(**settings)
    except TypeError:
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        raise UsageError(
            f"the objective {name} cannot take these settings: {given}",
            where="objective.settings",
            fix="values of these kinds: " + ", ".join(f"{k}: {v}" for k, v in kinds.items()),
        ) from None


def _closest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
