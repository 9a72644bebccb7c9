"""Several runs in one process: each gives the rows that it gives alone, whatever the others do meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.cluster.host import Host
from tests.conftest import THREADS, run_spec, without_wall
from tests.integration.attempts import checkpoints
from tests.loops import job_of
from trainer import data, engine, lending, placed, worker
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import KeepRatioPolicy
from trainer.reports import Failed
from trainer.rows import EpochRow, from_parquet
from trainer.spec import RunSpec
from trainer.training import Training

pytestmark = pytest.mark.numeric


class NoLuck(KeepRatioPolicy):
    def _move(self, train_accuracy: float) -> None:
        raise RuntimeError("no such luck")


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL: dict[str, Any] = {"epochs": 2, "model": "mlp-16", "validation": 0.1}
RUNS: dict[str, RunSpec] = {
    "keep ratio that moves": run_spec(epochs=2),
    "bfloat16": run_spec(precision="bfloat16", epochs=2),
    "random survivors": run_spec({"name": "fixed", "ratio": 0.3, "survivors": "random"}, **SMALL),
    "dropout": run_spec({"name": "set"}, **SMALL, dropout=0.4),
    "dropout, another seed": run_spec({"name": "set"}, **SMALL, dropout=0.4, seed=8),
    "diverges": run_spec(**SMALL, learning_rate=1e30),
}
"""Runs that would disturb each other if they shared a random state, a mode or a context of torch."""


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    return {name: shown(list(Training(spec, device=DEVICE))) for name, spec in RUNS.items()}


def shown(rows: list[EpochRow]) -> str:
    """Return rows as text, which is exact, and in which a loss that is not a number is equal to itself."""
    return repr(without_wall(rows))


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    monkeypatch.setitem(POLICIES, "noluck", NoLuck)
    return run_spec({"name": "noluck"}, **SMALL)


@pytest.fixture(autouse=True)
def engines_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host changes how many engines are kept; the process goes on with other tests."""
    monkeypatch.setattr(lending, "_idle", [])
    monkeypatch.setattr(lending, "_most_idle", 1)


class Driven:
    """A run in a thread of its own that trains one batch whenever it is told to."""

    def __init__(self, spec: RunSpec, state: dict[str, Any] | None = None) -> None:
        self.thread = ThreadPoolExecutor(1)
        self.spec, self.error, self.kept = spec, "", state
        self.training = self.thread.submit(self._begin, state).result()
        self.steps = self.training.steps()

    def _begin(self, state: dict[str, Any] | None) -> Training:
        torch.set_num_threads(THREADS)
        training = Training(self.spec, device=DEVICE)
        if state:
            training.load(state)
        return training

    def step(self) -> bool:
        """Train a batch. Returns whether there are more."""
        try:
            row = self.thread.submit(next, self.steps, "over").result()
        except RuntimeError as error:
            self.error = str(error)
            return False
        if isinstance(row, EpochRow):
            self.kept = self.training.state()
        return row != "over"

    def continued(self) -> Driven:
        """The same run from its last whole epoch on, in another thread. This one goes no further."""
        self.thread.shutdown()
        return Driven(self.spec, self.kept)


