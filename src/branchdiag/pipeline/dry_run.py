"""The plan of a run before it is paid for: units, prompts, tokens, memory, disk. Writes nothing.

Counts that depend on what the model will do (how many spines are correct, how long they are) are
upper bounds, and said to be.
"""

from __future__ import annotations

from typing import Any

from branchdiag.models import estimate, load_tokenizer
from branchdiag.pipeline.inputs import RunRequest, resolve_inputs
from branchdiag.pipeline.runner import open_existing
from branchdiag.prompts import prompt_tail, render_student, render_teacher, thinking_mode

TAIL_TOKENS = 24
BYTES_POSITION_ROW = 250
BYTES_TOKEN = 2


def make_plan(request: RunRequest) -> dict[str, Any]:
    """Everything that can be said before anything is decoded.

    Raises:
        BranchdiagError: a model, a data set or a setting cannot be used.
    """
    run = open_existing(request.out)
    inputs = resolve_inputs(request, run)
    protocol = request.protocol
    tokenizer: Any = load_tokenizer(inputs.student)
    first = inputs.problems[0]
    student = render_student(tokenizer, protocol.spine, first)
    teacher = render_teacher(tokenizer, protocol.teacher, protocol.spine.prompt, first)
    prompts = [len(render_student(tokenizer, protocol.spine, p).token_ids) for p in inputs.problems]
    n = len(inputs.problems)
    chosen = protocol.candidates
    candidates = n * (chosen.max_per_problem + chosen.random_per_problem)
    arms = protocol.candidates.max_children + protocol.continuation.control
    arms += protocol.continuation.spine
    samples = candidates * arms * protocol.continuation.rollouts
    longest = max(prompts) + protocol.spine.max_new_tokens
    positions = n * protocol.spine.max_new_tokens
    continuation = max(protocol.continuation.max_total_tokens - min(prompts), 0)
    sizes = estimate(inputs.student, protocol.engine.dtype)
    return {
        "run": str(request.out),
        "exists": run is not None,
        "student": inputs.student.name,
        "teacher": inputs.teacher.name,
        "engine": inputs.engine_name,
        "thinking": thinking_mode(tokenizer),
        "problems": [dict(entry) for entry in inputs.source["provenance"]],
        "units_at_most": {
            "A": n,
            "B": n,
            "C": n,
            "D": n,
            "E": samples,
            "F": candidates,
            "S": n,
            "G": 1,
        },
        "tokens_at_most": {
            "A": positions * (2 if protocol.spine.fallback else 1),
            "B": 2 * (sum(prompts) + positions),
            "D": (1 + protocol.dropout.samples) * (sum(prompts) + positions),
            "E": samples * continuation,
            "S": 2 * (sum(prompts) + positions),
        },
        "memory_bytes": {
            "parameters": sizes.parameters,
            "weights": sizes.weight_bytes,
            "kv_cache_of_the_longest_sequence": sizes.cache_bytes_per_token * longest,
            "logits_chunk": protocol.teacher.chunk_positions * sizes.vocabulary_size * 4,
        },
        "disk_bytes_at_most": positions * BYTES_POSITION_ROW + samples * continuation * BYTES_TOKEN,
        "prompts": {
            role: {
                "n_tokens": len(rendered.token_ids),
                "tail": prompt_tail(tokenizer, rendered, TAIL_TOKENS),
            }
            for role, rendered in (("student", student), ("teacher", teacher))
        },
    }


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan as lines for a terminal."""
    result = [
        f"run      {plan['run']}{' (exists: it would go on)' if plan['exists'] else ''}",
        f"student  {plan['student']}",
        f"teacher  {plan['teacher']}",
        f"engine   {plan['engine']}; the template {plan['thinking']} thinking",
    ]
    for entry in plan["problems"]:
        result.append(f"problems {entry['source']}: {entry['n']}")
    result.append("at most (how many spines are correct, and how long, is not known before):")
    for letter, units in plan["units_at_most"].items():
        tokens = plan["tokens_at_most"].get(letter)
        result.append(
            f"  {letter}  {units:>9,} units" + (f"  {tokens:>15,} tokens" if tokens else "")
        )
    memory = plan["memory_bytes"]
    result.append(
        f"memory   weights {size(memory['weights'])}, key-value cache of the longest sequence "
        f"{size(memory['kv_cache_of_the_longest_sequence'])}, one chunk of logits "
        f"{size(memory['logits_chunk'])}"
    )
    result.append(f"disk     {size(plan['disk_bytes_at_most'])} at most")
    for role, prompt in plan["prompts"].items():
        result.append(
            f"the {role}'s prompt of the first problem ends ({prompt['n_tokens']} tokens):"
        )
        result.append("  " + " ".join(f"{token}:{text!r}" for token, text in prompt["tail"]))
    return result


def size(n_bytes: int) -> str:
    """Bytes for people."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
