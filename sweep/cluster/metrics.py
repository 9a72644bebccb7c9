"""What a driver shows to Prometheus: gauges, which Ray's agent on the driver's node exports.

They exist on a shared cluster alone, because nobody reads those of a cluster of our own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from ray.util.metrics import Gauge

from sweep.planning.plan import Plan

SHOW_SECONDS = 2.0
"""The time from one value of a gauge to the next."""
PACE_SECONDS = 60.0
"""The time over which the pace is taken."""


class Pace:
    """The epochs per second of all runs, over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, epochs: float, now: float) -> float:
        """Take the number of epochs trained so far, and return the pace. It is 0 where epochs were lost."""
        self._seen.append((now, epochs))
        while now - self._seen[0][0] > PACE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return max(0.0, epochs - before) / (now - since) if now > since else 0.0


class Commits:
    """The commits of the runs under way, as their reports tell of them."""

    def __init__(self) -> None:
        self.inherited = 0
        """The epochs that attempts found committed, and did not train."""
        self._last: dict[str, tuple[int, float]] = {}
        """The committed epochs of each run, and when this number was first heard."""

    def hear(self, run_id: str, kept: int, now: float) -> None:
        """Take the number of committed epochs from a report."""
        if run_id not in self._last:
            self.inherited += kept
        if self._last.get(run_id, (-1, now))[0] != kept:
            self._last[run_id] = kept, now

    def longest(self, under_way: Mapping[str, float], now: float) -> float:
        """The longest time since a commit of a run under way; 0 without any. Other runs are forgotten."""
        self._last = {run_id: last for run_id, last in self._last.items() if run_id in under_way}
        return max((now - since for _, since in self._last.values()), default=0.0)


class Metrics:
    """The gauges of one study."""

    def __init__(self, study: str) -> None:
        self._study, self._shown_at = {"study": study}, -math.inf
        self._pace, self._commits = Pace(), Commits()
        self._runs = Gauge("pairsweep_runs", "The number of runs in each state.", ("study", "state"))
        self._epochs_per_second = Gauge(
            "pairsweep_epochs_per_second", "The pace of all runs together, over a minute.", ("study",)
        )
        self._since_commit = Gauge(
            "pairsweep_seconds_since_commit",
            "The longest time since a run under way committed an epoch; 0 without any.",
            ("study",),
        )

    def hear(self, run_id: str, kept: int, now: float) -> None:
        """Take the number of committed epochs from a run's report."""
        self._commits.hear(run_id, kept, now)

    def show(self, plan: Plan, epochs: Mapping[str, float], now: float) -> None:
        """Set the gauges, if it is time to. `epochs` are those done by each run under way."""
        if now - self._shown_at < SHOW_SECONDS:
            return
        self._shown_at = now
        queue = plan.queue
        states = {"done": plan.finished.total(), "running": len(queue.running)}
        states |= {"ready": len(queue), "failed": len(queue.failed)}
        for state, number in states.items():
            self._runs.set(number, {**self._study, "state": state})
        trained = sum(plan.epochs.values()) + math.fsum(epochs.values()) - self._commits.inherited
        self._epochs_per_second.set(self._pace.see(trained, now), self._study)
        self._since_commit.set(self._commits.longest(epochs, now), self._study)
