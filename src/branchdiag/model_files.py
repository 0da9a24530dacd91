"""What a model's directory says about itself, read without torch or transformers.

Reads config.json, generation_config.json, tokenizer files and the headers of safetensors files;
writes nothing. Gives the content identity that fingerprints use, the parameter count and memory
that `--dry-run` and `doctor` show, and the checks that make a broken directory a clear error
before minutes are spent on loading it. Knows neither the hub nor how a model is run.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchdiag.errors import MissingRequirement, UsageError

TEXT_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Configuration, tokenizer and template files: their whole content is part of the identity."""

WHOLE_FILE_BYTES = 64 * 2**20
"""Weight files up to this size are hashed whole; of larger ones the header and a sample."""

SAMPLE_BYTES = 4096
"""Bytes hashed at the start and the middle of every tensor of a large weight file."""

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOAT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model takes. Bytes are those of the data type that it will be run in."""

    parameters: int
    weight_bytes: int
    cache_bytes_per_token: int
    vocabulary_size: int
    layers: int


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UsageError: the file is missing, unreadable or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path.name} is missing from the model's directory",
            where=str(path.parent),
            fix=_instead(path.parent),
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"{path.name} cannot be read: {error}",
            where=str(path),
            fix="download or copy the file again",
        ) from None
    if not isinstance(value, dict):
        raise UsageError(
            f"{path.name} holds no JSON object",
            where=str(path),
            fix="download or copy the file again",
        )
    return value


def _instead(directory: Path) -> str:
    """What to give instead of a directory that holds no model."""
    for place in (directory, directory / "adapter"):
        if (place / "adapter_config.json").is_file():
            what = "this is an adapter" if place == directory else "this is a training run"
            return f"{what}: branchdiag merge {place} --out DIR makes a model of it"
    if (directory / "training.json").is_file() and (directory / "model").is_dir():
        return f"this is a training run: its model is {directory / 'model'}"
    return "give a directory that save_pretrained wrote, or a model id of the hub"


def text_config(directory: Path) -> dict[str, Any]:
    """config.json, or the part of it that describes the language model of a multimodal one."""
    config = read_json(directory / "config.json")
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that hold the weights, sorted by name.

    Raises:
        UsageError: there are none, or other formats only.
        MissingRequirement: the index names a shard that is not there.
    """
    index = directory / "model.safetensors.index.json"
    if index.exists():
        names = sorted({str(name) for name in read_json(index).get("weight_map", {}).values()})
        missing = [name for name in names if not (directory / name).exists()]
        if missing:
            raise MissingRequirement(
                f"{len(missing)} of {len(names)} weight files are missing, {missing[0]} first",
                where=str(directory),
                fix="download or copy the model again",
            )
        return [directory / name for name in names]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    other = sorted(
        path.name for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth")
    )
    raise UsageError(
        "the model has no safetensors weights" + (f", only {other[0]}" if other else ""),
        where=str(directory),
        fix="save it again with model.save_pretrained(directory), which writes safetensors",
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape and data_offsets.

    Raises:
        UsageError: the file is cut off or damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if end != size - 8 - length:
            raise ValueError(f"{size - 8 - length:,} bytes of weights where it announces {end:,}")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the weights are cut off or damaged: {error}",
            where=str(path),
            fix="download or copy the file again",
        ) from None
    return dict(header)


def check_files(directory: Path) -> None:
    """See that everything a run needs is there and whole: configuration, weights, chat template.

    Raises:
        UsageError, MissingRequirement: naming what is missing or broken.
    """
    config = read_json(directory / "config.json")
    if "model_type" not in config:
        raise UsageError("config.json names no model_type", where=str(directory / "config.json"))
    for path in weight_files(directory):
        read_header(path)
    check_chat_template(directory)


def check_chat_template(directory: Path) -> None:
    """Raise UsageError where the tokenizer brings no chat template (a base model)."""
    if (directory / "chat_template.jinja").exists() or (directory / "chat_template.json").exists():
        return
    settings = directory / "tokenizer_config.json"
    if not settings.exists() and not (directory / "tokenizer.json").exists():
        raise UsageError(
            "the model's directory holds no tokenizer",
            where=str(directory),
            fix="tokenizer.save_pretrained(directory) writes it there",
        )
    if not settings.exists() or not read_json(settings).get("chat_template"):
        raise UsageError(
            "the tokenizer has no chat template, so no student or teacher prompt can be made",
            where=str(directory),
            fix="take the instruct variant, or put a chat_template.jinja into a copy of the model",
        )


def content_identity(directory: Path) -> str:
    """A hash of what can change a result: configuration, tokenizer, template, code and weights.

    Text files and weight files up to 64 MiB are hashed whole. Of larger weight files the size, the
    header and 8 KiB of every tensor are: a weight that was trained further differs there, and the
    identity survives a copy to another machine, which a time stamp does not.
    """
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name == "README.md" or not path.is_file():
            continue
        if path.suffix == ".safetensors":
            content = _weights_digest(path)
        elif path.suffix in (*TEXT_SUFFIXES, ".py"):
            content = hashlib.sha256(path.read_bytes()).digest()
        else:
            continue
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()[:32]


def _weights_digest(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        digest = hashlib.sha256(str(size).encode())
        (length,) = struct.unpack("<Q", file.read(8))
        digest.update(file.read(length))
        for start, end in sorted(entry["data_offsets"] for entry in read_header(path).values()):
            for offset in (start, (start + end) // 2):
                file.seek(8 + length + offset)
                digest.update(file.read(min(SAMPLE_BYTES, end - offset)))
    return digest.digest()


def model_size(directory: Path, dtype: str = "auto") -> ModelSize:
    """Parameters, memory and cache of a model run in `dtype` (auto: as its weights are stored).

    The cache is two vectors of every key-value head of every layer, for each token of each row.
    """
    config = text_config(directory)
    parameters = stored = 0
    for entry in _tensors(directory):
        count = math.prod(entry["shape"])
        parameters += count
        stored += count * DTYPE_BYTES.get(entry["dtype"], 2)
    layers = int(config.get("num_hidden_layers", 0))
    heads = int(config.get("num_attention_heads", 1))
    key_value_heads = int(config.get("num_key_value_heads") or heads)
    head_size = int(config.get("head_dim") or int(config.get("hidden_size", 0)) // heads)
    configured = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    element = FLOAT_BYTES.get(configured if dtype == "auto" else dtype, 4)
    return ModelSize(
        parameters=parameters,
        weight_bytes=stored if dtype == "auto" else parameters * element,
        cache_bytes_per_token=2 * layers * key_value_heads * head_size * element,
        vocabulary_size=int(config.get("vocab_size", 0)),
        layers=layers,
    )


def _tensors(directory: Path) -> Iterator[Mapping[str, Any]]:
    for path in weight_files(directory):
        yield from read_header(path).values()
