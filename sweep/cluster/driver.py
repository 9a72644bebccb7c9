"""The driver: it hands the plan's work to Ray Tune, and tells the plan and the ledger what comes of it.

An attempt is in `worker`, the machines are in `nodes`. Tune keeps the actors and their slots; the plan
decides everything else. Decision 6 lists what we had to learn about Tune.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import ray
from ray import exceptions

from sweep.cluster.examination import Examination
from sweep.cluster.fates import Fates
from sweep.cluster.guest import NO_MEMORY, NODE_GONE
from sweep.cluster.hosts import Hosts
from sweep.cluster.metrics import Metrics
from sweep.cluster.nodes import Cluster
from sweep.cluster.signals import PATIENCE_SECONDS, Signals
from sweep.cluster.slots import Slots
from sweep.errors import AbortSweep
from sweep.ledger.gpu_time import GpuClock
from sweep.ledger.lease import Lease
from sweep.ledger.ledger import Ledger
from sweep.ledger.shared import Shared
from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Run
from trainer.claims import BEAT_SECONDS, Watch
from trainer.exits import INFRASTRUCTURE
from trainer.models import own
from trainer.plain import one_line
from trainer.reports import Began, Busy, Ended, Failed, Progress, Report
from trainer.worker import IMPORTS, Job

TUNING, FINISHED = "sweep.cluster.tuning", "FINISHED"
"""The module that imports Tune, and Tune's word for a searcher without further work."""
ROUND = 2000
"""The number of attempts after which Tune is started anew. It keeps every attempt, 40 MB for a thousand."""
INDEX_SECONDS = 30.0
"""The time after which the index is written again."""
DRAINED = "its node is being drained."
"""The reason of an attempt that leaves a node before the node goes."""
IMPORTANT = ("damaged", "missing")
"""The first words of a run's messages that the person at the sweep should see."""


@dataclass
class Attempt:
    """A try at a run, from the moment it is handed out until its process is ready for another one."""

    run_id: str
    trial: Any = None
    """Tune's own object for it; None until Tune has begun it."""
    node: str = ""
    epochs: float = 0.0
    """The epochs done."""
    ended: bool = False
    """Whether the plan knows already that it ended."""
    reason: str = ""
    """Why the driver ended it; empty where it did not."""


