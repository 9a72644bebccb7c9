"""One attempt as a cluster's actor makes it: its reports are plain values, whatever happens to it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster.reports import from_json, to_json
from sweep.cluster.worker import Worker
from tests.conftest import run_spec, without_wall
from tests.integration.attempts import attempt, checkpoints, take
from tests.loops import job_of, work
from trainer import data, engine, lending, placed, worker
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import KeepRatioPolicy
from trainer.reports import Began
from trainer.rows import EpochRow, from_parquet
from trainer.run_folder import Outcome, RunFolder
from trainer.spec import RunSpec, Task
from trainer.store import LocalStore
from trainer.training import Training
from trainer.worker import LOG_LINES

SPEC = run_spec(epochs=4)


@pytest.fixture
def at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STEP_SECONDS", 0.0)


def worker_on(root: Path, spec: RunSpec = SPEC, **changes: Any) -> Worker:
    return Worker(job_of(str(root), spec, **changes))


def until(it: Worker, epochs: float) -> Any:
    """Return the report after which so many epochs are done."""
    report: Any
    while (report := it.step()).state == "began" or report.epochs < epochs:
        pass
    return report


def rows(root: Path, spec: RunSpec = SPEC) -> list[EpochRow]:
    return from_parquet(EpochRow, (root / spec.run_id / "epochs.parquet").read_bytes())


def kept(root: Path) -> str:
    return checkpoints(root)[0].name.split("-")[1]


def failed(it: Worker) -> Any:
    """Return the attempt's last report, which must be one that can be sent."""
    reports = work(it)
    assert [report.state for report in reports[:-1]] == ["began"] + ["training"] * (len(reports) - 2)
    report = reports[-1]
    assert report.state == "failed"
    assert from_json(to_json(report, "a-node")) == replace(report, node="a-node")
    assert len(report.log) <= LOG_LINES
    return report


def test_the_first_report_comes_at_once_and_says_which_process_it_is(tmp_path: Path) -> None:
    it = worker_on(tmp_path)
    assert it.step() == Began(run_id=SPEC.run_id, messages=[], pid=os.getpid())
    assert list(tmp_path.iterdir()) == []  # nothing was loaded or written for it


@pytest.mark.usefixtures("at_every_batch")
def test_its_reports_tell_how_far_it_is_and_the_last_one_what_it_gave(tmp_path: Path) -> None:
    reports = work(worker_on(tmp_path))
    done = [report.epochs for report in reports if report.state == "training"]
    assert done == sorted(done)
    assert {report.run_id for report in reports} == {SPEC.run_id}
    assert any(0 < epochs < 1 for epochs in done)  # also within an epoch
    assert any(report.loss is not None for report in reports if report.state == "training")
    result = reports[-1].result
    whole = Training(SPEC)
    table = list(whole)
    assert without_wall(rows(tmp_path)) == without_wall(table)
    assert (result.outcome, result.epochs, result.classes) == ("completed", 4, 10)
    assert result.seconds == sum(row.seconds for row in rows(tmp_path))
    assert result.test == {
        f"{row.keep_ratio:g}": row.accuracy for row in whole.endpoints if row.split == "test"
    }


def test_a_run_that_is_finished_already_is_reported_and_not_trained_again(tmp_path: Path) -> None:
    first = work(worker_on(tmp_path))[-1]
    again = work(worker_on(tmp_path))
    assert [report.state for report in again] == ["began", "ended"]
    assert again[-1].result == first.result
    assert not (tmp_path / SPEC.run_id / "attempt-2").exists()


def test_a_diverged_run_is_a_result_and_no_failure(tmp_path: Path) -> None:
    report = work(worker_on(tmp_path, run_spec(learning_rate=1e30)))[-1]
    assert report.state == "ended"
    result = report.result
    assert (result.outcome, result.validation, result.test) == ("diverged", {}, {})
    assert result.score("test", 1.0) == 0.0


class NoLuck(KeepRatioPolicy):
    def _move(self, train_accuracy: float) -> None:
        if self.epoch == 2:
            raise RuntimeError("no such luck")


class Stops(KeepRatioPolicy):
    def _move(self, train_accuracy: float) -> None:
        raise SystemExit(5)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    for policy in (NoLuck, Stops):
        monkeypatch.setitem(POLICIES, policy.__name__.lower(), policy)


@pytest.mark.usefixtures("faulty")
def test_a_run_that_raises_is_reported_with_the_reason_and_where_it_came_from(tmp_path: Path) -> None:
    spec = run_spec({"name": "noluck"})
    report = failed(worker_on(tmp_path, spec))
    assert report.reason == "RuntimeError: no such luck"
    assert (report.damaged, report.machine, report.blame) == (False, False, True)
    assert report.log[-1] == "RuntimeError: no such luck"
    assert any("in _move" in line for line in report.log)
    log = (tmp_path / spec.run_id / "attempt-1" / "log.txt").read_text()
    assert log.count("RuntimeError: no such luck") == 1
    assert log.count("attempt 1 starts at epoch 1 of 3") == 1


@pytest.mark.usefixtures("faulty")
def test_a_run_that_ends_the_process_in_the_way_of_python_is_reported_all_the_same(tmp_path: Path) -> None:
    assert failed(worker_on(tmp_path, run_spec({"name": "stops"}))).reason == "SystemExit: 5"


def test_a_spec_that_is_none_is_reported(tmp_path: Path) -> None:
    job = replace(job_of(str(tmp_path), SPEC), spec='{"seed": 1')
    assert "is not JSON" in failed(Worker(job)).reason


