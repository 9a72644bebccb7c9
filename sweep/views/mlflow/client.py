"""An experiment of MLflow and its runs, each found by a key of ours. No other file imports MLflow.

Doing a thing twice has the same effect as doing it once. A run is looked up by its key before it is made.
After any error all runs are looked up again. Where several have one key, the run with the smallest id stays.
"""

from __future__ import annotations

import logging
import tempfile
import textwrap
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from sweep.errors import TrackerDown
from sweep.views.mlflow.address import SQLITE, shown_uri, without_secrets
from sweep.views.mlflow.points import Point
from trainer.store import StoreError, open_store

MOST_METRICS, MOST_WORDS = 1000 - 2 * 100, 100
"""Limits of one request: MLflow takes 1,000 items, at most 100 of them parameters and 100 of them tags."""
TAG_LENGTH, EXPERIMENT_TAG_LENGTH = 5000, 20_000
KEY, OWNER, NAME = "sweep.key", "sweep.ledger", "mlflow.runName"
REFUSED = (
    "it refuses this user and password. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; for "
    "studies that are handed in, before `ray start` on the cluster's head."
)
EPOCH_ZERO_MS, STEP_MS = 1_600_000_000_000, 60_000
"""A point's time follows from its step. The same point with another time would be stored twice."""


@dataclass
class TrackedRun:
    """A run as MLflow has it."""

    id: str
    status: str
    tags: dict[str, str]
    params: set[str] = field(default_factory=set)


