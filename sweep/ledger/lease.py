"""The lease of a study: one driver holds it at a time, and another one takes over when that driver is dead.

    lease-<n>.json     the highest n holds; taking over means creating n + 1, which only one newcomer can

A driver that finds a number above its own has lost the study: it stops handing out work. The attempts that
it began do no harm, because every attempt writes in a folder of its own.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sweep.errors import Held
from sweep.format import now
from sweep.ledger.shapes import LeaseRecord
from trainer.claims import BEAT_SECONDS, SILENT_SECONDS, Beating, Watch, is_gone, same_machine, this_process
from trainer.sealed import checked
from trainer.store import LARGEST_SEALED, Store, StoreError, seal, unseal

DAMAGED_SECONDS = 2.5 * BEAT_SECONDS
"""A damaged lease that has not changed for this long is taken over. A driver that lives writes it anew."""

AWAKE = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""The clock that also runs while the machine sleeps, where there is one."""


class Lease:
    """One driver's hold on a study, from `acquire` to `release`.

    `lost` is set when another driver took the study over.
    """

    def __init__(self, store: Store, say: Callable[[str], None], *, handed_in: bool = False) -> None:
        """`handed_in` says that the driver was handed in to a cluster."""
        self.store, self.say = store, say
        self.lost = threading.Event()
        self._body: dict[str, Any] = {
            **this_process(),
            "token": secrets.token_hex(8),
            "since": now(),
            "beat": 0,
            "state": "held",
            "handed_in": handed_in,
            "now": {},
        }
        self.number = 0
        """Its number: a later driver has a higher one."""
        self.now: dict[str, Any] = {}
        """What the holder is doing, for `sweep status`; written with each sign of life."""
        self._beating = Beating(self._goes_on)
        self._beat_at = 0.0
        """When the last sign of life was given, or could not be given, on the clock AWAKE."""
        self._lock = threading.Lock()

    def acquire(
        self,
        wait_seconds: float = SILENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Become the driver. Raises Held where another driver is alive.

        It waits only for a holder on another machine, which may be dead and cannot be asked.
        """
        watch, seen = Watch(clock, wait_seconds), None
        damaged_seconds = min(wait_seconds, DAMAGED_SECONDS)
        watch_damaged = Watch(clock, damaged_seconds)
        while True:
            number, data = self._current()
            holder = _read(data)
            if number and holder is None and data != seen:
                self.say(
                    f"{self.store.where(_name(number))} is damaged: it does not say who drives. "
                    f"If it stays as it is for {damaged_seconds:.0f} s it is taken over."
                )
            ended = not number or (holder and _is_over(holder))
            if ended or (watch if holder else watch_damaged).is_silent(_name(number), data):
                if self._take(number + 1):
                    return
                continue
            if holder and same_machine(holder):
                raise Held(_who(holder, self.store))
            if data != seen:
                if seen is not None and holder:
                    raise Held(_who(holder, self.store))
                if holder:
                    self.say(f"{_who(holder, self.store)} Waiting {wait_seconds:.0f} s for a sign of life.")
                seen = data
            sleep(min(1.0, wait_seconds / 10))

    def _take(self, number: int) -> bool:
        """Hold the lease under this number. False where another driver was first."""
        if not self.store.create(_name(number), seal(self._body)):
            return False
        if max(_numbers(self.store), default=0) > number:
            # other drivers came and went since this one looked
            self.store.delete(_name(number))
            return False
        self.number = number
        self._remove(number - 1)
        self._beat_at = time.clock_gettime(AWAKE)
        self._beating.start()
        return True

    def release(self) -> None:
        """Let the next driver in at once. A second call does nothing."""
        if self._beating.stop() and not self.lost.is_set():
            # where this fails, the next driver waits a minute, and no harm is done
            with suppress(StoreError):
                self.store.write(_name(self.number), seal({**self._body, "state": "released"}))

    def _goes_on(self) -> bool:
        """Give a sign of life. Returns whether this driver still holds the study."""
        with self._lock:
            return self._give_sign()

    def look_after_pause(self) -> None:
        """Look whether the study was taken over, if this process gave no sign of life for long.

        A process that was frozen and let go must know that before it writes anything.
        """
        if time.clock_gettime(AWAKE) - self._beat_at < 2 * BEAT_SECONDS:
            return
        with self._lock:
            # the other thread may have looked meanwhile
            if time.clock_gettime(AWAKE) - self._beat_at >= 2 * BEAT_SECONDS:
                self._give_sign()

    def _give_sign(self) -> bool:
        try:
            self.beat()
        except StoreError as error:
            self.say(f"{error} The lease could not be renewed; trying again.")
        self._beat_at = time.clock_gettime(AWAKE)
        return not self.lost.is_set()

    def beat(self) -> None:
        """Write a sign of life, or set `lost` where another driver has taken over."""
        number, _ = self._current()
        if number > self.number:
            self.lost.set()
            return
        self._body |= {"beat": self._body["beat"] + 1, "now": self.now}
        self.store.write(_name(self.number), seal(self._body))

    def _current(self) -> tuple[int, bytes]:
        """The highest lease's number and content; 0 where there is none."""
        while True:
            number = max(_numbers(self.store), default=0)
            if not number:
                return 0, b""
            # it may be taken over and removed after it was listed
            with suppress(FileNotFoundError):
                return number, self.store.read(_name(number), LARGEST_SEALED)

    def _remove(self, upto: int) -> None:
        for number in _numbers(self.store):
            if number <= upto:
                self.store.delete(_name(number))


def holder(store: Store) -> dict[str, Any] | None:
    """The lease of the driver that works on a study now; None where there is no such driver."""
    found = _latest(store)
    return None if found is None or _is_over(found) else found


def was_handed_in(store: Store) -> bool:
    """Whether the last driver of a study was handed in to a cluster."""
    found = _latest(store)
    return bool(found and found.get("handed_in"))


def _latest(store: Store) -> dict[str, Any] | None:
    """The lease of the last driver of a study; None where there was none, or its lease is damaged."""
    if number := max(_numbers(store), default=0):
        with suppress(FileNotFoundError):
            return _read(store.read(_name(number), LARGEST_SEALED))
    return None


def _numbers(store: Store) -> list[int]:
    return [
        int(match[1])
        for name in store.names("lease")
        if (match := re.fullmatch(r"lease/lease-([1-9][0-9]*)\.json", name))
    ]


def _name(number: int) -> str:
    return f"lease/lease-{number}.json"


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        return checked(unseal(data), LeaseRecord)
    except ValueError:
        return None


def _is_over(holder: dict[str, Any]) -> bool:
    """Whether the lease was released, or its process on this machine is gone."""
    return holder["state"] == "released" or is_gone(holder)


def _who(holder: dict[str, Any], store: Store) -> str:
    process = f"process {holder['pid']} on {holder['host']}"
    return f"{store.where()} is driven by {process} since {holder['since']}."
