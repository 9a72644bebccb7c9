"""Runs that share a GPU are trained in one process, and a process may be killed, freeze or fail.

The GPUs are pretended: Ray believes in them, and runs are trained on the CPU. All else is real.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster import hosts as module
from sweep.cluster.hosts import Hosts
from tests.conftest import run_spec
from tests.loops import job_of
from tests.sweeps import (
    UNHURRIED,
    Started,
    actors,
    committed,
    descendants,
    final,
    generations,
    hosts,
    rows,
    sweep,
    write_study,
)
from trainer.reports import Began, Ended, Failed, Progress

pytestmark = pytest.mark.chaos


def gpus(number: int) -> dict[str, str]:
    """Return the environment in which Ray believes in so many GPUs."""
    return {"PRETENDED_GPUS": "1", "RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": number, "CPU": 4})}


def shared(root: Path, **resources: Any) -> Path:
    """Write the undisturbed study, with four runs on each GPU."""
    return write_study(
        root, **UNHURRIED, resources={"gpus": 0.25, "commit_share": 1, "attempts": 1, **resources}
    )


def commits(store: Path) -> list[Path]:
    return list((store / "small" / "runs").glob("*/attempt-*/checkpoint-*"))


def hosts_of(started: Started) -> list[int]:
    return hosts(descendants(started.process.pid))


def loads_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def assert_equal(store: Path, undisturbed: Path) -> None:
    assert rows(store) == rows(undisturbed)
    assert generations(store) == generations(undisturbed)


@pytest.mark.timeout(600)
def test_the_runs_of_a_gpu_are_trained_in_one_process_and_give_what_they_give_on_cpus(
    tmp_path: Path, undisturbed: Path
) -> None:
    with Started(tmp_path, "run", shared(tmp_path), "--store", tmp_path, env=gpus(1)) as started:
        started.until(lambda: commits(tmp_path))
        assert len(hosts_of(started)) == 1
        assert loads_torch(hosts_of(started)[0])
        working = started.until(lambda: len(found := actors(started.process.pid)) > 1 and found)
        assert not any(loads_torch(pid) for pid in working)
        assert started.wait() == 0, started.log.read_text()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_under_mps_runs_are_processes(tmp_path: Path, undisturbed: Path) -> None:
    (tmp_path / "mps").mkdir()
    (tmp_path / "mps" / "control").touch()
    env = {**gpus(1), "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "mps")}
    with Started(tmp_path, "run", shared(tmp_path), "--store", tmp_path, env=env) as started:
        started.until(lambda: commits(tmp_path))
        assert not hosts_of(started)
        assert started.wait() == 0, started.log.read_text()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_host_that_dies_costs_none_of_its_runs_a_try(
    number: signal.Signals, tmp_path: Path, undisturbed: Path
) -> None:
    with Started(tmp_path, "run", shared(tmp_path), "--store", tmp_path, env=gpus(1)) as started:
        started.until(lambda: commits(tmp_path))
        os.kill(hosts_of(started)[0], number)
        assert started.wait() == 0, started.log.read_text()
    assert "It is tried again." in started.log.read_text()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_a_host_that_freezes_is_ended_and_costs_none_of_its_runs_a_try(
    tmp_path: Path, undisturbed: Path
) -> None:
    study = shared(tmp_path, deadline=45)
    with Started(tmp_path, "run", study, "--store", tmp_path, env=gpus(1)) as started:
        started.until(lambda: commits(tmp_path))
        host = hosts_of(started)[0]
        os.kill(host, signal.SIGSTOP)
        started.until(lambda: host not in hosts_of(started))
        assert started.wait() == 0, started.log.read_text()
    assert "no progress for 45 s" in started.log.read_text()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_an_attempt_that_is_killed_leaves_its_host_and_the_others_go_on(
    tmp_path: Path, undisturbed: Path
) -> None:
    study = shared(tmp_path, attempts=20)
    with Started(tmp_path, "run", study, "--store", tmp_path, env=gpus(2)) as started:
        started.until(lambda: commits(tmp_path))
        before = hosts_of(started)
        for _ in range(3):
            with suppress(ProcessLookupError):
                os.kill(actors(started.process.pid)[0], signal.SIGKILL)
            time.sleep(1)
        assert started.over or set(before) <= set(hosts_of(started))
        assert started.wait() == 0, started.log.read_text()
    assert_equal(tmp_path, undisturbed)


@pytest.mark.timeout(600)
def test_a_signal_lets_every_run_of_a_host_keep_its_last_epoch(tmp_path: Path, undisturbed: Path) -> None:
    study = shared(tmp_path)
    # so that no run ends by itself before the signal
    slow = {**gpus(1), "EPOCH_SECONDS": "0.2"}
    with Started(tmp_path, "run", study, "--store", tmp_path, env=slow) as started:
        started.until(lambda: len({path.parts[-3] for path in commits(tmp_path)}) >= 2)
        started.process.send_signal(signal.SIGINT)
        assert started.wait() == 130, started.log.read_text()
    kept = committed(tmp_path)
    logs = [path.read_text() for path in (tmp_path / "small" / "runs").glob("*/attempt-*/log.txt")]
    assert any("stopped; what was trained is kept" in log for log in logs)
    done = sweep("run", study, "--store", tmp_path, env=gpus(1))
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path, undisturbed)
    ended = final(tmp_path)
    assert {key: ended[key] for key in kept} == kept, "an epoch that was committed was trained again"


@pytest.mark.timeout(900)
def test_kills_of_the_whole_tree_change_nothing(tmp_path: Path, undisturbed: Path) -> None:
    study, kept = shared(tmp_path), dict[tuple[str, int], Any]()
    for _ in range(3):
        before = set(commits(tmp_path))
        with Started(tmp_path, "run", study, "--store", tmp_path, env=gpus(1)) as started:
            started.until(lambda before=before: started.over or set(commits(tmp_path)) - before)
            time.sleep(0.5)
        kept |= committed(tmp_path)
    done = sweep("run", study, "--store", tmp_path, env=gpus(1))
    assert done.returncode == 0, done.stderr
    assert_equal(tmp_path, undisturbed)
    ended = final(tmp_path)
    assert {key: ended[key] for key in kept} == kept, "an epoch that was committed was trained again"


@pytest.mark.timeout(900)
def test_a_run_that_always_takes_its_host_down_is_given_up_and_no_other_one_is(tmp_path: Path) -> None:
    how = ("raises", "hangs", "killed")
    arms: dict[str, Any] = {name: {"policy": {"name": "faulty", "how": name}} for name in how}
    arms |= {"dense": {"policy": {"name": "dense"}}, "fine": {"policy": {"name": "fixed", "ratio": 0.3}}}
    study = write_study(
        tmp_path,
        arms=arms,
        confirm={"seeds": 2},
        analysis={"baseline": "dense", "endpoints": [1.0], "test": "paired-t"},
        resources={"gpus": 0.25, "attempts": 1, "deadline": 40, "commit_share": 1},
    )
    done = sweep("run", study, "--store", tmp_path, "--json", timeout=800, env=gpus(1))
    assert done.returncode == 1, done.stderr
    by_arm = {arm["arm"]: arm for arm in json.loads(done.stdout)["arms"]}
    assert {name: arm["failed"] for name, arm in by_arm.items() if arm["failed"]} == dict.fromkeys(how, 2)
    assert by_arm["dense"]["confirm_done"] == by_arm["fine"]["confirm_done"] == 2


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """Start a cluster in this process; yield the id of its one node."""
    import ray

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().get_node_id()
    ray.shutdown()


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Hosts of two runs each, which have no time to stop a run."""
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.0)
    return Hosts(2)


