"""The `branchdiag` command: its commands, and how every ending becomes an exit status.

0 done, 1 bug, 2 usage, 3 settings conflict with the run, 4 incomplete (run again to go on), 5
something is missing on this machine, 6 too many failures, 130 and 143 for signals. Errors a user
can mend are printed without a traceback; only bugs show one.
"""

from __future__ import annotations

import os
import sys

import typer

from branchdiag.cli import look, run
from branchdiag.errors import BranchdiagError

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
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    from click.exceptions import ClickException, Exit

    command = typer.main.get_command(app)
    try:
        status = command.main(arguments, prog_name="branchdiag", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except Exit as stop:
        return stop.exit_code
    except ClickException as error:
        error.show()
        return error.exit_code
    except BranchdiagError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no more output, and no complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as stop:
        return _interrupted(stop)


def _interrupted(stop: BaseException) -> int:
    """The status of a signal; anything else is a bug and keeps its traceback."""
    from branchdiag.pipeline.signals import Interrupted

    if isinstance(stop, Interrupted):
        print(
            f"stopped by {stop}; what was finished is written. The same command goes on.",
            file=sys.stderr,
        )
        return stop.exit_status
    if isinstance(stop, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        return 130
    raise stop
