"""Nodes that are lost or drained, and a head that is gone: what it costs a run, and who is to blame."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.test_cluster import processes, two_nodes, working_on
from tests.clusters import head_of, write_token
from tests.sweeps import UNHURRIED, Started, folders, rows, sweep, write_study

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SLOW_EPOCHS = {"EPOCH_SECONDS": "0.3"}
HOLD_A_CPU = """
import sys, ray
from ray.util.placement_group import placement_group
ray.init(sys.argv[1], logging_level="error")
ray.get(placement_group([{"CPU": 1}]).ready())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def one_left(undisturbed: Path, tmp_path: Path) -> Path:
    """A store in which all runs but one have finished."""
    shutil.copytree(undisturbed / "small", tmp_path / "small")
    shutil.rmtree(last_run(tmp_path))
    return tmp_path


def last_run(store: Path) -> Path:
    """Return the folder of the run that has not finished, or of the last one."""
    every = folders(store)
    return next((folder for folder in every if not (folder / "outcome.json").exists()), every[-1])


def study_in(store: Path, **resources: Any) -> Path:
    return write_study(store, **UNHURRIED, resources={"attempts": 1, "commit_share": 1, **resources})


def started_on(cluster: Any, store: Path, study: Path, env: Mapping[str, str] = SLOW_EPOCHS) -> Started:
    return Started(store, "run", study, "--store", store, "--ray-address", cluster.address, env=env)


def kill(cluster: Any, node: Any) -> None:
    """Kill everything on a node at once."""
    for pid in processes(node):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def kept(store: Path) -> list[str]:
    """Return the checkpoints of the run that is left, of which the last attempt made some."""
    attempts = sorted(last_run(store).glob("attempt-*"))
    return [path.name for path in attempts[-1].glob("checkpoint-*")] if attempts else []


@pytest.mark.timeout(300)
def test_a_run_whose_node_is_lost_three_times_loses_no_try_and_no_row(
    one_left: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(one_left)
    for name, value in SLOW_EPOCHS.items():
        monkeypatch.setenv(name, value)
    with two_nodes(monkeypatch, one_left) as cluster, started_on(cluster, one_left, study) as started:
        for lost in range(3):
            there = started.until(
                lambda: next((node for node in cluster.worker_nodes if working_on(node)), None)
            )
            started.until(lambda lost=lost: kept(one_left) and len(attempts(one_left)) == lost + 1)
            kill(cluster, there)
            cluster.add_node(num_cpus=1)
        assert started.wait() == 0, started.log.read_text()
    text = started.log.read_text()
    assert text.lower().count("no try is spent") == 3, text
    assert "given up" not in text
    assert rows(one_left) == rows(undisturbed)


def attempts(store: Path) -> list[Path]:
    return list(last_run(store).glob("attempt-*"))


@pytest.mark.timeout(300)
def test_a_run_whose_process_is_killed_on_a_node_that_lives_is_given_up_when_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {
        "dense": {"policy": {"name": "dense"}},
        "additive": {"policy": {"name": "faulty", "how": "killed"}, "task": {}},
    }
    study = write_study(tmp_path, arms=arms, resources={"attempts": 1})
    with two_nodes(monkeypatch, tmp_path) as cluster:
        done = sweep(
            *("run", study, "--store", tmp_path, "--ray-address", cluster.address),
            env={"FATE_SECONDS": "4"},
        )
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("Its node lives. ") >= 6, done.stderr
    assert "6 runs failed" in done.stderr


def drain(cluster: Any, node: Any) -> None:
    command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.address]
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "sold"]
    deadline = ["--deadline-remaining-seconds", "60"]
    subprocess.run([*command, "--node-id", node.node_id, *reason, *deadline], check=True)


@pytest.mark.timeout(300)
def test_a_run_on_a_node_that_is_drained_commits_and_goes_on_elsewhere(
    one_left: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # without a drain, the first commit would be that of the last epoch
    study = study_in(one_left, commit_share=1e-6)
    for name, value in SLOW_EPOCHS.items():
        monkeypatch.setenv(name, value)
    with two_nodes(monkeypatch, one_left) as cluster, started_on(cluster, one_left, study) as started:
        there = started.until(
            lambda: (
                attempts(one_left)
                and next((node for node in cluster.worker_nodes if working_on(node)), None)
            )
        )
        drain(cluster, there)
        started.until(lambda: len(attempts(one_left)) == 2)
        kill(cluster, there)
        assert started.wait() == 0, started.log.read_text()
    text = started.log.read_text()
    assert "its node is being drained. It goes on elsewhere; no try is spent." in text
    assert "kept by attempt 1" in text
    assert rows(one_left) == rows(undisturbed)


@pytest.mark.timeout(300)
def test_a_sweep_that_waits_for_room_does_not_count_a_head_that_is_drained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with head_of(monkeypatch, write_token(tmp_path), num_cpus=2) as cluster:
        # a node that is drained ends as soon as nothing is on it
        hold = [sys.executable, "-c", HOLD_A_CPU, cluster.address]
        with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holding:
            assert holding.stdout
            assert holding.stdout.readline() == b"held\n"
            drain(cluster, cluster.head_node)
            with started_on(cluster, tmp_path, write_study(tmp_path)) as started:
                started.until(lambda: "waiting for a node with room" in started.log.read_text())
                said = started.log.read_text()
            holding.kill()
        assert f"({cluster.head_node.node_id[:8]}) is being drained." in said


@pytest.mark.timeout(300)
def test_a_sweep_whose_head_is_gone_says_so_and_goes_on_when_it_is_started_again(
    one_left: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(one_left)
    for name, value in SLOW_EPOCHS.items():
        monkeypatch.setenv(name, value)
    with two_nodes(monkeypatch, one_left) as cluster, started_on(cluster, one_left, study) as started:
        started.until(lambda: kept(one_left))
        cluster.head_node.kill_gcs_server(check_alive=False)
        assert started.wait() == 3, started.log.read_text()
    text = started.log.read_text()
    assert text.count("does not answer") == 1, text
    assert "Traceback" not in text
    done = sweep("run", study, "--store", one_left)
    assert done.returncode == 0, done.stderr
    assert "kept by attempt 1" in done.stderr
    assert rows(one_left) == rows(undisturbed)


@pytest.mark.timeout(300)
def test_a_head_that_comes_back_with_its_tables_costs_no_attempt(
    one_left: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(one_left)
    keeps = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(one_left / "tables")}
    for name, value in {**SLOW_EPOCHS, **keeps}.items():
        monkeypatch.setenv(name, value)
    with two_nodes(monkeypatch, one_left) as cluster, started_on(cluster, one_left, study) as started:
        started.until(lambda: kept(one_left))
        cluster.head_node.kill_gcs_server(check_alive=False)
        cluster.head_node.start_gcs_server()
        assert started.wait() == 0, started.log.read_text()
    assert len(attempts(one_left)) == 1
    assert rows(one_left) == rows(undisturbed)
