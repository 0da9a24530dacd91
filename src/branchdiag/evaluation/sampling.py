"""Stage S: every model answers every problem, n times in each repeat (arXiv 2605.21606, section 4).

Reads the problems; writes `samples`. One model is in memory at a time: an adapter is put on its
base as that is loaded (transformers), or goes along with every request (vLLM). One request a
sample, with a seed of its own that does not depend on the model, so that models are compared on the
same prompts and seeds. (An engine that counts seeds up within a request would give two repeats with
neighbouring seeds nearly the same samples.) Knows nothing of answers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from branchdiag.engines.base import Completion, Engine, Request, Sampling
from branchdiag.evaluation.context import EvaluationContext, evaluation_of
from branchdiag.evaluation.models import EvaluatedModel
from branchdiag.phases.base import Context, Done, Failed, Outcome, Phase, Unit
from branchdiag.prompts import Rendered, prompt_opens_thinking, render_student
from branchdiag.protocol import SpineSettings
from branchdiag.store.fingerprint import derive_seed, tokens_hash

if TYPE_CHECKING:
    from branchdiag.models import ResolvedModel


def units(context: Context) -> list[Unit]:
    """One unit a sample: (model, problem, seed set, sample)."""
    evaluation = evaluation_of(context)
    return [(*group, i) for group in evaluation.groups() for i in range(evaluation.settings.n)]


def prompts_of(context: EvaluationContext, tokenizer: Any) -> dict[str, Rendered]:
    """The prompt of every problem."""
    sampling = context.settings.sampling
    student = SpineSettings(prompt=sampling.prompt, thinking=sampling.thinking)
    return {p.problem_id: render_student(tokenizer, student, p) for p in context.problems}


def plan(context: EvaluationContext, label: str, prompts: dict[str, Rendered]) -> list[Request]:
    """Every request of one model; its name is in the keys alone.

    Raises:
        AssertionError: two requests share a seed. A bug.
    """
    settings = context.settings
    sampling = Sampling(
        temperature=settings.sampling.temperature,
        top_p=settings.sampling.top_p,
        top_k=settings.sampling.top_k,
        max_new_tokens=settings.sampling.max_new_tokens,
    )
    requests = [
        Request(
            key=(label, problem.problem_id, seed_set, sample),
            prompt_ids=prompts[problem.problem_id].token_ids,
            sampling=sampling,
            seed=derive_seed(settings.seed, "evaluation", seed_set, problem.problem_id, sample),
        )
        for seed_set in range(settings.seeds)
        for problem in context.problems
        for sample in range(settings.n)
    ]
    if len({request.seed for request in requests}) != len(requests):
        raise AssertionError("two requests share a seed")
    return requests


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """The owed samples, model by model; each row is handed over as its completion finishes."""
    evaluation = evaluation_of(context)
    for model in evaluation.models:
        mine = {unit for unit in owed if unit[0] == model.label}
        if mine:
            yield from _sample(evaluation, model, mine)


def _sample(
    context: EvaluationContext, model: EvaluatedModel, owed: set[Unit]
) -> Iterator[Outcome]:
    tokenizer = _tokenizer(model.base)
    prompts = prompts_of(context, tokenizer)
    requests = plan(context, model.label, prompts)
    seeds = {request.key: request.seed for request in requests}
    longest = max(len(rendered.token_ids) for rendered in prompts.values())
    with open_engine(context, model, longest + context.settings.sampling.max_new_tokens) as engine:
        context.described[model.label] = engine.describe()
        for completion in engine.generate(requests, owed=owed):
            if completion.finish_reason == "error":
                yield Failed(completion.key, "EngineError", completion.error or "no message")
                continue
            prompt = prompts[str(completion.key[1])]
            text = str(tokenizer.decode(list(completion.token_ids), skip_special_tokens=False))
            row = _row(completion, prompt, seeds[completion.key], text)
            yield Done(completion.key, {"samples": [row]}, tokens=len(completion.token_ids))


def _row(completion: Completion, prompt: Rendered, seed: int, text: str) -> dict[str, Any]:
    model, problem_id, seed_set, sample = completion.key
    return {
        "model": model,
        "problem_id": problem_id,
        "seed_set": seed_set,
        "sample": sample,
        "seed": seed,
        "prompt_hash": tokens_hash(prompt.token_ids),
        "n_prompt_tokens": len(prompt.token_ids),
        "thinking_open": prompt_opens_thinking(prompt),
        "token_ids": list(completion.token_ids),
        "n_tokens": len(completion.token_ids),
        "text": text,
        "finish_reason": completion.finish_reason,
    }


@contextmanager
def open_engine(
    context: EvaluationContext, model: EvaluatedModel, max_total_tokens: int
) -> Iterator[Engine]:
    """The engine that writes tokens as this model; closed, and its memory given back, after."""
    from branchdiag.engines import create_engine

    settings = context.settings.engine.model_copy(update={"name": context.engine_name})
    log = context.run.logs / "engine.log"
    engine = create_engine(
        settings,
        model.base,
        max_total_tokens=max_total_tokens,
        log_path=log,
        adapter=model.adapter,
    )
    try:
        yield engine
    finally:
        engine.close()


@cache
def _tokenizer(base: ResolvedModel) -> Any:
    from branchdiag.models import load_tokenizer

    return load_tokenizer(base)


PHASE = Phase(
    letter="S",
    name="sample",
    question="What does each model answer?",
    reads=(),
    writes=("samples",),
    unit=("model", "problem_id", "seed_set", "sample"),
    settings=(),
    inputs=(),
    version=1,
    needs_model=True,
    units=units,
    work=work,
)