class Driver:
    """The driver of a plan. It works until nothing is left to do, or until a signal stops it."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        lease: Lease,
        shared: Shared,
        signals: Signals,
        *,
        data_dir: Path,
        say: Callable[[str], None],
        show: Callable[[Driver], None],
    ) -> None:
        self.plan, self.ledger, self.lease, self.shared = plan, ledger, lease, shared
        self.signals = signals
        self.data_dir = data_dir
        self.say, self.show = say, show
        self.resources = plan.study.resources
        self.slots = 0
        self.hosts = Hosts(self.resources.sharing)
        self.gpu_clock = GpuClock(ledger, plan.study, time.monotonic())
        self.error: Exception | None = None
        self._attempts: dict[str, Attempt] = {}
        """Attempts under way, by Tune's name for each."""
        self._bad_nodes: set[str] = set()
        """Nodes on which attempts kept ending, whether they could be kept free of work or not."""
        self._begun = 0
        """The attempts handed out since Tune was started."""
        self._watch = Watch()
        self._silent: dict[str, str] = {}
        """The claims on runs that others train and that give no sign of life, by run_id."""
        self._busy: set[str] = set()
        """The runs that others were seen to train."""
        self._indexed_at = -math.inf
        self.metrics: Metrics | None = None
        """None where the cluster is our own."""
        self._spent_at = math.inf
        """When the GPU-hours were spent."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune pickles this object so that it could restore itself, which never happens
        return _nothing, ()

    def __deepcopy__(self, _: Any) -> Driver:
        return self

    def drive(self, address: str | None) -> None:
        """Work until nothing is left to do, or until a signal comes (`signals.received`).

        Raises AbortSweep where the work cannot go on.
        """
        self.signals.begin(self.say)
        # this import takes a second, in which Ray can start
        Thread(target=import_module, args=[TUNING]).start()
        early = (TUNING, *IMPORTS)
        # Ray prints about processes that died on stdout, which is for our data; the plan reports them
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            Cluster(address, self.resources, early) as self.cluster,
            self._slots_of(self.cluster) as self.room,
        ):
            # once more, because Ray may have set handlers of its own
            self.signals.listen()
            self.metrics = Metrics(self.plan.study.name) if address else None
            if not address and not self.cluster.room():
                raise AbortSweep(self.cluster.no_room())
            # now, so that Ray makes the slots meanwhile
            now = time.monotonic()
            self.room.reserve(self.plan.queue.demand(now), now)
            self.room.examination.begin()
            head = ray.get_runtime_context().gcs_address
            with Fates(head, tell=self._head_is_lost, end=self._end_without_head) as self.fates:
                while not self.plan.over and not self.stopping:
                    self._begun = 0
                    self._fit(shared=bool(address))
        self.signals.end()
        if self.error:
            raise self.error
        if self.lease.lost.is_set():
            raise AbortSweep(
                "Another driver has taken this study over; this one stops. What it trained is kept."
            )

    @property
    def stopping(self) -> bool:
        """Whether no more work may be handed out."""
        return bool(self.signals.received or self.error or self.lease.lost.is_set() or self.gpu_clock.spent)

    @property
    def epochs(self) -> dict[str, float]:
        """The epochs done by each run that is under way."""
        return {attempt.run_id: attempt.epochs for attempt in self._attempts.values() if not attempt.ended}

    # called by Tune

    def hand_out(self, trial: str) -> Job | str | None:
        """The job of the next attempt; None where Tune should wait, FINISHED where there is no more work."""
        self.lease.look_after_pause()
        if self.stopping or self._begun >= ROUND:
            return FINISHED
        self.shared.advance(self.plan)
        if self.plan.over:
            return FINISHED
        if self.fates.silent:
            # nothing can begin now, and asking for room would take until the head is back
            return None
        now = time.monotonic()
        self._look(now)
        if len(self._attempts) >= self.slots or not (run := self.plan.queue.next(now)):
            return None
        self._begun += 1
        self._attempts[trial] = Attempt(run.run_id)
        return self._job(run)

    def begin(self, trial: Any) -> None:
        """Note that Tune has begun an attempt."""
        if attempt := self._attempts.get(trial.trial_id):
            attempt.trial = trial

    def heard(self, trial: str, report: Report) -> None:
        """Take an attempt's report, and tell the plan and the ledger."""
        run_id, attempt = report.run_id, self._attempts.get(trial, Attempt(report.run_id))
        attempt.node = report.node
        self.plan.queue.progress(run_id, time.monotonic())
        for message in report.messages:
            if message.startswith(IMPORTANT) or " continues " in message:
                self.say(f"run {run_id}: {message}")
        if report.node in self.fates.draining and isinstance(report, Began | Progress):
            self._hand_over(attempt)
        match report:
            case Began():
                if report.gpu and attempt.trial and not attempt.reason:
                    alone = run_id in self.plan.queue.apart
                    host = self.hosts.enter(trial, report.node, report.gpu, alone=alone)
                    attempt.trial.temporary_state.ray_actor.enter.remote(host)
            case Progress():
                attempt.epochs = report.epochs
                if self.metrics:
                    self.metrics.hear(run_id, report.kept, time.monotonic())
            case Busy():
                self._attempts.pop(trial, None)
                self.hosts.ended(trial)
                self._put_off(run_id, report)
            case Ended():
                self.ledger.add(run_id, report.result)
                self.plan.finish(run_id, report.result, report.node)
                self._attempts.pop(trial, None)
                self.hosts.ended(trial)
            case Failed():
                self.hosts.ended(trial, failed=True)
                failure = Failure(report.reason, self.fates.name(report.node), damaged=report.damaged)
                node = report.node if report.machine else ""
                if report.machine and report.fatal:
                    self._lose_process(attempt, failure, report.log)
                else:
                    self._lose(attempt, failure, node, report.log, blame=report.blame, process=report.fatal)

    def lost(self, trial: str, reason: str) -> None:
        """Note that an attempt's process is gone."""
        self.hosts.lost(trial)
        attempt = self._attempts.pop(trial, None)
        if attempt and not attempt.ended:
            failure = Failure(attempt.reason or reason, self.fates.name(attempt.node))
            self._lose_process(attempt, failure, [])

    def tend(self) -> None:
        """Write the index, end overdue attempts, show progress. Tune calls it several times a second."""
        self.lease.look_after_pause()
        now = time.monotonic()
        if not (self.stopping or self.fates.silent):
            # also while Tune asks for no more work, because an attempt may wait for a slot
            self._look(now)
        if now - self._indexed_at > INDEX_SECONDS and not self.lease.lost.is_set():
            self._indexed_at = now
            self.ledger.write_index()
            self.gpu_clock.write()
        self._count_gpu_time(now)
        kept_away = {self.cluster.name(node): why for node, why in self.cluster.kept_away.items()}
        running = len(self.plan.queue.running)
        self.lease.now = {"running": running, "slots": self.slots, "kept_away": kept_away}
        if self.plan.over and not self._attempts:
            # so that the next driver need not wait until Ray has ended
            self.lease.release()
        self._judge()
        if not self.fates.silent and (overdue := set(self.plan.queue.overdue(now))):
            for attempt in self._attempts.values():
                if attempt.run_id in overdue and not attempt.ended:
                    self._kill(attempt, now)
        self.hosts.tend()
        self._show(now)

    @property
    def out_of_patience(self) -> bool:
        """Whether the time that runs have to stop is over."""
        return self.signals.out_of_patience or time.monotonic() - self._spent_at > PATIENCE_SECONDS

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Make a call for Tune and keep its exception in `error`.

        Tune would end everything at an exception, before the runs could commit.
        """
        try:
            return call()
        except Exception as error:
            # a head that is away for a moment ends nothing, and `fates` ends the sweep if it stays away
            if not (self.fates.silent and isinstance(error, exceptions.RayError)):
                self.error = self.error or error
            return None

    # inside

    def _slots_of(self, cluster: Cluster) -> Slots:
        study = self.plan.study
        examination = Examination(cluster, self.ledger.store, study.data, self.data_dir, self.say)
        return Slots(cluster, study.name, examination, self.say)

    def _show(self, now: float) -> None:
        self.show(self)
        if self.metrics:
            self.metrics.show(self.plan, self.epochs, now)

    def _count_gpu_time(self, now: float) -> None:
        was_spent = self.gpu_clock.spent
        # an attempt that waits for a node takes no GPU yet
        under_way = [attempt for attempt in self._attempts.values() if attempt.node and not attempt.ended]
        self.gpu_clock.count(len(under_way), now)
        if self.gpu_clock.spent and not was_spent:
            self._spent_at = now
            self.say(
                f"{self.gpu_clock.hours}: no more runs are begun; those under way keep their last epoch."
            )

    def _look(self, now: float) -> None:
        # the head may have gone since `fates` asked it last
        with suppress(exceptions.RpcError, exceptions.GetTimeoutError):
            self.slots = self.room.look(self.plan.queue.demand(now), now, self.fates.draining)

    def _kill(self, attempt: Attempt, now: float) -> None:
        """End a process that makes no progress. Tune then calls `lost`."""
        attempt.reason = f"no progress for {self.resources.deadline:g} s; the process was ended."
        # the next deadline starts here, in case the process does not end
        self.plan.queue.progress(attempt.run_id, now)
        if attempt.trial and (actor := attempt.trial.temporary_state.ray_actor):
            ray.kill(actor, no_restart=True)

    def _hand_over(self, attempt: Attempt) -> None:
        """Make an attempt leave a node that is being drained. It says so in its next report."""
        if not attempt.reason and attempt.trial and (actor := attempt.trial.temporary_state.ray_actor):
            attempt.reason = DRAINED
            actor.hand_over.remote(DRAINED)

    def _head_is_lost(self) -> None:
        """End the sweep in order, before Ray ends this process. Attempts commit what they have trained."""
        where = f"at {self.cluster.address}" if self.cluster.address else "on this machine"
        self.error = self.error or AbortSweep(
            f"The head of the Ray cluster {where} does not answer. "
            "What is committed is kept; run the same command again once it is back."
        )

    def _end_without_head(self) -> None:
        """End this process, because everything in it may be waiting for the head."""
        self.say(str(self.error))
        self.lease.release()
        os._exit(INFRASTRUCTURE)

    def _put_off(self, run_id: str, report: Busy) -> None:
        """Leave a run that somebody outside of the sweep trains for later. It is said once."""
        if self._watch.is_silent(run_id, report.stamp):
            self._silent[run_id] = report.stamp
        if run_id not in self._busy:
            self._busy.add(run_id)
            self.say(f"{report.claim} The sweep goes on with other runs, and looks for its outcome later.")
        self.plan.queue.put_off(run_id, time.monotonic() + BEAT_SECONDS)

    def _lose(
        self,
        attempt: Attempt,
        failure: Failure,
        node: str,
        log: list[str],
        *,
        blame: bool = True,
        process: bool = False,
    ) -> None:
        """Tell plan and ledger that an attempt ended without an outcome. `process`: its process was lost."""
        attempt.ended, run_id = True, attempt.run_id
        shared = process and self.resources.sharing > 1
        again = self.plan.queue.lose(run_id, failure, node, blame=blame, shared=shared)
        nobodys_fault = failure.reason in (NODE_GONE, DRAINED)
        what_next = "It goes on elsewhere; no try is spent." if nobodys_fault else "It is tried again."
        self._tell_lost(run_id, failure, what_next, log, given_up=not again)
        self._avoid(node)

    def _lose_process(self, attempt: Attempt, failure: Failure, log: list[str]) -> None:
        """Tell plan and ledger that an attempt's process was lost, or the host that trained its run.

        Its node may be gone, which Ray tells much later. A cluster of our own has the driver's node alone.
        """
        node, run_id = attempt.node, attempt.run_id
        if failure.reason in (NODE_GONE, DRAINED) or self.fates.is_gone(node) or node in self.fates.draining:
            self._lose(attempt, replace(failure, reason=NODE_GONE), "", log, blame=False)
        elif not self.cluster.address or failure.reason == NO_MEMORY:
            self._lose(attempt, failure, node, log, process=True)
        else:
            attempt.ended = True
            shared, now = self.resources.sharing > 1, time.monotonic()
            again = self.plan.queue.lose_early(run_id, failure, node, now, shared=shared)
            what_next = "It goes on elsewhere; it loses a try if its node turns out to live."
            self._tell_lost(run_id, failure, what_next, log, given_up=not again)

    def _judge(self) -> None:
        """Count the lost processes whose nodes are known to live by now, and tell which nodes are gone."""
        for judged in self.plan.queue.judge(self.fates.took, self.fates.answered_at):
            lives = f"{judged.failure.reason} Its node lives."
            failure = replace(judged.failure, reason=NODE_GONE if judged.gone else lives)
            what_next = "No try is spent." if judged.gone else "That counts as a try."
            self._tell_lost(judged.run_id, failure, what_next, [], given_up=judged.given_up)
        for node in self.plan.queue.avoided - self._bad_nodes:
            self._avoid(node)

    def _tell_lost(
        self, run_id: str, failure: Failure, what_next: str, log: list[str], *, given_up: bool
    ) -> None:
        """Say what became of a run whose attempt was lost. One that is given up goes into the ledger."""
        where = f" on {failure.node}" if failure.node else ""
        if given_up:
            what_next = "It is given up for now."
            self.ledger.fail(run_id, self.plan.queue.failed[run_id], log)
        self.say(one_line(f"run {run_id}{where}: {failure.reason} {what_next}"))

    def _avoid(self, node: str) -> None:
        """Keep work away from a node on which attempts kept failing."""
        avoided = self.plan.queue.avoided
        if node in avoided and node not in self._bad_nodes:
            self._bad_nodes.add(node)
            if self.cluster.keep_away(node, avoided):
                name = self.fates.name(node)
                self.say(f"node {name}: attempts keep ending badly there; no more work goes to it.")
            else:
                self.plan.queue.forgive(node)

    def _job(self, run: Run) -> Job:
        return Job(
            run_id=run.run_id,
            spec=run.spec.to_json(),
            runs_url=self.ledger.runs_url,
            store_url=self.ledger.home.where(),
            data_dir=str(self.data_dir),
            device="cuda" if self.resources.gpus else "cpu",
            threads=self.resources.cpus,
            commit_share=self.resources.commit_share,
            keep_weights=run.phase == "confirm",
            hosted=self.resources.sharing > 1,
            lease=self.lease.number,
            silent=self._silent.get(run.run_id, ""),
            allowed=own.allowed(),
        )

    def _fit(self, *, shared: bool) -> None:
        from sweep.cluster import tuning

        # the plan reports what goes wrong
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        cpus, gpus = self.resources.cpus, self.resources.gpus
        with tempfile.TemporaryDirectory(prefix="sweep-", ignore_cleanup_errors=True) as folder:
            try:
                name = self.plan.study.name
                tuning.fit(self, self.room, name, folder, cpus=cpus, gpus=gpus, shared=shared)
            except (tuning.TuneError, exceptions.RayError, RuntimeError) as error:
                if not self.error:
                    raise AbortSweep(f"Ray: {str(error).strip().splitlines()[-1]}") from error


def _nothing() -> None:
    pass
