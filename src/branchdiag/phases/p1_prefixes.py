"""Side stage P1: from fractions of every spine, how do student and teacher go on?

Reads `spines`; writes `prefix_samples`. The first tokens of each graded spine, correct or not, are
kept, and the student goes on from them under its own prompt, the teacher under the prompt with the
run's context (arXiv 2606.22600, figure 1b). Its grid and its number of samples are not published:
tenths and 8 are ours. T = 1 and top-p 1 are its rollouts' (section on training; the released launch
script agrees). Both writers have the same budget: prefix and continuation together. Knows nothing
of answers: it keeps tokens, and P2 grades them.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from branchdiag.engines.base import Key, Request, Sampling
from branchdiag.phases.base import Context, Outcome, Phase, Unit
from branchdiag.phases.continuing import completed
from branchdiag.phases.prefixes import STUDENT, TEACHER, WRITERS, cuts_of, fraction_text
from branchdiag.prompts import render_student, render_teacher
from branchdiag.stage_settings import PrefixSettings
from branchdiag.store.fingerprint import derive_seed


def requests_of(
    spine: Mapping[str, Any],
    prompts: Mapping[str, Sequence[int]],
    settings: PrefixSettings,
    run_seed: int,
) -> list[Request]:
    """Every request of a spine: cuts x writers x samples, each with a seed of its own.

    Args:
        spine: its row.
        prompts: writer -> token ids of its prompt for the problem.
    """
    requests = []
    for cut, fraction in cuts_of(spine["n_spine_tokens"], settings.fractions).items():
        sampling = Sampling(
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=-1,
            max_new_tokens=max(settings.max_response_tokens - cut, 0),
        )
        for writer in WRITERS:
            prompt = (*prompts[writer], *spine["spine_ids"][:cut])
            for sample in range(settings.rollouts):
                named = (spine["problem_id"], fraction_text(fraction), writer, sample)
                requests.append(
                    Request(
                        key=(spine["problem_id"], cut, writer, sample),
                        prompt_ids=prompt,
                        sampling=sampling,
                        seed=derive_seed(run_seed, "prefix", *named),
                    )
                )
    return requests


def plan(context: Context) -> list[Request]:
    """The whole stage's requests, in the order of the spines."""
    student, teacher = context.protocol.spine, context.protocol.teacher
    requests: list[Request] = []
    for spine in _spines(context):
        problem = context.problem(spine["problem_id"])
        prompts = {
            STUDENT: render_student(context.tokenizer, student, problem).token_ids,
            TEACHER: render_teacher(context.tokenizer, teacher, student.prompt, problem).token_ids,
        }
        requests += requests_of(spine, prompts, context.protocol.prefixes, context.seed)
    return requests


def _spines(context: Context) -> list[dict[str, Any]]:
    """Graded spines with tokens."""
    columns = ["problem_id", "correct", "n_spine_tokens", "spine_ids"]
    return [
        row
        for row in context.run.table("spines").read(columns).to_pylist()
        if row["correct"] is not None and row["n_spine_tokens"]
    ]


def units(context: Context) -> list[Unit]:
    """One unit a sample: (problem, cut, writer, sample)."""
    settings = context.protocol.prefixes
    return [
        (spine["problem_id"], cut, writer, sample)
        for spine in _spines(context)
        for cut in cuts_of(spine["n_spine_tokens"], settings.fractions)
        for writer in WRITERS
        for sample in range(settings.rollouts)
    ]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """Complete the owed requests; each row is handed over as its completion finishes.

    A teacher that is the student itself writes beside it in the same batches. Another model is
    loaded once the student is done, so that one of them is held at a time.
    """
    requests = plan(context)
    if len({request.seed for request in requests}) != len(requests):
        raise AssertionError("two requests share a seed")
    wanted = set(owed)
    same = context.teacher.content_id == context.student.content_id
    groups = [WRITERS] if same else [(STUDENT,), (TEACHER,)]
    for writers in groups:
        group = [request for request in requests if request.key[2] in writers]
        keys = {request.key for request in group}
        if wanted & keys:
            yield from _completed(context, group, wanted & keys, teacher=writers == (TEACHER,))


def _completed(
    context: Context, requests: Sequence[Request], owed: set[Key], *, teacher: bool
) -> Generator[Outcome]:
    """The outcomes of the owed requests of one model."""
    spines = {row["problem_id"]: row["n_spine_tokens"] for row in _spines(context)}
    fractions = context.protocol.prefixes.fractions
    cuts = {name: cuts_of(length, fractions) for name, length in spines.items()}

    def named(key: Key) -> dict[str, Any]:
        problem_id, cut, writer, sample = key
        return {
            "problem_id": problem_id,
            "cut": cut,
            "fraction": fraction_text(cuts[str(problem_id)][int(cut)]),
            "writer": writer,
            "sample": sample,
        }

    longest = max(len(r.prompt_ids) + r.sampling.max_new_tokens for r in requests)
    yield from completed(
        context, requests, owed, "prefix_samples", named, max_total_tokens=longest, teacher=teacher
    )


PHASE = Phase(
    letter="P1",
    name="prefixes",
    question="From a prefix of each spine, how does the student go on, and how the teacher?",
    reads=("A", "B"),
    writes=("prefix_samples",),
    unit=("problem_id", "cut", "writer", "sample"),
    settings=("prefixes",),
    inputs=("student", "teacher", "problems", "seed", "engine", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
    command="prefixes",
)
