"""The small reasoning model that ships with the package, its problems and its protocol.

Says where the packaged files are; reads none of them and imports nothing heavy. The code that made
them: `task` (the problems), `tokenizer`, `examples`, `train_model`, `measure`, `problem_sets`.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
PROBLEM_SETS = ("diagnose", "evaluate", "distill")


def model_path() -> Path:
    """The directory of the bundled model: weights, configuration, tokenizer, model card."""
    return _FOLDER / "model"


def problems_path(name: str) -> Path:
    """The JSON Lines file of a packaged problem set: "diagnose", "evaluate" or "distill".

    Raises:
        UsageError: there is no set of that name.
    """
    from branchdiag.errors import UsageError

    if name not in PROBLEM_SETS:
        raise UsageError(
            f"there is no bundled problem set {name!r}",
            where="bundled problems",
            fix=f"name one of {', '.join(PROBLEM_SETS)}",
        )
    return _FOLDER / "problems" / f"{name}.jsonl"


def protocol_path() -> Path:
    """The protocol (TOML) whose numbers are scaled to the bundled model's short traces."""
    return _FOLDER / "protocol.toml"
