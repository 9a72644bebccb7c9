"""Sweeps to compare with and sweeps to damage: made once, copied for each test."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweep.cluster.worker import Worker
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.planning.values import Failure
from tests.chaos.damage import whole_rows
from tests.loops import begin, drive, job_of, study_of
from tests.sweeps import UNHURRIED, sweep, write_study
from trainer import worker

FINISHED = 16
"""Finished runs of the 18 in a half-done sweep; both searches are over then."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed sweep. The first test process that needs it makes it for all."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "undisturbed"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A finished sweep trains nothing again.
        done = sweep("run", write_study(folder, **UNHURRIED), "--store", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the study that tests damage, finished and undisturbed."""
    root = tmp_path_factory.mktemp("finished")
    plan = drive(study_of(), root)
    assert plan.complete
    assert plan.finished.total() == FINISHED + 2
    return root


@pytest.fixture(scope="session")
def rows_undisturbed(finished_sweep: Path) -> dict[str, list[dict[str, Any]]]:
    return whole_rows(finished_sweep)


@pytest.fixture(scope="session")
def half_done_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was broken off with 16 of 18 runs finished.

    One run is under way with two checkpoints, one has failed, and the lease is released.
    """
    root, study = tmp_path_factory.mktemp("half-done"), study_of()
    drive(study, root, most=FINISHED)
    ledger = Ledger(str(root), study.name, print)
    plan = begin(study, ledger)
    run, other = plan.queue.next(0.0), plan.queue.next(0.0)
    assert run
    assert other
    ledger.fail(other.run_id, Failure("no such luck", attempts=3), ["a line"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "STEP_SECONDS", 0.0)
        under_way = Worker(job_of(ledger.runs_url, run.spec, keep_weights=True))
        while getattr(under_way.step(), "epochs", 0) < 2:
            pass
        under_way.stop()
    lease = Lease(ledger.store, print)
    lease.acquire()
    lease.release()
    return root


@pytest.fixture
def half_done(half_done_once: Path, tmp_path: Path) -> Path:
    """A copy with the same times on its files, so that the index fits."""
    return Path(shutil.copytree(half_done_once, tmp_path / "store"))
