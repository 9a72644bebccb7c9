"""Where a study's MLflow is: its tracking address, and where its files go."""

from __future__ import annotations

import re
from pathlib import Path

NONE = "none"
"""As a URI: no MLflow at all."""


def uri_of(given: str | None, place: str) -> str:
    """The tracking URI: as given, or SQLite in the store's folder (in ./results where the store is a bucket)."""
    return given or f"sqlite:///{_home(place) / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def artifacts_of(uri: str, place: str, study: str) -> str | None:
    """Where files go: a server decides for itself, a database needs a place."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    return (
        f"{place.rstrip('/')}/mlflow-artifacts/{study}"
        if "://" in place
        else (_home(place) / "mlflow-artifacts" / study).as_uri()
    )


def _home(place: str) -> Path:
    return Path("results").absolute() if "://" in place else Path(place)
