"""`run-all` and `run`: the diagnosis, whole or some of its phases."""

from __future__ import annotations

import enum
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from branchdiag.cli.look import Json
from branchdiag.errors import UsageError

if TYPE_CHECKING:
    from branchdiag.pipeline.inputs import RunRequest

LETTERS = "ABCDEFG"


class EngineName(enum.StrEnum):
    """Who writes tokens."""

    auto = "auto"
    transformers = "transformers"
    vllm = "vllm"


class SpineKind(enum.StrEnum):
    """Which spines are diagnosed."""

    correct = "correct"
    incorrect = "incorrect"
    all = "all"


class ProgressStyle(enum.StrEnum):
    """How progress is shown, on standard error."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    none = "none"


Model = Annotated[
    str | None,
    typer.Option(
        metavar="ID_OR_PATH[@REVISION]",
        help="Model to diagnose. Without it: the bundled model, problems and protocol.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        metavar="ID_OR_PATH[@REVISION]",
        help="Another teacher with the same tokenizer; else the model itself, told the answer.",
    ),
]
Problems = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="bundled, math500, aime2024, aime2025, hmmt2025, a JSONL or Parquet file, or a hub "
        "data set; NAME:N takes N problems, SOURCE,field=column maps columns. May be repeated.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Take the first N problems alone.")]
ProtocolSource = Annotated[
    str | None,
    typer.Option("--protocol", metavar="bundled|paper|FILE.toml", help="Every number of A to G."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PHASE.KEY=VALUE",
        help="Change one number, for example continuation.rollouts=12. May be repeated.",
    ),
]
Engine = Annotated[
    EngineName | None, typer.Option(help="Who writes tokens; auto: vLLM where CUDA is.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Run directory; else runs/MODEL-PROTOCOL.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of every draw of the run.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and write nothing: units, prompts, sizes.")
]
Progress = Annotated[ProgressStyle, typer.Option(help="auto: bars on a terminal, else lines.")]
Spines = Annotated[
    SpineKind | None,
    typer.Option(
        help="Which spines are diagnosed; correct, as the paper. With all, the incorrect ones are "
        "reported apart."
    ),
]
RestartFrom = Annotated[
    str | None,
    typer.Option(
        metavar="PHASE", help="Remove this phase (a letter) and what reads it, and make them anew."
    ),
]


def run_all(
    model: Model = None,
    teacher: Teacher = None,
    problems: Problems = None,
    limit: Limit = None,
    protocol: ProtocolSource = None,
    settings: Settings = None,
    engine: Engine = None,
    out: Out = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: Progress = ProgressStyle.auto,
    restart_from: RestartFrom = None,
    spines: Spines = None,
) -> None:
    """Run Phases A to G and end at the report. The same command goes on after a kill."""
    request = build_request(
        model, teacher, problems, limit, protocol, settings, engine, out, seed, progress, spines
    )
    _run(request, restart_from, LETTERS, dry_run, as_json)


def run_phases(
    phases: Annotated[
        str, typer.Argument(metavar="PHASE[-PHASE]", help="For example A, B-D, or S (signals).")
    ],
    model: Model = None,
    teacher: Teacher = None,
    problems: Problems = None,
    limit: Limit = None,
    protocol: ProtocolSource = None,
    settings: Settings = None,
    engine: Engine = None,
    out: Out = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    progress: Progress = ProgressStyle.auto,
    restart_from: RestartFrom = None,
    spines: Spines = None,
) -> None:
    """Run one phase or a range of them, in the run that the other options name."""
    request = build_request(
        model, teacher, problems, limit, protocol, settings, engine, out, seed, progress, spines
    )
    _run(request, restart_from, parse_phases(phases), dry_run, as_json)


def parse_phases(text: str) -> str:
    """`A`, `B-D` -> the letters of the range; `S`, a side stage, stands alone.

    Raises:
        UsageError: no such range.
    """
    if text.strip().upper() == "S":
        return "S"
    match = re.fullmatch(r"([A-G])(?:-([A-G]))?", text.strip().upper())
    if not match or (match[2] and match[2] < match[1]):
        raise UsageError(
            f"no phase or range of phases: {text}",
            fix="a letter from A to G, a range such as B-D, or S for the signals",
        )
    return LETTERS[LETTERS.index(match[1]) : LETTERS.index(match[2] or match[1]) + 1]


def build_request(
    model: str | None,
    teacher: str | None,
    problems: list[str] | None,
    limit: int | None,
    protocol: str | None,
    settings: list[str] | None,
    engine: EngineName | None,
    out: Path | None,
    seed: int,
    progress: ProgressStyle,
    spines: SpineKind | None = None,
) -> RunRequest:
    """The request that the options mean, with their defaults filled in."""
    from branchdiag.pipeline.inputs import RunRequest
    from branchdiag.protocol import Protocol

    overrides = list(settings or [])
    if engine is not None:
        overrides.append(f"engine.name={engine.value}")
    if spines is not None:
        overrides.append(f"candidates.spines={spines.value}")
    source = protocol or ("paper" if model else "bundled")
    resolved = Protocol.load(source, overrides)
    options: dict[str, Sequence[object]] = {
        "--model": [model],
        "--teacher": [teacher],
        "--problems": problems or [],
        "--limit": [limit],
        "--protocol": [protocol],
        "--set": settings or [],
        "--engine": [engine.value if engine else None],
        "--out": [out],
        "--seed": [seed or None],
        "--spines": [spines.value if spines else None],
    }
    words = [
        f"{name}={value}"
        for name, values in options.items()
        for value in values
        if value is not None
    ]
    return RunRequest(
        command=shlex.join(["branchdiag", "run-all", *words]),
        model=model,
        teacher=teacher,
        problems=tuple(problems or resolved.problems),
        limit=limit,
        protocol=resolved,
        seed=seed,
        out=out or Path("runs") / run_name(model, resolved.name),
        progress=progress.value,
    )


def run_name(model: str | None, protocol_name: str) -> str:
    """The directory of a run: the model's slug and the protocol's name, nothing random."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", (model or "bundled").rstrip("/")).strip("-.")
    if model and (model.startswith((".", "/", "~")) or Path(model).is_dir()):
        slug = Path(model).expanduser().resolve().name
    return slug if slug == protocol_name else f"{slug}-{protocol_name}"


def _run(
    request: RunRequest, restart_from: str | None, phases: str, dry_run: bool, as_json: bool
) -> None:
    import dataclasses

    if restart_from is not None:
        restart_from = parse_phases(restart_from)[0]
    from branchdiag.phases import with_side_stages

    letters = tuple(with_side_stages(phases))
    request = dataclasses.replace(request, phases=letters, restart_from=restart_from)
    if dry_run:
        _print_plan(request, as_json)
        return
    from branchdiag.pipeline.runner import execute

    outcome = execute(request)
    if outcome.nothing_to_do:
        print(f"{outcome.path}: finished before; nothing to do", file=sys.stderr)
    if "G" not in phases:
        print(outcome.path)
        return
    from branchdiag.cli.look import print_report

    print_report(outcome.path, as_json)


def _print_plan(request: RunRequest, as_json: bool) -> None:
    from branchdiag.pipeline.dry_run import make_plan, plan_lines

    plan = make_plan(request)
    print(json.dumps(plan, indent=2) if as_json else "\n".join(plan_lines(plan)))
