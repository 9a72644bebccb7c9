"""Keeping MLflow up to date while a sweep runs: the loop, and the process it runs in beside the driver.

What is written to MLflow is in `view`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from sweep.errors import TrackerDown
from sweep.gains.rows import Compared
from sweep.ledger.lease import holder
from sweep.ledger.ledger import Ledger
from sweep.views.mlflow.address import without_secrets
from sweep.views.reading import Reading
from trainer import stopping

if TYPE_CHECKING:
    from sweep.views.mlflow.view import View

PERIOD_SECONDS, TICK_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 0.1, 30.0
"""Time between updates, between looks at the driver, and at most between updates while MLflow is down."""
FINISHED_WAIT_SECONDS, STOPPED_WAIT_SECONDS = 60.0, 10.0
"""How long a sweep waits for MLflow to catch up: one that is finished, and one that a signal stopped."""
ON_THE_LAST_PASS = ("scipy.special", "matplotlib.pyplot")
"""Modules that the report needs. They are imported while runs train, so that the last update is quick."""


def catch_up(view: View, say: Callable[[str], None]) -> bool:
    """Bring a view up to date once; return whether it is."""
    return follow(updating(view), lambda: False, say, time.sleep)


def keep_up(view: View, say: Callable[[str], None]) -> bool:
    """Keep a view up to date until no driver is at work; return whether nothing is left to write."""
    update = updating(view)

    def update_and_get_ready(live: bool) -> int:
        wrote = update(live)
        for name in ON_THE_LAST_PASS:
            import_module(name)
        return wrote

    return follow(update_and_get_ready, lambda: holder(view.ledger.store) is not None, say, time.sleep)


def follow(
    update: Callable[[bool], int],
    at_work: Callable[[], bool],
    say: Callable[[str], None],
    wait: Callable[[float], None],
) -> bool:
    """Update while a driver is at work, then until nothing is left to write; return whether that is so.

    `update(live)` returns the number of its writes. While MLflow does not answer, the pauses grow.
    """
    pause, last_error = PERIOD_SECONDS, ""
    while True:
        live = at_work()
        try:
            wrote = update(live)
            pause, last_error = PERIOD_SECONDS, ""
            if not live and not wrote:
                return True
        except TrackerDown as error:
            if str(error) != last_error:
                say(str(error))
            if not live:
                return False
            pause, last_error = min(2 * pause, LONGEST_PAUSE_SECONDS), str(error)
        end = time.monotonic() + pause
        while live and time.monotonic() < end and at_work():
            wait(TICK_SECONDS)


def updating(view: View) -> Callable[[bool], int]:
    """The function that updates a view.

    It draws the report only when no driver is at work, because that takes seconds.
    """
    from sweep.views.report.page import page_and_note

    drawn: dict[str, tuple[str, str]] = {}

    def report(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
        plan = reading.plan
        state = repr((reading.declared, sorted(plan.results), reading.failures, reading.looks, compared))
        # the last update is made twice, to see that nothing is left; the second one draws nothing
        if state not in drawn:
            drawn.clear()
            drawn[state] = page_and_note(reading, compared)
        return drawn[state]

    def update(live: bool) -> int:
        return view.update(live=holder(view.ledger.store) is not None, report=None if live else report)

    return update


class Follower:
    """The command `sweep sync --follow`, run in a process of its own while a sweep runs."""

    def __init__(self, ledger: Ledger, place: str, uri: str, hint: str) -> None:
        """Start the process. `hint` tells the user how to bring MLflow up to date later."""
        self.say, self.hint, self.uri = ledger.say, hint, uri
        # open until `finish`
        self.log: IO[Any] = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # nothing lies there that its packages could read or import
        self.folder = tempfile.TemporaryDirectory(prefix="sweep-")
        sync = ["sync", f"{ledger.study}.yaml", "--store", place, "--follow"]
        # Ctrl-C and the end of a job are for the driver alone; this process ends by itself after it. A new
        # process has the signals blocked that its parent has.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.ORDERS)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sweep", *sync],
                cwd=self.folder.name,
                # the address may hold a password, and everybody on the machine can read a command line
                env={**os.environ, "MLFLOW_TRACKING_URI": uri},
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # the runs come first: this process gets only the processor time that nobody else wants
        os.sched_setscheduler(self.process.pid, os.SCHED_IDLE, os.sched_param(0))

    def finish(self, seconds: float) -> None:
        """Wait at most so many seconds for the last update, and tell the user where MLflow is behind."""
        with self.folder, self.log:
            self._finish(seconds)

    def _finish(self, seconds: float) -> None:
        self.say("bringing MLflow up to date ...")
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.say(f"MLflow is behind: it took longer than {seconds:g} s. {self.hint}")
            return
        if code:
            self.log.seek(0)
            lines = self.log.read().strip().splitlines() or ["no reason was given."]
            self.say(f"MLflow is behind: {without_secrets(lines[-1], self.uri)}\n{self.hint}")
