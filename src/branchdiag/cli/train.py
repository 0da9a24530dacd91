"""`train` and `merge`: from a schedule to an adapter or a model, and from an adapter to a model."""

from __future__ import annotations

import enum
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.cli.look import Json
from branchdiag.cli.run import EngineName, Progress, ProgressStyle, run_name
from branchdiag.pipeline.signals import Interrupted


class ObjectiveName(enum.StrEnum):
    """The method."""

    pw_opsd = "pw-opsd"
    opsd = "opsd"
    eopd = "eopd"
    reopold = "reopold"
    iw_opd = "iw-opd"


class ReductionName(enum.StrEnum):
    """What the loss is a mean over."""

    sequence = "sequence"
    token = "token"


class TeacherName(enum.StrEnum):
    """Whose weights the teacher has."""

    fixed = "fixed"
    current = "current"
    ema = "ema"


def train(
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.json|PRESET|uniform",
            help="Weights of pw-opsd: fitted.json, mild, moderate, sharp, aggressive or uniform. "
            "Without it: moderate.",
        ),
    ] = None,
    objective: Annotated[
        ObjectiveName | None, typer.Option(help="The method.  [default: pw-opsd]")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID_OR_PATH[@REVISION]",
            help="Model to train; else the schedule's, else the bundled one with its own data.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Problems with solutions: a JSONL or Parquet file or a hub data set; "
            "SOURCE,field=column maps columns. May be repeated.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="[default: 100]")] = None,
    reduction: Annotated[
        ReductionName | None, typer.Option(help="Mean over rows or over tokens; else the method's.")
    ] = None,
    teacher: Annotated[
        TeacherName | None, typer.Option(help="Whose weights the teacher has.  [default: fixed]")
    ] = None,
    prefix_fraction: Annotated[
        float | None, typer.Option(help="Train on this part of each rollout, from its front.")
    ] = None,
    suffix_fraction: Annotated[float | None, typer.Option(help="Or from its back.")] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="Who draws rollouts.  [default: transformers]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every draw.  [default: 0]")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Else runs/MODEL-OBJECTIVE-SCHEDULE.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--settings", metavar="paper|bundled|FILE.toml", help="Every other number."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change one setting, for example optimizer.learning_rate=1e-5. May be repeated.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint, if there is one.")
    ] = False,
    progress: Progress = ProgressStyle.auto,
    as_json: Json = False,
) -> None:
    """Train on the model's own rollouts under a teacher that is shown more: a LoRA adapter, or all
    weights with --set tuning=full."""
    from branchdiag.training.inputs import (
        TrainRequest,
        load_settings,
        read_schedule,
        schedule_model,
    )

    flags = {
        "objective.name": objective,
        "objective.reduction": reduction,
        "objective.prefix_fraction": prefix_fraction,
        "objective.suffix_fraction": suffix_fraction,
        "teacher.kind": teacher,
        "rollout.engine": None if engine in (None, EngineName.auto) else engine,
        "steps": steps,
        "seed": seed,
    }
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    overrides = [*(changes or []), *given]
    # The objective may stand in the settings: they are read once to know it, and its schedule.
    first = load_settings(source, model, data or [], overrides)
    named = read_schedule(schedule, first.objective.name)
    model = model or schedule_model(named)
    settings = load_settings(source, model, data or [], overrides)
    label = "-".join([settings.objective.name, *([named.name] if named else [])])
    request = TrainRequest(
        model=model,
        schedule=named,
        settings=settings,
        out=out or Path("runs") / run_name(model, label),
        resume=resume,
        progress=progress.value,
        command=shlex.join(["branchdiag", *sys.argv[1:]]),
    )
    from branchdiag.training.trainer import train as run

    try:
        outcome = run(request)
    except Interrupted as stop:
        print(
            f"stopped by {stop}; every finished update is kept in {request.out}. "
            "The same command with --resume goes on.",
            file=sys.stderr,
        )
        raise typer.Exit(stop.exit_status) from None
    if not outcome.is_main:
        return
    if outcome.nothing_to_do:
        print(f"{outcome.path}: finished before; nothing to do", file=sys.stderr)
    print(json.dumps(outcome.to_json(), indent=2) if as_json else "\n".join(outcome.lines()))


def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="A directory that holds one.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New directory of the merged model.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="ID_OR_PATH[@REVISION]", help="Base model; else the adapter's."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Write an adapter's base model with the adapter's weights added: whole weights, tokenizer."""
    from branchdiag.training.merge import merge as run

    print(run(adapter, out, model=model, device=device))
