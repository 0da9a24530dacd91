"""Which model is meant and where its files lie.

A name becomes a `ResolvedModel` once: a local directory, or a hub repository at a commit whose
snapshot lies in the local cache. A run records it, and later commands ask no hub. Reads model
directories and the hub; writes the hub's cache alone. Imports neither torch nor transformers: the
functions that do are `model_loading`'s, offered here too. Knows nothing of problems or phases.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag import model_files
from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.model_files import ModelSize
from branchdiag.model_loading import (
    check_same_tokenizer,
    first_line,
    is_out_of_memory,
    load_model,
    load_tokenizer,
    resolve_device,
    use_one_thread_if_small,
)

__all__ = [
    "ModelReference",
    "ModelSize",
    "ResolvedModel",
    "check_same_tokenizer",
    "context_length",
    "estimate",
    "is_out_of_memory",
    "load_model",
    "load_tokenizer",
    "resolve",
    "resolve_device",
    "stop_token_ids",
    "use_one_thread_if_small",
]

SNAPSHOT_PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py"]
"""What a snapshot needs beside its safetensors; never pickled weights."""


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What a user calls a model: a directory, or a hub id with or without a revision."""

    name: str
    revision: str | None = None
    local: bool = False

    @staticmethod
    def parse(text: str) -> ModelReference:
        """Read `ID_OR_PATH[@REVISION]`. A directory that exists is a path, whatever its name.

        Raises:
            UsageError: empty, or a revision of a local path.
        """
        text = text.strip()
        if not text:
            raise UsageError("the model's name is empty", fix="give a directory or a hub id")
        name, separator, revision = text.rpartition("@")
        if separator and not _exists(text) and _exists(name):
            raise UsageError(
                "a local directory has no revision", where=text, fix=f"give {name} alone"
            )
        if _exists(text) or text.startswith(("/", "./", "../", "~")):
            return ModelReference(text, None, local=True)
        if not separator:
            return ModelReference(text)
        if not name or not revision:
            raise UsageError("a model reads ID or ID@REVISION", where=text)
        return ModelReference(name, revision)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose files are on this machine.

    Attributes:
        name: as the user gave it.
        path: directory of the files (of a hub model: its snapshot).
        revision: the hub's commit hash; None for a directory.
        content_id: identity of the content, for fingerprints; the same wherever the files lie.
        trust_remote_code: whether code that the model ships may run.
    """

    name: str
    path: str
    revision: str | None
    content_id: str
    trust_remote_code: bool = False

    @property
    def directory(self) -> Path:
        """`path` as a Path."""
        return Path(self.path)

    def to_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "name": self.name,
            "path": self.path,
            "revision": self.revision,
            "content_id": self.content_id,
            "trust_remote_code": self.trust_remote_code,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ResolvedModel:
        """From a manifest."""
        return ResolvedModel(**values)


def resolve(
    reference: ModelReference | str,
    *,
    recorded: ResolvedModel | None = None,
    trust_remote_code: bool = False,
    weights: bool = True,
) -> ResolvedModel:
    """Find a model's files, downloading a hub model's where they are not cached, and check them.

    Args:
        reference: what the user gave.
        recorded: what an earlier command made of it. Where it is a hub model of the same name and
            its snapshot is still there, the hub is not asked.
        trust_remote_code: kept in the result.
        weights: False leaves a hub model's weights where they are (a dry run).

    Raises:
        UsageError: no such name or directory, or its content cannot be used.
        MissingRequirement: the hub cannot be reached or refuses, or shards are missing.
    """
    if isinstance(reference, str):
        reference = ModelReference.parse(reference)
    if reference.local:
        directory = _local_directory(reference.name)
        revision = None
        content_id = ""
    else:
        known = recorded if recorded is not None and recorded.name == str(reference) else None
        if known is not None and known.revision and Path(known.path).is_dir():
            directory, revision = Path(known.path), known.revision
        else:
            pinned = known.revision if known is not None else reference.revision
            directory = _snapshot(reference.name, pinned, weights=weights)
            revision = directory.name
        content_id = f"{reference.name}@{revision}"  # a commit names its content
    if weights:
        model_files.check_files(directory)
    else:
        model_files.check_chat_template(directory)
    return ResolvedModel(
        name=str(reference),
        path=str(directory),
        revision=revision,
        content_id=content_id or model_files.content_identity(directory),
        trust_remote_code=trust_remote_code,
    )


def stop_token_ids(resolved: ResolvedModel, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end a completion: generation_config's EOS ids and the tokenizer's.

    Where there is no generation_config.json, the configuration's EOS ids stand in for it.
    """
    source = resolved.directory / "generation_config.json"
    values = model_files.read_json(source) if source.exists() else {}
    listed = values.get("eos_token_id")
    if listed is None:
        listed = model_files.text_config(resolved.directory).get("eos_token_id")
    candidates = [*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id]
    ids = {int(token) for token in candidates if token is not None}
    if not ids:
        raise UsageError("no token ends a turn: the model names no EOS", where=resolved.path)
    return tuple(sorted(ids))


def context_length(resolved: ResolvedModel) -> int:
    """Positions that the model was made for (max_position_embeddings), in tokens."""
    config = model_files.text_config(resolved.directory)
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        if isinstance(config.get(name), int):
            return int(config[name])
    raise UsageError(
        "config.json names no context length",
        where=resolved.path,
        fix="add max_position_embeddings to it",
    )


def estimate(resolved: ResolvedModel, dtype: str = "auto") -> ModelSize:
    """Parameters, bytes of weights and of cache a token, read from the files without torch."""
    return model_files.model_size(resolved.directory, dtype)


def _exists(text: str) -> bool:
    return bool(text) and Path(text).expanduser().exists()


def _local_directory(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists():
        raise UsageError("no such model directory", where=str(path), fix="check the path")
    if not path.is_dir():
        raise UsageError(
            "a model is a directory, this is a file", where=str(path), fix=f"give {path.parent}"
        )
    return path.resolve()


def _snapshot(name: str, revision: str | None, *, weights: bool) -> Path:
    """The directory of a hub model's snapshot, downloaded where it is not cached."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    where = name if revision is None else f"{name}@{revision}"
    local = "or give a directory that holds the model"
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*SNAPSHOT_PATTERNS, *(["*.safetensors"] if weights else [])],
                ignore_patterns=["original/*", "*/*.safetensors"],
            )
        )
    except hub.HFValidationError:
        raise UsageError(
            "neither a directory here nor a hub id", where=where, fix="ids read ORGANISATION/NAME"
        ) from None
    except hub.GatedRepoError:
        raise MissingRequirement(
            "the hub gives this model only to those who accepted its terms",
            where=where,
            fix=f"accept them on its page and `hf auth login`, {local}",
        ) from None
    except hub.RepositoryNotFoundError:
        raise UsageError(
            "the hub has no such model, or only for those logged in",
            where=where,
            fix=f"check the name, `hf auth login` for a private one, {local}",
        ) from None
    except hub.RevisionNotFoundError:
        raise UsageError("the model has no such revision", where=where) from None
    except (OSError, hub.HfHubHTTPError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
        reason = "HF_HUB_OFFLINE is set" if offline else first_line(error)
        raise MissingRequirement(
            f"the model is not in the local cache and the hub cannot be reached ({reason})",
            where=where,
            fix=f"unset HF_HUB_OFFLINE, {local}" if offline else f"connect to the network, {local}",
        ) from None
