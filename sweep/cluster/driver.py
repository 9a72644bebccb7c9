"""The plan's work on a Ray cluster. What an attempt does is in `worker`, the machines are in `cluster`.

Tune keeps the actors and their slots; everything else is the plan's. What Tune does that we had to learn about stands in
docs/decisions/0006.
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
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

os.environ |= {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its handler makes fit() return as if all were well
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the slots are counted here
    "RAY_AIR_NEW_OUTPUT": "0",  # a banner on stdout
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

import ray
from ray import exceptions

from sweep.cluster.nodes import Cluster
from sweep.cluster.worker import IMPORTS, Job
from sweep.errors import AbortSweep
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.work import Failure, Result, Run

TUNING, FINISHED = "sweep.cluster.tuning", "FINISHED"
"""The room that imports Tune, and Tune's word for a searcher that has no more."""
ROUND = 2000
"""Attempts after which Tune is begun anew: it never forgets one, and grows by 40 MB for every thousand."""
INDEX_SECONDS, SLOTS_SECONDS = 30.0, 2.0
SHOWN = ("damaged", "missing")
"""What a run says that the person at the sweep should know, by its first word."""
PATIENCE_SECONDS = 15.0
"""After a signal, how long runs may take to come to the end of their step; Tune itself waits up to ten seconds more."""


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
        self.plan, self.ledger, self.lease, self.data_dir, self.say, self.show = (
            plan,
            ledger,
            lease,
            data_dir,
            say,
            show,
        )
        self.study, self.resources = plan.study, plan.study.resources
        self.slots = 0
        self.received: signal.Signals | None = None
        self.error: Exception | None = None
        self.epochs: dict[str, float] = {}
        """Epochs done, by run that is under way."""
        self._stop_at: float | None = None
        self._runs: dict[str, str] = {}
        """Run by Tune's name for its attempt, until the process is ready for another."""
        self._trials: dict[str, Any] = {}
        self._nodes: dict[str, str] = {}
        self._told: set[str] = set()
        """Attempts whose end the plan knows already."""
        self._reasons: dict[str, str] = {}
        """Of attempts that were ended from here."""
        self._left: set[str] = set()
        """Nodes that work is kept away from, or that were the last ones left."""
        self._begun = 0
        self._counted = self._indexed = -math.inf

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            _nothing,
            (),
        )  # Tune pickles what it is given, to restore itself from; nothing is ever restored from that here

    def __deepcopy__(self, _: Any) -> Driver:
        return self

    def drive(self, address: str | None) -> None:
        """Work until nothing is left to do, or a signal came (`received`); AbortSweep where it cannot go on."""
        self._listen()
        Thread(target=import_module, args=[TUNING]).start()  # takes a second, while Ray starts
        # what Ray prints of processes that died goes to stdout, which is ours for data; the plan tells of them
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            Cluster(address, self.resources, (TUNING, *IMPORTS)) as self.cluster,
        ):
            self._listen()  # again, should ray.init have taken one for itself
            self.cluster.examine(self.ledger.store, self.study.data, self.data_dir)
            while not self.plan.over and not self.stopping:
                self._begun = 0
                self._fit()
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

    # asked by Tune

    def hand_out(self, trial: str) -> dict[str, Any] | str | None:
        """The next attempt's configuration, None to wait, or the end."""
        if self.stopping or self._begun >= ROUND:
            return FINISHED
        while due := self.plan.wanted():
            self.plan.propose(
                due.arm, due.generation, self.ledger.record(self.study, due, propose(self.study, due))
            )
        if self.plan.over:
            return FINISHED
        now = time.monotonic()
        if (
            now - self._counted > SLOTS_SECONDS
        ):  # here, because Tune asks for nothing else while nothing is under way
            self._counted, self.slots = now, self.cluster.slots(self.plan.avoided)
        if len(self._runs) >= self.slots or not (run := self.plan.next(now)):
            return None
        self._begun += 1
        self._runs[trial] = run.run_id
        return {"job": asdict(self._job(run))}

    def heard(self, trial: str, report: dict[str, Any]) -> None:
        """What an attempt says of itself, every few seconds."""
        run_id, node = report["run_id"], report["node"]
        self._nodes[trial] = node
        self.plan.progress(run_id, time.monotonic())
        for line in report["said"]:
            if line.startswith(SHOWN) or " continues " in line:
                self.say(f"run {run_id}: {line}")
        match report["state"]:
            case "training":
                self.epochs[run_id] = report["epochs"]
            case "ended":
                result = Result(**report["result"])
                self.ledger.add(run_id, result)
                self.plan.finish(run_id, result, node)
                self._end(trial)
            case "failed":
                failure = Failure(report["reason"], self.cluster.name(node), damaged=report["damaged"])
                self._told.add(trial)
                self._lose(
                    run_id, failure, node if report["machine"] else "", report["log"], blame=report["blame"]
                )
            case _:
                pass

    def lost(self, trial: str, reason: str) -> None:
        """An attempt's process is gone."""
        run_id = self._runs.get(trial)
        if run_id and trial not in self._told:
            node = self._nodes.get(trial, "")
            self._lose(run_id, Failure(self._reasons.get(trial, reason), self.cluster.name(node)), node, [])
        self._end(trial)

    def tend(self) -> None:
        """What has to be looked after now and then; called several times a second."""
        now = time.monotonic()
        if now - self._indexed > INDEX_SECONDS:
            self._indexed = now
            self.ledger.write_index()
        self.lease.now = {"running": len(self.plan.running), "slots": self.slots}
        if self.plan.over and not self._runs:  # who follows need not wait for Ray to end
            self.lease.release()
        if overdue := set(self.plan.overdue(now)):
            for trial in [
                trial
                for trial, run_id in self._runs.items()
                if run_id in overdue and trial not in self._told
            ]:
                self._kill(trial, now)
        self.show(self)

    # inside

    def _kill(self, trial: str, now: float) -> None:
        """End a process that does not come on; Tune then tells that it is gone."""
        self._reasons[trial] = f"no progress for {self.resources.deadline:g} s; the process was ended."
        self.plan.progress(self._runs[trial], now)  # the next deadline starts here, should this not end it
        if trial in self._trials and (actor := self._trials[trial].temporary_state.ray_actor):
            ray.kill(actor, no_restart=True)

    def _lose(self, run_id: str, failure: Failure, node: str, log: list[str], *, blame: bool = True) -> None:
        self.epochs.pop(run_id, None)
        again = self.plan.lose(run_id, failure, node, blame=blame)
        where = f" on {failure.node}" if failure.node else ""
        self.say(
            f"run {run_id}{where}: {failure.reason} {'It is tried again.' if again else 'It is given up for now.'}"
        )
        if not again:
            self.ledger.fail(run_id, self.plan.failed[run_id], log)
        if node in self.plan.avoided and node not in self._left:
            self._left.add(node)
            if self.cluster.keep_away(node, self.plan.avoided):
                self.say(
                    f"node {self.cluster.name(node)}: attempts keep ending badly there; no more work goes to it."
                )
            else:
                self.plan.forgive(node)

    def _end(self, trial: str) -> None:
        self.epochs.pop(self._runs.pop(trial, ""), None)
        self._told.discard(trial)
        for known in (self._reasons, self._trials, self._nodes):
            known.pop(trial, None)

    def _job(self, run: Run) -> Job:
        return Job(
            run_id=run.run_id,
            spec=run.spec.to_json(),
            place=self.ledger.runs_place,
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
        self.say(
            f"{self.received.name}: no more runs are begun; those under way keep their last epoch. Once more to stop at once."
        )

    def out_of_patience(self) -> bool:
        """Whether runs under way were waited for long enough after a signal."""
        return self._stop_at is not None and time.monotonic() - self._stop_at > PATIENCE_SECONDS

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Tune must see no exception from here: it would end the experiment without letting the runs keep anything."""
        try:
            return call()
        except Exception as error:
            self.error = self.error or error
            return None

    def begin(self, trial: Any) -> None:
        """Tune has begun an attempt."""
        self._trials[trial.trial_id] = trial

    def _fit(self) -> None:
        from sweep.cluster import tuning

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong is told by the plan
        with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
            try:
                tuning.fit(self, self.study.name, folder)
            except (tuning.TuneError, exceptions.RayError, RuntimeError) as error:
                if not self.error:
                    raise AbortSweep(f"Ray: {str(error).strip().splitlines()[-1]}") from error


def _nothing() -> None:
    pass
