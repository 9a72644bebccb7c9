"""The `sweep` command as a process runs a whole study, in a bucket and in a folder.

It is run again, with changes, with more seeds, and beside another driver.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.ledger.lease import Lease
from tests.conftest import ROOT
from tests.sweeps import generations, rows, sweep, write_study
from trainer.store import open_store


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the small study in it, and its YAML beside."""
    folder = tmp_path_factory.mktemp("finished")
    done = sweep("run", write_study(folder), "--store", folder)
    assert done.returncode == 0, done.stderr
    assert f"Next: python -m sweep report {folder / 'small.yaml'} --store {folder}" in done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_bucket_ends_with_what_a_folder_has(bucket: str, finished: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    done = sweep("run", study, "--store", bucket, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    store = open_store(f"{bucket}/small")
    for name in store.names():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small" / name).write_bytes(store.read(name))
    assert rows(tmp_path) == rows(finished)
    assert generations(tmp_path) == generations(finished)


def test_what_is_finished_is_not_run_again_and_needs_no_cluster(finished: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in (finished / "small" / "runs").rglob("*") if path.is_file()
    }
    again = sweep("run", finished / "small.yaml", "--store", finished, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["complete"]
    assert {
        path: path.stat().st_mtime_ns for path in (finished / "small" / "runs").rglob("*") if path.is_file()
    } == before


def test_status_tells_counts_means_and_gains_from_the_ledger_alone(finished: Path) -> None:
    told: dict[str, Any] = json.loads(
        sweep("status", finished / "small.yaml", "--store", finished, "--json").stdout
    )
    assert told["complete"]
    assert told["done"] == told["total"] == 18
    baseline, additive = told["arms"]
    assert (baseline["confirm_done"], additive["search_done"], additive["confirm_done"]) == (6, 6, 6)
    gain = additive["gains"]["1"]
    assert gain["pairs"] == 6
    assert gain["mean"] == pytest.approx(additive["endpoints"]["1"] - baseline["endpoints"]["1"])
    shown = sweep("status", finished / "small.yaml", "--store", finished).stdout
    assert "additive" in shown
    assert "6/6" in shown


@pytest.mark.parametrize(
    ("change", "said"), [({}, False), ({"task": {"epochs": 7}}, True), ({"tsk": 1}, True)]
)
def test_a_file_that_is_not_what_was_begun_is_told(
    finished: Path, tmp_path: Path, change: dict[str, Any], said: bool
) -> None:
    shown = sweep("status", write_study(tmp_path, **change), "--store", finished)
    assert shown.returncode == 0
    assert "6/6" in shown.stdout
    assert ("is not what the study was begun with" in shown.stderr) == said


def test_a_changed_study_is_refused_and_a_grown_one_accepted_when_asked(
    finished: Path, tmp_path: Path
) -> None:
    changed = write_study(tmp_path, task={"epochs": 7})
    refused = sweep("run", changed, "--store", finished)
    assert refused.returncode == 2
    assert "task.epochs: 6 -> 7" in refused.stderr
    grown = write_study(tmp_path, confirm={"seeds": 12})
    refused = sweep("run", grown, "--store", finished)
    assert refused.returncode == 2
    assert "confirm.seeds: 6 -> 12" in refused.stderr
    assert "--extend" in refused.stderr


def test_the_runs_that_are_done_say_what_the_rest_takes_of_a_gpu(finished: Path, tmp_path: Path) -> None:
    """Six more seeds for two arms are 72 epochs, each of half a GPU.

    Where runs are made may change at any time.
    """
    grown = write_study(tmp_path, confirm={"seeds": 12}, resources={"gpus": 0.5})
    told = sweep("plan", grown, "--store", finished, "--json")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert (plan["runs_done"], plan["runs_left"], plan["seconds_from"]) == (18, 12, "measured on 18 runs")
    assert plan["gpu_hours_left"] == pytest.approx(72 * plan["seconds_per_epoch"] * 0.5 / 3600)
    assert plan["gpu_hours_left"] > 0
    # An unknown name is refused even where nothing depends on it.
    assert sweep("plan", grown, "--store", finished, "--gpu", "no such card").returncode == 2


def test_a_second_driver_is_told_who_holds_the_study(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    lease = Lease(open_store(tmp_path / "small"), print)
    lease.acquire()
    try:
        second = sweep("run", study, "--store", tmp_path)
    finally:
        lease.release()
    assert second.returncode == 3
    assert "is driven by process" in second.stderr


def test_a_plan_touches_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    told = sweep("plan", study, "--store", tmp_path / "store", "--json")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["runs"] == {"dense": {"search": 0, "confirm": 6}, "additive": {"search": 6, "confirm": 6}}
    assert plan["seconds_per_epoch"] > 0
    assert sorted(tmp_path.rglob("*")) == before
    dry = sweep("run", study, "--store", tmp_path / "store", "--dry-run", "--json")
    assert json.loads(dry.stdout)["runs"] == plan["runs"]


def test_a_ledger_that_is_not_there_is_told(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    for command in ("status", "doctor"):
        told = sweep(command, study, "--store", tmp_path)
        assert told.returncode in (2, 3)
        assert "holds no study" in told.stderr
        assert "Traceback" not in told.stderr


def test_make_sweep_is_the_command() -> None:
    assert ".venv/bin/sweep run $(STUDY)" in (ROOT / "Makefile").read_text()
    assert (Path(sys.executable).parent / "sweep").exists()