class Experiment:
    """One experiment of MLflow. `open` reads it, and reads it again after an error."""

    def __init__(self, uri: str, name: str, owner: str, artifacts: str | None) -> None:
        """Connect to nothing yet.

        `owner` is the ledger that the experiment shows. `artifacts` is the folder for its files, or None
        where the server decides.
        """
        self.uri, self.name, self.owner, self.artifacts = uri, name, owner, artifacts
        self.id = ""
        self.tags: dict[str, str] = {}
        self.runs: dict[str, TrackedRun] = {}
        self.writes = self.points = 0
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's own client."""
        if self._client is None:
            # what fails is told by `errors` in a line; MLflow would log it with a traceback too
            logging.getLogger("mlflow").setLevel(logging.CRITICAL)
            logging.getLogger("alembic").setLevel(logging.ERROR)
            _begin_database(self.uri)
            self._client = MlflowClient(self.uri)
        return self._client

    @property
    def where(self) -> str:
        """The tracking address without its password."""
        return shown_uri(self.uri)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn every error of MLflow into TrackerDown. The next `open` then looks everything up again."""
        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError, OSError, ImportError) as error:
            self.id = ""
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if (
                isinstance(error, MlflowException)
                and error.get_http_status_code() == HTTPStatus.UNAUTHORIZED
            ):
                first = REFUSED
            reason = textwrap.shorten(without_secrets(first, self.uri), 300, placeholder=" ...")
            raise TrackerDown(f"MLflow at {self.where}: {reason}") from error

    def open(self) -> None:
        """Find or make the experiment, and read its runs. Of runs with one key the smallest id stays."""
        if not self.id:
            self._find()
        self.runs.clear()
        for run in sorted(self._listed(), key=lambda run: run.info.run_id):
            info, data = run.info, run.data
            key = data.tags.get(KEY)
            if key in self.runs:
                self.delete_id(info.run_id)
            elif key:
                self.runs[key] = TrackedRun(info.run_id, info.status, dict(data.tags), set(data.params))

    def _find(self) -> None:
        """Find this ledger's experiment, or make it.

        The second name is used where another ledger's study has the first one in the same MLflow.
        """
        names = [self.name, f"{self.name} @ {self.owner}"]
        for name in names:
            experiment = self.client.get_experiment_by_name(name)
            ours = experiment is not None and experiment.tags.get(OWNER) == self.owner
            if experiment and OWNER in experiment.tags and (ours or self._beside_ledger()):
                if experiment.lifecycle_stage == "deleted":
                    self.client.restore_experiment(experiment.experiment_id)
                if ours:
                    self.id, self.tags = experiment.experiment_id, dict(experiment.tags)
                    return
                # it was moved or copied with the ledger, and its artifacts go to the old address
                old = experiment.experiment_id
                self.client.rename_experiment(old, f"{name} before it was moved ({old})")
                self.client.delete_experiment(old)
                experiment = None
            if experiment is None:
                self.id = self.client.create_experiment(name, self.artifacts, {OWNER: self.owner})
                self.tags = {}
                return
        raise TrackerDown(
            f"MLflow at {self.where}: the experiments {' and '.join(map(repr, names))} "
            "belong to other ledgers. Rename one there."
        )

    def _beside_ledger(self) -> bool:
        """Whether the database is in the store's folder. No other ledger there has a study of this name."""
        return (
            self.uri.startswith(SQLITE)
            and Path(self.uri.removeprefix(SQLITE)).absolute().parent == Path(self.owner).parent
        )

    def _listed(self) -> Iterator[Any]:
        """All runs of the experiment, as MLflow has them."""
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.id], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def ensure(self, key: str, name: str, start_ms: int | None, tags: Mapping[str, str]) -> TrackedRun:
        """The run with a key, made where there is none. A run that is there already is left as it is."""
        if run := self.runs.get(key):
            return run
        all_tags = {KEY: key, NAME: name, **tags}
        run = self.client.create_run(self.id, start_time=start_ms, tags=all_tags, run_name=name)
        self.writes += 1
        self.runs[key] = TrackedRun(run.info.run_id, "RUNNING", all_tags)
        return self.runs[key]

    def send(
        self,
        run: TrackedRun,
        points: Iterable[Point] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metric points, then the parameters and tags that the run lacks.

        Parameters and tags go with the last points, because a tag may record what was sent.
        """
        metrics = [
            Metric(point.key, point.value, EPOCH_ZERO_MS + point.step * STEP_MS, point.step)
            for point in points
        ]
        new = [Param(key, str(value)) for key, value in (params or {}).items() if key not in run.params]
        short = {key: value[:TAG_LENGTH] for key, value in (tags or {}).items()}
        changed = [RunTag(key, value) for key, value in short.items() if run.tags.get(key) != value]
        assert max(len(new), len(changed)) <= MOST_WORDS
        while len(metrics) > MOST_METRICS:
            self._log(run, metrics[:MOST_METRICS])
            metrics = metrics[MOST_METRICS:]
        if metrics or new or changed:
            self._log(run, metrics, new, changed)
        run.params |= {param.key for param in new}
        run.tags |= {tag.key: tag.value for tag in changed}

    def _log(
        self,
        run: TrackedRun,
        metrics: list[Metric],
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        self.client.log_batch(run.id, metrics, params, tags)
        self.writes, self.points = self.writes + 1, self.points + len(metrics)

    def status(self, run: TrackedRun, status: str, end_ms: int | None) -> None:
        """Set a run's status, and its end unless it is running."""
        if run.status == status:
            return
        if status == "RUNNING":
            self.client.update_run(run.id, status)
        else:
            self.client.set_terminated(run.id, status, end_ms)
        run.status = status
        self.writes += 1

    def text(self, run: TrackedRun, name: str, content: str) -> None:
        """Write a text file among a run's artifacts."""
        self.client.log_text(run.id, content, name)
        self.writes += 1

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set those of the experiment's own tags that differ."""
        short = {key: value[:EXPERIMENT_TAG_LENGTH] for key, value in tags.items()}
        for key, value in short.items():
            if self.tags.get(key) != value:
                self.client.set_experiment_tag(self.id, key, value)
                self.tags[key] = value
                self.writes += 1

    def delete(self, key: str) -> None:
        """Delete the run with a key."""
        self.delete_id(self.runs.pop(key).id)

    def delete_id(self, run_id: str) -> None:
        """Delete a run. Its children stay."""
        self.client.delete_run(run_id)
        self.writes += 1


def _begin_database(uri: str) -> None:
    """Make a new SQLite database, so that it appears whole or not at all.

    Making its tables takes seconds. MLflow cannot repair a database that has only some of them.
    """
    file = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or "?" in uri or file.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "mlflow.db"
        MlflowClient(f"{SQLITE}{database}").search_experiments(max_results=1)
        try:
            open_store(file.parent).create(file.name, database.read_bytes())
        except StoreError as error:
            raise TrackerDown(f"{error} Give --mlflow-uri the address of a server instead.") from error
