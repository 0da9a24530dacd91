"""Loading what `models.resolve` found: the device, the tokenizer, the weights.

Reads model directories, never the hub; writes nothing. torch and transformers are imported inside
the functions. What transformers raises for a broken, foreign or too large model becomes an error
that says what to do. Knows nothing of problems, phases or decoding.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from branchdiag import model_files
from branchdiag.errors import BranchdiagError, MissingRequirement, UsageError
from branchdiag.protocol import EngineSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from branchdiag.models import ResolvedModel

PROBE_TEXT = "Let x² = 12.5 + 7·(3−1);\n\n\tso \\boxed{x} ≈ 5.0 — naïve?  </think><think>"
"""Encoded by two tokenizers that should be one: words, digits, white space, symbols, tags."""


SMALL_MODEL_PARAMETERS = 50_000_000
"""Up to this size a CPU runs a model faster on one thread (and decodes in several processes)."""


def resolve_device(name: str, setting: str = "engine.device") -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` -> a device that is there.

    Raises:
        UsageError: no such kind of device.
        MissingRequirement: torch sees no such GPU.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"{name!r} is no device", where=setting, fix="auto, cpu, cuda or cuda:N")
    if name != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(name.partition(":")[2] or 0) >= count:
            raise MissingRequirement(
                f"no device {name}: torch {torch.__version__} sees {count} CUDA devices",
                where=setting,
                fix=f"{setting} cpu, or install torch for your CUDA driver"
                if setting.startswith("--")
                else f"--set {setting}=cpu, or install torch for your CUDA driver",
            )
    return name


def load_tokenizer(resolved: ResolvedModel) -> PreTrainedTokenizerBase:
    """The model's tokenizer, from its directory alone.

    Raises:
        UsageError, MissingRequirement: it cannot be loaded; says what to do.
    """
    with _import_without_collection():
        from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            resolved.path, local_files_only=True, trust_remote_code=resolved.trust_remote_code
        )
    except Exception as error:
        _explain_load_error(error, resolved, "tokenizer")
    if not tokenizer.chat_template:
        model_files.check_chat_template(resolved.directory)
    return tokenizer


def load_model(
    resolved: ResolvedModel, settings: EngineSettings, device: str | None = None
) -> PreTrainedModel:
    """The causal language model on its device, in evaluation mode, without gradients.

    dtype `auto` is the configuration's on a GPU and float32 on a CPU, where half precision is
    slow and its rounding would decide near ties.

    Raises:
        UsageError, MissingRequirement: it cannot be loaded; says what to do. Weights that the
            files lack, which transformers would fill with random numbers, are an error.
    """
    with _import_without_collection():
        import torch
        from transformers import AutoModelForCausalLM

    target = torch.device(resolve_device(settings.device if device is None else device))
    dtype: Any = settings.dtype
    if dtype == "auto" and target.type == "cpu":
        dtype = "float32"
    options: dict[str, Any] = {}
    if settings.attention != "auto":
        options["attn_implementation"] = settings.attention
    with no_bars():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                resolved.path,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=resolved.trust_remote_code,
                output_loading_info=True,
                **options,
            )
            model, report = loaded
            model.to(target)
        except Exception as error:
            _explain_load_error(error, resolved, "model")
    lacking = sorted(report.get("missing_keys", ())) or sorted(
        map(str, report.get("mismatched_keys", ()))
    )
    if lacking:
        raise UsageError(
            f"the weights do not fit the configuration: {len(lacking)} tensors are missing or of "
            f"another shape, {lacking[0]} first",
            where=resolved.path,
            fix="download or copy the model again; a LoRA adapter must be merged first",
        )
    model.requires_grad_(False)
    return model.eval()  # type: ignore[no-any-return]


def is_small_on_cpu(model: Any) -> bool:
    """Whether threads would only wait for each other: a CPU, `SMALL_MODEL_PARAMETERS` at most."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return bool(model.device.type == "cpu" and parameters <= SMALL_MODEL_PARAMETERS)


