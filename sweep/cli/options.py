"""Arguments and options that several commands share, and the ledger that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.output import say
from sweep.ledger.ledger import Ledger
from sweep.study import find

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="the study: a YAML file, or the name of one in search_spaces/")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="STORE",
        metavar="DIR",
        help="where ledgers are: a folder, or a URL such as s3://bucket/prefix",
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
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow-uri",
        envvar="MLFLOW_TRACKING_URI",
        metavar="U",
        help="an MLflow server or database, or none for no MLflow. By default a database in the store",
    ),
]


def place_of(store: str) -> str:
    """The store's address, absolute: an actor works in another folder."""
    return store if "://" in store else str(Path(store).expanduser().absolute())


def ledger_of(study: str, store: str) -> Ledger:
    """The ledger of a study, given its file or name."""
    return Ledger(place_of(store), find(study).stem, say)
