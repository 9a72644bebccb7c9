"""MLflow for tests: views of a ledger, everything that they show, and ledgers that fill run by run."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from sweep.ledger.ledger import Ledger
from sweep.views.mlflow.address import artifacts_of
from sweep.views.mlflow.client import KEY, OWNER, Experiment
from sweep.views.mlflow.server import serving
from sweep.views.mlflow.view import View
from trainer.rows import EpochRow, from_parquet, to_parquet
from trainer.store import digest

MLFLOWS_OWN = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"
)
"""A warning that MLflow 3.17 causes, and nobody can avoid."""
PARENT = "mlflow.parentRunId"
OWN = (PARENT, OWNER, "mlflow.user", "mlflow.source.name", "mlflow.source.type", "page")
"""Tags that say who wrote where, and not what."""


@dataclass(frozen=True)
class Shown:
    """An MLflow run, with its parent by key."""

    name: str
    status: str
    parent: str | None
    times: tuple[int | None, int | None]
    """The start of a seed's run, and the end of what has finished."""
    params: dict[str, str]
    tags: dict[str, str]
    points: dict[tuple[str, int], tuple[float | str, int]]
    """Value and time, by key and step."""


def database(file: Path) -> str:
    """The URI of an empty database. MLflow takes seconds to make one, so it is made once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_bytes(_empty_database())
    return f"sqlite:///{file}"


@cache
def _empty_database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments(max_results=1)
        return (Path(folder) / "mlflow.db").read_bytes()


def view_of(store: Path, uri: str, said: list[str] | None = None, study: str = "small") -> View:
    """Make a view of a ledger in this process."""
    ledger = Ledger(str(store), study, print if said is None else said.append)
    return View(
        ledger,
        Experiment(uri, study, ledger.store.where(), artifacts_of(uri, str(store), study)),
        ledger.say,
    )


def synced(store: Path, uri: str, study: str = "small") -> View:
    """Bring a view up to date; a second update must change nothing."""
    view = view_of(store, uri, study=study)
    view.update(live=False)
    assert view.update(live=False) == 0
    return view


def shown(uri: str, name: str = "small", tables: str = "") -> dict[str, Shown]:
    """Return every run that an experiment shows, by key.

    Each key may belong to one run, and each step of a metric may have one value. `tables` is the address of
    the database where `uri` is a server's.
    """
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert experiment.lifecycle_stage == "active"
    runs = client.search_runs(
        [experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000
    )
    keys = {run.info.run_id: run.data.tags[KEY] for run in runs}
    assert len(set(keys.values())) == len(runs)
    points = points_of(tables or uri)
    found: dict[str, Shown] = {}
    for run in runs:
        tags, info = run.data.tags, run.info
        parent = keys[tags[PARENT]] if PARENT in tags else None  # a parent that is not active is an error
        own = {key: value for key, value in tags.items() if key not in OWN}
        times = (info.start_time if parent else None, info.end_time if info.status == "FINISHED" else None)
        found[keys[info.run_id]] = Shown(
            str(info.run_name), info.status, parent, times, run.data.params, own, points.get(info.run_id, {})
        )
    return found


def files(uri: str, name: str) -> dict[str, dict[str, bytes]]:
    """Return the files of every run that an experiment shows, by key and name."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found: dict[str, dict[str, bytes]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        names = [file.path for file in client.list_artifacts(run.info.run_id)]
        with tempfile.TemporaryDirectory() as folder:
            found[run.data.tags[KEY]] = {
                file: Path(client.download_artifacts(run.info.run_id, file, folder)).read_bytes()
                for file in names
            }
    return found


def points_of(uri: str) -> dict[str, dict[tuple[str, int], tuple[float | str, int]]]:
    """Return every metric point of a database by run, key and step.

    It reads the table itself: asking MLflow for each metric takes a minute.
    """
    found: dict[str, dict[tuple[str, int], tuple[float | str, int]]] = {}
    query = sqlalchemy.text("SELECT run_uuid, key, step, value, timestamp, is_nan FROM metrics")
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as read:
        for run, key, step, value, moment, is_nan in read.execute(query):
            points = found.setdefault(run, {})
            assert (key, step) not in points, f"{key} has two values at step {step}"
            points[key, step] = ("nan" if is_nan else value, moment)
    engine.dispose()
    return found


class Filling:
    """A ledger that is filled from a finished one, in an order drawn from `seed`.

    Each run comes in parts first, or all at once.
    """

    def __init__(self, source: Path, store: Path, seed: int, study: str = "small") -> None:
        self.source, self.target, self.draw = source / study, store / study, random.Random(seed)
        self.target.mkdir(parents=True)
        shutil.copy2(self.source / "study.json", self.target)
        if (self.source / "generations").is_dir():
            shutil.copytree(self.source / "generations", self.target / "generations")
        self.left = sorted(path.name for path in (self.source / "runs").iterdir())

    def step(self, most: int = 8) -> None:
        """Let a few runs go on or finish."""
        for run_id in self.draw.sample(self.left, min(len(self.left), self.draw.randint(1, most))):
            if self.draw.random() < 0.4:
                self.begin(run_id)
            else:
                self.finish(run_id)

    def begin(self, run_id: str) -> None:
        """Add some of a run's epochs."""
        folder = self.target / "runs" / run_id / "attempt-1"
        folder.mkdir(parents=True, exist_ok=True)
        source = self.source / "runs" / run_id
        for name in ("spec.json", "attempt-1/attempt.json"):
            put(folder.parent / name, (source / name).read_bytes())
        rows = from_parquet(EpochRow, (source / "epochs.parquet").read_bytes())
        data = to_parquet(EpochRow, rows[: (count := self.draw.randint(1, len(rows)))])
        put(folder / f"epochs-{count}-{digest(data)[:16]}.parquet", data)

    def finish(self, run_id: str) -> None:
        """Add a run's outcome, which appears last; then remove the files that it does not stand for."""
        source, folder = self.source / "runs" / run_id, self.target / "runs" / run_id
        names = sorted(
            (path.relative_to(source) for path in source.rglob("*") if path.is_file()),
            key=lambda it: it.name == "outcome.json",
        )
        for name in names:
            put(folder / name, (source / name).read_bytes())
        for path in folder.rglob("epochs-*"):
            if path.relative_to(folder) not in names:
                path.unlink()
        self.left.remove(run_id)


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.partial")
    part.write_bytes(data)
    part.replace(path)


@contextmanager
def server(folder: Path, port: int) -> Generator[str]:
    """Start MLflow's own server over the database in a folder; yield its address."""
    artifacts = (folder / "artifacts").as_uri()
    with serving(database(folder / "mlflow.db"), artifacts, port, folder / "server.log"):
        yield f"http://127.0.0.1:{port}"