def use_one_thread_if_small(model: Any) -> bool:
    """Let torch use one thread for a small model (`is_small_on_cpu`); returns whether it is one.

    It is also what makes rounding the same on machines with other numbers of cores.
    """
    import torch

    small = is_small_on_cpu(model)
    if small:
        torch.set_num_threads(1)
    return small


def check_same_tokenizer(student: Any, teacher: Any) -> None:
    """Raise UsageError unless both tokenizers give every text the same ids.

    Vocabulary and added tokens must be equal, and a probe text must be split alike (merges).
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    for token in sorted(ours.keys() | theirs.keys(), key=lambda t: ours.get(t, theirs.get(t, 0))):
        if ours.get(token) != theirs.get(token):
            _refuse_teacher(f"token {token!r}", ours.get(token), theirs.get(token))
    mine, others = student.added_tokens_decoder, teacher.added_tokens_decoder
    for index in sorted(mine.keys() | others.keys()):
        left, right = mine.get(index), others.get(index)
        if str(left) != str(right) or getattr(left, "special", None) != getattr(
            right, "special", None
        ):
            _refuse_teacher(f"added token {index}", left, right)
    left_ids = student.encode(PROBE_TEXT, add_special_tokens=False)
    right_ids = teacher.encode(PROBE_TEXT, add_special_tokens=False)
    if left_ids != right_ids:
        at = next(
            i for i, pair in enumerate(zip(left_ids, right_ids, strict=False)) if len(set(pair)) > 1
        )
        _refuse_teacher(
            f"the split of a text at token {at}",
            repr(student.decode(left_ids[at : at + 3])),
            repr(teacher.decode(right_ids[at : at + 3])),
        )


def _refuse_teacher(what: str, student: Any, teacher: Any) -> NoReturn:
    raise UsageError(
        "teacher and student have different tokenizers, so their distributions cannot be compared: "
        f"{what} is {student} in the student's and {teacher} in the teacher's",
        where="--teacher",
        fix="choose a teacher of the student's family",
    )


def _explain_load_error(error: Exception, resolved: ResolvedModel, part: str) -> NoReturn:
    """Turn what transformers raises for a broken or foreign model into what the user can do."""
    text = str(error)
    if "trust_remote_code" in text or "custom code" in text:
        raise UsageError(
            f"the {part} brings code of its own, which is not run unasked",
            where=resolved.path,
            fix="read it, then --set engine.trust_remote_code=true",
        ) from error
    if "does not recognize this architecture" in text or "Unrecognized configuration class" in text:
        raise MissingRequirement(
            f"this transformers cannot run the {part}: {first_line(error)}",
            where=resolved.path,
            fix="pip install -U transformers, or choose a causal language model",
        ) from error
    if "flash_attn" in text or "flash_attention" in text:
        raise MissingRequirement(
            first_line(error), where="engine.attention", fix="--set engine.attention=sdpa"
        ) from error
    if is_out_of_memory(error):
        size = model_files.model_size(resolved.directory)
        raise MissingRequirement(
            f"not enough memory to load the model's {size.parameters:,} parameters",
            where=resolved.path,
            fix="--set engine.dtype=bfloat16, or a machine with more memory",
        ) from error
    if isinstance(error, BranchdiagError):
        raise error
    raise UsageError(
        f"the {part} cannot be loaded: {type(error).__name__}: {first_line(error)}",
        where=resolved.path,
        fix="download or copy the model again",
    ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of a GPU or of this machine, did not suffice."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error).lower()
    )


@contextmanager
def _import_without_collection() -> Iterator[None]:
    """Import transformers, the first time, without looking for garbage among what it brings.

    It brings some 540,000 objects that stay for good. Collecting while they come takes a second of
    eight; frozen, they are not gone through again by the collections after it either.
    """
    if "transformers" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def no_bars() -> Iterator[None]:
    """Loading and writing show no bar of their own: the run has one."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of an exception's text that says something, else its type."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
