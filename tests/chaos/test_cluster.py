"""Two nodes on one machine: one is lost, one freezes and comes back, one cannot do the work.

The sweep ends with the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clusters import head_of, write_token
from tests.integration.exported import values_of
from tests.own_models import SMALL, SMALL_STUDY
from tests.sweeps import (
    AS_URGENT,
    FAULTS,
    UNHURRIED,
    Started,
    descendants,
    folders,
    generations,
    hosts,
    rows,
    sweep,
    works_on_attempts,
    write_study,
)

pytestmark = pytest.mark.chaos


@contextmanager
def two_nodes(
    monkeypatch: pytest.MonkeyPatch, folder: Path, second: dict[str, str] | None = None, **each: int
) -> Generator[Any]:
    """Start a cluster: a head without CPUs, and two nodes with one CPU each, or what `each` says.

    Its token is in the folder, and commands that the test starts find it by the environment. `second` is
    added to the second node's environment.
    """
    each = each or {"num_cpus": 1}
    monkeypatch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{Path.cwd()}")
    for name, value in AS_URGENT.items():
        monkeypatch.setenv(name, value)
    with head_of(monkeypatch, write_token(folder), num_cpus=0) as cluster:
        cluster.add_node(**each)
        for name, value in (second or {}).items():
            monkeypatch.setenv(name, value)
        cluster.bad = cluster.add_node(**each)
        for name in second or {}:
            monkeypatch.delenv(name)
        cluster.wait_for_nodes()
        yield cluster


def processes(node: Any) -> list[int]:
    """Return a node's raylet, its agents and its workers."""
    own = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return [pid for root in own for pid in (root, *descendants(root))]


def working_on(node: Any) -> bool:
    return any(
        works_on_attempts(Path(f"/proc/{pid}/cmdline").read_bytes())
        for pid in processes(node)
        if Path(f"/proc/{pid}").exists()
    )


def started_on(cluster: Any, folder: Path, study: Path) -> Started:
    return Started(folder, "run", study, "--store", folder, "--ray-address", cluster.address)


def checkpoints(store: Path) -> bool:
    return any((store / "small" / "runs").glob("*/attempt-*/checkpoint-*"))


@pytest.mark.timeout(600)
def test_a_node_that_is_lost_costs_its_attempts_and_nothing_else(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, **UNHURRIED)
    with (
        two_nodes(monkeypatch, tmp_path) as cluster,
        Started(tmp_path, "run", study, "--store", tmp_path, "--ray-address", cluster.address) as started,
    ):
        started.until(lambda: checkpoints(tmp_path) and working_on(cluster.bad))
        cluster.remove_node(cluster.bad, allow_graceful=False)
        assert started.wait() == 0, started.log.read_text()
    assert rows(tmp_path) == rows(undisturbed)
    assert generations(tmp_path) == generations(undisturbed)


@pytest.mark.timeout(600)
def test_hosts_work_on_every_node_and_a_node_that_is_lost_takes_its_own_along(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, **UNHURRIED, resources={"gpus": 0.5, "attempts": 1, "commit_share": 1})
    monkeypatch.setenv("PRETENDED_GPUS", "1")
    with (
        two_nodes(monkeypatch, tmp_path, num_cpus=2, num_gpus=1) as cluster,
        Started(tmp_path, "run", study, "--store", tmp_path, "--ray-address", cluster.address) as started,
    ):
        started.until(lambda: checkpoints(tmp_path) and hosts(processes(cluster.bad)))
        cluster.remove_node(cluster.bad, allow_graceful=False)
        assert started.wait() == 0, started.log.read_text()
    assert rows(tmp_path) == rows(undisturbed)
    assert generations(tmp_path) == generations(undisturbed)