def began(host: Any, attempt: str, root: Path, **task: Any) -> Any:
    """Begin an attempt at a run in a host, and return the second report."""
    import ray

    assert isinstance(ray.get(host.begin.remote(attempt, job_of(str(root), run_spec(**task)))), Began)
    return ray.get(host.step.remote(attempt))


def answers(host: Any) -> bool:
    """Say whether a host goes on."""
    import ray
    from ray import exceptions

    try:
        ray.get(host.leave.remote("nobody"))
    except exceptions.RayActorError:
        return False
    return True


def ends(host: Any) -> bool:
    """Wait until a host has ended; Ray ends one a moment after it is told to."""
    until = time.monotonic() + 60
    while answers(host):
        assert time.monotonic() < until
    return True


def test_a_host_takes_as_many_runs_as_may_share_its_gpu_and_none_of_another(node: str, two: Hosts) -> None:
    first = two.enter("a", node, "0", alone=False)
    assert two.enter("b", node, "0", alone=False) is first
    elsewhere, third = two.enter("c", node, "1", alone=False), two.enter("d", node, "0", alone=False)
    assert len({first, elsewhere, third}) == 3
    two.ended("a")
    assert two.enter("e", node, "0", alone=False) is first


def test_nobody_enters_the_host_of_an_attempt_that_is_alone_and_it_ends_with_it(
    node: str, two: Hosts
) -> None:
    own = two.enter("a", node, "0", alone=True)
    assert two.enter("b", node, "0", alone=False) is not own
    two.ended("a")
    assert ends(own)


def test_a_host_in_which_a_run_failed_takes_no_more_and_ends_with_its_last(
    node: str, two: Hosts, tmp_path: Path
) -> None:
    host = two.enter("a", node, "0", alone=False)
    two.enter("b", node, "0", alone=False)
    assert isinstance(began(host, "a", tmp_path, data="cifar10"), Failed)
    two.ended("a", failed=True)
    after = two.enter("c", node, "0", alone=False)
    assert after is not host
    assert isinstance(began(host, "b", tmp_path, epochs=1), Ended)
    assert answers(host)
    two.ended("b")
    assert ends(host)
    assert answers(after)


def test_the_run_of_a_lost_attempt_leaves_its_host_which_goes_on(
    node: str, two: Hosts, tmp_path: Path
) -> None:
    host = two.enter("a", node, "0", alone=False)
    two.enter("b", node, "0", alone=False)
    assert isinstance(began(host, "a", tmp_path, epochs=100_000), Progress)
    module.LEAVE_SECONDS = 60.0
    two.lost("a")
    while two.enter("c", node, "0", alone=False) is not host:  # until the host has room again
        two.ended("c")
        two.tend()
    assert [path.name for path in tmp_path.rglob("checkpoint-*.pt")]
    assert answers(host)


def test_a_host_that_does_not_stop_a_lost_run_in_time_is_ended(
    node: str, two: Hosts, tmp_path: Path
) -> None:
    import ray

    host = two.enter("a", node, "0", alone=False)
    two.enter("b", node, "0", alone=False)
    report: Any = ray.get(host.begin.remote("a", job_of(str(tmp_path), run_spec(epochs=100_000))))
    os.kill(report.pid, signal.SIGSTOP)
    two.lost("a")
    two.tend()
    assert ends(host)
    two.tend()
    assert two.enter("c", node, "0", alone=False) is not host
