"""The plan's work on a Ray cluster. An attempt is in `worker`, the machines are in `nodes`.

Tune keeps the actors and their slots; everything else is the plan's. Decision 6 has what we had to learn about Tune.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import ray
from ray import exceptions

from sweep.cluster.nodes import Cluster
from sweep.cluster.reports import Began, Ended, Failed, Report, Training
from sweep.cluster.worker import IMPORTS, Job
from sweep.errors import AbortSweep
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.work import Failure, Run

TUNING, FINISHED = "sweep.cluster.tuning", "FINISHED"
"""The module that imports Tune, and Tune's word for a searcher that has no more."""
ROUND = 2000
"""Attempts after which Tune is begun anew: it never forgets one, and grows by 40 MB for every thousand."""
INDEX_SECONDS, SLOTS_SECONDS = 30.0, 2.0
TELLING = ("damaged", "missing")
"""First words of what a run says that the person at the sweep should know."""
PATIENCE_SECONDS = 15.0
"""After a signal, how long runs may take to end their step; Tune itself waits up to ten seconds more."""


@dataclass
class Attempt:
    """A try at a run, from its handing out until its process is ready for another."""

    run_id: str
    trial: Any = None
    """Tune's own object for it; None until Tune has begun it."""
    node: str = ""
    epochs: float = 0.0
    """How many are done."""
    ended: bool = False
    """Whether the plan knows its end already."""
    reason: str = ""
    """Why it was ended from here."""


