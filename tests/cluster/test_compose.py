"""The services of docker/compose.yaml, from the first start to a report, and what becomes of lost ones."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import compose
from tests.cluster.compose import Container, NotUnderstood, Project
from tests.cluster.lan import Host, Lan, lives, wait_until
from tests.conftest import ROOT
from tests.sweeps import UNHURRIED, generations, rows, sweep, write_study
from tests.views import MLFLOWS_OWN, Shown, database, shown, synced
from tests.views import files as files_of

pytestmark = [MLFLOWS_OWN, pytest.mark.chaos, pytest.mark.slow]
STORE = "s3://pairsweep/sweeps"
COPY = """
import sys
from pathlib import Path
from trainer.store import open_store
source, target = open_store(sys.argv[1]), Path(sys.argv[2])
for name in source.stamps():
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(source.read(name))
"""
"""Copies a store into a folder."""
LOOK = """
import base64, pickle, sys
from tests.views import files, shown
uri, tables, study = sys.argv[1:]
found = shown(uri, study, tables), files(uri, study)
print(base64.b64encode(pickle.dumps(found)).decode())
"""
"""Prints what an MLflow server shows of a study."""


@dataclass(frozen=True)
class Cluster:
    """The project, started, with a container for the command line."""

    project: Project
    tool: Container
    studies: Path
    secrets: dict[str, str]

    def sweep(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `docker compose run --rm sweep ARGUMENTS`. It has to succeed."""
        done = self.tool.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def outside(self, script: str, *arguments: str | Path) -> str:
        """Run Python in the project's network, with all of its secrets and this machine's files."""
        env = {
            **self.project.services["mlflow"]["environment"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["s3_key"],
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow_password"],
            "PGPASSWORD": self.secrets["postgres_password"],
        }
        done = self.tool.host.call(sys.executable, "-c", script, *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ledger(self, store: str, folder: Path) -> Path:
        """A copy of a store, in a folder."""
        self.outside(COPY, store, folder)
        return folder

    def shown(self, study: str) -> tuple[dict[str, Shown], dict[str, dict[str, bytes]]]:
        """What MLflow's server shows of a study: its runs, and their files."""
        environment = self.project.services["mlflow"]["environment"]
        found = self.outside(LOOK, "http://mlflow:5000", environment["MLFLOW_BACKEND_STORE_URI"], study)
        return pickle.loads(base64.b64decode(found))

    def finished(self, study: str, *store: str) -> int:
        """How many runs of a study have ended."""
        done = self.tool.run("status", f"/studies/{study}.yaml", "--json", *store)
        return json.loads(done.stdout)["done"] if done.returncode == 0 else 0


# the file


def test_what_the_file_says_is_understood_and_a_key_that_is_not_is_an_error(tmp_path: Path) -> None:
    assert set(compose.read({})["services"]) == {"head", "worker", "mlflow", "postgres", "s3", "sweep"}
    text = compose.FILE.read_text()
    for line in ("    privileged: true", "    read_only: false", "    image: unknown:1", "    ports: $HERE"):
        (changed := tmp_path / "compose.yaml").write_text(text.replace("    profiles: [tools]", line))
        with pytest.raises(NotUnderstood):
            compose.read({}, changed)


def test_only_loopback_of_the_machine_is_listened_on_and_images_have_versions() -> None:
    services = compose.read({})["services"].values()
    ports = [port for service in services for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8265:8265", "127.0.0.1:5000:5000"]
    assert {service["image"] for service in services if ":" not in service["image"]} == {"pairsweep"}


# the services


@pytest.fixture(scope="module")
def cluster(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start the project as docs/image.md says."""
    if lan.enter:
        pytest.skip("services run as several users, which takes root")
    if packages := compose.missing():
        pytest.skip(f"missing Debian packages: {', '.join(packages)}")
    folder = tmp_path_factory.mktemp("compose")
    (docker := folder / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "secrets.sh", docker)
    subprocess.run(["sh", docker / "secrets.sh"], check=True)
    secrets = {file.name: file.read_text() for file in (docker / "secrets").iterdir()}
    (studies := folder / "studies").mkdir()
    for name, parts in (("small", {}), ("long", UNHURRIED), ("alone", {})):
        write_study(studies, name, **parts)
    project = Project(lan, folder, {"STUDIES": str(studies)}, docker / "secrets")
    try:
        project.up()
        (tool,) = project.make("sweep")
        yield Cluster(project, tool, studies, secrets)
    finally:
        project.down()


def assert_shown_like_sqlite(cluster: Cluster, study: str, ledger: Path, folder: Path, *store: str) -> None:
    """Assert that the server's view is what a view of the same ledger in SQLite is.

    On a busy machine the sweep may have ended before its view was complete, and says so.
    """
    cluster.sweep("sync", f"/studies/{study}.yaml", *store)
    uri = database(folder / "mlflow.db")
    synced(ledger, uri, study)
    found, files = cluster.shown(study)
    assert found.pop("report").status == "FINISHED"
    report = files.pop("report")["report.html"]
    assert b"</html>" in report
    assert found == shown(uri, study)
    assert files == files_of(uri, study)


def numbers(store: Path, study: str) -> tuple[Any, Any]:
    return rows(store, study), generations(store, study)


@pytest.mark.timeout(400)
def test_a_study_goes_from_the_first_start_to_its_report_and_its_view(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.sweep("submit", "/studies/small.yaml")
    told = cluster.sweep("logs", "small", "--follow").stdout
    report = cluster.sweep("report", "/studies/small.yaml").stdout
    assert "additive" in report, told
    ledger = cluster.ledger(STORE, tmp_path / "ledger")
    alone = sweep("run", cluster.studies / "small.yaml", "--store", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert numbers(ledger, "small") == numbers(tmp_path / "alone", "small")
    assert_shown_like_sqlite(cluster, "small", ledger, tmp_path)
    assert_no_secret(cluster, told + report)


@pytest.mark.timeout(400)
def test_a_database_and_a_store_that_are_killed_in_the_middle_cost_no_row_and_no_part_of_the_view(
    cluster: Cluster, tmp_path: Path
) -> None:
    # in the first study's store it would get other seeds, because that study's were looked at
    store = ("--store", f"{STORE}-of-long")
    cluster.sweep("submit", "/studies/long.yaml", *store)
    # nothing can be committed without the store, so that it comes first: enough is left for the database
    for name in ("s3", "postgres"):
        (container,) = cluster.project.containers[name]
        seen = wait_until(lambda: cluster.finished("long", *store), "a run has finished")
        assert seen < 18
        container.kill()
        if name == "postgres":
            # no run waits for a view
            wait_until(lambda seen=seen: cluster.finished("long", *store) > seen, "more runs finish")
        container.start_again()
        cluster.project.until_healthy(name)
    told = cluster.sweep("logs", "long", "--follow").stdout
    assert "done: 18 runs" in told
    ledger = cluster.ledger(store[1], tmp_path / "ledger")
    alone = sweep("run", cluster.studies / "long.yaml", "--store", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert numbers(ledger, "long") == numbers(tmp_path / "alone", "long")
    assert_shown_like_sqlite(cluster, "long", ledger, tmp_path, *store)


@pytest.mark.timeout(400)
def test_a_wrong_password_of_the_tracker_is_told_in_a_line_and_leaves_the_sweep_alone(
    cluster: Cluster,
) -> None:
    run = "MLFLOW_TRACKING_PASSWORD=wrong-one exec sweep run /studies/alone.yaml --store /tmp/alone"
    done = cluster.tool.execute("sh", "-c", run, seconds=200)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "MLFLOW_TRACKING_PASSWORD" in line]
    assert "MLflow at http://mlflow:5000: it refuses this user and password." in line
    assert "To bring it up to date: " in done.stderr
    assert "wrong-one" not in done.stdout + done.stderr


def test_stopped_it_leaves_nothing_but_its_volumes(cluster: Cluster) -> None:
    hosts = cluster.project.lan.hosts
    pids = [pid for host in hosts for pid in host.processes()]
    assert len(pids) > 20
    cluster.project.down()
    assert not [pid for pid in pids if lives(pid)]
    assert (cluster.project.folder / "volumes" / "postgres" / "of-mlflow" / "PG_VERSION").exists()


def assert_no_secret(cluster: Cluster, told: str) -> None:
    """Assert that no secret is in an argument of a process, in a log, or in what was told.

    What trains has only the secrets of a store and of Ray.
    """
    for host in cluster.project.lan.hosts:
        told += _of_processes(host, "cmdline")
    for containers in cluster.project.containers.values():
        told += "".join(it.log.read_text() for it in containers if it.log.exists())
    assert "ray start" in told
    assert not [name for name, secret in cluster.secrets.items() if secret in told]
    workers = cluster.project.containers["worker"]
    variables = "".join(_of_processes(worker.host, "environ") for worker in workers)
    assert cluster.secrets["s3_key"] in variables
    others = ("mlflow_password", "postgres_password")
    assert not [name for name in others if cluster.secrets[name] in variables]


def _of_processes(host: Host, what: str) -> str:
    """What the kernel says of a host's processes, of those that are still there."""
    found = ""
    for pid in host.processes():
        with suppress(OSError):
            found += Path(f"/proc/{pid}/{what}").read_text(errors="replace").replace("\0", " ")
    return found
