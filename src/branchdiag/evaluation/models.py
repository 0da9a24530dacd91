"""Which models an evaluation compares: resolved, told apart by content, and named shortly.

Reads model and adapter directories, and `runs/` for the newest result of training; loads no
weights. A model's label stands in every table, so it is kept from one command to the next; its
content identity says whether it is still the same model. Knows nothing of problems or figures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from branchdiag.adapters import CONFIG, WEIGHTS, is_adapter
from branchdiag.errors import SettingsConflict, UsageError
from branchdiag.models import ModelReference, ResolvedModel, resolve
from branchdiag.store.fingerprint import file_hash
from branchdiag.training.results import (
    began_from,
    is_trained_model,
    newest_result,
    result_in,
    run_of,
)

BUNDLED = "bundled"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under evaluation.

    Attributes:
        label: short name, unique in the evaluation.
        name: as the user gave it; a path is absolute, and a training run's stands for its result.
        base: the whole model, or the one that the adapter belongs to.
        adapter: directory of the adapter; None for a whole model.
        content_id: identity of weights, tokenizer, template and adapter.
        began_from: of a model whose weights were all trained, the one that training began from.
    """

    label: str
    name: str
    base: ResolvedModel
    adapter: str | None
    content_id: str
    began_from: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "label": self.label,
            "name": self.name,
            "base": self.base.to_dict(),
            "adapter": self.adapter,
            "content_id": self.content_id,
            "began_from": self.began_from,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> EvaluatedModel:
        """From a manifest."""
        return EvaluatedModel(**{**values, "base": ResolvedModel.from_dict(values["base"])})


def default_names(root: Path = Path("runs")) -> list[str]:
    """The newest result of training below `root`, after the model that it was trained from; the
    bundled model where there is none."""
    result = newest_result(root)
    return [BUNDLED] if result is None else [began_from(result), str(result)]


def resolve_models(
    names: Sequence[str],
    recorded: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    trust_remote_code: bool = False,
) -> tuple[EvaluatedModel, ...]:
    """Find the models' files and name each.

    Args:
        names: `bundled`, a hub id, or a directory of a model, an adapter or a training run.
        recorded: label -> `EvaluatedModel.to_dict` of an earlier command in the same directory.
        trust_remote_code: kept in the result.

    Raises:
        UsageError, MissingRequirement: a model cannot be had, or one is named twice.
        SettingsConflict: a model has other content than when it was evaluated.
    """
    former = [EvaluatedModel.from_dict(values) for values in (recorded or {}).values()]
    found = [_resolve(name, former, trust_remote_code) for name in names]
    for index, model in enumerate(found):
        for other in found[:index]:
            if model.content_id == other.content_id:
                raise UsageError(
                    "the same model is named twice", where=f"{other.name}, {model.name}"
                )
    _check_unchanged(found, former)
    labels = {model.content_id: model.label for model in former}
    new = _short_names([m.name for m in found if m.content_id not in labels], set(labels.values()))
    return tuple(
        replace(model, label=labels.get(model.content_id) or new[model.name]) for model in found
    )


def is_bundled(model: EvaluatedModel) -> bool:
    """Whether a model is the bundled one, an adapter of it, or trained from it."""
    from branchdiag.bundled import model_path

    here = Path(model.base.path).resolve() == model_path().resolve()
    return here or model.began_from == BUNDLED


def _resolve(name: str, former: Sequence[EvaluatedModel], trust: bool) -> EvaluatedModel:
    """A model without its label."""
    path = Path(name).expanduser()
    if name != BUNDLED:
        path = result_in(path) or path  # a training run is named for its result
    if name != BUNDLED and is_adapter(path):
        base = _resolve_base(began_from(path), former, trust)
        weights = path / WEIGHTS
        if not weights.is_file():
            raise UsageError(f"the adapter has no {WEIGHTS}", where=str(path))
        parts = (base.content_id, file_hash(path / CONFIG), file_hash(weights))
        content_id = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        directory = os.path.normpath(path.absolute())
        return EvaluatedModel("", str(run_of(Path(directory))), base, directory, content_id)
    if name != BUNDLED and is_trained_model(path):
        directory = os.path.normpath(path.absolute())
        base = _resolve_base(directory, former, trust)
        origin = began_from(path)
        return EvaluatedModel("", str(run_of(Path(directory))), base, None, base.content_id, origin)
    base = _resolve_base(name, former, trust)
    model = EvaluatedModel("", name, base, None, base.content_id)
    if is_bundled(model):
        return replace(model, name=BUNDLED)  # an adapter names it by its path
    return replace(model, name=str(path.resolve())) if path.is_dir() else model


def _resolve_base(name: str, former: Sequence[EvaluatedModel], trust: bool) -> ResolvedModel:
    if name == BUNDLED:
        from branchdiag.bundled import model_path

        name = str(model_path())
    reference = ModelReference.parse(name)
    known = next((m.base for m in former if m.base.name == str(reference)), None)
    return resolve(reference, recorded=known, trust_remote_code=trust)


def _check_unchanged(found: Sequence[EvaluatedModel], former: Sequence[EvaluatedModel]) -> None:
    then = {model.name: model.content_id for model in former}
    changed = [
        f"{model.name}: {then[model.name][:12]} -> {model.content_id[:12]}"
        for model in found
        if then.get(model.name, model.content_id) != model.content_id
    ]
    if changed:
        raise SettingsConflict(
            "a model is not what it was when its samples were taken:\n  " + "\n  ".join(changed),
            where="content of the model",
            fix="--out DIR starts another evaluation, or remove this one's directory",
        )


def _short_names(names: Sequence[str], taken: set[str]) -> dict[str, str]:
    """The shortest ends of the paths that tell them apart; hub ids as they stand."""
    given: dict[str, str] = {}
    for name in names:
        parts = Path(name).parts if Path(name).is_absolute() else (name,)
        others = [Path(other).parts for other in names if other != name]
        for length in range(1, len(parts) + 1):
            label = "/".join(parts[-length:])
            tail = parts[-length:]
            if label not in taken and all(other[-length:] != tail for other in others):
                break
        taken.add(label)
        given[name] = label
    return given
