"""A sweep in this process: a loop takes the place of the cluster, and everything else is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep.cluster.worker import Worker
from sweep.ledger.ledger import Ledger
from sweep.ledger.shared import Shared
from sweep.planning.plan import Plan
from sweep.planning.values import Failure
from sweep.study import Study
from sweep.study.contents import Contents
from tests.sweeps import study_values
from trainer import worker as any_worker
from trainer.spec import RunSpec
from trainer.worker import Job

SHORT: dict[str, Any] = {"epochs": 3, "evaluate_every": 3}
"""Task settings: a run takes a fraction of a second, and keeps two checkpoints before it ends."""


def short_values(**parts: Any) -> dict[str, Any]:
    """The study of `tests.sweeps`, with shorter runs."""
    values = study_values(**parts)
    return {**values, "task": {**values["task"], **SHORT}}


def study_of(**parts: Any) -> Study:
    """`short_values` as a study."""
    return Study("small", Contents.read(short_values(**parts)))


def job_of(runs_url: str, spec: RunSpec, **changes: Any) -> Job:
    """Return the job of an attempt at a run, on this machine's CPU."""
    plain: dict[str, Any] = {
        "data_dir": "data",
        "device": "cpu",
        "threads": 1,
        "commit_share": 1,
        "keep_weights": False,
    }
    return Job(spec.run_id, spec.to_json(), runs_url, **{**plain, **changes})


def work(worker: any_worker.Worker) -> list[Any]:
    """Run a worker to the end of its attempt; return everything that it reports."""
    reports: list[Any] = [worker.step()]
    while reports[-1].state not in ("ended", "failed"):
        reports.append(worker.step())
    return reports


def begin(study: Study, ledger: Ledger, extend: bool = False) -> Plan:
    """Read the ledger and make the plan, as the command does before there is a cluster."""
    ledger.load()
    ledger.declare(study, extend)
    plan = Plan(study, ledger.results, ledger.proposals())
    ledger.failures()
    for run_id, reason in ledger.damaged.items():
        plan.queue.damage(run_id, reason)
    return plan


def drive(study: Study, folder: str | Path, said: list[str] | None = None, most: int | None = None) -> Plan:
    """Play a sweep to its end, or until so many runs have been trained. `said` gets what it says."""
    said = [] if said is None else said
    ledger = Ledger(str(folder), study.name, said.append)
    plan = begin(study, ledger)
    shared, done = Shared(ledger, study), 0
    while not plan.over and done != most:
        shared.advance(plan)
        if not (run := plan.queue.next(0.0)):
            break
        last = work(Worker(job_of(ledger.runs_url, run.spec, keep_weights=run.phase == "confirm")))[-1]
        said += last.messages
        if last.state == "ended":
            ledger.add(run.run_id, last.result)
            plan.finish(run.run_id, last.result)
            done += 1
        elif not plan.queue.lose(run.run_id, Failure(last.reason, damaged=last.damaged), blame=last.blame):
            ledger.fail(run.run_id, plan.queue.failed[run.run_id], last.log)
    ledger.write_index()
    return plan
