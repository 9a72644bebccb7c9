"""Clocks that jump by an hour or a day, back and forth: nobody who lives is replaced, and order is kept.

| what a jump must not change | commit 15d2fea | now |
| --- | --- | --- |
| which came first, look or growth | `Ledger.look`, `.declare`: the wall clock | the same, but never back |
| who drives and trains, how long a run took | monotonic clocks | the same |
"""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sweep.ledger import ledger as ledgers
from sweep.ledger.ledger import Ledger
from sweep.ledger.looks import grew_after_look
from sweep.study import Study
from sweep.views.reading import Reading
from tests.chaos.tally import ROUNDS, assert_whole
from tests.loops import drive, study_of
from tests.sweeps import UNHURRIED, Started, folders, sweep, write_study

pytestmark = pytest.mark.chaos
HOUR, DAY = 3600, 86400
JUMPS = (-HOUR, HOUR, DAY, 0)
"""By how many seconds the wall clock is wrong, one after the other, while a sweep runs."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_a_sweep_whose_clock_jumps_ends_as_an_undisturbed_one_and_is_not_taken_over(
    _: int, tmp_path: Path, undisturbed: Path
) -> None:
    study, clock = write_study(tmp_path, **UNHURRIED), tmp_path / "clock"
    clock.write_text("0")
    env = {"WALL_CLOCK": str(clock)}

    def ended() -> int:
        return len(list((tmp_path / "small" / "runs").glob("*/outcome.json")))

    with Started(tmp_path, "run", study, "--store", tmp_path, env=env) as started:
        for number, jump in enumerate(JUMPS):
            # bound now, as each wait is over before the next begins
            started.until(lambda number=number: ended() >= 2 * number + 1)
            set_clock(clock, jump)
            if jump == DAY:
                second = sweep("run", study, "--store", tmp_path, env=env)
                assert second.returncode == 3
                assert f"is driven by process {started.process.pid}" in second.stderr
        assert started.wait() == 0, started.log.read_text()
    assert_whole("clock jumps", len(JUMPS), tmp_path, undisturbed)
    jumped = list[float]()
    for folder in folders(tmp_path):
        table = pq.read_table(
            folder / "epochs.parquet", columns=["seconds", "images_per_second", "ended_at"]
        )
        assert all(
            value > 0 for name in ("seconds", "images_per_second") for value in table[name].to_pylist()
        )
        ends: list[datetime] = table["ended_at"].to_pylist()
        jumped += [(later - earlier).total_seconds() for earlier, later in pairwise(ends)]
    print(f"between two rows of a run the clock moved by {min(jumped):.1f} to {max(jumped):.1f} s")


def set_clock(clock: Path, wrong_by: float) -> None:
    """Let all processes see the new time at once."""
    new = clock.with_suffix(".new")
    new.write_text(str(wrong_by))
    new.replace(clock)


# the order of looks and growth


def of(seeds: int) -> Study:
    arms: dict[str, Any] = {"additive": {"policy": {"name": "additive-reset", "step": 0.3}}}
    return study_of(arms=arms, confirm={"seeds": seeds})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a study of six pairs has finished."""
    store = tmp_path_factory.mktemp("trained")
    assert drive(of(6), store).complete
    return store


class Wall:
    """The clock that the ledger's records get their time from."""

    def __init__(self) -> None:
        self.time = datetime.fromisoformat("2026-03-01T12:00:00+00:00")

    def __call__(self) -> str:
        return self.time.isoformat(timespec="seconds")

    def jump(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()
    monkeypatch.setattr(ledgers, "now", clock)
    return clock


def opened(store: Path) -> Ledger:
    ledger = Ledger(str(store), "small", print)
    ledger.load()
    return ledger


def copied(store: Path, folder: Path) -> Path:
    return Path(shutil.copytree(store, folder / "store"))


@pytest.mark.parametrize("jump", [-DAY, -HOUR, 0, HOUR, DAY])
def test_growth_after_a_look_is_known_as_such_wherever_the_clock_jumped_between(
    jump: float, trained: Path, tmp_path: Path, wall: Wall
) -> None:
    store = copied(trained, tmp_path)
    assert Reading(opened(store)).compare()  # the look
    wall.jump(jump)
    opened(store).declare(of(12), True)
    assert grew_after_look(opened(store), of(12)) == "pairs"


@pytest.mark.parametrize("jump", [-DAY, -HOUR, 0, HOUR, DAY])
def test_a_look_after_growth_is_not_taken_for_one_before_it(
    jump: float, trained: Path, tmp_path: Path, wall: Wall
) -> None:
    store = copied(trained, tmp_path)
    opened(store).declare(of(12), True)
    wall.jump(jump)
    ledger = opened(store)
    ledger.look(6, ["additive"])
    assert grew_after_look(ledger, of(12)) == ""
    assert len(ledger.looks()) == 1


def test_looks_are_in_the_order_in_which_they_were_recorded(
    trained: Path, tmp_path: Path, wall: Wall
) -> None:
    ledger = opened(copied(trained, tmp_path))
    for number, jump in enumerate((0, -HOUR, 2 * HOUR, -DAY), start=1):
        wall.jump(jump)
        ledger.look(number, ["additive"])
    assert [look.pairs for look in ledger.looks()] == [1, 2, 3, 4]
