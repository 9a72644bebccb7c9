"""A study as MLflow shows it. No other package imports MLflow.

Importing MLflow takes a second. So the modules that do it are imported inside functions, when needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.errors import RejectStudy, TrackerDown
from sweep.ledger.ledger import Ledger
from sweep.views.mlflow.address import NONE, SQLITE, artifacts_of

if TYPE_CHECKING:
    from sweep.views.mlflow.view import View


def prepare() -> None:
    """Set the environment variables that MLflow reads. It reads some of them when it is imported."""
    os.environ |= {
        # a create that is repeated after a lost answer would make a second run; `Experiment` looks first
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    }
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds


def _check_writable(database: Path) -> None:
    """Make the folder of a database. TrackerDown says that nothing can be written there."""
    with suppress(OSError):
        database.parent.mkdir(parents=True, exist_ok=True)
    for place in (database.parent, *([database] if database.exists() else [])):
        if not os.access(place, os.W_OK):
            raise TrackerDown(
                f"cannot write {place}, where MLflow's database is kept. Give another one with "
                "--mlflow-uri, or copy the store into a folder of your own, and give that as --store."
            )


def open_view(ledger: Ledger, place: str, uri: str, say: Callable[[str], None]) -> View:
    """The view of a ledger in the MLflow at `uri`. RejectStudy is raised where `uri` is `none`."""
    if uri == NONE:
        raise RejectStudy([f"--mlflow-uri {NONE}: then there is no MLflow to show anything in."])
    prepare()
    from sweep.views.mlflow.client import Experiment
    from sweep.views.mlflow.view import View

    if uri.startswith(SQLITE):
        _check_writable(Path(uri.removeprefix(SQLITE)))
    experiment = Experiment(uri, ledger.study, ledger.store.where(), artifacts_of(uri, place, ledger.study))
    return View(ledger, experiment, say)
