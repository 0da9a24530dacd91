"""How good the bundled model is: greedy and sampled accuracy, and what the answer changes.

Used by training for the model card and by tests. Reads problem rows and a model; writes nothing.
Knows nothing of the diagnostic; its decoder is a plain static batch that drops finished rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from branchdiag.bundled import prompts
from branchdiag.bundled.examples import prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

MAX_NEW_TOKENS = 192
BOX = re.compile(r"\\boxed\{(\d+)\}")


@torch.no_grad()
def decode(
    model: Qwen3ForCausalLM,
    prompts_ids: Sequence[Sequence[int]],
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """Continue every prompt until the end-of-turn token (not returned) or `max_new_tokens`.

    `temperature` 0 is greedy. Prompts may differ in length: they are padded on the left.
    """
    from transformers import DynamicCache

    eos: Any = model.config.eos_token_id
    pad = model.config.pad_token_id
    generator = torch.Generator().manual_seed(seed)
    outputs: list[list[int]] = [[] for _ in prompts_ids]
    longest = max(map(len, prompts_ids))
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts_ids])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts_ids])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    alive = torch.arange(len(prompts_ids))
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if temperature:
            p = nucleus(torch.softmax(logits.float() / temperature, -1), top_p)
            token = torch.multinomial(p, 1, generator=generator)[:, 0]
        else:
            token = logits.argmax(-1)
        kept = torch.ne(token, eos).nonzero()[:, 0]
        for row in kept.tolist():
            outputs[int(alive[row])].append(int(token[row]))
        if len(kept) == 0:
            break
        if len(kept) < len(token):
            alive, mask, positions, token = alive[kept], mask[kept], positions[kept], token[kept]
            cache.batch_select_indices(kept)
        ids = token[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    return outputs


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Set to zero all but the smallest set of most probable tokens whose mass reaches `top_p`."""
    ordered, order = probabilities.sort(-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(-1) - ordered >= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, order, ordered)


def boxed_answer(text: str) -> str | None:
    """The last complete boxed number in `text`."""
    found = BOX.findall(text)
    return found[-1] if found else None


def accuracy(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    prompt: str = prompts.STUDENT_PROMPT,
    thinking: bool = True,
    temperature: float = 0.0,
    top_p: float = 1.0,
    samples: int = 1,
    batch: int = 120,
) -> float:
    """Share of completions whose boxed answer is the row's, over all rows and `samples` each."""
    ids = [prompt_ids(tokenizer, prompt.format(**row), thinking) for row in rows] * samples
    right = 0
    for start in range(0, len(ids), batch):
        for index, tokens in enumerate(
            decode(model, ids[start : start + batch], MAX_NEW_TOKENS, temperature, top_p, start)
        ):
            answer = boxed_answer(str(tokenizer.decode(tokens)))
            right += answer == rows[(start + index) % len(rows)]["answer"]
    return right / len(ids)


@torch.no_grad()
def divergence(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    teacher_prompt: str = prompts.TEACHER_ANSWER_PROMPT,
) -> float:
    """Mean KL(teacher || student), nats a token, over the student's greedy completions."""
    student = [prompt_ids(tokenizer, prompts.STUDENT_PROMPT.format(**row)) for row in rows]
    teacher = [prompt_ids(tokenizer, teacher_prompt.format(**row)) for row in rows]
    total, n_tokens = 0.0, 0
    for s_ids, t_ids, tokens in zip(student, teacher, decode(model, student), strict=True):
        log_q, log_p = (
            model(input_ids=torch.tensor([prefix + tokens])).logits[0, len(prefix) - 1 : -1]
            .float().log_softmax(-1)
            for prefix in (t_ids, s_ids)
        )  # fmt: skip
        total += float((log_q.exp() * (log_q - log_p)).sum())
        n_tokens += len(tokens)
    return total / n_tokens
