"""Demand, slots and the examination of nodes, on real clusters whose nodes come late or are no good."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.test_cluster import started_on, two_nodes, working_on
from tests.clusters import head_of, write_token
from tests.sweeps import AS_URGENT, FAULTS, UNHURRIED, generations, rows, sweep, write_study

pytestmark = pytest.mark.chaos


def groups(cluster: Any) -> Counter[str]:
    """Return how many placement groups of ours are in each state, of those that were not removed."""
    table: dict[str, dict[str, Any]] = cluster.global_state.placement_group_table()
    states = Counter(
        group["state"] for group in table.values() if group["name"].startswith("pairsweep/small/")
    )
    del states["REMOVED"]
    return states


@pytest.mark.timeout(600)
def test_demand_is_seen_before_there_is_a_node_and_every_node_that_comes_is_examined_and_used(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, **UNHURRIED)
    monkeypatch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{Path.cwd()}")
    for name, value in AS_URGENT.items():
        monkeypatch.setenv(name, value)
    with (
        head_of(monkeypatch, write_token(tmp_path), num_cpus=0) as cluster,
        started_on(cluster, tmp_path, study) as started,
    ):
        started.until(lambda: "waiting for a node with room for a run (1 CPU" in started.log.read_text())
        assert groups(cluster).keys() == {"PENDING"}
        first = cluster.add_node(num_cpus=1)
        started.until(lambda: working_on(first))
        second = cluster.add_node(num_cpus=1)
        started.until(lambda: working_on(second))
        assert started.wait() == 0, started.log.read_text()
        assert not groups(cluster)
    assert not list((tmp_path / "small").glob("preflight/*"))
    assert rows(tmp_path) == rows(undisturbed)
    assert generations(tmp_path) == generations(undisturbed)


@pytest.mark.timeout(600)
def test_a_node_that_cannot_do_the_work_is_named_in_the_status_and_the_sweep_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").write_text("1000")
    monkeypatch.setenv("HOMELESS", str(tmp_path / "go"))
    # no run ends before the file is there
    study = write_study(tmp_path, arms={"dense": {"policy": {"name": "faulty", "how": "homeless"}}})
    with (
        two_nodes(monkeypatch, tmp_path, {"WALL_CLOCK": str(tmp_path / "clock")}) as cluster,
        started_on(cluster, tmp_path, study) as started,
    ):
        started.until(lambda: "its clock is +1000 s from the driver's" in started.log.read_text())

        def kept_away() -> dict[str, str]:
            done = sweep("status", study, "--store", tmp_path, "--json")
            return json.loads(done.stdout)["driver"]["now"].get("kept_away", {})

        ((name, reason),) = started.until(kept_away).items()
        assert name.endswith(f"({cluster.bad.node_id[:8]})")
        assert f"node {name} gets no work: {reason}" in sweep("status", study, "--store", tmp_path).stdout
        (tmp_path / "go").touch()
        assert started.wait() == 0, started.log.read_text()
        assert not working_on(cluster.bad)
    said = started.log.read_text()
    assert said.count(f"node {name}: its clock is ") == said.count("no work goes to it.") == 1
