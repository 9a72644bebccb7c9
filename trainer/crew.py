"""Several runs at once: this process hands them out, and others train them (`trainer.seats`).

On CPUs a process trains one run at a time. On a GPU one process trains all, each run in a thread and on a
stream of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, cast

from trainer import stopping
from trainer.claims import Claim, Watch, claim_on
from trainer.exits import DONE, FAILED, INFRASTRUCTURE
from trainer.plain import one_line
from trainer.reports import Busy, Ended, Failed, Progress, Report
from trainer.seats import serve
from trainer.stopping import SIGNALS
from trainer.store import Store
from trainer.worker import Job

WAIT_SECONDS, LOOK_SECONDS = 0.5, 5.0
"""The longest wait for a report, and the time between two looks at what other machines train."""
IMPORTANT = ("damaged", "missing", "finished before")
"""The first words of a run's messages that are shown."""


@dataclass(eq=False)
class Seat:
    """A place for one run at a time, in a process that has one or several."""

    pipe: Connection
    process: BaseProcess
    job: Job | None = None
    epochs: float = 0.0
    """The epochs done of its run."""


@dataclass
class Tally:
    """What came of the runs so far."""

    total: int
    done: int = 0
    failed: int = 0
    broken: int = 0
    """The runs that failed because of files or of the machine."""
    others: int = 0
    """The runs that somebody else trains."""

    def __str__(self) -> str:
        parts = [f"{self.done}/{self.total} runs done"]
        parts += [f"{self.failed + self.broken} failed"] if self.failed + self.broken else []
        parts += [f"{self.others} left to others"] if self.others else []
        return ", ".join(parts)


