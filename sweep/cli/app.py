"""The table of commands, in the order in which a person uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from sweep import __version__
from sweep.cli.checking import doctor, status
from sweep.cli.running import plan, run
from sweep.cli.viewing import export, report, sync, ui

COMMANDS: tuple[Callable[..., Any], ...] = (plan, run, status, doctor, report, export, ui, sync)
HELP = (
    "Sweeps over seeded training runs. exit: 0 done, 1 some runs failed, 2 usage or study, 3 infrastructure, "
    "130/143 stopped"
)


def _version(asked: bool) -> None:
    if asked:
        print(f"pairsweep {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="print the version and end")
    ] = False,
) -> None:
    """What can be said without a command."""


def app() -> typer.Typer:
    """The command with all its subcommands."""
    made = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
    made.callback()(_options)
    for command in COMMANDS:
        made.command()(command)
    return made


def main() -> None:
    """Run the command."""
    app()()
