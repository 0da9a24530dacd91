"""Phase D: how sure is the teacher at each candidate, by Monte Carlo dropout on its last blocks?

Reads `spines` and `candidates`; writes `dropout`. Perturbs the residual output of the last blocks
(arXiv 2605.21606, appendix A: 4 blocks, p = 0.1, 5 samples) and records predictive entropy, mutual
information and the raw Dirichlet concentration kappa. One perturbed pass serves all candidates of
a problem. Phases E and F never read this table.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
from branchdiag.phases.side_by_side import in_order
from branchdiag.prompts import render_teacher
from branchdiag.store.fingerprint import derive_seed


def units(context: Context) -> list[Unit]:
    """One unit a problem with candidates."""
    names = context.run.table("candidates").read(["problem_id"])["problem_id"].unique()
    return [(name,) for name in sorted(names.to_pylist())]


def work(context: Context, owed: Sequence[Unit]) -> Generator[Outcome]:
    """One plain and `samples` perturbed teacher passes a problem."""
    from branchdiag.scoring.dropout import dropout_distributions, uncertainty

    settings = context.protocol.dropout
    spines = {row["problem_id"]: row for row in context.run.table("spines").rows()}
    candidates: dict[str, list[tuple[int, str]]] = {}
    for row in (
        context.run.table("candidates").read(["candidate_id", "problem_id", "position"]).to_pylist()
    ):
        candidates.setdefault(row["problem_id"], []).append((row["position"], row["candidate_id"]))
    model, teacher = context.teacher_model, context.protocol.teacher

    def measure(task: tuple[str, Sequence[int]]) -> dict[str, NDArray[np.float64]]:
        name, prompt_ids = task
        distributions = dropout_distributions(
            model,
            prompt_ids,
            spines[name]["spine_ids"],
            [position for position, _ in sorted(candidates[name])],
            layers=settings.layers,
            probability=settings.probability,
            samples=settings.samples,
            seed=derive_seed(context.seed, "dropout", name),
            chunk=teacher.chunk_positions,
            temperature=teacher.temperature,
        )
        return uncertainty(distributions.plain_CV, distributions.samples_MCV)

    tasks = []
    for unit in owed:
        name, prompt = str(unit[0]), context.protocol.spine.prompt
        rendered = render_teacher(context.tokenizer, teacher, prompt, context.problem(name))
        tasks.append((name, rendered.token_ids))
    for unit, figures in zip(owed, in_order(measure, tasks, [model]), strict=True):
        name = str(unit[0])
        rows = [
            {
                "candidate_id": candidate,
                "problem_id": name,
                **{column: float(values[index]) for column, values in figures.items()},
            }
            for index, (_, candidate) in enumerate(sorted(candidates[name]))
        ]
        yield Done(unit, {"dropout": rows}, tokens=len(spines[name]["spine_ids"]))


PHASE = Phase(
    letter="D",
    name="dropout",
    question="How sure is the teacher of itself at each candidate?",
    reads=("C",),
    writes=("dropout",),
    unit=("problem_id",),
    settings=("dropout",),
    inputs=("teacher", "seed", "dtype"),
    version=1,
    needs_model=True,
    units=units,
    work=work,
)
