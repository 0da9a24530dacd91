"""An evaluation's directory: a run directory's guarantees, with tables and a manifest of its own.

Its manifest is `evaluation.json`, so that no command takes an evaluation for a run. Knows nothing
of what the tables hold.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from branchdiag.store.run import RunDirectory

if TYPE_CHECKING:
    from branchdiag.store.schemas import TableSchema

MANIFEST = "evaluation.json"
LONGEST_NAME = 120


class EvaluationDirectory(RunDirectory):
    """Lock, manifest and tables of one evaluation."""

    manifest_name: ClassVar[str] = MANIFEST

    @classmethod
    def schemas(cls) -> Mapping[str, TableSchema]:
        """The tables of an evaluation."""
        from branchdiag.store.evaluation_schemas import EVALUATION_TABLES

        return EVALUATION_TABLES

    @classmethod
    def existing(cls, path: Path) -> EvaluationDirectory | None:
        """The evaluation at that path, if there is one."""
        return cls.open(path) if (path / MANIFEST).is_file() else None


def default_directory(labels: Sequence[str], root: Path = Path("runs")) -> Path:
    """Where an evaluation of these models goes: their names, nothing random."""
    slug = "+".join(re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.") for label in labels)
    if len(slug) > LONGEST_NAME:
        slug = f"{slug[:LONGEST_NAME]}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"
    return root / f"evaluate-{slug}"
