"""The jobs of docker/slurm on two nodes: cancelled, requeued, out of time, and still exactly once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sweep.study import load
from tests.cluster.lan import Lan, NoNamespaces
from tests.loops import drive
from tests.slurm.lab import CORES, SlurmLab, missing
from tests.sweeps import committed, final, generations, rows, write_study

pytestmark = [pytest.mark.slow, pytest.mark.chaos]

STUDY: dict[str, Any] = {
    "task": {"epochs": 100, "evaluate_every": 50},
    "search": {"budget": 2, "generation": 1, "lag": 0, "ladder": [1], "validation": 0.1},
    "confirm": {"seeds": 6},
}
"""Two generations of one candidate, and six pairs: fourteen runs of a second or so."""
ENDLESS: dict[str, Any] = {"task": {"epochs": 100_000, "evaluate_every": 50_000}}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmLab]:
    if absent := missing():
        pytest.skip(f"Slurm is not installed here: there is no {', '.join(absent)}")
    if os.geteuid():
        pytest.skip("Slurm's daemons start as root alone")
    try:
        with Lan() as lan:
            lan.add()
    except NoNamespaces as reason:
        pytest.skip(f"this machine allows no network namespaces: {reason}")
    with Lan() as lan:
        yield SlurmLab(lan, tmp_path_factory.mktemp("slurm"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the same study, played in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert drive(load(write_study(folder, **STUDY)), folder).complete
    return folder


def kept(store: Path) -> dict[tuple[str, int], Any]:
    """Return when each epoch ended that is kept so far, by run and epoch."""
    done = {
        (path.parent.name, row["epoch"]): row["ended_at"]
        for path in store.glob("small/runs/*/epochs.parquet")
        for row in pq.read_table(path, columns=["epoch", "ended_at"]).to_pylist()
    }
    return committed(store) | done


def assert_once(before: dict[tuple[str, int], Any], store: Path, undisturbed: Path) -> None:
    """Assert that no kept epoch was trained again, and that all is as without any disturbance."""
    assert before.items() <= final(store).items()
    assert rows(store) == rows(undisturbed)
    assert generations(store) == generations(undisturbed)


def assert_released(store: Path) -> None:
    """Assert that every attempt left its run in order, after a commit."""
    claims = store.glob("small/runs/*/*/claim.json")
    assert {json.loads(path.read_text())["state"] for path in claims} <= {"released"}


@pytest.mark.timeout(600)
def test_a_job_with_ray_that_was_cancelled_and_its_successor_that_was_stopped_train_everything_once(
    lab: SlurmLab, tmp_path: Path, undisturbed: Path
) -> None:
    study = write_study(tmp_path, **STUDY)
    job = lab.submit("ray.sbatch", study, tmp_path)
    job.until(lambda: committed(tmp_path), "the first commit")
    lab.call("scancel", job.number)
    job.end("CANCELLED")
    assert "stopped by SIGTERM" in job.said
    assert_released(tmp_path)
    before = kept(tmp_path)
    again = lab.submit("ray.sbatch", study, tmp_path)
    again.until(lambda: kept(tmp_path).keys() - before.keys(), "another commit")
    # to all processes of its step on both nodes, as Slurm does when the time is nearly over
    lab.call("scancel", "--signal=TERM", again.number)
    again.until(lambda: again.requeued, "it is requeued")
    assert "stopped by SIGTERM" in again.said
    assert_released(tmp_path)
    before |= kept(tmp_path)
    again.end("COMPLETED")
    assert_once(before, tmp_path, undisturbed)
    assert lab.left() == []
    assert not list(lab.folder.glob(".ray-token-*"))


@pytest.mark.timeout(600)
def test_an_array_that_was_cancelled_and_its_successor_that_was_requeued_train_everything_once(
    lab: SlurmLab, tmp_path: Path, undisturbed: Path
) -> None:
    study = write_study(tmp_path, **STUDY)
    job = lab.submit("array.sbatch", study, tmp_path, "--array=0-1")
    job.until(lambda: committed(tmp_path), "the first commit")
    lab.call("scancel", job.number)
    job.end("CANCELLED")
    assert_released(tmp_path)
    before = kept(tmp_path)
    again = lab.submit("array.sbatch", study, tmp_path, "--array=0-1")
    again.until(lambda: kept(tmp_path).keys() - before.keys(), "another commit")
    lab.call("scontrol", "requeue", again.number)
    again.until(lambda: again.requeued and lab.idle, "its tasks are requeued")
    assert_released(tmp_path)
    before |= kept(tmp_path)
    again.end("COMPLETED")
    assert_once(before, tmp_path, undisturbed)
    assert lab.left() == []


@pytest.mark.timeout(600)
def test_a_task_that_is_stopped_waits_in_the_queue_again_and_the_others_go_on(
    lab: SlurmLab, tmp_path: Path
) -> None:
    """The last task's job has the number of the whole array."""
    job = lab.submit("array.sbatch", write_study(tmp_path, **ENDLESS), tmp_path, "--array=0-1")
    job.until(lambda: len({run for run, _ in committed(tmp_path)}) > CORES, "both tasks train")
    lab.call("scancel", "--signal=TERM", f"{job.number}_1")
    job.until(lambda: ("RUNNING", 1) in job.states(), "the task starts again")
    assert sorted(job.states()) == [("RUNNING", 0), ("RUNNING", 1)]
    lab.call("scancel", job.number)
    job.end("CANCELLED")
    assert lab.left() == []


@pytest.mark.timeout(600)
def test_a_task_whose_time_runs_out_keeps_its_epochs_and_waits_in_the_queue_again(
    lab: SlurmLab, tmp_path: Path
) -> None:
    study = write_study(tmp_path, **ENDLESS)
    job = lab.submit("array.sbatch", study, tmp_path, "--array=0")
    job.until(lambda: committed(tmp_path), "the first commit")
    job.let_time_run_out()
    job.until(lambda: job.requeued, "it is requeued")
    lab.call("scancel", job.number)
    assert "Stopped; the same lines again go on from what is kept." in job.said
    assert_released(tmp_path)
    job.end("CANCELLED")
    assert lab.left() == []
