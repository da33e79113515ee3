"""The command line. Commands live in `hwsim.commands`, one file each; nothing heavy is imported before one runs.

Exit codes: 0 ok; 1 a check or threshold failed; 2 the input is wrong; 3 some cases failed; 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hwsim import __version__
from hwsim.commands.calibrate import calibrate
from hwsim.commands.claims import claims
from hwsim.commands.compare import compare
from hwsim.commands.dram import app as dram
from hwsim.commands.estimate import estimate
from hwsim.commands.explain import explain
from hwsim.commands.figures import memory_wall, roofline
from hwsim.commands.graph import graph
from hwsim.commands.kernels import measure, predict
from hwsim.commands.listing import list_names, print_schema, show
from hwsim.commands.run import run
from hwsim.commands.storage import app as storage
from hwsim.commands.validate import validate
from hwsim.errors import HwsimError

ISSUES = "https://github.com/hwsim/hwsim/issues"
INTERRUPTED = 130
MOST_PROBLEMS = 20  # that one input is told of

app = typer.Typer(
    name="hwsim",
    help="Simulate machine-learning models on hardware: time, energy, and bytes of every memory.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hwsim {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (anywhere).")] = False,
) -> None:
    """Options of every command."""


app.command()(run)
app.command()(estimate)
app.command()(compare)
app.command()(explain)
app.command()(roofline)
app.command("memory-wall")(memory_wall)
app.command()(graph)
app.command()(predict)
app.command()(measure)
app.command()(calibrate)
app.command()(validate)
app.command()(claims)
app.add_typer(dram, name="dram")
app.add_typer(storage, name="storage")
app.command("list")(list_names)
app.command()(show)
app.command("schema")(print_schema)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    debug = "--debug" in given
    try:
        code = app([word for word in given if word != "--debug"], prog_name="hwsim", standalone_mode=False)
    except SystemExit:  # how typer leaves when the reader of our output has gone, as `| head` does
        return 0
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return _complain(error)
    return code if isinstance(code, int) else 0


def _complain(error: BaseException) -> int:
    """Say what went wrong on stderr, a line per problem; returns the exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        typer.echo("hwsim: interrupted", err=True)
        return INTERRUPTED
    if isinstance(error, typer.TyperException):
        typer.echo(f"hwsim: {error.format_message().replace('Value error, ', '')}", err=True)
        return error.exit_code
    if isinstance(error, HwsimError):
        lines = str(error).splitlines()
        for line in lines[:MOST_PROBLEMS]:
            typer.echo(f"hwsim: {line}", err=True)
        if len(lines) > MOST_PROBLEMS:
            typer.echo(f"hwsim: ... and {len(lines) - MOST_PROBLEMS:,} more", err=True)
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(f"hwsim: {place}{error.strerror}", err=True)
        return HwsimError.exit_code
    typer.echo(
        f"hwsim: this is a defect of hwsim, please report it at {ISSUES}: {type(error).__name__}: {error} "
        "(--debug shows where)",
        err=True,
    )
    return 1
