"""`evaluate`: models and adapters on the same problems, with intervals of their differences."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.cli.look import Json
from branchdiag.cli.run import Engine, Limit, Progress, ProgressStyle

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL_OR_ADAPTER",
        help="`bundled`, a hub id, or the directory of a model, an adapter or a training run. "
        "Default: the newest result of training in runs/, and the model it was trained from.",
    ),
]
Problems = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="bundled:evaluate, math500, aime2024, aime2025, hmmt2025, a JSONL or Parquet file, or "
        "a hub data set; NAME:N takes N problems. May be repeated.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, for example sampling.temperature=0.6. May be repeated.",
    ),
]


def evaluate(
    models: Models = None,
    problems: Problems = None,
    limit: Limit = None,
    n: Annotated[
        int | None,
        typer.Option("--n", min=1, help="Samples a problem; 12 by default."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Repeats; 3 by default.")] = None,
    engine: Engine = None,
    settings: Settings = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory; else runs/evaluate-MODELS.")
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Grade the samples again; take none.")
    ] = False,
    progress: Progress = ProgressStyle.auto,
    as_json: Json = False,
) -> None:
    """Avg@N, Pass@N and Maj@N of models and adapters, and whether they can be told apart."""
    from branchdiag.evaluation.runner import EvaluationRequest, require_complete
    from branchdiag.evaluation.runner import evaluate as run_evaluation

    flags = [
        *([f"problems={json.dumps(problems)}"] if problems else []),
        *([f"n={n}"] if n is not None else []),
        *([f"seeds={seeds}"] if seeds is not None else []),
        *([f"engine.name={engine.value}"] if engine is not None else []),
    ]
    request = EvaluationRequest(
        models=tuple(models or ()),
        overrides=(*(settings or ()), *flags),
        limit=limit,
        out=out,
        regrade=regrade,
        progress=progress.value,
        command=shlex.join(["branchdiag", *sys.argv[1:]]),
    )
    outcome = run_evaluation(request)
    if outcome.nothing_to_do:
        print(f"{outcome.path}: finished before; nothing to do", file=sys.stderr)
    if as_json:
        print(json.dumps(outcome.report, indent=2))
    else:
        from rich.console import Console

        from branchdiag.evaluation.terminal import missing_lines, print_report

        print_report(outcome.report, Console())
        for line in missing_lines(outcome.report):
            print(f"missing: {line}", file=sys.stderr)
        print(outcome.path / "report.json")
    require_complete(outcome)
