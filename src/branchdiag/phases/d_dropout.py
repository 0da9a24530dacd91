"""Phase D: how sure is the teacher at each candidate, by Monte Carlo dropout on its last blocks?

Reads `spines` and `candidates`; writes `dropout`. Perturbs the residual output of the last blocks
(arXiv 2605.21606, appendix A: 4 blocks, p = 0.1, 5 samples) and records predictive entropy, mutual
information and the raw Dirichlet concentration kappa. One perturbed pass serves all candidates of
a problem. Phases E and F never read this table.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from branchdiag.phases.base import Context, Done, Outcome, Phase, Unit
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
    for unit in owed:
        name = str(unit[0])
        wanted = sorted(candidates[name])
        prompt = render_teacher(
            context.tokenizer,
            context.protocol.teacher,
            context.protocol.spine.prompt,
            context.problem(name),
        )
        distributions = dropout_distributions(
            context.teacher_model,
            prompt.token_ids,
            spines[name]["spine_ids"],
            [position for position, _ in wanted],
            layers=settings.layers,
            probability=settings.probability,
            samples=settings.samples,
            seed=derive_seed(context.seed, "dropout", name),
            chunk=context.protocol.teacher.chunk_positions,
            temperature=context.protocol.teacher.temperature,
        )
        figures = uncertainty(distributions.plain_CV, distributions.samples_MCV)
        rows = [
            {
                "candidate_id": candidate,
                "problem_id": name,
                **{column: float(values[index]) for column, values in figures.items()},
            }
            for index, (_, candidate) in enumerate(wanted)
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
