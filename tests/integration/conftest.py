"""Views of a finished study in MLflow, for tests with a fixture `finished`, and trainers of many runs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.crews import command
from tests.sweeps import descendants, environment


@pytest.fixture(scope="module")
def once(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a view that was made by one update after the sweep."""
    from tests.views import database, synced  # a machine that only trains has no MLflow, and tests its GPU

    uri = database(tmp_path_factory.mktemp("once") / "mlflow.db")
    synced(finished, uri)
    return uri


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A database without anything in it."""
    from tests.views import database

    return database(tmp_path / "view" / "mlflow.db")


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start trainers of lines, and end what is left of them."""
    running: list[subprocess.Popen[str]] = []

    def start(lines: str, store: Path, *more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command(store, 2, *more), cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
            env=environment(),
        )  # fmt: skip
        running.append(process)
        assert process.stdin
        process.stdin.write(lines)
        process.stdin.close()
        process.stdin = None
        return process

    yield start
    for process in running:
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
