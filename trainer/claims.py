"""Who works on what now: how a process shows that it lives, and how others see that it does not.

A run is claimed by its latest attempt, whose `attempt.json` only one newcomer can create. Its holder
rewrites `claim.json` beside it every ten seconds. The lease of a study uses the same rules on a file of its
own.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.sealed import AttemptRecord, Sign, read_sealed
from trainer.store import Store, StoreError, seal

BEAT_SECONDS = 10.0
"""The time between two signs of life."""
SILENT_SECONDS = 60.0
"""A claim that has not changed for this long, by the newcomer's own clock, is taken over."""


@dataclass(frozen=True)
class Claim:
    """A claim on a run that is not over: its holder lives on this machine, or cannot be asked."""

    run_id: str
    holder: dict[str, Any]
    since: str
    stamp: str
    """A text that changes with each sign of life."""

    @property
    def is_here(self) -> bool:
        """Whether the holder is on this machine. Then it lives; elsewhere only a new stamp shows that."""
        return same_machine(self.holder)

    def __str__(self) -> str:
        process = f"process {self.holder['pid']} on {self.holder['host']}"
        return f"run {self.run_id} is being trained by {process} since {self.since}."


class Claimed(RuntimeError):
    """The error of an attempt that did not begin, because somebody trains its run now."""

    def __init__(self, claim: Claim) -> None:
        super().__init__(str(claim))
        self.claim = claim


def claim_on(store: Store, run_id: str, stamps: Mapping[str, str] | None = None) -> Claim | None:
    """The claim on a run; None where nobody trains it.

    `stamps` are those of the run's files, where the caller has them. This process's own claims do not count:
    it knows what it trains.
    """
    stamps = store.stamps(run_id) if stamps is None else stamps
    latest = latest_attempt(run_id, stamps)
    if not latest or f"{run_id}/outcome.json" in stamps:
        return None
    folder = f"{run_id}/attempt-{latest}/"
    record, sign = _content(store, f"{folder}attempt.json", AttemptRecord), {}
    if f"{folder}claim.json" in stamps:
        sign = _content(store, f"{folder}claim.json", Sign)
    # the attempts of older releases name no holder
    holder = record.get("holder")
    if not holder or sign.get("state") == "released" or _trains_nothing(holder):
        return None
    stamp = " ".join(f"{name} {stamps[name]}" for name in sorted(stamps) if name.startswith(folder))
    return Claim(run_id, holder, f"{record['started_at'][:19]} UTC", stamp)


def latest_attempt(run_id: str, names: Collection[str]) -> int:
    """The number of a run's latest attempt; 0 where it has none. `names` are those of its files."""
    found = (re.match(rf"{run_id}/attempt-([1-9][0-9]*)/", name) for name in names)
    return max((int(match[1]) for match in found if match), default=0)


class Watch:
    """Looks at claims, with the time since which each has not changed."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, patience: float = SILENT_SECONDS
    ) -> None:
        self.clock, self.patience = clock, patience
        self._seen: dict[str, tuple[object, float]] = {}

    def is_silent(self, name: str, stamp: object) -> bool:
        """Whether a claim has this stamp for as long as the patience lasts. The first look begins it."""
        now = self.clock()
        before, since = self._seen.get(name, (None, now))
        if stamp != before:
            since = now
        self._seen[name] = stamp, since
        return now - since >= self.patience

    def look(self, store: Store, claim: Claim) -> bool | None:
        """Whether a run is free by now, however it was claimed; None while that is not known."""
        present = claim_on(store, claim.run_id)
        if present is None:
            return True
        if present.stamp != claim.stamp:
            return False
        return True if self.is_silent(claim.run_id, claim.stamp) else None


class Hold:
    """An attempt's claim on its run. It gives signs of life until `stop` or `release`."""

    def __init__(self, store: Store, run_id: str, attempt: int) -> None:
        self.store, self.run_id, self.attempt = store, run_id, attempt
        self._beats = 0
        self._beating = Beating(self.beat)
        self._beating.start()

    def beat(self) -> bool:
        """Write a sign of life. Returns whether there is a reason for more.

        There is none once the run has its outcome or a later attempt, or its folder was moved away.
        """
        # a later sign may succeed, and the next commit tells the user what is wrong
        with suppress(StoreError):
            names = self.store.names(self.run_id)
            if latest_attempt(self.run_id, names) != self.attempt or f"{self.run_id}/outcome.json" in names:
                return False
            self._write("held")
        return True

    def release(self) -> None:
        """Let another attempt begin at once. It does nothing after `stop`."""
        if self.stop():
            self._write("released")

    def stop(self) -> bool:
        """Give no more signs of life. Returns whether this call ended them."""
        return self._beating.stop()

    def forget(self) -> None:
        """Give no more signs of life, without waiting for one that is being given."""
        self._beating.stopped.set()

    def _write(self, state: str) -> None:
        self._beats += 1
        body = {"state": state, "beat": self._beats}
        self.store.write(f"{self.run_id}/attempt-{self.attempt}/claim.json", seal(body))


class Beating:
    """A thread that calls `beat` every ten seconds, until it is stopped or `beat` returns False."""

    def __init__(self, beat: Callable[[], bool]) -> None:
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=_beat_on, args=[self.stopped, beat], daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> bool:
        """Stop, after a beat under way. Returns whether this call stopped it."""
        if self.stopped.is_set():
            return False
        self.stopped.set()
        self._thread.join()
        return True


def _beat_on(stopped: threading.Event, beat: Callable[[], bool]) -> None:
    while not stopped.wait(BEAT_SECONDS) and beat():
        pass


# processes


def this_process() -> dict[str, Any]:
    """What tells this process from every other one, on any machine and at any time."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        # process numbers mean something within one container only
        "space": str(space.readlink()) if space.exists() else "",
        "pid": os.getpid(),
        "started": _stat(os.getpid())[1],
    }


def same_machine(holder: dict[str, Any]) -> bool:
    """Whether a process belongs to this machine and container, so that it can be asked whether it lives."""
    here = this_process()
    return here["boot"] != "" and all(holder[key] == here[key] for key in ("host", "boot", "space"))


def is_gone(holder: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended. One of another machine cannot be asked: not gone."""
    return same_machine(holder) and _stat(holder["pid"])[1] != holder["started"]


def _trains_nothing(holder: dict[str, Any]) -> bool:
    """Whether a process is this one, or one of this machine that has ended or was stopped by a signal."""
    return holder.items() >= this_process().items() or (
        is_gone(holder) or (same_machine(holder) and _stat(holder["pid"])[0] == "T")
    )


def _stat(pid: int) -> tuple[str, str]:
    """The state of a process of this machine, and when it began in ticks since boot; empty if it is gone.

    The beginning tells the process from a later one with the same number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "", ""
    return ("", "") if fields[0] == "Z" else (fields[0], fields[19])


def _content(store: Store, name: str, shape: type) -> dict[str, Any]:
    """The content of a sealed file; empty where it is missing or damaged."""
    try:
        return read_sealed(store, name, shape)
    except (FileNotFoundError, ValueError):
        return {}
