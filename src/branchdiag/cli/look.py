"""Commands that look at a run or at this machine and change neither."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from branchdiag.errors import Incomplete, UsageError

Run = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run directory; else the latest in runs/.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def find_run(path: Path | None) -> Path:
    """The run that was named, or the latest.

    Raises:
        UsageError: there is none.
    """
    from branchdiag.store.run import latest_run

    found = path or latest_run(Path("runs"))
    if found is None:
        raise UsageError(
            "there is no run yet", where="runs/", fix="branchdiag run-all, or name a run directory"
        )
    return found


def print_report(path: Path, as_json: bool) -> None:
    """The report of a run: JSON as it stands, or the summary for people."""
    from branchdiag.report.document import from_json
    from branchdiag.store.run import RunDirectory

    RunDirectory.open(path)  # says what is wrong where it is no run
    file = path / "report.json"
    if not file.is_file():
        raise Incomplete(
            "this run has no report yet",
            where=str(path),
            fix="run the rest: the same run-all command",
        )
    text = file.read_text(encoding="utf-8")
    document = from_json(text, where=str(file))
    if as_json:
        print(text)
        return
    from rich.console import Console

    from branchdiag.report.terminal import print_summary

    print_summary(document, Console())


def status(run: Run = None, as_json: Json = False) -> None:
    """How far a run is: units done of each phase, failures, and who holds it."""
    from branchdiag.pipeline.status import describe_status

    described = describe_status(find_run(run))
    if as_json:
        print(json.dumps(described, indent=2))
        return
    from rich.console import Console

    from branchdiag.report.terminal import print_status

    print_status(described, Console())


def report(run: Run = None, as_json: Json = False) -> None:
    """The finding, the table of scores and the path of the report."""
    print_report(find_run(run), as_json)


def inspect(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="problem_id@position")],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Else the latest in runs/.")
    ] = None,
    context: Annotated[int, typer.Option(min=0, help="Spine tokens shown on either side.")] = 60,
    as_json: Json = False,
) -> None:
    """One candidate: the spine around it, the teacher's alternatives, every continuation."""
    from branchdiag.pipeline.inspection import inspect_candidate

    described = inspect_candidate(find_run(run), candidate, context)
    if as_json:
        print(json.dumps(described, indent=2))
        return
    from rich.console import Console

    from branchdiag.report.terminal import print_candidate

    print_candidate(described, Console())


def verify(run: Run = None, as_json: Json = False) -> None:
    """Check every part's checksums and keys, and recompute Phases F and G from them."""
    from branchdiag.pipeline.verification import verify_run

    findings = verify_run(find_run(run))
    if as_json:
        print(json.dumps({"ok": not findings, "findings": findings}, indent=2))
    else:
        for finding in findings:
            print(f"{finding['table']}: {finding['message']}")
        print("the run is sound" if not findings else f"{len(findings)} faults")
    if findings:
        raise typer.Exit(4)


def doctor(as_json: Json = False) -> None:
    """What this machine has and lacks: versions, devices, engines, and how to get the rest."""
    from branchdiag.pipeline.doctor import examine, lines

    findings = examine()
    print(json.dumps(findings, indent=2) if as_json else "\n".join(lines(findings)))


def protocol(
    source: Annotated[
        str, typer.Argument(metavar="bundled|paper|FILE.toml", help="Which protocol to print.")
    ] = "paper",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PHASE.KEY=VALUE", help="Change a number.")
    ] = None,
) -> None:
    """Print a protocol as TOML, every key with its meaning: a start for one's own."""
    from branchdiag.protocol import Protocol

    sys.stdout.write(Protocol.load(source, settings or []).to_toml())
