"""The queue of runs: which are ready, running or given up, and on which nodes attempts fail."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from sweep.planning.values import Failure, Run

NODE_STRIKES = 3
"""A node gets no more work after this many different runs failed there and none ended well between them."""
FATE_SECONDS = 90.0
"""A node that is not found dead within this time after a process was lost there lives: the loss counts."""
LOST_IN_A_ROW = 10
"""A run with this many losses that are not judged yet is given up, so that it cannot go on for ever."""


@dataclass(eq=False)
class Loss:
    """A process that was lost, on a node that may be gone. It is judged when the node's fate is known."""

    run: Run
    failure: Failure
    node: str
    at: float
    blames: bool
    """Whether it counts as a try if the node lives. A run that has its outcome is not blamed."""
    strikes: bool
    """Whether it counts against the node. It does not where a run has ended well there since."""
    apart: bool
    """Whether its run has to be trained apart because of it."""


@dataclass(frozen=True)
class Judged:
    """What became of a loss."""

    run_id: str
    failure: Failure
    gone: bool
    """Whether the node is gone, so that nobody is to blame."""
    given_up: bool
    """Whether the run is given up because of it."""


class Queue:
    """Hands out the most urgent run, and decides whether a run is tried again after an attempt failed."""

    def __init__(self, attempts: int, deadline: float) -> None:
        """`attempts` is how often a run is tried, `deadline` how many seconds it may go without progress."""
        self.attempts, self.deadline = attempts, deadline
        self.running: dict[str, Run] = {}
        self.failed: dict[str, Failure] = {}
        """Why runs were given up for now, by run_id."""
        self.apart: set[str] = set()
        """Runs that are trained in a process of their own, where others share one."""
        self._ready: list[tuple[tuple[int, ...], str, Run]] = []
        self._later: list[tuple[float, Run]] = []
        """The runs that were put off, and when they are ready again."""
        self._since: dict[str, float] = {}
        """The time of each running run's last progress."""
        self._tries: Counter[str] = Counter()
        self._strikes: dict[str, set[str]] = {}
        self._losses: list[Loss] = []
        """The losses that are not judged yet."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    @property
    def ready(self) -> list[Run]:
        """The runs that are ready, in no order."""
        return [run for _, _, run in self._ready]

    def demand(self, now: float) -> int:
        """The number of runs that could be under way now, were there room for all."""
        return len(self.running) + len(self._ready) + sum(until <= now for until, _ in self._later)

    def add(self, run: Run) -> None:
        """Make a run ready, unless it was given up."""
        if run.run_id not in self.failed:
            self._push(run)

    def next(self, now: float) -> Run | None:
        """The most urgent run that is ready. It counts as running from now on."""
        for _, run in (put_off := [item for item in self._later if item[0] <= now]):
            self._push(run)
        self._later = [item for item in self._later if item not in put_off]
        if not self._ready:
            return None
        _, run_id, run = heapq.heappop(self._ready)
        self.running[run_id], self._since[run_id] = run, now
        return run

    def progress(self, run_id: str, now: float) -> None:
        """Note that a running run has made progress."""
        if run_id in self.running:
            self._since[run_id] = now

    def overdue(self, now: float) -> list[str]:
        """The runs that made no progress for longer than the deadline."""
        return [run_id for run_id, since in self._since.items() if now - since > self.deadline]

    def lose(
        self, run_id: str, failure: Failure, node: str = "", blame: bool = True, shared: bool = False
    ) -> bool:
        """End an attempt that has no outcome. Returns whether its run is tried again.

        `node` is given where the machine may be at fault. Without `blame` the attempt does not count as a
        try. A run that is tried again goes behind all that are ready. So a node on which everything fails
        takes one try from many runs, and not every try of one run.

        `shared` says that other runs may be at fault, because all were lost with the process that they
        shared. The first time a run is not blamed, but goes apart. What is lost there is its own fault.
        """
        if shared and run_id not in self.apart:
            self.apart.add(run_id)
            blame = False
        run = self.running.pop(run_id)
        del self._since[run_id]
        if blame:
            self._tries[run_id] += 1
            if node:
                self._strikes.setdefault(node, set()).add(run_id)
        if failure.damaged or self._tries[run_id] >= self.attempts:
            self._give_up(run, failure)
            return False
        self._push(run)
        return True

    def lose_early(
        self, run_id: str, failure: Failure, node: str, now: float, *, shared: bool = False
    ) -> bool:
        """End an attempt whose process was lost, before anybody knows whether its node is gone.

        Returns whether its run is tried again. It is ready at once, and `judge` decides later whether the
        attempt counts as a try. `node` is empty where it is not known. `shared` is that of `lose`.
        """
        apart = shared and run_id not in self.apart
        if apart:
            self.apart.add(run_id)
        run = self.running.pop(run_id)
        del self._since[run_id]
        self._losses.append(Loss(run, failure, node, now, not apart, not apart and bool(node), apart))
        lost = self._unjudged(run_id)
        if lost >= LOST_IN_A_ROW:
            failure = replace(failure, reason=f"{failure.reason} That happened {lost} times in a row.")
        elif self._tries[run_id] < self.attempts:
            self._push(run)
            return True
        self._give_up(run, failure)
        return False

    def judge(self, gone: Callable[[Loss], bool], now: float) -> list[Judged]:
        """Judge the losses whose node is gone, and those after which it has lived for FATE_SECONDS.

        `now` is the time up to which `gone` knows. A run that is being tried again when it loses its last
        try is given up only if that attempt ends without an outcome as well.
        """
        judged: list[Judged] = []
        for loss in list(self._losses):
            if not (dead := gone(loss)) and now - loss.at < FATE_SECONDS:
                continue
            self._losses.remove(loss)
            run_id, given_up = loss.run.run_id, False
            if dead and loss.apart:
                self.apart.discard(run_id)
            if not dead and loss.strikes:
                self._strikes.setdefault(loss.node, set()).add(run_id)
            if not loss.blames or run_id in self.failed:
                continue
            if dead and loss.run in self.ready:
                # nobody's fault: it is as urgent as before
                self.withdraw(run_id)
                self._push(loss.run)
            if not dead:
                self._tries[run_id] += 1
                given_up = self._tries[run_id] >= self.attempts and run_id not in self.running
            if given_up:
                self.withdraw(run_id)
                self._give_up(loss.run, loss.failure)
            judged.append(Judged(run_id, loss.failure, dead, given_up))
        return judged

    def put_off(self, run_id: str, until: float) -> None:
        """End an attempt that began nothing. Its run is ready again at the given time, and loses no try."""
        del self._since[run_id]
        self._later.append((until, self.running.pop(run_id)))

    def settle(self, run_id: str, node: str) -> None:
        """Forget a run that has its outcome, and the failures of the node that finished it."""
        if not self.running.pop(run_id, None):
            # An attempt that was taken for lost has finished after all.
            self.withdraw(run_id)
        self._since.pop(run_id, None)
        self._tries.pop(run_id, None)
        self.apart.discard(run_id)
        self.failed.pop(run_id, None)
        self._strikes.pop(node, None)
        for loss in self._losses:
            loss.blames = loss.blames and loss.run.run_id != run_id
            loss.strikes = loss.strikes and loss.node != node

    def damage(self, run_id: str, reason: str) -> None:
        """Give up a finished run whose files are damaged. It does not run again, and what needs it waits."""
        self.failed[run_id] = Failure(reason, attempts=0, damaged=True)
        self.withdraw(run_id)

    def withdraw(self, run_id: str) -> None:
        """Remove a run from those that are ready or were put off."""
        self._later = [item for item in self._later if item[1].run_id != run_id]
        self._ready = [item for item in self._ready if item[1] != run_id]
        heapq.heapify(self._ready)

    @property
    def avoided(self) -> set[str]:
        """The nodes that get no more work, because attempts keep failing there."""
        return {node for node, runs in self._strikes.items() if len(runs) >= NODE_STRIKES}

    def forgive(self, node: str) -> None:
        """Clear a node's failures, for a driver that has no other node left."""
        self._strikes.pop(node, None)

    def _unjudged(self, run_id: str) -> int:
        return sum(loss.run.run_id == run_id for loss in self._losses)

    def _give_up(self, run: Run, failure: Failure) -> None:
        what, attempts = f"{run.candidate}, {run.phase} seed {run.spec.seed}", self._tries[run.run_id]
        attempts += self._unjudged(run.run_id)
        self.failed[run.run_id] = replace(failure, attempts=attempts, what=what)

    def _push(self, run: Run) -> None:
        lost = self._tries[run.run_id] + self._unjudged(run.run_id)
        heapq.heappush(self._ready, ((lost, *run.priority), run.run_id, run))
