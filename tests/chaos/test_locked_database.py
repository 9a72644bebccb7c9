"""A database of MLflow that others lock: training goes on, and MLflow then has each run exactly once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.tally import ROUNDS, assert_whole
from tests.sweeps import UNHURRIED, Started, folders, write_study
from tests.views import MLFLOWS_OWN, shown, synced, view_of

pytestmark = [MLFLOWS_OWN, pytest.mark.chaos]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_a_database_that_another_process_locks_stops_no_run_and_is_complete_in_the_end(
    _: int, tmp_path: Path, undisturbed: Path
) -> None:
    study, file = write_study(tmp_path, **UNHURRIED), tmp_path / "mlflow.db"

    def shown_runs() -> int:
        if not file.exists():
            return 0
        with closing(sqlite3.connect(file)) as database:
            return database.execute("SELECT count(*) FROM runs").fetchone()[0]

    def finished() -> int:
        return sum((folder / "outcome.json").exists() for folder in folders(tmp_path))

    arguments = ("--store", tmp_path, "--mlflow-uri", f"sqlite:///{file}")
    with Started(tmp_path, "run", study, *arguments) as started:
        started.until(shown_runs)
        with closing(sqlite3.connect(file, timeout=60)) as database:
            database.execute("BEGIN EXCLUSIVE")
            before = finished()
            # every run ends while the database is locked
            started.until(lambda: finished() == 18)
            database.rollback()
        assert started.wait() == 0, started.log.read_text()
    print(f"{18 - before} runs finished while the database was locked")
    print(started.log.read_text())
    assert before < 18
    assert "MLflow is behind" not in started.log.read_text()
    assert_whole("a locked database", 1, tmp_path, undisturbed)
    assert view_of(tmp_path, f"sqlite:///{file}").update(live=False) == 0
    synced(tmp_path, f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")
    found = shown(f"sqlite:///{file}")
    # the report is not drawn by the update of a test
    del found["report"]
    assert found == shown(f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}")