@pytest.mark.timeout(900)
def test_a_node_that_is_frozen_and_let_go_changes_nothing(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, **UNHURRIED)
    with (
        two_nodes(monkeypatch, tmp_path) as cluster,
        Started(tmp_path, "run", study, "--store", tmp_path, "--ray-address", cluster.address) as started,
    ):
        started.until(lambda: checkpoints(tmp_path) and working_on(cluster.bad))
        frozen = processes(cluster.bad)
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + 90
        while time.monotonic() < until and started.process.poll() is None:
            time.sleep(0.5)
        before = {
            folder: (folder / "outcome.json").read_bytes()
            for folder in folders(tmp_path)
            if (folder / "outcome.json").exists()
        }
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert started.wait() == 0, started.log.read_text()
        for folder, outcome in before.items():
            assert (folder / "outcome.json").read_bytes() == outcome
    assert rows(tmp_path) == rows(undisturbed)
    assert generations(tmp_path) == generations(undisturbed)


@pytest.mark.timeout(600)
def test_work_is_kept_away_from_a_node_on_which_everything_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {
        "dense": {"policy": {"name": "faulty", "how": "homeless"}},
        "additive": {"policy": {"name": "additive-reset", "step": 0.3}},
    }
    study = write_study(tmp_path, arms=arms)
    monkeypatch.setenv("HOMELESS", str(tmp_path / "seen"))
    with two_nodes(monkeypatch, tmp_path, {"NODE_ROLE": "bad"}) as cluster:
        done = sweep("run", study, "--store", tmp_path, "--ray-address", cluster.address, "--json")
    assert done.returncode == 0, done.stderr
    assert "the data is not on this node" in done.stderr
    assert json.loads(done.stdout)["complete"]


@pytest.mark.timeout(600)
def test_a_sweep_is_refused_where_no_node_has_the_data_and_each_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, task={"data": "cifar10", "model": "wrn-10-1"})
    with two_nodes(monkeypatch, tmp_path) as cluster:
        done = sweep(
            "run", study, "--store", tmp_path, "--data-dir", tmp_path, "--ray-address", cluster.address
        )
    assert done.returncode == 3
    assert done.stderr.count("node ") >= 2
    assert "python -m trainer.data cifar10" in done.stderr


def write_own_study(folder: Path) -> Path:
    """Write a study with a model of one's own; return its path. There are folders for two versions of it."""
    for place in ("code", "other"):
        (folder / place).mkdir()
    study = folder / "small.yaml"
    study.write_text(yaml.safe_dump(values_of(SMALL_STUDY), sort_keys=False))
    return study


@pytest.mark.timeout(600)
def test_a_package_of_ones_own_travels_to_every_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_own_study(tmp_path)
    (tmp_path / "code" / "small.py").write_text(SMALL)
    with two_nodes(monkeypatch, tmp_path) as cluster:
        done = sweep(
            *("run", study, "--store", tmp_path, "--ray-address", cluster.address, "--allow-code", "small"),
            env={"PYTHONPATH": str(tmp_path / "code")},
        )
    assert done.returncode == 0, done.stderr
    records = [path.read_text() for path in tmp_path.glob("small/runs/*/attempt-1/attempt.json")]
    assert len(records) == 12
    hashes = {json.loads(record)["own_code"] for record in records}
    assert hashes == {f"small {hashlib.sha256(SMALL.encode()).hexdigest()[:16]}"}


@pytest.mark.timeout(600)
def test_a_node_with_another_version_of_the_package_gets_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_own_study(tmp_path)
    (tmp_path / "code" / "small.py").write_text(SMALL)
    (tmp_path / "other" / "small.py").write_text(f"{SMALL}# another version\n")
    with two_nodes(monkeypatch, tmp_path, {"OTHER_CODE": str(tmp_path / "other")}) as cluster:
        done = sweep(
            *("run", study, "--store", tmp_path, "--ray-address", cluster.address, "--allow-code", "small"),
            env={"PYTHONPATH": str(tmp_path / "code")},
        )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("node ")]
    assert "the package small is " in line
    assert "no work goes to it." in line
    records = [path.read_text() for path in tmp_path.glob("small/runs/*/attempt-1/attempt.json")]
    hashes = {json.loads(record)["own_code"] for record in records}
    assert hashes == {f"small {hashlib.sha256(SMALL.encode()).hexdigest()[:16]}"}


def test_a_driver_outside_the_cluster_is_refused(tmp_path: Path) -> None:
    done = sweep("run", write_study(tmp_path), "--store", tmp_path, "--ray-address", "ray://127.0.0.1:10001")
    assert done.returncode == 2
    assert "host:6379" in done.stderr
