"""What Prometheus sees of a sweep on a shared cluster."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.cluster.metrics import Commits, Pace
from tests.clusters import head_of, write_token
from tests.sweeps import AS_URGENT, Started, write_study


def test_the_pace_is_that_of_the_last_minute_and_never_below_0() -> None:
    pace = Pace()
    seen = ((0.0, 5), (2.0, 9), (60.0, 65), (62.0, 129), (63.0, 8))
    found = [pace.see(epochs, now) for now, epochs in seen]
    assert found == [0, 2, 1, 2, 0]


def test_the_longest_time_since_a_commit_is_that_of_a_run_under_way() -> None:
    commits = Commits()
    commits.hear("a", 3, now=1)  # it continues from epoch 3
    commits.hear("b", 0, now=2)
    commits.hear("a", 3, now=5)
    under_way = {"a": 4.0, "b": 1.0}
    assert commits.longest(under_way, now=10) == 9
    commits.hear("a", 4, now=10)
    assert commits.longest(under_way, now=10) == 8
    assert commits.longest({"a": 4.0}, now=12) == 2
    assert commits.longest({}, now=12) == 0
    assert commits.inherited == 3


def series(port: int) -> Iterator[tuple[str, float]]:
    """Yield the name, with the state where it has one, and the value of each of our series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        for line in page.read().decode().splitlines():
            if found := re.fullmatch(r"ray_pairsweep_(\w+)\{(.*)\} (\S+)", line):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
                assert labels["study"] == "small"
                yield " ".join(filter(None, [found[1], labels.get("state")])), float(found[3])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rays_agent_exports_runs_by_state_their_pace_and_the_time_since_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in AS_URGENT.items():
        monkeypatch.setenv(name, value)
    # each run reports at least once
    study = write_study(tmp_path, task={"epochs": 600, "evaluate_every": 200})
    with (
        head_of(monkeypatch, write_token(tmp_path), num_cpus=2) as cluster,
        Started(tmp_path, "run", study, "--store", tmp_path, "--ray-address", cluster.address) as started,
    ):
        seen: dict[str, float] = {}
        highest: dict[str, float] = {}

        def all_are_there() -> bool:
            try:
                seen.update(series(cluster.head_node.metrics_export_port))
            except OSError:
                return False  # the agent has not begun to listen
            highest.update({name: max(value, highest.get(name, 0.0)) for name, value in seen.items()})
            wanted = ("runs done", "runs running", "runs ready", "epochs_per_second", "seconds_since_commit")
            return all(highest.get(name) for name in wanted)

        started.until(all_are_there)
        assert seen["runs failed"] == 0
        assert highest["runs running"] == 2
