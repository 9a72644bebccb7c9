"""Runs that are killed every few seconds, and sweeps whose GPU time is limited."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command, unread
from tests.sweeps import UNHURRIED, committed, final, rows, sweep, write_study

pytestmark = pytest.mark.chaos
MOST_KILLS = 40
"""An attempt that keeps its first epoch alone needs twenty-four of them."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_every_three_to_six_seconds_ends(write_run: Any, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"schedule seed: {seed}")
    draw = random.Random(seed)
    # an epoch takes half a second on a middling machine, and the run twelve
    run, store = write_run(model="wrn-16-4", epochs=24), tmp_path / "runs"
    kills = 0
    # An attempt may be killed between its outcome and its exit: the next would only print the rows.
    while kills < MOST_KILLS and not list(store.rglob("outcome.json")):
        process = unread(command(run, store))
        assert process.stderr
        while (line := process.stderr.readline()) and "at epoch 1" not in line and "continues" not in line:
            pass  # it imports, which takes seconds on a busy machine
        killer = threading.Timer(draw.uniform(3, 6), process.kill)
        killer.start()
        process.communicate()
        killer.cancel()
        kills += process.returncode != 0
    assert kills > 0, "it ended before it was killed"
    assert list(store.rglob("outcome.json"))


def budgeted(root: Path, hours: float) -> Path:
    """Write the undisturbed study, with four runs on each GPU and a budget."""
    resources = {"gpus": 0.25, "commit_share": 1, "gpu_hours": hours}
    return write_study(root, **UNHURRIED, resources=resources)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_spent_budget_of_gpu_time_stops_the_sweep_and_a_larger_one_goes_on_with_it(
    tmp_path: Path, undisturbed: Path
) -> None:
    env = {"PRETENDED_GPUS": "1", "RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": 1, "CPU": 4})}
    study = budgeted(tmp_path, 0.5 / 3600)
    stopped = sweep("run", study, "--store", tmp_path, "--json", env=env)
    assert stopped.returncode == 1, stopped.stderr
    assert "raise resources.gpu_hours and run the same command" in stopped.stderr
    said = json.loads(stopped.stdout)
    assert not said["complete"]
    assert said["gpu_hours"]["spent"]
    # another driver adds its time to what was used, and begins nothing
    again = sweep("run", study, "--store", tmp_path, "--json", env=env)
    assert again.returncode == 1
    assert json.loads(again.stdout)["gpu_hours"] == said["gpu_hours"]
    for reader in ("status", "report"):
        seen = json.loads(sweep(reader, study, "--store", tmp_path, "--json").stdout)
        assert seen["gpu_hours"] == said["gpu_hours"]
    kept = committed(tmp_path)
    done = sweep("run", budgeted(tmp_path, 1), "--store", tmp_path, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path) == rows(undisturbed)
    ended = final(tmp_path)
    assert {key: ended[key] for key in kept} == kept, "an epoch that was committed was trained again"
    assert json.loads(done.stdout)["gpu_hours"]["used"] > said["gpu_hours"]["used"]
