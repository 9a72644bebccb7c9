"""Sweeps on three hosts, with one try for each run: the numbers stay, whatever the hosts go through."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import drills
from tests.cluster.conftest import Drill, assert_exact
from tests.cluster.drills import CommandLines, Lab, Rows, shown_secrets
from tests.cluster.lan import PORT
from tests.manifests import manifest, pods

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]
SHORT: dict[str, Drill] = {
    "a cable that is cut for 20 s": drills.cable_cut,
    "a host that is killed three times under a run": drills.killed_under_a_run,
    "a host that is drained": drills.preempted,
    "a head that is restarted": drills.head_restarted,
    "hosts that join, one without the data": drills.joined_in_the_middle,
    "a clock that is 90 s off": drills.clock_off,
    "a clock that is 30 s off": partial(drills.clock_off, seconds=30),
}


@pytest.mark.parametrize("drill", SHORT.values(), ids=SHORT)
def test_no_row_changes_and_no_try_is_spent_by(
    drill: Drill, lab: Lab, quiet_numbers: tuple[Rows, list[bytes]]
) -> None:
    assert_exact(drill(lab), quiet_numbers)


def test_the_command_that_a_stopped_pod_runs_makes_its_run_go_on_elsewhere(
    lab: Lab, quiet_numbers: tuple[Rows, list[bytes]]
) -> None:
    (hook,) = {
        tuple(container["lifecycle"]["preStop"]["exec"]["command"])
        for pod in pods(manifest("cluster.yaml"))
        for container in pod["spec"]["containers"]
        if "lifecycle" in container
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    in_a_pod = {"RAY_ADDRESS": f"{lab.head.address}:{PORT}", "PATH": path}
    with lab.sweep() as sweep:
        host = sweep.until(sweep.busy_host)
        host.spawn(host.folder / "hook.log", *hook, env=in_a_pod)
        sweep.until(lambda: not lab.works(host))
        host.off()
        assert_exact([sweep.end()], quiet_numbers)
    lab.again(host)
    lab.ready()


def test_two_studies_at_once_both_end_with_their_numbers(
    lab: Lab, quiet_numbers: tuple[Rows, list[bytes]]
) -> None:
    assert_exact(drills.two_studies(lab), quiet_numbers)


def test_a_ledger_in_an_object_store_has_each_row_once_and_nothing_shows_a_secret(
    lab: Lab, quiet_numbers: tuple[Rows, list[bytes]]
) -> None:
    with CommandLines() as commands:
        assert_exact(drills.ledger_on_s3(lab), quiet_numbers)
    assert any(b"raylet" in line for line in commands.seen)
    assert list(lab.lan.folder.glob("h3/ray/session_*/logs/*"))
    assert shown_secrets(lab, commands) == []
