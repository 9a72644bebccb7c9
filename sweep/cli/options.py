"""The options that commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.output import say
from sweep.ledger.ledger import Ledger
from sweep.study import find

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="a YAML file, or the name of one in search_spaces/")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="STORE", metavar="DIR", help="a folder, or a URL such as s3://bucket/prefix"
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="RAY_ADDRESS",
        metavar="A",
        help="a Ray cluster that this machine is part of; else one is started here",
    ),
]
DataOption = Annotated[
    Path, typer.Option("--data-dir", envvar="DATA_DIR", metavar="DIR", help="where fetched data sets live")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout")]
MlflowOption = Annotated[
    str | None,
    typer.Option(
        "--mlflow-uri",
        envvar="MLFLOW_TRACKING_URI",
        metavar="U",
        help="an MLflow server or database; none for no MLflow; SQLite in the store's folder by default",
    ),
]


def place_of(store: str) -> str:
    """The store's address, absolute: an actor works in another folder."""
    return store if "://" in store else str(Path(store).expanduser().absolute())


def ledger_of(study: str, store: str) -> Ledger:
    """The ledger of a study, given its file or name."""
    return Ledger(place_of(store), find(study).stem, say)
