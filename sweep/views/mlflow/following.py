"""Where a study's MLflow is, and how the view is kept beside a sweep: in a process of its own, which the driver does not wait for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from sweep.ledger.ledger import Ledger

NONE = "none"
"""As a URI: no MLflow at all."""
PERIOD_SECONDS, TICK_SECONDS, LONGEST_PAUSE_SECONDS = 5.0, 0.1, 30.0
PATIENCE_SECONDS, STOPPED_SECONDS = 60.0, 10.0
"""How long a sweep that is done, and one that was stopped by a signal, waits for its view to catch up."""


def uri_of(given: str | None, place: str) -> str:
    """The tracking URI: as given, or SQLite in the store's folder (in ./results where the store is a bucket)."""
    return given or f"sqlite:///{_home(place) / 'mlflow.db'}"


def shown_uri(uri: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", uri)


def artifacts_of(uri: str, place: str, study: str) -> str | None:
    """Where files go: a server decides for itself, a database needs a place."""
    if uri.startswith(("http://", "https://", "databricks")):
        return None
    return (
        f"{place.rstrip('/')}/mlflow-artifacts/{study}"
        if "://" in place
        else (_home(place) / "mlflow-artifacts" / study).as_uri()
    )


def _home(place: str) -> Path:
    return Path("results").absolute() if "://" in place else Path(place)


def follow(
    update: Callable[[bool], int],
    at_work: Callable[[], bool],
    say: Callable[[str], None],
    wait: Callable[[float], None],
) -> bool:
    """Keep a view up to date until no driver is at work, and then until nothing is left to write; whether that was reached.

    `update(live)` says how much it wrote. While the tracker does not answer, it is asked again after longer and longer pauses.
    """
    from sweep.errors import TrackerDown

    pause, told = PERIOD_SECONDS, ""
    while True:
        live = at_work()
        try:
            wrote = update(live)
            pause, told = PERIOD_SECONDS, ""
            if not live and not wrote:
                return True
        except TrackerDown as error:
            if str(error) != told:
                say(str(error))
            if not live:
                return False
            pause, told = min(2 * pause, LONGEST_PAUSE_SECONDS), str(error)
        end = time.monotonic() + pause
        while live and time.monotonic() < end and at_work():
            wait(TICK_SECONDS)


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
            env={
                **os.environ,
                "MLFLOW_TRACKING_URI": uri,
            },  # it may hold a password, which has no place on a command line
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
            told = self.log.read().strip().splitlines() or ["no reason was given."]
            self.say(f"MLflow is behind: {told[-1]}\n{self.hint}")
