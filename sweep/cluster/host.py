"""Several runs in one process, each in a thread of its own and on a CUDA stream of its own.

It knows nothing of the cluster. A run goes on only while somebody waits for its next report.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module

from sweep.cluster.worker import Worker
from trainer.reports import Busy, Ended, Failed, Report
from trainer.worker import IMPORTS, Job


@dataclass(frozen=True, eq=False)
class _Seat:
    """A run under way, and the thread that alone works on it."""

    worker: Worker
    thread: ThreadPoolExecutor


class Host:
    """A process that trains up to `runs` runs at the same time. Its methods may be called from any thread.

    `attempt` is the caller's name for an attempt at a run.
    """

    def __init__(self, runs: int) -> None:
        # before there are threads: torch cannot be imported by several at once
        for module in IMPORTS:
            import_module(module)
        from trainer.lending import keep_idle

        keep_idle(runs)
        self._free = [ThreadPoolExecutor(1, f"run-{i}") for i in range(runs)]
        """The threads without a run. They live as long as the host, because a stream belongs to a thread."""
        self._guests: dict[str, _Seat] = {}

    def begin(self, attempt: str, job: Job) -> Report:
        """Take a run in, and return its first report. All of the host's runs may not exceed `runs`."""
        guest = self._guests[attempt] = _Seat(Worker(job), self._free.pop())
        guest.thread.submit(self._leave_default_stream, job.device).result()
        return self.step(attempt)

    def step(self, attempt: str) -> Report:
        """Work on a run for some seconds and report. After its last report the run has left."""
        guest = self._guests[attempt]
        report = guest.thread.submit(guest.worker.step).result()
        if isinstance(report, Busy | Ended | Failed):
            self._release(attempt)
        return report

    def leave(self, attempt: str) -> None:
        """Commit a run's last whole epoch and let it leave. Waits until its thread has ended its step."""
        if guest := self._guests.get(attempt):
            try:
                guest.thread.submit(guest.worker.stop).result()
            finally:
                self._release(attempt)

    def _leave_default_stream(self, device: str) -> None:
        """Give the calling thread a CUDA stream of its own."""
        if device == "cuda":
            from trainer import streams

            streams.leave_default(self)

    def _release(self, attempt: str) -> None:
        if guest := self._guests.pop(attempt, None):
            self._free.append(guest.thread)
