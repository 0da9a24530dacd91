"""metrics.jsonl and held_out.jsonl: one line a step, flushed, never twice.

Writes them in a training run's directory. A number that cannot be computed is null, and the line's
`missing` says why. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchdiag.store.atomic import user_errors, write_text

METRICS = "metrics.jsonl"
HELD_OUT = "held_out.jsonl"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file, in order; none where there is no file. A torn last line is no
    line."""
    if not path.is_file():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in whole if line.strip()]


def keep_until(path: Path, step: int) -> None:
    """Take out the lines of steps beyond `step`, which a resumed run writes again."""
    if path.is_file():
        lines = [line for line in read_lines(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Write one line and flush it.

    Raises:
        StorageError: the disk will not take it.
    """
    with user_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")
