"""Addresses of MLflow: the tracking URI, and the folder for artifacts. Nothing here talks to MLflow."""

from __future__ import annotations

import re
from pathlib import Path

NONE = "none"
"""The URI that stands for no MLflow at all."""


def uri_of(given: str | None, place: str) -> str:
    """The tracking URI: `given`, or else a SQLite database.

    The database is in the store's folder, or in ./results where the store is a bucket.
    """
    return given or f"sqlite:///{_home(place) / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """An address without its password, to be shown."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def artifacts_of(uri: str, place: str, study: str) -> str | None:
    """The folder for a study's artifacts; None for a server, which decides by itself."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    if "://" in place:
        return f"{place.rstrip('/')}/mlflow-artifacts/{study}"
    return (_home(place) / "mlflow-artifacts" / study).as_uri()


def _home(place: str) -> Path:
    """The local folder that MLflow's files are kept in, given the store."""
    return Path("results").absolute() if "://" in place else Path(place)
