"""The fates of a cluster's nodes: which are gone or being drained, and whether the cluster's head answers.

A thread asks the head, so that the driver's loop waits for nobody. Ray tells that a process was lost long
before it tells that the whole node is gone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from ray import _raylet, exceptions

from sweep.planning.queue import FATE_SECONDS, Loss

ASK_SECONDS, ANSWER_SECONDS = 1.0, 3.0
"""The time between two questions to the head, and the time that it has for an answer."""
SILENT_SECONDS = 2.5
"""The age of the last answer from which the head counts as silent."""
HEAD_SECONDS, END_SECONDS = 38.0, 50.0
"""After so long without an answer the sweep is told to end, and then it is ended. Ray ends our process
without a word when the head has been away for 60 s, and goes on as before where it comes back earlier."""
DEAD = 1
"""Ray's number for the state of a node that is gone."""

_RAY: Any = _raylet
"""Ray's C++ code, which declares no types."""


class Fates:
    """What is known of each node, by Ray's id for it. Times are those of this process's own clock."""

    def __init__(self, address: str, *, tell: Callable[[], None], end: Callable[[], None]) -> None:
        """`tell` and `end` are called where the head does not answer for HEAD_SECONDS and END_SECONDS.

        They are called by the thread that asks, because the driver may be waiting for the same head.
        """
        self._client = _RAY.GcsClient(address=address)
        self._tell, self._end = tell, end
        self._names: dict[str, str] = {}
        self._gone: dict[str, float] = {}
        """The nodes that are gone, and when that was seen."""
        self.draining: frozenset[str] = frozenset()
        """The nodes that will be gone soon: they should end what they do, and begin nothing."""
        self.answered_at = -math.inf
        """The time of the last question that was answered. What is known here is as old as that."""
        self._silent_since: float | None = None
        self._over = Event()
        self._thread = Thread(target=self._watch, name="fates", daemon=True)

    def __enter__(self) -> Fates:
        self._ask()
        # what went before the sweep took nothing from it
        self._gone = dict.fromkeys(self._gone, -math.inf)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def name(self, node: str) -> str:
        """A node's name for people."""
        return self._names.get(node, node[:8])

    def is_gone(self, node: str) -> bool:
        """Whether a node is known to be gone."""
        return node in self._gone

    def took(self, loss: Loss) -> bool:
        """Whether a node that is gone took a lost process with it.

        Of a process that never said where it was, every node may be the one.
        """
        if loss.node:
            return self.is_gone(loss.node)
        return any(at > loss.at - FATE_SECONDS for at in self._gone.values())

    @property
    def silent(self) -> bool:
        """Whether the head has not answered of late, so that other questions to it may fail or take long."""
        return time.monotonic() - self.answered_at > SILENT_SECONDS

    def _watch(self) -> None:
        told = False
        while not self._over.wait(ASK_SECONDS):
            asked_at = time.monotonic()
            try:
                self._ask()
                self._silent_since = None
            except exceptions.RayError:
                self._silent_since = self._silent_since or asked_at
                silent = time.monotonic() - self._silent_since
                if silent > HEAD_SECONDS and not told:
                    told = True
                    self._tell()
                if silent > END_SECONDS:
                    self._end()

    def _ask(self) -> None:
        asked_at = time.monotonic()
        nodes: dict[str, Any] = {
            node.hex(): facts
            for node, facts in self._client.get_all_node_info(timeout=ANSWER_SECONDS).items()
        }
        draining = frozenset(self._client.get_draining_nodes(timeout=ANSWER_SECONDS))
        self._names |= {node: f"{facts.node_manager_hostname} ({node[:8]})" for node, facts in nodes.items()}
        gone = {node for node, facts in nodes.items() if facts.state == DEAD}
        self._gone |= dict.fromkeys(gone - self._gone.keys(), asked_at)
        self.draining, self.answered_at = draining - gone, asked_at
