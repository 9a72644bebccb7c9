"""A sweep that is frozen, as by a laptop's lid, taken over by another machine, and let go afterwards.

It learns that it was replaced, stops with a line that says so, and changes no result.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.tally import ROUNDS, assert_whole
from tests.sweeps import UNHURRIED, Started, descendants, folders, generations, write_study

pytestmark = pytest.mark.chaos
ELSEWHERE = {"PRETENDED_HOST": "elsewhere", "SILENT_SECONDS": "3"}
"""The second driver cannot ask whether the first one lives. It waits three seconds instead of a minute."""


def finished(store: Path) -> int:
    return sum((folder / "outcome.json").exists() for folder in folders(store))


def send(processes: list[int], number: signal.Signals) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def content(store: Path) -> dict[str, bytes]:
    """Every file of the study but the logs of attempts, which are for people."""
    paths = [path for path in (store / "small").rglob("*") if path.is_file() and path.name != "log.txt"]
    found: dict[str, bytes] = {}
    for path in paths:
        with suppress(FileNotFoundError):  # a driver may be at work
            found[str(path.relative_to(store))] = path.read_bytes()
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("_", range(ROUNDS))
@pytest.mark.parametrize("when", ["while the second works", "after the second has finished"])
def test_a_driver_that_is_let_go_after_it_was_replaced_stops_and_changes_nothing(
    when: str, _: int, tmp_path: Path, undisturbed: Path
) -> None:
    study, code = write_study(tmp_path, **UNHURRIED), None
    command = ("run", study, "--store", tmp_path)
    with Started(tmp_path, *command) as first:
        first.until(lambda: finished(tmp_path) >= 3)
        # the driver first, so that it starts nothing while its descendants are counted
        send([first.process.pid], signal.SIGSTOP)
        frozen = [*descendants(first.process.pid), first.process.pid]
        send(frozen, signal.SIGSTOP)
        at_freezing = finished(tmp_path)
        with Started(tmp_path, *command, env=ELSEWHERE) as second:
            if when == "while the second works":
                second.until(lambda: finished(tmp_path) >= at_freezing + 3)
                outcomes = outcomes_of(tmp_path)
                send(frozen, signal.SIGCONT)
                code = first.wait()
                after = outcomes_of(tmp_path)
                assert {name: after[name] for name in outcomes} == outcomes
            assert second.wait() == 0, second.log.read_text()
        before = content(tmp_path)
        if when == "after the second has finished":
            send(frozen, signal.SIGCONT)
            code = first.wait()
    said = first.log.read_text()
    print(said)
    assert code == 3
    assert "Another driver has taken this study over; this one stops." in said
    assert "Traceback" not in said
    after = content(tmp_path)
    assert {name: after.get(name) for name in before} == before
    # what was being written when the process was frozen is still written; no outcome names it
    late = after.keys() - before.keys()
    assert [
        name for name in late if not re.search(r"/attempt-\d+/(claim|checkpoint|epochs|endpoints)\b", name)
    ] == []
    assert_whole("a frozen driver that was replaced", 1, tmp_path, undisturbed)
    assert generations(tmp_path) == generations(undisturbed)


def outcomes_of(store: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(store).items() if name.endswith("outcome.json")}
