"""What a section of settings is: a frozen model that is strict about its keys.

Knows no setting. A field marked `transport` changes how the work is carried (batch, memory, number
of workers), not what it gives: it is recorded in the manifest and left out of the fingerprints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


def transport(default: Any, description: str, **constraints: Any) -> Any:
    """A field that is recorded but changes no result (left out of the fingerprints)."""
    return Field(
        default, description=description, json_schema_extra={"transport": True}, **constraints
    )


def added(default: Any, description: str, **constraints: Any) -> Any:
    """A field that came later and whose default is what was done before it: at its default it is
    left out of the fingerprints, so that runs made without it go on.
    """
    return Field(default, description=description, json_schema_extra={"added": True}, **constraints)


class Section(BaseModel):
    """Base of all sections: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def result_settings(self) -> dict[str, Any]:
        """The settings that can change a result: all but the transport ones, and those that were
        added later only where they are not at their default; of sections inside likewise.
        """
        plain = self.model_dump(mode="json")
        return {
            name: value.result_settings() if isinstance(value, Section) else plain[name]
            for name, field in type(self).model_fields.items()
            for value in [getattr(self, name)]
            if not is_transport(field) and not (is_added(field) and value == field.default)
        }


def is_transport(field: FieldInfo) -> bool:
    """Whether a field is marked as transport."""
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and bool(extra.get("transport"))


def is_added(field: FieldInfo) -> bool:
    """Whether a field is marked as added later."""
    extra = field.json_schema_extra
    return isinstance(extra, Mapping) and bool(extra.get("added"))
