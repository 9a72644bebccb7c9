"""What happens on Ctrl-C, SIGTERM and SIGHUP: the first lets runs commit, the second ends the command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from trainer import stopping

PATIENCE_SECONDS = 15.0
"""After a signal, how long runs may take to end their step; Tune itself waits up to ten seconds more."""


class Stopped(BaseException):
    """A signal came before any run was under way. No handler of errors catches it."""

    def __init__(self, received: signal.Signals) -> None:
        self.received = received
        super().__init__(received.name)


class Signals:
    """The signals that stop a sweep, from the command's start to its end."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._received_at = 0.0
        self._say: Callable[[str], None] | None = None
        """Tells the person at the sweep; None until there can be runs, which have to commit."""
        self._what_next = ""
        self._terminals = stopping.terminals()

    def listen(self) -> None:
        """Set the handlers. Call it again after anything that may have set handlers of its own."""
        stopping.catch(self._handle)

    def begin(self, say: Callable[[str], None]) -> None:
        """From now on runs may be under way. A signal is told by `say`, and the driver has to stop."""
        self._say, self._what_next = say, "no more runs are begun; those under way keep their last epoch."

    def end(self) -> None:
        """From now on no run is under way any more."""
        self._what_next = "no run is under way any more."

    @property
    def out_of_patience(self) -> bool:
        """Whether the time that runs have after a signal is over."""
        return self.received is not None and time.monotonic() - self._received_at > PATIENCE_SECONDS

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received:
            if number in stopping.ORDERS:
                os._exit(128 + number)
            return
        self.received, self._received_at = signal.Signals(number), time.monotonic()
        stopping.forget_closed(self._terminals)
        if self._say is None:
            raise Stopped(self.received)
        self._say(f"{self.received.name}: {self._what_next} Once more to stop at once.")
