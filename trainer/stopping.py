"""The signals that end a command after it has committed, and what to do when its terminal is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

ORDERS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the end of a batch job. As a second signal they mean: at once."""
SIGNALS = (*ORDERS, signal.SIGHUP)
"""SIGHUP says that the terminal was closed, or the connection to it. It often comes twice by itself."""


def catch(handler: Callable[[int, FrameType | None], object]) -> dict[signal.Signals, Any]:
    """Handle the signals; return their handlers until now. SIGHUP stays ignored where `nohup` ignores it.

    They are heard also where whoever started this process had blocked them, as a batch job does for Ray.
    """
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    caught = [number for number in SIGNALS if hangs_up or number != signal.SIGHUP]
    before = {number: signal.signal(number, handler) for number in caught}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)
    return before


def terminals() -> list[int]:
    """Which of stdout and stderr are terminals."""
    return [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]


def forget_closed(descriptors: Iterable[int]) -> None:
    """Make output go nowhere that went to terminals which are closed: every write to them would fail."""
    closed = [descriptor for descriptor in descriptors if not os.isatty(descriptor)]
    if closed:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in closed:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
