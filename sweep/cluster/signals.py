"""What happens on Ctrl-C and SIGTERM: the first signal lets runs commit, the second ends the command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

PATIENCE_SECONDS = 15.0
"""After a signal, how long runs may take to end their step; Tune itself waits up to ten seconds more."""


class Signals:
    """The signals that stop a sweep. `say` gets a message for the person at the sweep."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.received: signal.Signals | None = None
        self.working = True
        """Whether runs may be under way."""
        self._received_at = 0.0

    def listen(self) -> None:
        """Set the handlers. Call it again after anything that may have set handlers of its own."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    @property
    def out_of_patience(self) -> bool:
        """Whether the time that runs have after a signal is over."""
        return self.received is not None and time.monotonic() - self._received_at > PATIENCE_SECONDS

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received, self._received_at = signal.Signals(number), time.monotonic()
        what_next = "no more runs are begun; those under way keep their last epoch."
        if not self.working:
            what_next = "no run is under way any more."
        self.say(f"{self.received.name}: {what_next} Once more to stop at once.")
