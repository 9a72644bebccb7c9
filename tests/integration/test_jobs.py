"""Studies that are handed in to a cluster, from a machine that has its address and its token."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.study import load
from tests.clusters import head_with_dashboard, write_token
from tests.integration.exported import values_of
from tests.loops import drive
from tests.own_models import SMALL, SMALL_STUDY
from tests.servers import Silent, serving
from tests.sweeps import AS_URGENT, committed, final, generations, rows, sweep, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STUDY: dict[str, Any] = {"task": {"epochs": 40, "evaluate_every": 20}}
"""Runs of half a second or so, of which a stop finds some under way."""
KEY = "canary-of-a-key"
NOBODY = {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": ""}


@dataclass(frozen=True)
class Head:
    """A cluster with a dashboard, as somebody sees it who has its address and its token."""

    dashboard: str
    auth: dict[str, str]
    session: Path
    """Where Ray keeps its files."""

    def __call__(self, command: str, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        at = {"RAY_API_SERVER_ADDRESS": self.dashboard, **self.auth, "AWS_SECRET_ACCESS_KEY": KEY}
        return sweep(command, *arguments, env={**at, **env})

    def submit(self, study: Path, store: Path | str, *more: str, **env: str) -> str:
        done = self("submit", study, "--store", store, *more, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log(self, study: str = "small") -> str:
        """What the latest job has printed, once it has ended."""
        done = self("logs", study, "--follow")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, store: Path | str) -> str:
        listed = json.loads(self("list", "--json").stdout)
        return next(job["state"] for job in listed if job["store"] == str(store))


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory, s3_environment: dict[str, str]) -> Iterator[Head]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        # the cluster's own keys; those of whoever hands in are others
        for name, value in {**AS_URGENT, **s3_environment, "MLFLOW_TRACKING_URI": "none"}.items():
            monkeypatch.setenv(name, value)
        auth = write_token(tmp_path_factory.mktemp("token"))
        with head_with_dashboard(monkeypatch, auth, num_cpus=2) as cluster:
            yield Head(cluster.dashboard, auth, Path(cluster.head_node.get_session_dir_path()))


def test_a_study_that_is_handed_in_stopped_and_handed_in_again_ends_as_if_it_had_run_here(
    head: Head, tmp_path: Path
) -> None:
    study, store = write_study(tmp_path, **STUDY), tmp_path / "store"
    assert re.fullmatch("pairsweep-small-[0-9a-f]{8}", head.submit(study, store))
    again = head("submit", study, "--store", store)
    assert again.returncode == 3
    assert re.match(
        f"small in {store} is (running|waiting to start) since .* `sweep logs small` ", again.stderr
    )
    _until_committed(store)
    stopped = head("stop", "small")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith(
        f"small in {store} is stopped. To go on: python -m sweep submit small.yaml "
    )
    assert head.state(store) == "stopped"
    status = sweep("status", study, "--store", store).stdout
    assert f"To go on: python -m sweep submit {study} --store {store}" in status
    log = head.log()
    assert "SIGTERM: no more runs are begun" in log
    assert f"stopped by SIGTERM. To continue: sweep submit small.yaml --store {store}" in log
    kept = committed(store)
    assert kept
    assert head("stop", "small").stdout == "small: nothing runs.\n"

    head.submit(study, store)
    assert "done: 18 runs." in head.log()
    assert head.state(store) == "done"
    assert kept.items() <= final(store).items()
    drive(load(study), tmp_path / "here")
    assert rows(store) == rows(tmp_path / "here")
    assert generations(store) == generations(tmp_path / "here")

    grown = write_study(tmp_path, **STUDY, confirm={"seeds": 7})
    head.submit(grown, store)
    assert "--extend accepts that" in head.log()
    assert head.state(store) == "refused"
    head.submit(grown, store, "--extend")
    assert "done: 20 runs." in head.log()


def _until_committed(store: Path) -> None:
    """Wait until a run has committed an epoch."""
    end = time.monotonic() + 200
    while not committed(store):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_code_of_ones_own_travels_and_no_key_does_and_a_bucket_is_read_from_anywhere(
    head: Head, bucket: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    study = tmp_path / "owned.yaml"
    study.write_text(yaml.safe_dump(values_of(SMALL_STUDY), sort_keys=False))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "small.py").write_text(SMALL)
    head.submit(study, bucket, "--allow-code", "small", PYTHONPATH=str(tmp_path / "code"))
    assert "done: 12 runs." in head.log("owned")
    status = sweep("status", study, "--store", bucket, "--json", env=s3_environment)
    assert json.loads(status.stdout)["complete"], status.stderr
    report = sweep("report", study, "--store", bucket, "--to", tmp_path / "page.html", env=s3_environment)
    assert report.stdout.startswith("set over dense: "), report.stderr
    texts = {path.name: path.read_bytes() for path in head.session.rglob("*") if path.is_file()}
    assert len(texts) > 5
    assert [name for name, text in texts.items() if KEY.encode() in text] == []


def test_the_token_has_to_be_here_and_be_the_clusters(head: Head, tmp_path: Path) -> None:
    study, home = write_study(tmp_path), tmp_path / "home"
    home.mkdir()
    missing = head("submit", study, "--store", tmp_path, **NOBODY, HOME=str(home))
    wrong = head("submit", study, "--store", tmp_path, **write_token(home))
    listed = head("list", **write_token(home))
    unreadable = head("list", **{**write_token(home), "RAY_AUTH_TOKEN_PATH": str(home / "none")})
    refused, no_file = "refuses the token that is set here", "none: cannot be read, or is empty"
    for done, why in (
        (missing, "asks for a token"), (wrong, refused), (listed, refused), (unreadable, no_file)
    ):  # fmt: skip
        assert done.returncode == 3, done.stderr
        assert why in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path) not in head("list").stdout.split()


def test_nothing_is_sent_to_a_cluster_without_a_token(tmp_path: Path) -> None:
    class Open(Silent):
        """The dashboard of a cluster that asks for no token."""

        def do_GET(self) -> None:  # noqa: N802  (the base class's name)
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"ray_version": "2.60.0"}')

    asked: list[tuple[str, str | None]] = []
    with serving(Open) as address:
        done = sweep(
            *("submit", write_study(tmp_path), "--store", tmp_path, "--address", address),
            env=write_token(tmp_path),
        )
    assert done.returncode == 3, done.stderr
    assert "has no token" in done.stderr
    assert asked == [("/api/version", None)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--store", "results"], "--store results: must be a place that every node has"),
        (["--store", "/x", "--data-dir", "data"], "--data-dir data: must be a place that every node has"),
        (["--store", "/x", "--mlflow-uri", "http://me:secret@host"], "http://***@host: a job cannot keep"),
        (["--store", "/x", "--address", "head:6379"], "--address head:6379: give the URL of the cluster's"),
        (["--store", "/x", "--address", "http://me:secret@host"], "--address http://***@host: give the URL"),
    ],
)
def test_what_cannot_work_on_a_cluster_is_told_before_it_is_asked(
    tmp_path: Path, options: list[str], why: str
) -> None:
    done = sweep(
        *("submit", write_study(tmp_path), *options),
        env={"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9"},
    )
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert "secret" not in done.stderr


def test_a_dashboard_that_does_not_answer_is_told_in_a_line(tmp_path: Path) -> None:
    done = sweep("list", "--address", "http://127.0.0.1:9", env=write_token(tmp_path))
    assert done.returncode == 3
    assert done.stderr.startswith(
        "http://127.0.0.1:9 does not answer (ConnectionError). A dashboard listens on"
    )
    assert done.stderr.count("\n") == 1