@settings(max_examples=15, deadline=None)
@given(order=st.lists(st.integers(0, len(RUNS)), max_size=60), stopped=st.integers(0, len(RUNS) - 1))
def test_runs_in_any_order_of_their_batches_train_what_they_train_alone(
    order: list[int], stopped: int, alone: dict[str, str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POLICIES, "noluck", NoLuck)
        runs = [Driven(spec) for spec in (*RUNS.values(), run_spec({"name": "noluck"}, **SMALL))]
        for i in order:
            runs[i].step()
        runs[stopped] = runs[stopped].continued()
        going = list(runs)
        while going:
            going = [run for run in going if run.step()]
    for name, run in zip(RUNS, runs, strict=False):
        assert shown(run.training.rows) == alone[name], name
    assert runs[-1].error == "no such luck"
    for run in runs:
        run.thread.shutdown()


class Working:
    """A run in a host, whose reports a thread asks for as an attempt does."""

    def __init__(self, host: Host, name: str, root: Path, spec: RunSpec, until: float = 1e6) -> None:
        self.host, self.name, self.until = host, name, until
        self.job = job_of(str(root), spec, threads=THREADS, device=DEVICE)
        self.last: Any = None
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        self.last = self.host.begin(self.name, self.job)
        while self.last.state in ("began", "training") and getattr(self.last, "epochs", 0) < self.until:
            self.last = self.host.step(self.name)


def rows(root: Path, spec: RunSpec) -> str:
    return shown(from_parquet(EpochRow, (root / spec.run_id / "epochs.parquet").read_bytes()))


def test_runs_at_the_same_time_train_what_they_train_alone_also_beside_one_that_raises(
    tmp_path: Path,
    alone: dict[str, str],
    raising: RunSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "STEP_SECONDS", 0.0)
    host = Host(len(RUNS) + 1)
    for round_ in ("first", "second"):  # the second round takes engines and threads over from the first
        root = tmp_path / round_
        bad = Working(host, "bad", root, raising)
        working = {name: Working(host, name, root, spec) for name, spec in RUNS.items()}
        for run in (bad, *working.values()):
            run.thread.join()
        assert isinstance(bad.last, Failed)
        assert bad.last.reason == "RuntimeError: no such luck"
        assert not bad.last.fatal
        for name, run in working.items():
            assert run.last.state == "ended", run.last
            assert rows(root, RUNS[name]) == alone[name], name


def test_a_run_that_leaves_keeps_its_last_epoch_and_goes_on_in_the_same_host(
    tmp_path: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STEP_SECONDS", 0.0)
    name, other = "random survivors", "dropout"
    host = Host(2)
    run = Working(host, "first", tmp_path, RUNS[name], until=1.1)
    run.thread.join()
    beside = Working(host, "beside", tmp_path, RUNS[other])
    host.leave("first")
    assert [path.name.split("-")[1] for path in checkpoints(tmp_path / RUNS[name].run_id)] == ["1"]
    again = Working(host, "again", tmp_path, RUNS[name])
    for going in (beside, again):
        going.thread.join()
        assert going.last.state == "ended"
    assert rows(tmp_path, RUNS[name]) == alone[name]
    assert rows(tmp_path, RUNS[other]) == alone[other]
    host.leave("again")  # it has left by itself, and its thread may have another run


def test_a_run_that_must_leave_within_a_step_ends_that_step_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request comes within an epoch, and a generator can be entered by one thread only."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(KeepRatioPolicy):
        def _move(self, train_accuracy: float) -> None:
            inside.set()
            assert go_on.wait(60)

    monkeypatch.setattr(worker, "STEP_SECONDS", 0.0)
    monkeypatch.setitem(POLICIES, "slow", Slow)
    host = Host(1)
    run = Working(host, "slow", tmp_path, run_spec({"name": "slow"}, **SMALL), until=1)
    assert inside.wait(60)
    leaving = threading.Thread(target=host.leave, args=["slow"])
    leaving.start()
    go_on.set()
    for thread in (leaving, run.thread):
        thread.join()
    assert run.last.epochs == 1
    assert [path.name.split("-")[1] for path in checkpoints(tmp_path)] == ["1"]


def test_a_host_refuses_more_runs_than_it_was_made_for(tmp_path: Path) -> None:
    host = Host(1)
    host.begin("first", job_of(str(tmp_path), RUNS["dropout"]))
    with pytest.raises(IndexError):
        host.begin("second", job_of(str(tmp_path), RUNS["diverges"]))


def test_the_runs_of_a_host_share_one_copy_of_the_data_and_take_engines_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    engines: list[engine.Engine] = []
    load, make = data.load, engine.Engine.__init__

    def count(self: engine.Engine, *arguments: Any) -> None:
        engines.append(self)
        make(self, *arguments)

    monkeypatch.setattr(placed, "_placed", {})
    monkeypatch.setattr(placed, "load", lambda name, *more: loads.append(name) or load(name, *more))
    monkeypatch.setattr(engine.Engine, "__init__", count)
    host = Host(3)
    for generation in range(3):
        specs = [run_spec(**SMALL, seed=10 * generation + i) for i in range(3)]
        working = [Working(host, spec.run_id, tmp_path, spec) for spec in specs]
        for run in working:
            run.thread.join()
            assert run.last.state == "ended"
    assert loads == ["digits"]
    assert len(engines) <= 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU would have to be broken")
def test_a_gpu_that_refuses_all_work_is_fatal_to_the_process(tmp_path: Path) -> None:
    it = worker.Worker(job_of(str(tmp_path), RUNS["dropout"], device="cuda"))
    it.step()
    report = it.step()
    assert isinstance(report, Failed)
    assert report.fatal
