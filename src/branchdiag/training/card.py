"""The result's model card: what it is, what it was trained with, what it came to.

Writes Markdown as text from a manifest and the last lines of metrics; reads no file. Knows no
model. Numbers that are missing are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Kind:
    """What differs between the cards of an adapter and of a whole model."""

    what: str
    library: str
    tags: tuple[str, ...]
    use: str


_KINDS = {
    "lora": _Kind(
        "A LoRA adapter",
        "peft",
        ("lora",),
        "`branchdiag evaluate ADAPTER` compares it with its base model, `branchdiag merge "
        "ADAPTER --out DIR` writes whole weights, and PEFT loads it as any adapter.",
    ),
    "full": _Kind(
        "A whole model, all of whose weights were trained,",
        "transformers",
        (),
        "`branchdiag evaluate BASE MODEL` compares it with its base model, and transformers "
        "loads it as any model.",
    ),
}


def model_card(
    manifest: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    held_out: Sequence[Mapping[str, Any]],
) -> str:
    """The README.md of an adapter, or of a whole model."""
    settings, schedule = manifest["settings"], manifest["schedule"]
    kind = _KINDS[settings["tuning"]]
    objective, model = settings["objective"]["name"], manifest["model"]
    last = metrics[-1] if metrics else {}
    head = {
        "base_model": model["name"].partition("@")[0] if model["revision"] else model["name"],
        "library_name": kind.library,
        "tags": [*kind.tags, "on-policy-distillation", objective],
    }
    front = "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items())
    lines = [
        f"---\n{front}---\n",
        f"# {model['name']}, trained with {objective}\n",
        f"{kind.what} made by branchdiag {manifest['branchdiag']}: {last.get('step', 0)} steps "
        "of on-policy self-distillation under a teacher that is shown "
        f"{_shown(settings['teacher']['context'])}.\n",
        "| | |\n|---|---|",
        f"| base model | {_named(model)} |",
        f"| objective | {objective} |",
        f"| schedule | {_schedule(schedule)} |",
        f"| diagnosis it was fitted to | {_run(schedule)} |",
        f"| data | {', '.join(settings['data'])} ({manifest['data']['problems']} problems) |",
        f"| steps, batch | {last.get('step', 0)}, {settings['optimizer']['batch_size']} |",
        f"| learning rate | {settings['optimizer']['learning_rate']:g}, linear to 0 at step "
        f"{settings['optimizer']['horizon_steps']} |",
        f"| seed | {settings['seed']} |",
        f"| fingerprint | {manifest['fingerprint']} |",
        f"| command | `{manifest['command']}` |\n",
    ]
    if len(held_out) > 1:
        lines.append(
            "Divergence from the teacher (KL of teacher to student a token, nothing clipped) on "
            f"{held_out[0]['problems']} problems that were not trained on: "
            f"{_number(held_out[0]['divergence'])} nats before; after, "
            f"{_number(held_out[-1]['divergence_first_rollouts'])} on the same rollouts and "
            f"{_number(held_out[-1]['divergence'])} on the trained student's own.\n"
        )
    lines.append(f"Use: {kind.use}\n")
    lines.append(f"All settings:\n\n```json\n{json.dumps(settings, indent=2)}\n```")
    return "\n".join(lines) + "\n"


def _named(model: Mapping[str, Any]) -> str:
    return f"{model['name']}" + (f", commit {model['revision']}" if model["revision"] else "")


def _schedule(schedule: Mapping[str, Any] | None) -> str:
    if schedule is None:
        return "none"
    if schedule["tau"] is None:
        return f"{schedule['name']}: weight 1 everywhere"
    numbers = ", ".join(f"{key} {schedule[key]:.4g}" for key in ("w_min", "tau", "s"))
    return f"{schedule['name']}: {numbers}, {schedule['direction']}"


def _run(schedule: Mapping[str, Any] | None) -> str:
    run = (schedule or {}).get("run") or {}
    return str(run.get("name") or "none")


def _shown(context: str) -> str:
    known = {"solution": "a reference solution", "answer": "the answer", "none": "nothing more"}
    return known.get(context, f"what {context} says")


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4f}"
