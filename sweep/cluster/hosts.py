"""The hosts of a cluster: processes that each train several runs on one GPU.

The driver starts and ends them, so that no host ends with an attempt. A host is an actor that holds no CPUs
and no part of a GPU, because the attempts of its runs hold those.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweep.cluster.host import Host

LEAVE_SECONDS = 30.0
"""The time in which a host must stop a run whose attempt is gone: it ends its step, then it commits."""


class HostProcess(Host):
    """A host as an actor. It chooses its GPU before torch is imported, because Ray hides GPUs from it."""

    def __init__(self, gpu: str, runs: int) -> None:
        # one connection for each stream, or streams would wait for each other
        os.environ |= {"CUDA_VISIBLE_DEVICES": gpu, "CUDA_DEVICE_MAX_CONNECTIONS": "32"}
        super().__init__(runs)


@dataclass(eq=False)
class _Known:
    """A host as the driver knows it."""

    actor: Any
    node: str
    gpu: str
    open: bool
    """Whether further attempts may enter."""
    attempts: set[str] = field(default_factory=set[str])
    """The attempts whose runs it trains."""
    leaving: dict[str, tuple[Any, float]] = field(default_factory=dict[str, tuple[Any, float]])
    """Those that were asked to leave: the answer to come, and the time of the question."""


class Hosts:
    """The hosts, and which attempt is in which. A host has `runs` attempts at the most."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self._hosts: list[_Known] = []

    def enter(self, attempt: str, node: str, gpu: str, *, alone: bool) -> Any:
        """The actor of the host that an attempt on this GPU enters, started if need be.

        No other attempt enters the host of one that is `alone`.
        """
        fitting = (
            host
            for host in self._hosts
            if host.open and (host.node, host.gpu) == (node, gpu) and len(host.attempts) < self.runs
        )
        host = None if alone else next(fitting, None)
        if host is None:
            host = _Known(self._start(node, gpu), node, gpu, open=not alone)
            self._hosts.append(host)
        host.attempts.add(attempt)
        return host.actor

    def ended(self, attempt: str, *, failed: bool = False) -> None:
        """Note that an attempt has sent its last report.

        A host in which an attempt failed takes no more: its state is unknown. It ends with its last attempt.
        """
        if host := self._of(attempt):
            host.attempts.discard(attempt)
            host.open = host.open and not failed
            self._end_if_over(host)

    def lost(self, attempt: str) -> None:
        """Make a host stop the run of an attempt whose process is gone."""
        if host := self._of(attempt):
            host.leaving[attempt] = host.actor.leave.remote(attempt), time.monotonic()

    def tend(self) -> None:
        """Hear what the hosts answered. One that does not stop a run in time is ended, with all its runs."""
        for host in list(self._hosts):
            for attempt, (answer, asked_at) in list(host.leaving.items()):
                if ray.wait([answer], timeout=0)[0]:
                    del host.leaving[attempt]
                    self.ended(attempt, failed=_is_error(answer))
                elif time.monotonic() - asked_at > LEAVE_SECONDS:
                    # the next round finds an error as its answer
                    ray.kill(host.actor, no_restart=True)

    def _of(self, attempt: str) -> _Known | None:
        return next((host for host in self._hosts if attempt in host.attempts), None)

    def _start(self, node: str, gpu: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        # a step and a request to leave for each run at once, and a beginning
        calls = 2 * self.runs + 1
        actor = ray.remote(HostProcess).options(  # type: ignore[attr-defined]
            num_cpus=0, num_gpus=0, max_concurrency=calls, scheduling_strategy=there
        )
        return actor.remote(gpu, self.runs)

    def _end_if_over(self, host: _Known) -> None:
        if not host.open and not host.attempts:
            ray.kill(host.actor, no_restart=True)
            self._hosts.remove(host)


def _is_error(answer: Any) -> bool:
    try:
        ray.get(answer)
    except exceptions.RayError:
        return True
    return False
