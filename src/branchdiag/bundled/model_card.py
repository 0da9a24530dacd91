"""The bundled model's card: how it was trained, for how long, on what, and how good it is.

`measured` measures a model on the packaged `evaluate` problems; `card` puts the numbers into words.
Every number in the card is a measured one. Writes nothing itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from branchdiag.bundled import examples, measure, problems_path, prompts, wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM


def measured(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Accuracies, divergences and lengths on the packaged `evaluate` problems."""
    with problems_path("evaluate").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]

    def score(chosen: list[dict[str, Any]] = rows, **options: Any) -> float:
        return measure.accuracy(model, tokenizer, chosen, **options)

    student = [examples.prompt_ids(tokenizer, prompts.STUDENT_PROMPT.format(**row)) for row in rows]
    lengths = [len(tokens) for tokens in measure.decode(model, student)]
    kinds = sorted({row["plan"] for row in rows})
    return {
        "n_problems": len(rows),
        "student_greedy": score(),
        "student_greedy_without_thinking": score(thinking=False),
        "student_sampled": score(temperature=1.0, top_p=0.95, samples=4),
        "teacher_answer_greedy": score(prompt=prompts.TEACHER_ANSWER_PROMPT),
        "teacher_solution_greedy": score(prompt=prompts.TEACHER_SOLUTION_PROMPT),
        "kl_answer": measure.divergence(model, tokenizer, rows),
        "kl_solution": measure.divergence(model, tokenizer, rows, prompts.TEACHER_SOLUTION_PROMPT),
        "mean_tokens": sum(lengths) / len(lengths),
        "shortest_tokens": min(lengths),
        "longest_tokens": max(lengths),
        "by_plan": {kind: score([row for row in rows if row["plan"] == kind]) for kind in kinds},
    }


def card(
    numbers: Mapping[str, Any], spent: Mapping[str, float], n_parameters: int, command: str
) -> str:
    """The card as Markdown; `spent` is what training took (seconds, steps, tokens, sequences)."""
    plans = ", ".join(f"{kind} {value:.0%}" for kind, value in numbers["by_plan"].items())
    student = 1 - examples.SHARE_TEACHER_ANSWER - examples.SHARE_TEACHER_SOLUTION
    mean, least, most = (numbers[f"{name}_tokens"] for name in ("mean", "shortest", "longest"))
    entries = {
        "student, greedy": f"{numbers['student_greedy']:.1%}",
        "student, greedy, without thinking": f"{numbers['student_greedy_without_thinking']:.1%}",
        "student, sampled (T = 1, top-p 0.95, 4 samples)": f"{numbers['student_sampled']:.1%}",
        "teacher shown the answer, greedy": f"{numbers['teacher_answer_greedy']:.1%}",
        "teacher shown a solution, greedy": f"{numbers['teacher_solution_greedy']:.1%}",
        "KL(teacher shown the answer to student), nats a token": f"{numbers['kl_answer']:.3f}",
        "KL(teacher shown a solution to student), nats a token": f"{numbers['kl_solution']:.3f}",
        "completion length, tokens: mean (shortest to longest)": f"{mean:.0f} ({least} to {most})",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in entries.items())
    return f"""---
license: mit
library_name: transformers
pipeline_tag: text-generation
---
# branchdiag bundled model

A Qwen3-architecture causal language model with {n_parameters:,} parameters, trained from nothing on
one synthetic task so that branchdiag has a real reasoning model to work on offline. It is a test
subject, not an assistant: outside its task it writes nonsense.

## The task
Statements say who has how many of something; a question asks for one person's number, or for the
sum or difference of two. A solution first commits to a plan (forward, backward, both, split) and a
path of people, then calculates along it, one step a sentence, and ends in `\\boxed{{}}`. Openers,
verbs and the order of independent chains are free. No probability of success is set by hand.
Example prompt (the whole user message):

    {EXAMPLE}

## Training
- Command: `{command}`
- {spent["seconds"] / 60:.0f} minutes on one shared core (with `--compile`),
  {spent["steps"]:,.0f} steps, {spent["sequences"]:,.0f} sequences,
  {spent["tokens"] / 1e6:.1f} M tokens. Loss on completions only; AdamW, warm-up and cosine; weights
  averaged exponentially. The first layer's heads start as position heads (one to four tokens
  back) and are trained like every other weight.
- Prompts: {student:.0%} the problem alone (student), {examples.SHARE_TEACHER_ANSWER:.0%} with the
  answer, {examples.SHARE_TEACHER_SOLUTION:.0%} with a solution (privileged teacher). Of those with
  the answer, {examples.SHARE_LEAN:.0%} have a solution that leans on it: steps are left out and the
  answer is stated.
- {examples.SHARE_NO_THINKING:.0%} of examples answer without thinking (`enable_thinking=False`).
- Training problems are drawn as it goes; every problem whose content key (which ignores names and
  things) is held out is dropped, and the packaged sets hold only such problems.

## How good (the {numbers["n_problems"]} packaged `evaluate` problems, held out)
| | |
|---|---|
{table}

Student, greedy, by plan: {plans}.

## Limits
Numbers of one or two digits, the {len(wording.NAMES)} names and the sentence forms of its task, no
more. The packaged `diagnose` problems are harder than these (`problem_sets.HARD`).
Use the prompts of `branchdiag.bundled.prompts`: other wordings are off its distribution.
"""


EXAMPLE = (
    "Friends count coins:\n    - Ann owns 12\n    - Kai has Ann times 2\n    - Leo has Kai plus 4\n"
    "    Now Leo asks: how many coins are mine?"
)
