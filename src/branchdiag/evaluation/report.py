"""The report of an evaluation: one JSON object from its tables, settings and models.

Reads `outcomes` and `samples`; gives the object that `--json` prints and `report.json` keeps:
figures of every model on every benchmark and their equal-weight mean, differences of every pair of
models, and what a reader must know beside them. Computes through `metrics` and `comparison`; draws
and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from branchdiag.evaluation import comparison, metrics
from branchdiag.evaluation.context import EvaluationContext
from branchdiag.evaluation.grading import outcomes_of

FORMAT = 1
MEAN = "mean"
"""The name under which the equal-weight mean over benchmarks stands."""
FEW_PROBLEMS = 20
"""With fewer problems percentile intervals are too narrow (see `stats.bootstrap`)."""

Values = dict[str, dict[str, dict[str, metrics.FloatArray]]]
"""model -> benchmark -> metric -> (S, P)."""


def build_report(
    context: EvaluationContext, provenance: Sequence[Mapping[str, Any]], versions: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole report; figures that lack a grade are missing with the reason."""
    settings = context.settings
    values = problem_values_of(context)
    pairs = list(combinations([model.label for model in context.models], 2))
    main = f"avg@{settings.n}"
    found = list(_differences(context, values, pairs))
    verdicts = [d for d in found if d["metric"] == main and d["benchmark"] == MEAN]
    return {
        "format": FORMAT,
        "models": [model.to_dict() for model in context.models],
        "benchmarks": _benchmarks(context, provenance),
        "main_metric": main,
        "metrics": list(_figures(context, values)),
        "differences": found,
        "sentences": [d["sentence"] for d in verdicts],
        "notes": list(_notes(context, provenance, verdicts, len(pairs))),
        "seeds": {
            "seed": settings.seed,
            "sets": settings.seeds,
            "rule": "63 bits of SHA-256 of (seed, 'evaluation', seed set, problem, sample): the "
            "same for every model, none used twice",
        },
        "settings": settings.model_dump(mode="json"),
        "engine": context.engine_name,
        "engines": dict(context.described),
        "versions": dict(versions),
    }


def counts_of(context: EvaluationContext) -> dict[str, dict[str, metrics.Counts]]:
    """model -> benchmark -> its counts, problems in the evaluation's order."""
    settings = context.settings
    names = ("n_correct", "n_formatted", "n_truncated", "n_tokens", "majority_correct")
    place = {
        problem.problem_id: (benchmark, index)
        for benchmark, members in benchmarks_of(context).items()
        for index, problem in enumerate(members)
    }
    arrays = {
        model.label: {
            benchmark: {name: np.full((settings.seeds, len(members)), np.nan) for name in names}
            for benchmark, members in benchmarks_of(context).items()
        }
        for model in context.models
    }
    for row in outcomes_of(context):
        benchmark, index = place[row["problem_id"]]
        for name in names:
            if row[name] is not None:
                arrays[row["model"]][benchmark][name][row["seed_set"], index] = row[name]
    return {
        model: {
            benchmark: metrics.Counts(
                n=settings.n,
                correct=found["n_correct"],
                formatted=found["n_formatted"],
                truncated=found["n_truncated"],
                tokens=found["n_tokens"],
                majority=found["majority_correct"],
            )
            for benchmark, found in by_benchmark.items()
        }
        for model, by_benchmark in arrays.items()
    }


def problem_values_of(context: EvaluationContext) -> Values:
    """Every metric of every problem, model by model."""
    return {
        model: {name: metrics.problem_values(counts) for name, counts in by_benchmark.items()}
        for model, by_benchmark in counts_of(context).items()
    }


def benchmarks_of(context: EvaluationContext) -> dict[str, list[Any]]:
    """Benchmark -> its problems, both in the evaluation's order."""
    members: dict[str, list[Any]] = {}
    for problem in context.problems:
        members.setdefault(problem.source, []).append(problem)
    return members


