"""Run a phase in a process of its own, so that the memory of the GPU it held is free for the next.

The child opens the same run (its parent holds the lock), runs the one phase and sends back what it
came to. It dies with its parent: the kernel kills it, and what it has written is whole.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchdiag.errors import BranchdiagError, TooManyFailures
from branchdiag.phases import PHASES
from branchdiag.phases.base import Phase
from branchdiag.pipeline.durable import PhaseResult, run_phase
from branchdiag.pipeline.progress import create_reporter
from branchdiag.pipeline.signals import Guard, Interrupted
from branchdiag.protocol import EngineSettings
from branchdiag.store.run import RunDirectory

if TYPE_CHECKING:
    from branchdiag.pipeline.inputs import Inputs, RunRequest


def wants_isolation(settings: EngineSettings) -> bool:
    """Whether phases that load a model run in processes of their own (auto: where CUDA is)."""
    if settings.isolate != "auto":
        return settings.isolate == "always"
    return settings.device != "cpu" and Path("/dev/nvidiactl").exists()


def run_phase_isolated(
    run: RunDirectory, request: RunRequest, inputs: Inputs, phase: Phase, guard: Guard
) -> tuple[PhaseResult, dict[str, Any]]:
    """As `run_phase`, in a child process.

    Raises:
        BranchdiagError, Interrupted: as the child raised them.
        RuntimeError: the child failed otherwise; its traceback is the message.
    """
    methods = multiprocessing.get_context("spawn")
    receiver, sender = methods.Pipe(duplex=False)
    child = methods.Process(
        target=_child, args=(sender, os.getpid(), run.path, request, inputs, phase.letter)
    )
    child.start()
    sender.close()
    try:
        outcome = _receive(receiver, phase)
    except Interrupted:
        child.terminate()  # it writes what is finished; a Ctrl-C has reached it already
        child.join()
        raise
    child.join()
    for name in phase.writes:
        run.table(name).forget()  # the child wrote to it
    if isinstance(outcome, BaseException):
        raise outcome
    result, described = outcome
    return result, described


def _receive(receiver: Connection, phase: Phase) -> Any:
    try:
        return receiver.recv()
    except EOFError:
        raise TooManyFailures(
            f"the process of phase {phase.letter} was killed",
            fix="often memory: `dmesg | tail` tells. The same command goes on where it was left",
        ) from None


def _child(
    sender: Connection, parent: int, path: Path, request: RunRequest, inputs: Inputs, letter: str
) -> None:
    from branchdiag.engines.workers import die_with_parent
    from branchdiag.pipeline.runner import make_context

    die_with_parent(parent)
    guard = Guard()
    reporter = create_reporter(request.progress)
    with guard.installed():
        try:
            run = RunDirectory.open(path, warn=reporter.note)
            run.write_under_the_parents_lock()
            context = make_context(run, request, inputs, reporter)
            result = run_phase(context, PHASES[letter], reporter, guard)
            sender.send((result, context.described))
        except (BranchdiagError, Interrupted) as error:
            sender.send(error)
        except Exception:
            sender.send(RuntimeError(f"phase {letter} failed:\n{traceback.format_exc()}"))