def test_missing_data_are_the_machines_fault_and_told_with_what_to_do(tmp_path: Path) -> None:
    spec = run_spec(data="cifar10")
    report = failed(worker_on(tmp_path / "store", spec, data_dir=str(tmp_path / "empty")))
    assert report.machine
    assert str(tmp_path / "empty") in report.reason
    assert "python -m trainer.data cifar10" in report.reason
    assert not (tmp_path / "store").exists()  # no attempt is counted


def test_a_store_that_cannot_be_written_is_the_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    report = failed(worker_on(tmp_path / "store"))
    assert report.machine
    assert str(tmp_path / "store") in report.reason


def test_damaged_files_are_nobodys_fault_and_named(tmp_path: Path) -> None:
    take(attempt(tmp_path), 2)
    for path in checkpoints(tmp_path):
        path.write_bytes(b"")
    report = failed(worker_on(tmp_path))
    assert report.damaged
    assert not report.machine
    assert str(checkpoints(tmp_path)[0]) in report.reason


@pytest.mark.usefixtures("at_every_batch")
def test_an_attempt_that_another_has_overtaken_is_not_to_blame(tmp_path: Path) -> None:
    first = worker_on(tmp_path)
    until(first, 1)
    second = worker_on(tmp_path)
    until(second, 2)
    report = failed_after(first)
    assert "attempt 2 has taken run" in report.reason
    assert (report.blame, report.machine, report.damaged) == (False, False, False)
    first.stop()  # has nothing left that it may keep, and says nothing of it
    assert work(second)[-1].state == "ended"


def failed_after(it: Worker) -> Any:
    while (report := it.step()).state == "training":
        pass
    assert report.state == "failed"
    return report


@pytest.mark.usefixtures("at_every_batch")
def test_a_stopped_worker_keeps_its_last_whole_epoch_and_the_next_goes_on_there(tmp_path: Path) -> None:
    it = worker_on(tmp_path, commit_share=1e-9)
    until(it, 2.1)  # within the third epoch
    assert kept(tmp_path) == "1"  # the first epoch is committed whatever it costs
    it.stop()
    assert kept(tmp_path) == "2"
    ended = [
        row.ended_at
        for row in from_parquet(EpochRow, next(tmp_path.rglob("epochs-2-*.parquet")).read_bytes())
    ]
    reports = work(worker_on(tmp_path))
    assert "attempt 2 continues from epoch 2 of 4, kept by attempt 1" in [
        line for report in reports for line in report.messages
    ]
    assert [row.ended_at for row in rows(tmp_path)][:2] == ended
    assert without_wall(rows(tmp_path)) == without_wall(list(Training(SPEC)))


@pytest.mark.usefixtures("at_every_batch")
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_worker_stopped_before_its_first_epoch_ended_keeps_nothing_and_breaks_nothing(
    steps: int, tmp_path: Path
) -> None:
    it = worker_on(tmp_path)
    for _ in range(steps):
        it.step()
    it.stop()
    assert not checkpoints(tmp_path)
    assert work(worker_on(tmp_path))[-1].state == "ended"


def test_a_worker_stopped_after_its_end_changes_nothing(tmp_path: Path) -> None:
    it = worker_on(tmp_path)
    work(it)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    it.stop()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_result_that_cannot_be_read_after_the_end_is_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(worker_on(tmp_path))
    tidy = RunFolder.tidy

    def then_damage(self: RunFolder, outcome: Outcome) -> None:
        tidy(self, outcome)
        for path in (tmp_path / SPEC.run_id).rglob("epochs*.parquet"):
            path.write_bytes(b"")

    monkeypatch.setattr(RunFolder, "tidy", then_damage)
    report = failed(worker_on(tmp_path))
    assert report.damaged
    assert "epochs-4-" in report.reason


def test_data_are_loaded_once_for_all_runs_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = data.load
    monkeypatch.setattr(placed, "_placed", {})
    monkeypatch.setattr(placed, "load", lambda name, *more: loads.append(name) or load(name, *more))
    for seed in (1, 2, 3):
        assert work(worker_on(tmp_path, run_spec(seed=seed, epochs=1)))[-1].state == "ended"
    assert loads == ["digits"]


def test_the_runs_of_a_process_take_one_engine_over_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded steps go over with the engine.

    An engine that a worker or its attempt holds on to would show here.
    """
    made: list[str] = []
    make = engine.Engine.__init__

    def count(self: engine.Engine, task: Task, *arguments: Any, **more: Any) -> None:
        made.append(task.model)
        make(self, task, *arguments, **more)

    monkeypatch.setattr(engine.Engine, "__init__", count)
    monkeypatch.setattr(lending, "_idle", [])
    for seed in (1, 2, 3):
        it = worker_on(tmp_path, run_spec(seed=seed, epochs=2, learning_rate=0.01 * seed))
        assert work(it)[-1].state == "ended"
    assert made == ["wrn-10-1"]


def test_a_folder_for_the_runs_may_be_a_bucket(bucket: str) -> None:
    report = work(Worker(job_of(bucket, run_spec(epochs=1))))[-1]
    assert report.state == "ended"


def test_the_log_of_a_failure_is_that_of_its_own_attempt(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    take(attempt(tmp_path), 2)
    checkpoints(tmp_path)[0].write_bytes(b"")
    said = [line for report in work(worker_on(tmp_path)) for line in report.messages]
    assert sum(line.startswith("damaged: ") for line in said) == 1
    assert "damaged: " in store.read(f"{SPEC.run_id}/attempt-2/log.txt").decode()