def _figures(context: EvaluationContext, values: Values) -> Iterator[dict[str, Any]]:
    for model, by_benchmark in values.items():
        for metric in next(iter(by_benchmark.values())):
            found = {
                name: metrics.benchmark_figure(entry[metric])
                for name, entry in by_benchmark.items()
            }
            for name, figure in {**found, MEAN: metrics.mean_figure(found)}.items():
                yield {
                    "model": model,
                    "benchmark": name,
                    "metric": metric,
                    "value": figure.mean,
                    "deviation": figure.deviation,
                    "per_seed": list(figure.per_seed),
                    "reason": figure.reason,
                }


def _differences(
    context: EvaluationContext, values: Values, pairs: Sequence[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    settings = context.settings.comparison
    keys, paired = [], []
    for first, second in pairs:
        for metric in next(iter(values[first].values())):
            each = {
                name: (values[second][name][metric] - values[first][name][metric]).mean(axis=0)
                for name in values[first]
            }
            for name, entry in {**{n: {n: d} for n, d in each.items()}, MEAN: each}.items():
                keys.append((first, second, metric, name))
                paired.append(entry)
    results = comparison.differences(
        paired,
        n_pairs=len(pairs),
        resamples=settings.resamples,
        level=settings.level,
        seed=settings.seed,
    )
    for (first, second, metric, name), result in zip(keys, results, strict=True):
        row: dict[str, Any] = {
            "first": first,
            "second": second,
            "metric": metric,
            "benchmark": name,
            "difference": result.estimate.value,
            "ci_low": result.estimate.ci_low,
            "ci_high": result.estimate.ci_high,
            "joint_ci_low": result.together.ci_low,
            "joint_ci_high": result.together.ci_high,
            "n_problems": result.n_problems,
            "reason": result.estimate.reason or result.together.reason,
        }
        if metric.partition("@")[0] in comparison.SCORES:
            row["verdict"] = result.verdict
            row["verdict_together"] = result.verdict_together
            row["sentence"] = comparison.sentence(
                first, second, _title(metric), result, settings.level
            )
        yield row


def _title(metric: str) -> str:
    return metric[:1].upper() + metric[1:]


def _benchmarks(
    context: EvaluationContext, provenance: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each benchmark, its size, and whether its files are the published ones."""
    records = {record["label"]: record for record in provenance}
    return [
        {
            "name": name,
            "n_problems": len(members),
            "source": records[name]["source"],
            "revision": records[name]["revision"],
            "files": [
                {
                    **file,
                    "as_published": (
                        file["sha256"] == file["expected_sha256"]
                        if file["expected_sha256"]
                        else None
                    ),
                }
                for file in records[name]["files"]
            ],
        }
        for name, members in benchmarks_of(context).items()
    ]


def _notes(
    context: EvaluationContext,
    provenance: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    n_pairs: int,
) -> Iterator[str]:
    for record in provenance:
        yield from record["notes"]
    apart = [
        f"{d['second']} against {d['first']}"
        for d in verdicts
        if d["verdict"] in ("better", "worse") and d["verdict"] != d["verdict_together"]
    ]
    level = context.settings.comparison.level
    if (note := comparison.multiplicity_note(n_pairs, level, apart)) is not None:
        yield note
    if n_pairs:
        yield (
            "Intervals speak of other problems of the same kind and of other samples, not of "
            "another training run with another seed."
        )
    small = [
        name for name, members in benchmarks_of(context).items() if len(members) < FEW_PROBLEMS
    ]
    if small and n_pairs:
        yield (
            f"Fewer than {FEW_PROBLEMS} problems in {', '.join(small)}: intervals from so few are "
            "too narrow."
        )
    if (different := _problems_with_other_prompts(context)) > 0:
        yield (
            f"{different} problems were put to the models as other tokens (another tokenizer or "
            "chat template): the same problems, not the same prompts."
        )


def _problems_with_other_prompts(context: EvaluationContext) -> int:
    """Problems whose prompt is not the same tokens for every model."""
    labels = {model.label for model in context.models}
    seen: dict[str, set[str]] = {}
    for part in context.run.table("samples").scan(["model", "problem_id", "prompt_hash"]):
        rows = part.group_by(["model", "problem_id", "prompt_hash"]).aggregate([]).to_pylist()
        for row in rows:
            if row["model"] in labels:
                seen.setdefault(row["problem_id"], set()).add(row["prompt_hash"])
    return sum(len(hashes) > 1 for hashes in seen.values())
