"""Hashes that name settings, files, prompts and random draws.

Pure functions of their arguments; knows nothing of what the content means. A fingerprint carries
the version of the rule that made it, so that a changed rule is never taken for changed settings.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FINGERPRINT_VERSION = "fp1"
SEED_VERSION = "branchdiag seed 1"

_ABSENT = object()
_SHOWN_CHARACTERS = 60


def fingerprint(content: Mapping[str, Any]) -> str:
    """``fp1:`` and the SHA-256 of `content` as canonical JSON.

    Equal for equal content: the order of keys does not matter, a tuple is a list, and 1.0 is 1
    (JSON keeps no difference); True is not 1.

    Raises:
        TypeError: a key is not a string, or a value is not None, bool, int, float, str, a list or
            tuple, or a mapping.
        ValueError: a number is NaN or infinite.
    """
    return f"{FINGERPRINT_VERSION}:{hashlib.sha256(_canonical(content).encode()).hexdigest()}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed, a line each: ``candidates.min_p2: 0.02 -> 0.05``.

    Empty exactly when the two fingerprints are equal. A setting that only one side has is
    ``(absent)`` on the other.
    """
    return list(_differences(old, new, ""))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokens_hash(ids: Sequence[int]) -> str:
    """First 16 hex digits of the SHA-256 of token ids, each as 8 bytes, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}q", *ids)).hexdigest()[:16]


def derive_seed(run_seed: int, *key: str | int) -> int:
    """The seed of the draw that `key` names: 63 bits of SHA-256, from 0 to 2**63 - 1.

    The parts are encoded so that no two keys share an encoding: ("a", "b") is not ("ab",), and
    1 is not "1". Neighbouring seeds therefore share no stream, as the seeds of the samples of one
    request do that an engine counts up.

    Raises:
        TypeError: a part is neither a string nor a whole number.
    """
    parts = [SEED_VERSION, operator.index(run_seed)]
    for part in key:
        if isinstance(part, bool):
            raise TypeError("a part of a seed's key is a string or a whole number, not a bool")
        parts.append(str(part) if isinstance(part, str) else operator.index(part))
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _canonical(value: Any, where: str = "") -> str:
    """`value` as JSON with one spelling; ASCII, so that any string can be hashed."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(str.__str__(value))
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where or 'the content'}: {value} has no place in a fingerprint")
        return str(int(value)) if value.is_integer() else float.__repr__(value)
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{where or 'the content'}: the key {name!r} is not a string")
        items = (
            f"{json.dumps(str(name))}:{_canonical(value[name], _join(where, name))}"
            for name in sorted(value)
        )
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_canonical(item, f"{where}[]") for item in value) + "]"
    raise TypeError(f"{where or 'the content'}: {type(value).__name__} cannot be fingerprinted")


def _differences(old: Any, new: Any, where: str) -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in _differences(
                old.get(name, _ABSENT), new.get(name, _ABSENT), _join(where, name)
            )
        ]
    was, now = _spelled(old), _spelled(new)
    if was == now:
        return []
    start = _first_difference(was, now)
    return [f"{where}: {_excerpt(was, start)} -> {_excerpt(now, start)}"]


def _spelled(value: Any) -> str:
    return "(absent)" if value is _ABSENT else _canonical(value)


def _first_difference(first: str, second: str) -> int:
    pairs = zip(first, second, strict=False)
    shorter = min(len(first), len(second))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)


def _excerpt(text: str, start: int) -> str:
    """`text`, or where it is long the part of it around the first difference."""
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    low = max(0, min(start - _SHOWN_CHARACTERS // 3, len(text) - _SHOWN_CHARACTERS))
    high = low + _SHOWN_CHARACTERS
    return ("..." if low else "") + text[low:high] + ("..." if high < len(text) else "")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