class Driver:
    """Drives a plan to its end, or until it is told to stop."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        lease: Lease,
        *,
        data_dir: Path,
        say: Callable[[str], None],
        show: Callable[[Driver], None],
    ) -> None:
        self.plan, self.ledger, self.lease, self.data_dir = plan, ledger, lease, data_dir
        self.say, self.show = say, show
        self.resources = plan.study.resources
        self.slots = 0
        self.received: signal.Signals | None = None
        self.error: Exception | None = None
        self._attempts: dict[str, Attempt] = {}
        """Attempts under way, by Tune's name for each."""
        self._left: set[str] = set()
        """Nodes that work is kept away from, or that were the last ones left."""
        self._stop_at: float | None = None
        self._begun = 0
        self._counted = self._indexed = -math.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _nothing,
            (),
        )  # Tune pickles what it is given, to restore itself from; nothing is ever restored from that

    def __deepcopy__(self, _: Any) -> Driver:
        return self

    def drive(self, address: str | None) -> None:
        """Work until nothing is left to do, or a signal came (`received`); AbortSweep where it cannot go on."""
        self._listen()
        Thread(target=import_module, args=[TUNING]).start()  # takes a second, while Ray starts
        early = (TUNING, *IMPORTS)
        # what Ray prints of processes that died goes to stdout, which is ours for data; the plan tells of them
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            Cluster(address, self.resources, early) as self.cluster,
        ):
            self._listen()  # again, should ray.init have taken one for itself
            self.cluster.examine(self.ledger.store, self.plan.study.data, self.data_dir)
            while not self.plan.over and not self.stopping:
                self._begun = 0
                self._fit(shared=bool(address))
        if self.error:
            raise self.error
        if self.lease.lost.is_set():
            raise AbortSweep(
                "Another driver has taken this study over; this one stops. What it trained is kept."
            )

    @property
    def stopping(self) -> bool:
        """Whether no more work is to be handed out."""
        return bool(self.received or self.error or self.lease.lost.is_set())

    @property
    def epochs(self) -> dict[str, float]:
        """Epochs done, by run that is under way."""
        return {attempt.run_id: attempt.epochs for attempt in self._attempts.values() if not attempt.ended}

    # asked by Tune

    def hand_out(self, trial: str) -> Job | str | None:
        """The next attempt's job, None to wait, or FINISHED."""
        if self.stopping or self._begun >= ROUND:
            return FINISHED
        study = self.plan.study
        while due := self.plan.wanted():
            values = self.ledger.record(study, due, propose(study, due))
            self.plan.propose(due.arm, due.generation, values)
        if self.plan.over:
            return FINISHED
        now = time.monotonic()
        if now - self._counted > SLOTS_SECONDS:  # Tune asks for nothing else while nothing is under way
            self._counted, self.slots = now, self.cluster.slots(self.plan.queue.avoided)
        if len(self._attempts) >= self.slots or not (run := self.plan.queue.next(now)):
            return None
        self._begun += 1
        self._attempts[trial] = Attempt(run.run_id)
        return self._job(run)

    def begin(self, trial: Any) -> None:
        """Tune has begun an attempt."""
        if attempt := self._attempts.get(trial.trial_id):
            attempt.trial = trial

    def heard(self, trial: str, report: Report) -> None:
        """Take what an attempt says of itself."""
        run_id, attempt = report.run_id, self._attempts.get(trial, Attempt(report.run_id))
        attempt.node = report.node
        self.plan.queue.progress(run_id, time.monotonic())
        for line in report.said:
            if line.startswith(TELLING) or " continues " in line:
                self.say(f"run {run_id}: {line}")
        match report:
            case Began():
                pass
            case Training():
                attempt.epochs = report.epochs
            case Ended():
                self.ledger.add(run_id, report.result)
                self.plan.finish(run_id, report.result, report.node)
                self._attempts.pop(trial, None)
            case Failed():
                failure = Failure(report.reason, self.cluster.name(report.node), damaged=report.damaged)
                node = report.node if report.machine else ""
                self._lose(attempt, failure, node, report.log, blame=report.blame)

    def lost(self, trial: str, reason: str) -> None:
        """An attempt's process is gone."""
        attempt = self._attempts.pop(trial, None)
        if attempt and not attempt.ended:
            failure = Failure(attempt.reason or reason, self.cluster.name(attempt.node))
            self._lose(attempt, failure, attempt.node, [])

    def tend(self) -> None:
        """Look after what needs it now and then; called several times a second."""
        now = time.monotonic()
        if now - self._indexed > INDEX_SECONDS:
            self._indexed = now
            self.ledger.write_index()
        self.lease.now = {"running": len(self.plan.queue.running), "slots": self.slots}
        if self.plan.over and not self._attempts:  # who follows need not wait for Ray to end
            self.lease.release()
        if overdue := set(self.plan.queue.overdue(now)):
            for attempt in self._attempts.values():
                if attempt.run_id in overdue and not attempt.ended:
                    self._kill(attempt, now)
        self.show(self)

    def out_of_patience(self) -> bool:
        """Whether runs under way were waited for long enough after a signal."""
        return self._stop_at is not None and time.monotonic() - self._stop_at > PATIENCE_SECONDS

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Keep an exception from Tune, which would end everything without letting the runs keep anything."""
        try:
            return call()
        except Exception as error:
            self.error = self.error or error
            return None

    # inside

    def _kill(self, attempt: Attempt, now: float) -> None:
        """End a process that makes no progress; Tune then tells that it is gone."""
        attempt.reason = f"no progress for {self.resources.deadline:g} s; the process was ended."
        self.plan.queue.progress(
            attempt.run_id, now
        )  # the next deadline starts here, should this not end it
        if attempt.trial and (actor := attempt.trial.temporary_state.ray_actor):
            ray.kill(actor, no_restart=True)

    def _lose(
        self, attempt: Attempt, failure: Failure, node: str, log: list[str], *, blame: bool = True
    ) -> None:
        attempt.ended, run_id = True, attempt.run_id
        again = self.plan.queue.lose(run_id, failure, node, blame=blame)
        where = f" on {failure.node}" if failure.node else ""
        what_next = "It is tried again." if again else "It is given up for now."
        self.say(f"run {run_id}{where}: {failure.reason} {what_next}")
        if not again:
            self.ledger.fail(run_id, self.plan.queue.failed[run_id], log)
        avoided = self.plan.queue.avoided
        if node in avoided and node not in self._left:
            self._left.add(node)
            if self.cluster.keep_away(node, avoided):
                name = self.cluster.name(node)
                self.say(f"node {name}: attempts keep ending badly there; no more work goes to it.")
            else:
                self.plan.queue.forgive(node)

    def _job(self, run: Run) -> Job:
        return Job(
            run_id=run.run_id,
            spec=run.spec.to_json(),
            place=self.ledger.runs_url,
            data_dir=str(self.data_dir),
            device="cuda" if self.resources.gpus else "cpu",
            threads=self.resources.cpus,
            commit_seconds=self.resources.commit_seconds,
            keep_weights=run.phase == "confirm",
        )

    def _listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signal)

    def _signal(self, number: int, _: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received, self._stop_at = signal.Signals(number), time.monotonic()
        what_next = (
            "no more runs are begun; those under way keep their last epoch. Once more to stop at once."
        )
        self.say(f"{self.received.name}: {what_next}")

    def _fit(self, *, shared: bool) -> None:
        from sweep.cluster import tuning

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong is told by the plan
        cpus, gpus = self.resources.cpus, self.resources.gpus
        with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
            try:
                tuning.fit(self, self.plan.study.name, folder, cpus=cpus, gpus=gpus, shared=shared)
            except (tuning.TuneError, exceptions.RayError, RuntimeError) as error:
                if not self.error:
                    raise AbortSweep(f"Ray: {str(error).strip().splitlines()[-1]}") from error


def _nothing() -> None:
    pass
