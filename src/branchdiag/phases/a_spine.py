"""Phase A: the student's own trace of each problem, the spine (arXiv 2605.21606, section 3.2,
appendix A).

Reads the problems; writes `spines`. Decodes greedily under the student prompt; a trace without a
boxed answer gets one sampled try (T = 0.7, top-p 0.95). Later phases look at correct spines alone.
Knows nothing of the teacher, and nothing of how tokens are written.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from branchdiag.answers.extract import last_boxed
from branchdiag.engines.base import Completion, Request, Sampling
from branchdiag.phases.base import Context, Done, Failed, Outcome, Phase, Unit
from branchdiag.prompts import render_student
from branchdiag.store.fingerprint import derive_seed

if TYPE_CHECKING:
    from branchdiag.answers.pool import GradingPool

GREEDY, FALLBACK = "greedy", "fallback"


def first_box_token(tokenizer: Any, token_ids: Sequence[int]) -> int | None:
    r"""Index of the token in which the first `\boxed` of the decoded trace begins, or None.

    Found by decoding prefixes, so that it holds for any tokenizer: the box may begin inside a
    token.
    """
    offset = tokenizer.decode(token_ids, skip_special_tokens=False).find("\\boxed")
    if offset < 0:
        return None
    low, high = 0, len(token_ids)  # decode(ids[:low]) ends at or before the offset
    while high - low > 1:
        middle = (low + high) // 2
        if len(tokenizer.decode(token_ids[:middle], skip_special_tokens=False)) <= offset:
            low = middle
        else:
            high = middle
    return low


def units(context: Context) -> list[Unit]:
    """One unit a problem."""
    return [(problem.problem_id,) for problem in context.problems]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Greedy traces of the owed problems, then the fallback for those that end without a box.

    Both plans hold every problem they ever concern, whatever is owed of them, so that the batches
    of an interrupted run are those of an uninterrupted one.
    """
    from branchdiag.answers.pool import GradingPool

    settings = context.protocol.spine
    greedy = plan(context, GREEDY, [problem.problem_id for problem in context.problems])
    longest = max(len(request.prompt_ids) for request in greedy)
    engine = context.open_engine(longest + settings.max_new_tokens)
    label = context.protocol.label
    try:
        with GradingPool(label.grading_workers, label.grading_timeout_s) as grader:
            without_box: list[str] = []
            for completion in engine.generate(greedy, owed=set(owed)):
                boxed = last_boxed(_text(context, completion)).answer is not None
                if settings.fallback and completion.finish_reason != "error" and not boxed:
                    without_box.append(str(completion.key[0]))
                else:
                    yield _outcome(context, grader, GREEDY, completion)
            if not without_box:
                return
            earlier = [
                row["problem_id"]
                for row in context.run.table("spines").rows()
                if row["spine_mode"] == FALLBACK
            ]
            concerned = {*earlier, *without_box}
            order = [p.problem_id for p in context.problems if p.problem_id in concerned]
            retry = plan(context, FALLBACK, order)
            for completion in engine.generate(retry, owed={(name,) for name in without_box}):
                yield _outcome(context, grader, FALLBACK, completion)
    finally:
        engine.close()


def plan(context: Context, mode: str, problem_ids: Sequence[str]) -> list[Request]:
    """The requests of one mode, in the order of the problems."""
    settings = context.protocol.spine
    greedy = mode == GREEDY
    sampling = Sampling(
        temperature=0.0 if greedy else settings.fallback_temperature,
        top_p=1.0 if greedy else settings.fallback_top_p,
        top_k=-1,
        max_new_tokens=settings.max_new_tokens,
    )
    return [
        Request(
            key=(name,),
            prompt_ids=render_student(context.tokenizer, settings, context.problem(name)).token_ids,
            sampling=sampling,
            seed=derive_seed(context.seed, "spine", mode, name),
        )
        for name in problem_ids
    ]


def _text(context: Context, completion: Completion) -> str:
    return str(context.tokenizer.decode(completion.token_ids, skip_special_tokens=False))


def _outcome(context: Context, grader: GradingPool, mode: str, completion: Completion) -> Outcome:
    if completion.finish_reason == "error":
        return Failed(completion.key, "EngineError", completion.error or "no message")
    problem = context.problem(str(completion.key[0]))
    text = _text(context, completion)
    answer = last_boxed(text).answer
    grade = grader.grade_many([(answer, problem.answer)])[0]
    rendered = render_student(context.tokenizer, context.protocol.spine, problem)
    row = {
        "problem_id": problem.problem_id,
        "source": problem.source,
        "problem": problem.problem,
        "gold_answer": problem.answer,
        "prompt_ids": list(rendered.token_ids),
        "spine_ids": list(completion.token_ids),
        "n_spine_tokens": len(completion.token_ids),
        "text": text,
        "answer": answer,
        "correct": grade.correct,
        "grade_path": grade.path,
        "spine_mode": mode,
        "finish_reason": completion.finish_reason,
        "boxed_position": first_box_token(context.tokenizer, completion.token_ids),
        "seed": derive_seed(context.seed, "spine", mode, problem.problem_id),
    }
    return Done(completion.key, {"spines": [row]}, tokens=len(completion.token_ids))


PHASE = Phase(
    letter="A",
    name="spine",
    question="Which problems does the student solve, and how?",
    reads=(),
    writes=("spines",),
    unit=("problem_id",),
    settings=("spine",),
    inputs=("student", "problems", "seed", "engine", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
)
