"""Arguments and options that several commands share, and the ledger that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.cli.output import command_for, say
from sweep.errors import RejectStudy
from sweep.ledger.ledger import Ledger
from sweep.study import find, load
from trainer.models import own

if TYPE_CHECKING:
    from sweep.views.reading import Reading

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="the study: a YAML file, or the name of one in search_spaces/")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="STORE",
        metavar="DIR",
        help="where results are kept: a folder, or a URL such as s3://bucket/prefix",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="A",
        help="a Ray cluster that this machine is in: auto, or HOST:PORT. By default Ray is started here",
    ),
]
DataOption = Annotated[
    Path,
    typer.Option("--data-dir", envvar="DATA_DIR", metavar="DIR", help="the folder of data sets"),
]
CodeOption = Annotated[
    list[str] | None,
    typer.Option(
        own.OPTION,
        metavar="PACKAGE",
        help="run the code of this package, which has models that the study names; may be given again",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow-uri",
        envvar="MLFLOW_TRACKING_URI",
        metavar="U",
        help="an MLflow server or database, or none for no MLflow. By default a database in the store. An "
        "address with a password belongs in the variable: all users of a machine see its command lines",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="run at most so many at once; by default, as many as fit")
]
ExtendOption = Annotated[
    bool, typer.Option("--extend", help="accept more searches, seeds, budget, finalists or arms than before")
]


def place_of(store: str) -> str:
    """The store's address, absolute: an actor works in another folder."""
    return store if "://" in store else str(Path(store).expanduser().absolute())


def ledger_of(study: str, store: str) -> Ledger:
    """The ledger of a study, given its file or name."""
    return Ledger(place_of(store), find(study).stem, say)


def begun_ledger_of(study: str, store: str) -> Ledger:
    """The ledger of a study that was begun, or NothingBegun. A file that has changed since is told."""
    path, ledger = find(study), ledger_of(study, store)
    declared = ledger.begun()
    if path.is_file() and not _is_declared(path, declared["identity"]):
        plan = command_for("plan", study, store)
        say(f"{path} is not what the study was begun with, which is used here. To compare: {plan}")
    return ledger


def reading_of(ledger: Ledger) -> Reading:
    """Everything about a study, for a view. Runs whose files are damaged are told, and not counted."""
    from sweep.views.reading import Reading  # it takes a moment to import

    reading = Reading(ledger)
    for run_id, reason in ledger.damaged.items():
        say(f"{reason} Run {run_id} counts as not finished here.")
    return reading


def _is_declared(path: Path, identity: dict[str, Any]) -> bool:
    try:
        return load(path).identity == identity
    except RejectStudy:
        return False
