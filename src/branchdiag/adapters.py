"""LoRA adapters on disk: telling one from a model, its base model, and the two made one.

Reads directories in PEFT's format (adapter_config.json, adapter_model.safetensors); writes whole
models where it is told to, nothing else. peft is imported inside the functions. An adapter that
does not fit is an error: one that was silently not applied would look like its base model. Knows
nothing of how an adapter was trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag import model_files
from branchdiag.errors import MissingRequirement, UsageError
from branchdiag.model_loading import no_bars

if TYPE_CHECKING:
    from branchdiag.models import ResolvedModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NOT_COPIED = ("config.json", "README.md", "model.safetensors.index.json")
"""Files of a base model that other weights of it do not share."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
BUNDLED_TAIL = ("branchdiag", "bundled", "model")
"""How the path of the bundled model ends, wherever the package is installed."""


def is_adapter(path: str | Path) -> bool:
    """Whether a directory holds a PEFT adapter (and not a whole model)."""
    return (Path(path).expanduser() / CONFIG).is_file()


def base_model_of(path: str | Path) -> str:
    """The base model of an adapter, as `models.resolve` takes it: ID_OR_PATH[@REVISION].

    A path of the bundled model on another machine becomes its path here.

    Raises:
        UsageError: no adapter, or one that names no base model.
    """
    directory = _directory(path)
    config = model_files.read_json(directory / CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise UsageError(
            "the adapter names no base model",
            where=str(directory / CONFIG),
            fix="set base_model_name_or_path in it",
        )
    if Path(name).expanduser().exists():
        return name
    if Path(name).parts[-3:] == BUNDLED_TAIL:
        from branchdiag.bundled import model_path

        return str(model_path())
    return f"{name}@{revision}" if revision else name


def rank_of(path: str | Path) -> int:
    """The greatest rank among the matrices of an adapter.

    Raises:
        UsageError: no adapter, or one that names no rank.
    """
    directory = _directory(path)
    config = model_files.read_json(directory / CONFIG)
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        raise UsageError("the adapter names no rank", where=str(directory / CONFIG), fix="set r")
    return int(max(ranks))


def merged_model(model: Any, adapter_path: str | Path) -> Any:
    """The base model with the adapter's weights added to its own; `model` is used up.

    Args:
        model: the adapter's base model, loaded, on any device.
        adapter_path: the adapter's directory.

    Returns:
        A plain `transformers` model, in evaluation mode, without gradients.

    Raises:
        UsageError: no adapter, or one that does not fit the model.
        MissingRequirement: peft is not installed.
    """
    merged = _adapted(model, adapter_path).merge_and_unload(safe_merge=True)
    merged.requires_grad_(False)
    return merged.eval()


def model_with_adapter(model: Any, adapter_path: str | Path) -> Any:
    """The model that was trained: merged in float32, with the adapter beside its weights otherwise.

    A weight in bfloat16 has 8 significant bits. An update below half of its last one is lost in a
    sum that is rounded to them, and many of a hundred steps at a rate of 5e-6 are.

    Args and errors as `merged_model`; `model` is used up.

    Returns:
        The base model, whose layers may carry the adapter, in evaluation mode, without gradients.
    """
    import torch

    if all(p.dtype in (torch.float32, torch.float64) for p in model.parameters()):
        return merged_model(model, adapter_path)
    base = _adapted(model, adapter_path).get_base_model()
    base.requires_grad_(False)
    return base.eval()


def _adapted(model: Any, adapter_path: str | Path) -> Any:
    """The PEFT model, once every tensor of the adapter is seen to have its place in it."""
    directory = _directory(adapter_path)
    if not (directory / WEIGHTS).is_file():
        raise UsageError(
            f"the adapter has no {WEIGHTS}",
            where=str(directory),
            fix="copy or train it again; other formats are not read",
        )
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise needs_training_packages(error) from error
    from safetensors import SafetensorError, safe_open

    try:
        adapted: Any = PeftModel.from_pretrained(model, str(directory), is_trainable=False)
    except SafetensorError as error:
        raise UsageError(
            f"the adapter's weights are cut off or damaged: {error}",
            where=str(directory / WEIGHTS),
            fix="copy the file again",
        ) from error
    except (ValueError, RuntimeError, KeyError) as error:
        # torch's first line says only that there were errors; the next names a tensor.
        lines = [line.strip() for line in str(error).splitlines()[:2]]
        raise _unfit(directory, " ".join(lines)) from error
    with safe_open(directory / WEIGHTS, framework="pt") as file:
        stored = set(file.keys())
    odd = sorted(stored ^ set(get_peft_model_state_dict(adapted)))
    if odd:
        raise _unfit(directory, f"{len(odd)} tensors are in one of the two alone, {odd[0]} first")
    return adapted


def write_merged(
    base: ResolvedModel, adapter_path: str | Path, target: Path, *, device: str = "cpu"
) -> None:
    """Write base model and adapter as one model into `target`, an empty directory.

    Weights are added in float32 and written in the base model's own type. Tokenizer, templates and
    generation settings are the base model's files, copied as they are.

    Raises:
        UsageError: no adapter, or one that does not fit the model.
        MissingRequirement: the base model cannot be loaded, or peft is not installed.
    """
    import torch

    from branchdiag.models import load_model
    from branchdiag.protocol import EngineSettings

    merged = merged_model(
        load_model(base, EngineSettings(dtype="float32", device=device)), adapter_path
    )
    config = model_files.text_config(base.directory)
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    merged.to(getattr(torch, name.removeprefix("torch.")))
    write_whole(merged, base, target)


def write_whole(model: Any, base: ResolvedModel, target: Path) -> None:
    """Write a model that began as `base` into `target`, an empty directory.

    Weights are safetensors in the type that they have. Tokenizer, templates and generation settings
    are the base model's files, copied as they are.
    """
    copied = [
        file
        for file in sorted(base.directory.iterdir())
        if file.is_file() and file.name not in NOT_COPIED and file.suffix not in WEIGHT_SUFFIXES
    ]
    generation = model.generation_config
    if any(file.name == "generation_config.json" for file in copied):
        # Of settings that transformers itself finds odd it would refuse to write a model.
        model.generation_config = type(generation)()
    try:
        with no_bars():
            model.save_pretrained(str(target))
    finally:
        model.generation_config = generation
    for file in copied:
        shutil.copyfile(file, target / file.name)


def needs_training_packages(error: ImportError) -> MissingRequirement:
    """The user's version of an import of peft or accelerate that failed."""
    return MissingRequirement(
        f"{error.name or 'a package'} cannot be imported: {error}",
        where="adapters and training",
        fix="pip install 'branchdiag[train]'",
    )


def _directory(path: str | Path) -> Path:
    directory = Path(path).expanduser()
    if not is_adapter(directory):
        inside = directory / "adapter"
        for whole in (directory, directory / "model"):
            if (whole / "config.json").is_file() and not (inside / CONFIG).is_file():
                raise UsageError(
                    "this is no adapter but a whole model: there is nothing to merge",
                    where=str(whole),
                    fix=f"use the directory as it is: branchdiag evaluate {whole}",
                )
        raise UsageError(
            "this is no adapter",
            where=str(directory),
            fix=f"did you mean {inside}?"
            if (inside / CONFIG).is_file()
            else f"a directory that holds {CONFIG}",
        )
    return directory


def _unfit(directory: Path, reason: str) -> UsageError:
    return UsageError(
        f"the adapter does not fit the model: {reason}",
        where=str(directory),
        fix=f"its base model is {base_model_of(directory)}",
    )
