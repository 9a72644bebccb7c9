"""The command `sweep` with its subcommands, in the order in which a person uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sweep import __version__
from sweep.cli.checking import doctor, seal, status
from sweep.cli.children import guard_children
from sweep.cli.handing_in import list_, logs, stop, submit
from sweep.cli.ready import ready
from sweep.cli.removing import remove
from sweep.cli.running import plan, run
from sweep.cli.viewing import export, report, sync, ui

COMMANDS: tuple[Callable[..., Any], ...] = (
    plan, run, submit, list_, logs, stop, ready, status, doctor, seal, report, export, ui, sync, remove,
)  # fmt: skip
HELP = (
    "Sweeps over seeded training runs. Exit codes: 0 done, 1 some runs failed, 2 the command or the study "
    "is wrong, 3 files or machines, 129, 130 and 143 stopped by a signal."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pairsweep {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version")
    ] = False,
) -> None:
    """The options of `sweep` itself, without a subcommand."""


def app() -> typer.Typer:
    """The command with all its subcommands."""
    command = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP
    )
    command.callback()(_options)
    for subcommand in COMMANDS:
        command.command(subcommand.__name__.rstrip("_"))(subcommand)
    return command


def main() -> None:
    """Run the command."""
    guard_children()
    app()()
