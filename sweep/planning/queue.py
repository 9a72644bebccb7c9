"""The runs that can be handed out: which are ready, running or given up, and the nodes where attempts end badly."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import replace

from sweep.planning.work import Failure, Run

NODE_STRIKES = 3
"""So many different runs end badly on a node, with none that ends well between them, before it gets no more work."""


class Queue:
    """Hands out the most urgent run, and decides whether one whose attempt was lost is tried again."""

    def __init__(self, attempts: int, deadline: float) -> None:
        """`attempts` is how often a run is tried, `deadline` the seconds it may go without progress."""
        self.attempts, self.deadline = attempts, deadline
        self.running: dict[str, Run] = {}
        self.failed: dict[str, Failure] = {}
        """Runs that are given up for now, by run_id."""
        self._ready: list[tuple[tuple[int, ...], str, Run]] = []
        self._since: dict[str, float] = {}
        """When each running run made progress last."""
        self._tries: Counter[str] = Counter()
        self._strikes: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, run: Run) -> None:
        """Make a run ready, unless it was given up."""
        if run.run_id not in self.failed:
            self._push(run)

    def next(self, now: float) -> Run | None:
        """The most urgent run that is ready; from now on it is running."""
        if not self._ready:
            return None
        _, run_id, run = heapq.heappop(self._ready)
        self.running[run_id], self._since[run_id] = run, now
        return run

    def progress(self, run_id: str, now: float) -> None:
        """Note that a running run has come further."""
        if run_id in self.running:
            self._since[run_id] = now

    def overdue(self, now: float) -> list[str]:
        """Running runs without progress for longer than the deadline."""
        return [run_id for run_id, since in self._since.items() if now - since > self.deadline]

    def lose(self, run_id: str, failure: Failure, node: str = "", blame: bool = True) -> bool:
        """End an attempt that has no outcome; the answer is whether its run is tried again.

        `node` is given where the machine may be at fault. Without blame the attempt does not count. A run that is
        tried again comes after all that is ready: a node on which everything fails then meets many runs once, and
        not one run until it is given up.
        """
        run = self.running.pop(run_id)
        del self._since[run_id]
        if blame:
            self._tries[run_id] += 1
            if node:
                self._strikes.setdefault(node, set()).add(run_id)
        if failure.damaged or self._tries[run_id] >= self.attempts:
            what = f"{run.candidate}, {run.phase} seed {run.spec.seed}"
            self.failed[run_id] = replace(failure, attempts=self._tries[run_id], what=what)
            return False
        self._push(run)
        return True

    def settle(self, run_id: str, node: str) -> None:
        """Forget a run that has its outcome, and the failures of the node that brought it."""
        if not self.running.pop(run_id, None):
            self.withdraw(run_id)  # its attempt was thought lost
        for known in (self._since, self._tries, self.failed):
            known.pop(run_id, None)
        self._strikes.pop(node, None)

    def damage(self, run_id: str, reason: str) -> None:
        """Give up a finished run whose files cannot be trusted: it is not run again, and what needs it waits."""
        self.failed[run_id] = Failure(reason, attempts=0, damaged=True)
        self.withdraw(run_id)

    def withdraw(self, run_id: str) -> None:
        """Take back a run that is ready."""
        self._ready = [item for item in self._ready if item[1] != run_id]
        heapq.heapify(self._ready)

    @property
    def avoided(self) -> set[str]:
        """Nodes on which attempts keep ending badly."""
        return {node for node, runs in self._strikes.items() if len(runs) >= NODE_STRIKES}

    def forgive(self, node: str) -> None:
        """Clear a node's failures: no other node is left."""
        self._strikes.pop(node, None)

    def _push(self, run: Run) -> None:
        heapq.heappush(self._ready, ((self._tries[run.run_id], *run.priority), run.run_id, run))
