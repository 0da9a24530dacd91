"""The `branchdiag` command: its commands, and how every ending becomes an exit status.

0 done, 1 bug, 2 usage, 3 settings conflict with the run, 4 incomplete (run again to go on), 5
something is missing on this machine, 6 too many failures, 130 and 143 for signals. Errors a user
can mend are printed without a traceback; only bugs show one.
"""

from __future__ import annotations

import errno
import io
import os
import sys

import typer

from branchdiag.cli import compare, evaluate, fit, look, run, stages, train
from branchdiag.errors import BranchdiagError
from branchdiag.pipeline.signals import Guard, Interrupted

app = typer.Typer(
    name="branchdiag",
    help="Measure where a privileged teacher's tokens can be trusted in self-distillation.",
    epilog="Without arguments, `branchdiag run-all` diagnoses the bundled model, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run-all")(run.run_all)
app.command("run")(run.run_phases)
app.command("status")(look.status)
app.command("report")(look.report)
app.command("inspect")(look.inspect)
app.command("verify")(look.verify)
app.command("doctor")(look.doctor)
app.command("protocol")(look.protocol)
app.command("fit-schedule")(fit.fit_schedule)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("merge")(train.merge)
app.command("compare")(compare.compare)
app.command("prefixes")(stages.prefixes)
app.command("align")(stages.align)


def _version(value: bool) -> None:
    if value:
        from branchdiag import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Options before any command."""


def main() -> None:
    """Entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A character that the terminal lacks is escaped, as TOML and JSON would, and no crash.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    command = typer.main.get_command(app)
    try:
        with Guard().installed():
            command.main(arguments, prog_name="branchdiag")
    except SystemExit as end:  # how Typer ends, with its own status for usage errors
        if isinstance(end.__context__, BrokenPipeError):  # Rich and Typer make a 1 of it
            return _reader_is_gone()
        return _flushed(end.code if isinstance(end.code, int) else int(end.code is not None))
    except BranchdiagError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except Interrupted as stop:
        print(
            f"stopped by {stop}; what was finished is written. The same command goes on.",
            file=sys.stderr,
        )
        return stop.exit_status
    except BrokenPipeError:
        return _reader_is_gone()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        return _output_is_full(error)  # of every other file it is a StorageError
    return 0


def _flushed(status: int) -> int:
    """The status, once standard output is out: a reader that went away shows only now."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_is_gone()
    except OSError as error:
        return _output_is_full(error)
    return status


def _output_is_full(error: OSError) -> int:
    """What was to be printed has no room."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(
        f"error: standard output cannot be written ({error.strerror})\n"
        "  where: standard output\n  fix:   free space there, or send it elsewhere",
        file=sys.stderr,
    )
    return 5


def _reader_is_gone() -> int:
    """`| head` has read enough: no more output, and no complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
