"""Training runs that take seconds: a tiny random model, short prompts, a few problems.

float32, no dropout: what must be equal is equal but for the order of sums.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from branchdiag.training.inputs import NamedSchedule, TrainRequest, read_schedule
from branchdiag.training.metrics import read_lines
from branchdiag.training.settings import TrainSettings
from tests.tiny_models import tiny_model

SETTINGS = """
name = "tiny"
max_length = 256
save_every = 2
[rollout]
max_new_tokens = 12
[student]
prompt = "{problem}"
thinking = true
think_block = "rendered"
[teacher.prompts]
answer = "{problem} It is {answer}."
solution = "{problem} Solved: {solution}"
[lora]
r = 4
alpha = 16
dropout = 0.0
targets = ["q_proj", "v_proj", "down_proj"]
[optimizer]
learning_rate = 1e-2
batch_size = 8
micro_batch_size = 8
[held_out]
problems = 2
[compute]
device = "cpu"
"""


TUNINGS = {"lora": (), "full": ("tuning=full", "optimizer.learning_rate=1e-3")}
"""What each kind of tuning changes in the settings."""


def write_problems(path: Path, n: int = 24) -> Path:
    rows = [
        {
            "problem": f"{i} + {i % 5} = ?",
            "solution": f"It is \\boxed{{{i + i % 5}}} {'. ' * (i % 3)}",
        }
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_settings(folder: Path) -> Path:
    path = folder / "tiny.toml"
    if not path.exists():
        path.write_text(SETTINGS)
    return path


def request(
    folder: Path,
    *changes: str,
    out: str = "run",
    schedule: NamedSchedule | str | None = "moderate",
    resume: bool = False,
    model: Path | None = None,
) -> TrainRequest:
    """A request for a small run in `folder`; `changes` as for --set."""
    data = folder / "problems.jsonl"
    if not data.exists():
        write_problems(data)
    settings = TrainSettings.load(write_settings(folder), [f'data=["{data}"]', *changes])
    if not isinstance(schedule, NamedSchedule):
        schedule = read_schedule(schedule, settings.objective.name)
    return TrainRequest(
        model=str(model or tiny_model()),
        schedule=schedule,
        settings=settings,
        out=folder / out,
        resume=resume,
        progress="none",
    )


def lines_of(run: Path) -> list[dict[str, Any]]:
    return read_lines(run / "metrics.jsonl")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run)]
