"""Views of a finished study in MLflow, for the tests that have a fixture `finished` with its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.views import database, synced


@pytest.fixture(scope="module")
def once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a view that was made by one update after the sweep."""
    uri = database(tmp_path_factory.mktemp("once") / "mlflow.db")
    synced(finished, uri)
    return uri


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A database without anything in it."""
    return database(tmp_path / "view" / "mlflow.db")