@dataclass
class Crew:
    """The processes that train a list of runs, and which run each of them has."""

    jobs: Sequence[Job]
    store: Store
    """The folder of all runs."""
    workers: int
    """The number of runs at once."""
    say: Callable[[str], None]
    show: Callable[[Tally, float], None]
    """Gets the tally, and how many runs are done, with the shares of those under way."""
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.tally = Tally(len(self.jobs))
        self.received: int = 0
        """The signal that stopped the work; 0 where there was none."""
        self._terminals = stopping.terminals()
        self._left = deque(self.jobs)
        self._elsewhere: list[tuple[Job, Claim]] = []
        """The runs that other machines seem to train."""
        self._looked_at = 0.0
        self._seats: list[Seat] = []
        self._per_process = self.workers if self.jobs and self.jobs[0].device == "cuda" else 1

    def work(self) -> int:
        """Train everything that nobody else trains. Returns the exit code."""
        before = stopping.catch(self._receive)
        try:
            while self._goes_on():
                self._hear_all()
                self.show(self.tally, self.tally.done + sum(map(_share, self._seats)))
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.received:
            return 128 + self.received
        if self.tally.broken:
            return INFRASTRUCTURE
        return FAILED if self.tally.failed else DONE

    def _goes_on(self) -> bool:
        """Hand out what can be, or ask for an end after a signal. Returns whether there is more to do."""
        if self.received:
            for seat in self._seats:
                with suppress(OSError):
                    seat.pipe.send(None)
            return bool(self._seats)
        self._look_elsewhere()
        while self._left and (seat := self._free_seat()):
            seat.job, seat.epochs = self._left.popleft(), 0.0
            # where this fails, the process has ended, which is heard next
            with suppress(OSError):
                seat.pipe.send(seat.job)
        return bool(self._elsewhere or any(seat.job for seat in self._seats))

    def _look_elsewhere(self) -> None:
        """Take what other machines do not train any more, and leave what they do."""
        if not self._elsewhere or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at, waiting, self._elsewhere = time.monotonic(), self._elsewhere, []
        for job, claim in waiting:
            is_free = self.watch.look(self.store, claim)
            if is_free is None:
                self._elsewhere.append((job, claim))
            elif is_free:
                self._left.append(replace(job, silent=claim.stamp))
            else:
                self._leave(claim)

    def _leave(self, claim: Claim) -> None:
        self.tally.others += 1
        self.say(f"{claim} It is left to that process.")

    def _free_seat(self) -> Seat | None:
        free = next((seat for seat in self._seats if not seat.job), None)
        if free or len(self._seats) + self._per_process > self.workers:
            return free
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(min(self._per_process, len(self._left)))]
        process = context.Process(target=serve, args=([theirs for _, theirs in ends],))
        # the child begins with these signals blocked, because this process alone answers them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for ours, theirs in ends:
            # so that the end of the process ends the pipe
            theirs.close()
            self._seats.append(Seat(cast("Connection", ours), process))
        return self._seats[-1]

    def _hear_all(self) -> None:
        by_pipe = {seat.pipe: seat for seat in self._seats}
        for pipe in wait(list(by_pipe), WAIT_SECONDS):
            seat = by_pipe[pipe]  # pyright: ignore[reportArgumentType]
            try:
                report = seat.pipe.recv()
            except (EOFError, OSError):
                self._lose(seat)
            else:
                self._hear(seat, report)

    def _hear(self, seat: Seat, report: Report) -> None:
        """Take a report of the run on a seat."""
        assert seat.job
        for message in report.messages:
            if message.startswith(IMPORTANT) or " continues " in message:
                self.say(f"run {report.run_id}: {message}")
        if isinstance(report, Progress):
            seat.epochs = report.epochs
        if not isinstance(report, Busy | Ended | Failed):
            return
        job, seat.job = seat.job, None
        match report:
            case Busy():
                self._put_off(job)
            case Ended():
                self.tally.done += 1
                self._print({"run_id": report.run_id, **report.result})
            case Failed():
                self._fail(report)

    def _put_off(self, job: Job) -> None:
        claim = claim_on(self.store, job.run_id)
        if claim is None:
            self._left.append(job)
        elif claim.is_here:
            self._leave(claim)
        else:
            self.watch.is_silent(claim.run_id, claim.stamp)
            self.say(f"{claim} It cannot be asked; this waits for a sign of life.")
            self._elsewhere.append((job, claim))

    def _fail(self, report: Failed) -> None:
        if not report.blame:
            self.tally.others += 1
        elif report.machine or report.damaged:
            self.tally.broken += 1
        else:
            self.tally.failed += 1
        trace = report.log if not (report.machine or report.damaged) and report.blame else []
        lines = [f"run {report.run_id}: {report.reason}", *(f"    {line}" for line in trace)]
        self.say("\n".join(map(one_line, lines)))

    def _lose(self, seat: Seat) -> None:
        """Give up the seat of a process that has ended, and the run that it had."""
        self._seats.remove(seat)
        seat.pipe.close()
        if not self.received and seat.job:
            seat.process.join()
            self.tally.failed += 1
            self.say(f"run {seat.job.run_id}: its process ended ({_how(seat.process)}).")

    def _print(self, row: dict[str, Any]) -> None:
        try:
            print(json.dumps(row), flush=True)
        except BrokenPipeError:
            # the interpreter flushes stdout when it exits, and that flush must not fail too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.say("nobody reads the results any more; the runs keep their last whole epoch.")
            self.received = self.received or signal.SIGPIPE

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.received:
            if number not in stopping.ORDERS:
                return
            for seat in self._seats:
                seat.process.kill()
            os._exit(128 + number)
        self.received = number
        stopping.forget_closed(self._terminals)

    def _end(self) -> None:
        """End the processes. One whose pipe is closed commits its last whole epoch and ends."""
        for seat in self._seats:
            seat.pipe.close()
        for process in {seat.process for seat in self._seats}:
            process.join()


def _share(seat: Seat) -> float:
    return seat.epochs / json.loads(seat.job.spec)["task"]["epochs"] if seat.job else 0.0


def _how(process: BaseProcess) -> str:
    """How a process ended, in words."""
    code = process.exitcode or 0
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
