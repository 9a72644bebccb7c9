"""How the view is kept beside a sweep: in a process of its own, which the driver does not wait for."""

from __future__ import annotations

import os
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
from sweep.views.reading import Reading

if TYPE_CHECKING:
    from sweep.views.mlflow.view import View

PERIOD_SECONDS, TICK_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 0.1, 30.0
PATIENCE_SECONDS, STOPPED_SECONDS = 60.0, 10.0
"""How long a sweep that is done, and one that a signal stopped, waits for its view to catch up."""
ON_THE_LAST_PASS = ("scipy.special", "matplotlib.pyplot")
"""What the report imports. Imported while the runs train, it keeps nobody waiting at the end."""


def catch_up(view: View, say: Callable[[str], None]) -> bool:
    """Bring a view up to date once; whether that was reached."""
    return follow(updating(view), lambda: False, say, time.sleep)


def keep_up(view: View, say: Callable[[str], None]) -> bool:
    """Keep a view up to date until no driver is at work any more; whether nothing is left to write."""
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
    """Update while a driver is at work, and then until nothing is left to write; whether that was reached.

    `update(live)` says how much it wrote. While the tracker does not answer, the pauses grow.
    """
    pause, said = PERIOD_SECONDS, ""
    while True:
        live = at_work()
        try:
            wrote = update(live)
            pause, said = PERIOD_SECONDS, ""
            if not live and not wrote:
                return True
        except TrackerDown as error:
            if str(error) != said:
                say(str(error))
            if not live:
                return False
            pause, said = min(2 * pause, LONGEST_PAUSE_SECONDS), str(error)
        end = time.monotonic() + pause
        while live and time.monotonic() < end and at_work():
            wait(TICK_SECONDS)


def updating(view: View) -> Callable[[bool], int]:
    """An update of a view. The report, which takes seconds, is drawn once nobody waits for the next run any more."""
    from sweep.views.report.page import page_and_note

    drawn: dict[str, tuple[str, str]] = {}

    def report(reading: Reading, compared: Sequence[Compared]) -> tuple[str, str]:
        stands = repr(
            (reading.declared, sorted(reading.plan.results), reading.failures, reading.looks, compared)
        )
        if stands not in drawn:  # the last update is made twice, to see that nothing is left
            drawn.clear()
            drawn[stands] = page_and_note(reading, compared)
        return drawn[stands]

    def update(live: bool) -> int:
        return view.update(live=holder(view.ledger.store) is not None, report=None if live else report)

    return update


class Follower:
    """`sweep sync --follow` as a process beside a sweep."""

    def __init__(self, ledger: Ledger, place: str, uri: str, hint: str) -> None:
        """`hint` says how to bring MLflow up to date later."""
        self.say, self.hint = ledger.say, hint
        self.log: IO[Any] = tempfile.TemporaryFile("w+")  # noqa: SIM115  (it lives as long as the process)
        command = [
            sys.executable,
            "-m",
            "sweep",
            "sync",
            f"{ledger.study}.yaml",
            "--store",
            place,
            "--follow",
        ]
        self.process = subprocess.Popen(
            command,
            # the address may hold a password, which has no place on a command line
            env={**os.environ, "MLFLOW_TRACKING_URI": uri},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # Ctrl-C is for the driver, whose end it notices by itself
        )
        # what the machine can spare: the runs come first
        os.sched_setscheduler(self.process.pid, os.SCHED_IDLE, os.sched_param(0))

    def finish(self, seconds: float) -> None:
        """Give it some time to catch up, now that the sweep is over; say what is wrong, if something is."""
        self.say("bringing MLflow up to date ...")
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()
            self.say(f"MLflow is behind: it took longer than {seconds:g} s. {self.hint}")
            return
        if code:
            self.log.seek(0)
            lines = self.log.read().strip().splitlines() or ["no reason was given."]
            self.say(f"MLflow is behind: {lines[-1]}\n{self.hint}")
