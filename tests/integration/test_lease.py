"""One driver at a time, on a local folder and on a bucket: who is refused, who waits, who takes over."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import Held
from sweep.ledger.lease import AWAKE, DAMAGED_SECONDS, SILENT_SECONDS, Lease, holder
from tests.conftest import ROOT
from trainer.claims import BEAT_SECONDS
from trainer.store import Store, open_store, seal, unseal

ELSEWHERE = {
    "host": "elsewhere",
    "boot": "b",
    "space": "s",
    "pid": 7,
    "started": "9",
    "token": "t",
    "since": "2026-01-02T03:04:05+00:00",
    "beat": 0,
    "state": "held",
    "now": {},
}
"""The lease of a holder on another machine: nobody here can ask whether it lives."""


@pytest.fixture(params=["local", "bucket"])
def study_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "study") if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def store(study_url: str) -> Store:
    return open_store(study_url)


@pytest.fixture
def newcomer(store: Store) -> Iterator[Callable[[], Lease]]:
    """Make leases, and end what they began."""
    made: list[Lease] = []

    def make() -> Lease:
        made.append(Lease(store, said.append))
        return made[-1]

    said: list[str] = []
    yield make
    for lease in made:
        with suppress(RuntimeError):  # of those that were refused there is no thread to join
            lease.release()


class Waiting:
    """A clock that only sleeping moves. `meanwhile` happens at each sleep and is given the time."""

    def __init__(self, meanwhile: Callable[[float], object] = lambda _: None) -> None:
        self.now, self.meanwhile = 1000.0, meanwhile

    @property
    def waited(self) -> float:
        return self.now - 1000.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile(self.waited)


def acquire(lease: Lease, meanwhile: Callable[[float], object] = lambda _: None) -> float:
    """Acquire the lease; return how long the newcomer waited by its own clock."""
    waiting = Waiting(meanwhile)
    lease.acquire(SILENT_SECONDS, waiting.clock, waiting.sleep)
    return waiting.waited


def leases(store: Store) -> list[str]:
    return [name.removeprefix("lease/") for name in store.names("lease")]


def test_a_second_driver_is_told_who_holds_it_and_since_when(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    assert holder(store) is None
    assert acquire(newcomer()) == 0
    held = holder(store)
    assert held is not None
    told = f"process {held['pid']} on {held['host']} since {held['since']}."
    with pytest.raises(Held, match=re.escape(told)):
        acquire(newcomer())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", held["since"])
    assert leases(store) == ["lease-1.json"]


def test_a_holder_that_released_lets_the_next_in_at_once(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    for number in (1, 2, 3):
        lease = newcomer()
        assert acquire(lease) == 0
        lease.release()
        assert leases(store) == [f"lease-{number}.json"]
        assert holder(store) is None


HOLDS = """
import sys, time
from sweep.ledger.lease import Lease
from trainer.store import open_store
Lease(open_store(sys.argv[1]), print).acquire()
print("held", flush=True)
time.sleep(1000)
"""


def test_a_holder_whose_process_was_killed_is_taken_over_at_once(
    study_url: str, store: Store, newcomer: Callable[[], Lease]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, study_url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            with pytest.raises(Held, match=f"process {process.pid} "):
                acquire(newcomer())
        finally:
            process.send_signal(signal.SIGKILL)
    assert acquire(newcomer()) == 0
    assert leases(store) == ["lease-2.json"]


def test_a_process_number_that_is_used_again_is_not_the_holder(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    first = newcomer()
    acquire(first)
    first.release()
    body = unseal(store.read("lease/lease-1.json"))
    store.write(
        "lease/lease-1.json", seal({**body, "state": "held", "started": str(int(body["started"]) - 1)})
    )
    assert acquire(newcomer()) == 0


def test_a_holder_elsewhere_is_taken_over_when_silent_for_the_wait_and_not_before(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    store.write("lease/lease-4.json", seal(ELSEWHERE))
    waited = acquire(
        newcomer(),
        lambda waited: leases(store) == ["lease-4.json"] or pytest.fail(f"taken over after {waited} s"),
    )
    assert SILENT_SECONDS <= waited <= SILENT_SECONDS + 1
    assert leases(store) == ["lease-5.json"]


def test_a_holder_elsewhere_that_beats_at_the_last_moment_keeps_the_study(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    store.write("lease/lease-4.json", seal(ELSEWHERE))

    def beats(waited: float) -> None:
        if waited == SILENT_SECONDS - 1:
            store.write("lease/lease-4.json", seal({**ELSEWHERE, "beat": 1}))

    with pytest.raises(Held, match=r"process 7 on elsewhere since 2026-01-02T03:04:05\+00:00"):
        acquire(newcomer(), beats)
    assert unseal(store.read("lease/lease-4.json"))["beat"] == 1


def test_a_holder_elsewhere_that_releases_meanwhile_is_waited_for_no_longer(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    store.write("lease/lease-4.json", seal(ELSEWHERE))
    waited = acquire(
        newcomer(),
        lambda waited: (
            waited == 3 and store.write("lease/lease-4.json", seal({**ELSEWHERE, "state": "released"}))
        ),
    )
    assert waited == 3


@pytest.mark.parametrize(
    "content", [b"", seal(ELSEWHERE)[:90], seal(ELSEWHERE).replace(b"held", b"hald"), b"\xff[]"]
)
def test_a_damaged_lease_is_named_and_taken_over_after_the_wait(store: Store, content: bytes) -> None:
    store.write("lease/lease-2.json", content)
    said: list[str] = []
    lease = Lease(store, said.append)
    assert DAMAGED_SECONDS <= acquire(lease) < SILENT_SECONDS
    lease.release()
    assert len(said) == 1
    assert store.where("lease/lease-2.json") in said[0]
    assert leases(store) == ["lease-3.json"]


def test_a_damaged_lease_whose_holder_writes_it_anew_is_not_taken_over(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    store.write("lease/lease-2.json", b"")
    with pytest.raises(Held, match="elsewhere"):
        acquire(
            newcomer(), lambda waited: waited == 9 and store.write("lease/lease-2.json", seal(ELSEWHERE))
        )


@pytest.mark.parametrize("before", [None, {**ELSEWHERE, "state": "released"}, ELSEWHERE])
def test_of_many_newcomers_exactly_one_wins(
    store: Store, newcomer: Callable[[], Lease], before: dict[str, Any] | None
) -> None:
    if before:
        store.write("lease/lease-1.json", seal(before))
    together = threading.Barrier(8)

    def come(lease: Lease) -> str:
        together.wait()
        try:
            acquire(lease)
        except Held as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(come, [newcomer() for _ in range(8)]))
    assert answers.count("won") == 1
    assert all("is driven by process" in answer for answer in answers if answer != "won")
    assert len(leases(store)) == 1


def test_a_driver_that_was_replaced_learns_it_at_its_next_beat_and_leaves_the_new_lease_alone(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    old = newcomer()
    acquire(old)
    old.beat()
    assert not old.lost.is_set()
    new = seal({**ELSEWHERE, "token": "new"})
    assert store.create("lease/lease-2.json", new)  # as another machine does, for which this one was silent
    store.delete("lease/lease-1.json")
    old.beat()
    assert old.lost.is_set()
    old.release()
    assert leases(store) == ["lease-2.json"]
    assert store.read("lease/lease-2.json") == new


def test_a_driver_that_gave_no_sign_of_life_for_long_looks_whether_it_was_replaced(
    store: Store, newcomer: Callable[[], Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = newcomer()
    acquire(old)
    assert store.create("lease/lease-2.json", seal({**ELSEWHERE, "token": "new"}))
    old.look_after_pause()
    assert not old.lost.is_set(), "it has just given a sign of life"
    awake, pause = time.clock_gettime(AWAKE), 2 * BEAT_SECONDS
    monkeypatch.setattr(time, "clock_gettime", lambda _: awake + pause)
    old.look_after_pause()
    assert old.lost.is_set()


def test_a_driver_that_releases_before_it_learned_of_its_successor_does_not_end_it(
    store: Store, newcomer: Callable[[], Lease]
) -> None:
    old = newcomer()
    acquire(old)
    store.create("lease/lease-2.json", seal(ELSEWHERE))
    old.release()
    assert unseal(store.read("lease/lease-2.json")) == ELSEWHERE
    found = holder(store)
    assert found is not None
    assert found["host"] == "elsewhere"


def test_a_newcomer_that_slept_while_others_came_and_went_does_not_take_a_number_below_theirs(
    store: Store, newcomer: Callable[[], Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = newcomer()
    acquire(first)
    first.release()
    slow, create = newcomer(), store.create

    def late(name: str, data: bytes) -> bool:
        monkeypatch.setattr(store, "create", create)
        second, third = newcomer(), newcomer()
        acquire(second)
        second.release()
        acquire(third)  # removes the second's number, which is the one that `slow` is about to create
        return create(name, data)

    monkeypatch.setattr(store, "create", late)
    with pytest.raises(Held):
        acquire(slow)
    assert leases(store) == ["lease-3.json"]


def test_a_beat_tells_what_the_holder_is_doing(store: Store, newcomer: Callable[[], Lease]) -> None:
    lease = newcomer()
    acquire(lease)
    before = store.read("lease/lease-1.json")
    lease.now = {"running": 3, "slots": 4}
    lease.beat()
    assert store.read("lease/lease-1.json") != before
    found = holder(store)
    assert found is not None
    assert found["now"] == {"running": 3, "slots": 4}
