"""The observer of a sweep: it tells somebody who is elsewhere that it is done, or needs attention."""

from __future__ import annotations

from collections.abc import Mapping

from sweep.cli.notify import Tell
from sweep.format import counted, duration
from sweep.ledger.gpu_time import GpuHours
from sweep.planning.plan import Plan
from trainer.plain import one_line


class Observer:
    """Watches a plan while it is worked on. Of each event it tells once; of a stall, once each time.

    An event is `done`, `failed` (a run was given up, or the sweep cannot go on), `stalled` or `spent`.
    """

    def __init__(self, plan: Plan, total: int, tell: Tell, now: float) -> None:
        """`total` is the number of runs in all."""
        self.plan, self.total, self._tell = plan, total, tell
        declared = plan.study.contents.notify
        self._untold = {"done", "failed", "stalled", "spent"} if declared is None else set(declared)
        self._progress_at = now
        self._best: dict[str, float] = {}
        """The most epochs that each run under way was seen to have done."""
        self._finished = plan.finished.total()
        self._is_stalled = False

    def look(self, epochs: Mapping[str, float], hours: GpuHours | None, now: float) -> None:
        """See what has happened. `epochs` are those done by each run under way."""
        deadline = self.plan.study.resources.deadline
        if self._goes_on(epochs):
            self._progress_at, self._is_stalled = now, False
        elif now - self._progress_at > deadline and not self._is_stalled:
            self._is_stalled = True
            self.tell("stalled", f"no run has made progress for {duration(deadline)}.")
        if hours and hours.spent:
            self.once("spent", f"{hours}. To go on, raise resources.gpu_hours.")
        if failed := self.plan.queue.failed:
            run_id, failure = next(iter(failed.items()))
            self.once("failed", f"run {run_id} was given up: {failure.reason}")

    def end(self, hours: GpuHours | None, now: float) -> None:
        """See how the sweep has ended."""
        self.look({}, hours, now)
        if self.plan.complete:
            self.once("done", "it is done.")

    def once(self, event: str, text: str) -> None:
        """Tell of an event, unless it was told before."""
        self.tell(event, text)
        self._untold.discard(event)

    def tell(self, event: str, text: str) -> None:
        """Tell of an event, if the study asks for it."""
        if event not in self._untold:
            return
        name, plan = self.plan.study.name, self.plan
        done = f"{plan.finished.total():,} of {counted(self.total, 'run')} done"
        self._tell(
            {
                "study": name,
                "event": event,
                "text": one_line(f"study {name}: {text} {done}."),
                "complete": plan.complete,
                "done": plan.finished.total(),
                "total": self.total,
                "running": len(plan.queue.running),
                "failed": len(plan.queue.failed),
            }
        )

    def _goes_on(self, epochs: Mapping[str, float]) -> bool:
        """Whether a run has finished, or done more than it ever had, since the last call."""
        before, self._finished = self._finished, self.plan.finished.total()
        ahead = {run_id: done for run_id, done in epochs.items() if done > self._best.get(run_id, 0.0)}
        self._best |= ahead
        return bool(ahead) or self._finished > before
