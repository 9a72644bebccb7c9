"""A database of MLflow that others lock: training goes on, and MLflow then has each run exactly once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import TrackerDown
from sweep.views.mlflow.server import free_port
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


@pytest.fixture
def postgres() -> Generator[str]:
    """Start a PostgreSQL server on loopback; yield the address of its database."""
    pytest.importorskip("psycopg", reason="psycopg[binary] is not installed; it connects to PostgreSQL")
    if not (binaries := sorted(Path("/usr/lib/postgresql").glob("*/bin"))):
        pytest.skip("PostgreSQL is not installed here")
    # it refuses to run as root; in a test's own folder no other user may look
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if as_user:
            shutil.chown(folder, "postgres")
        port, data, log = free_port(0), f"{folder}/data", f"{folder}/log"
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"

        def do(program: str, *arguments: str) -> None:
            command = [*as_user, str(binaries[-1] / program), "-D", data, *arguments]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

        do("initdb", "-A", "trust", "-U", "postgres")
        do("pg_ctl", "-w", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            do("pg_ctl", "-w", "-m", "immediate", "stop")


def deadlocks(uri: str, number: int, broken: list[float], locked: threading.Event) -> None:
    """Be one side of so many deadlocks; PostgreSQL breaks off the other side. `broken` gets the times."""
    import psycopg

    with closing(psycopg.connect(uri)) as ours, closing(psycopg.connect(uri)) as watching:
        watching.autocommit = True
        look, lock = watching.cursor(), ours.cursor()

        def waiting() -> Any:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
            look.execute(query, ["latest_metrics"])
            return look.fetchall()[0][0]

        for _ in range(number):
            # who looks for a deadlock first is broken off; MLflow looks after a second
            lock.execute("SET LOCAL deadlock_timeout = '10min'")
            # MLflow writes this table after the other one
            lock.execute("LOCK TABLE latest_metrics IN SHARE MODE")
            locked.set()
            while not waiting():
                time.sleep(0.005)
            lock.execute("LOCK TABLE metrics IN SHARE MODE")
            broken.append(time.monotonic())
            ours.rollback()


@pytest.mark.timeout(300)
def test_a_database_that_breaks_a_deadlock_off_has_each_run_once_in_the_end(
    finished_sweep: Path, postgres: str, tmp_path: Path
) -> None:
    sqlite = f"sqlite:///{tmp_path / 'other' / 'mlflow.db'}"
    synced(finished_sweep, sqlite)
    view, failures, wrote = view_of(finished_sweep, postgres, []), list[str](), -1
    view.experiment.client.search_experiments(max_results=1)  # makes the tables
    broken, locked = list[float](), threading.Event()
    other = threading.Thread(target=deadlocks, args=[postgres, 2, broken, locked], daemon=True)
    other.start()
    assert locked.wait(60)
    # MLflow tries again by itself a few times, and then says that it failed
    while wrote:
        try:
            wrote = view.update(live=False)
        except TrackerDown as error:
            failures.append(str(error))
    other.join(60)
    print(f"{len(broken)} deadlocks, of which the view heard {len(failures)}")
    assert len(broken) == 2
    assert shown(postgres) == shown(sqlite)
