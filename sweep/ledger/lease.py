"""Who may drive a study: one driver at a time, and the next one when that one is dead.

    lease-<n>.json     the highest n holds; taking over means creating n + 1, which only one newcomer can

A driver that finds a number above its own has lost the study: it stops handing out work. What it had already begun does no harm, because
every attempt writes in a folder of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sweep.errors import Held
from trainer.store import Store, StoreError, seal, unseal

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A lease that has not changed for this long, by the newcomer's own clock, is taken over."""


class Lease:
    """Held from `acquire` to `release`; `lost` is set when another driver took the study over."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self.store, self.say = store, say
        self.lost = threading.Event()
        self._closed = threading.Event()
        self._body: dict[str, Any] = {
            **_this_process(),
            "token": secrets.token_hex(8),
            "since": _now(),
            "beat": 0,
            "state": "held",
            "now": {},
        }
        self._number = 0
        self.now: dict[str, int] = {}
        """What the holder is doing, for whoever asks."""
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def acquire(
        self,
        wait_seconds: float = SILENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Become the driver; Held where another one is alive. Waits only for a holder that may be dead and cannot be asked."""
        seen, since = None, clock()
        while True:
            number, data = self._current()
            holder = _read(data)
            if number and holder is None and data != seen:
                where = self.store.where(_name(number))
                self.say(
                    f"{where} is damaged: it does not say who drives. If it stays as it is for {wait_seconds:.0f} s it is taken over."
                )
            if (
                not number
                or (holder and _is_over(holder))
                or (data == seen and clock() - since >= wait_seconds)
            ):
                if self.store.create(_name(number + 1), seal(self._body)):
                    if (
                        max(_numbers(self.store), default=0) > number + 1
                    ):  # others came and went since this one looked
                        self.store.delete(_name(number + 1))
                        continue
                    self._number = number + 1
                    self._remove(number)
                    self._thread.start()
                    return
                continue
            if holder and _same_machine(holder):
                raise Held(_who(holder, self.store))
            if data != seen:
                if seen is not None and holder:
                    raise Held(_who(holder, self.store))
                if holder:
                    self.say(f"{_who(holder, self.store)} Waiting {wait_seconds:.0f} s for a sign of life.")
                seen, since = data, clock()
            sleep(min(1.0, wait_seconds / 10))

    def release(self) -> None:
        """Let the next driver in at once; the second time, nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        if not self.lost.is_set():
            with suppress(StoreError):  # the next driver waits a minute then, and no harm is done
                self.store.write(_name(self._number), seal({**self._body, "state": "released"}))

    def _beat_on(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            try:
                self.beat()
            except StoreError as error:
                self.say(f"{error} The lease could not be renewed; trying again.")
            if self.lost.is_set():
                return

    def beat(self) -> None:
        """Show that this driver lives, or learn that it has been replaced."""
        number, _ = self._current()
        if number > self._number:
            self.lost.set()
            return
        self._body |= {"beat": self._body["beat"] + 1, "now": self.now}
        self.store.write(_name(self._number), seal(self._body))

    def _current(self) -> tuple[int, bytes]:
        while True:
            number = max(_numbers(self.store), default=0)
            if not number:
                return 0, b""
            with suppress(FileNotFoundError):  # taken over and removed since it was listed
                return number, self.store.read(_name(number))

    def _remove(self, upto: int) -> None:
        for number in _numbers(self.store):
            if number <= upto:
                self.store.delete(_name(number))


def holder(store: Store) -> dict[str, Any] | None:
    """Who drives a study now, as far as the lease tells; None where nobody does."""
    number = max(_numbers(store), default=0)
    if not number:
        return None
    with suppress(FileNotFoundError):
        found = _read(store.read(_name(number)))
        return None if found is None or _is_over(found) else found
    return None


def _numbers(store: Store) -> list[int]:
    return [
        int(match[1])
        for name in store.names("lease")
        if (match := re.fullmatch(r"lease/lease-(\d+)\.json", name))
    ]


def _name(number: int) -> str:
    return f"lease/lease-{number}.json"


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        return unseal(data)
    except ValueError:
        return None


def _is_over(holder: dict[str, Any]) -> bool:
    """Released, or held by a process of this machine that is gone; no other machine, and none without /proc, can be asked that."""
    if holder["state"] == "released":
        return True
    return _same_machine(holder) and _started(holder["pid"]) != holder["started"]


def _same_machine(holder: dict[str, Any]) -> bool:
    here = _this_process()
    return here["boot"] != "" and all(holder[key] == here[key] for key in ("host", "boot", "space"))


def _this_process() -> dict[str, Any]:
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "space": str(space.readlink())
        if space.exists()
        else "",  # process numbers mean something within one container only
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _started(pid: int) -> str:
    """When a process of this machine began, in ticks since boot; a number that is used again has another one. Empty where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _who(holder: dict[str, Any], store: Store) -> str:
    return (
        f"{store.where()} is driven by process {holder['pid']} on {holder['host']} since {holder['since']}."
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
