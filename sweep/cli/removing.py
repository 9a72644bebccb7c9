"""The command `remove`: a study goes from its store, after the person has said its name."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import JsonOption, StoreOption, place_of
from sweep.cli.output import DEFAULT_STORE, command_for, errors, leave, print_json, say, show
from sweep.cli.ready import trained_now
from sweep.errors import Held, RejectStudy
from sweep.format import counted
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.removing import Contents, contents
from sweep.ledger.removing import remove as remove_from
from sweep.study.contents import NAME
from trainer.exits import INFRASTRUCTURE, USAGE
from trainer.plain import one_line

FEW = 3
"""The most files that are named where some could not be removed."""


def remove(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="the study's name, or its YAML file")],
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for the study's name")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a study and its runs from the store, for ever. Says what goes, and asks first."""
    name = Path(study).stem if study.endswith((".yaml", ".yml")) else study
    with errors(study, store):
        if not NAME.fullmatch(name):
            raise RejectStudy([f"{name}: is no name of a study."])
        ledger = Ledger(place_of(store), name, say)
        found = contents(ledger)
        say(_described(found))
        if not (yes or sys.stdin.isatty()):
            leave("Nothing was removed. Where nobody can be asked, give --yes.", USAGE)
        lease = Lease(ledger.store, say)
        lease.acquire()
        try:
            ledger.load(keep=False, by_index=True)
            if runs := trained_now(ledger):
                trained = f"Being trained outside of a sweep: {counted(len(runs), 'run')} of {found.where}."
                raise Held(f"{trained} End those processes first.")
            if not yes and typer.prompt("The name of the study, to remove it", err=True) != name:
                leave("That is not its name. Nothing was removed.", USAGE)
            problems = remove_from(ledger, lease)
        finally:
            lease.release()
        if problems:
            again = command_for("remove", study, store)
            named = "\n".join(map(one_line, problems[:FEW]))
            left = f"{counted(len(problems), 'file')} could not be removed:\n{named}"
            leave(f"{left}\nThe study cannot be used any more. To remove the rest: {again}", INFRASTRUCTURE)
        if as_json:
            print_json({"study": name, **asdict(found)})
        else:
            show(one_line(f"removed: {found.where}"))
        say(
            f"MLflow still shows what it has of {name}: delete the experiment there before a study of this "
            "name is begun anew. Pages and exports of it stay, and so do runs that other studies took over."
        )


def _described(found: Contents) -> str:
    """What would be removed, and what else goes with it."""
    begun = f", begun {found.declared_at}" if found.declared_at else ""
    what = f"{counted(found.runs, 'run')} in {counted(found.files, 'file')}, {found.bytes / 1e6:,.1f} MB"
    forgotten = "The store forgets which seeds it had, and who looked: a new study may get the same seeds."
    return one_line(f"{found.where}: {what}{begun}.") + f"\n{forgotten}"
