"""Who may train a run, on a local folder and on a bucket: one at a time, and the dead make way."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run_spec
from tests.integration.attempts import as_left_by_an_ended_process
from trainer.claims import SILENT_SECONDS, Claim, Claimed, Hold, Watch, claim_on
from trainer.run_folder import Completed, File, RunFolder
from trainer.store import Store, digest, open_store, seal, unseal

SPEC = run_spec()
ELSEWHERE = {"host": "elsewhere", "boot": "b", "space": "s", "pid": 7, "started": "9", "lease": 0}
"""A holder on another machine: nobody here can ask whether it lives."""


@pytest.fixture(params=["local", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "runs") if request.param == "local" else request.getfixturevalue("bucket")


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


def folder(store: Store) -> RunFolder:
    return RunFolder(store, SPEC, print)


def claimed_by(store: Store, **holder: Any) -> Claim:
    """Let a holder on another machine begin the next attempt; return its claim."""
    number = folder(store).claim({})
    name = f"{SPEC.run_id}/attempt-{number}/attempt.json"
    store.write(name, seal({**unseal(store.read(name)), "holder": {**ELSEWHERE, **holder}}))
    claim = claim_on(store, SPEC.run_id)
    assert claim
    return claim


def sign(store: Store, state: str, beat: int, attempt: int = 1) -> None:
    store.write(f"{SPEC.run_id}/attempt-{attempt}/claim.json", seal({"state": state, "beat": beat}))


# without torch, whose import takes seconds
FOLDER = """
import sys, time
from trainer.claims import Claimed
from trainer.run_folder import RunFolder
from trainer.spec import RunSpec
from trainer.store import open_store
folder = RunFolder(open_store(sys.argv[1]), RunSpec.from_json(sys.argv[2]), print)
"""
CLAIMS = f"""{FOLDER}
print(folder.claim({{}}), flush=True)
time.sleep(1000)
"""


@contextmanager
def another_process(url: str) -> Generator[subprocess.Popen[str]]:
    """Let another process of this machine claim the run."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIMS, url, SPEC.to_json()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "1\n"
            yield process
        finally:
            process.kill()


def test_a_run_that_a_process_of_this_machine_trains_is_refused_with_who_it_is(
    url: str, store: Store
) -> None:
    with another_process(url) as process:
        with pytest.raises(Claimed, match=f"run {SPEC.run_id} is being trained by process {process.pid} on"):
            folder(store).claim({})
        claim = claim_on(store, SPEC.run_id)
        assert claim
        assert claim.is_here
        assert folder(store).attempts() == [1]


def test_a_holder_that_was_killed_is_taken_over_at_once(url: str, store: Store) -> None:
    with another_process(url) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert folder(store).claim({}) == 2


def test_a_holder_that_is_stopped_by_a_signal_is_taken_over_at_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with another_process(str(tmp_path)) as process:
        process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            pass
        assert folder(store).claim({}) == 2


def test_a_process_number_that_is_used_again_is_not_the_holder(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with another_process(str(tmp_path)):
        as_left_by_an_ended_process(tmp_path)
        assert folder(store).claim({}) == 2


def test_a_holder_elsewhere_is_left_alone_until_it_was_silent_for_a_minute(store: Store) -> None:
    claim, now = claimed_by(store), [1000.0]
    assert not claim.is_here
    watch = Watch(lambda: now[0])
    assert watch.look(store, claim) is None
    now[0] += SILENT_SECONDS - 0.01
    assert watch.look(store, claim) is None
    with pytest.raises(Claimed):
        folder(store).claim({})
    now[0] += 0.01
    assert watch.look(store, claim) is True
    with pytest.raises(Claimed):  # silence alone changes nothing for those who did not watch
        folder(store).claim({})
    assert folder(store).claim({}, silent=claim.stamp) == 2


def test_a_holder_elsewhere_that_gives_a_sign_of_life_at_the_last_moment_keeps_the_run(store: Store) -> None:
    claim, now = claimed_by(store), [1000.0]
    watch = Watch(lambda: now[0])
    assert watch.look(store, claim) is None
    now[0] += SILENT_SECONDS
    sign(store, "held", 1)
    assert watch.look(store, claim) is False
    with pytest.raises(Claimed):
        folder(store).claim({}, silent=claim.stamp)


def test_a_holder_elsewhere_that_lets_go_is_waited_for_no_longer(store: Store) -> None:
    claim = claimed_by(store)
    sign(store, "held", 1)
    assert claim_on(store, SPEC.run_id)
    sign(store, "released", 2)
    assert Watch().look(store, claim) is True
    assert folder(store).claim({}) == 2


@pytest.mark.parametrize(("lease", "may"), [(0, False), (3, False), (4, True), (5, True)])
def test_a_driver_takes_over_what_its_own_or_an_earlier_driver_began(
    tmp_path: Path, lease: int, may: bool
) -> None:
    store = open_store(tmp_path)
    claimed_by(store, lease=4)
    if may:
        assert folder(store).claim({}, lease=lease) == 2
    else:
        with pytest.raises(Claimed):
            folder(store).claim({}, lease=lease)


def test_no_driver_takes_over_what_was_begun_outside_of_a_sweep(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    claimed_by(store)
    with pytest.raises(Claimed):
        folder(store).claim({}, lease=9)


@pytest.mark.parametrize("content", [b"", b"\xff[]", seal({"state": "released"})[:30]])
def test_a_damaged_sign_of_life_does_not_free_a_run(tmp_path: Path, content: bytes) -> None:
    store = open_store(tmp_path)
    claimed_by(store)
    store.write(f"{SPEC.run_id}/attempt-1/claim.json", content)
    with pytest.raises(Claimed):
        folder(store).claim({})


def test_an_attempt_of_an_older_release_or_with_a_damaged_record_claims_nothing(tmp_path: Path) -> None:
    store, name = open_store(tmp_path), f"{SPEC.run_id}/attempt-1/attempt.json"
    store.create(name, seal({"torch": "2.11.0", "started_at": "2026-01-02T03:04:05+00:00"}))
    assert claim_on(store, SPEC.run_id) is None
    store.write(name, b"{")
    assert claim_on(store, SPEC.run_id) is None
    assert folder(store).claim({}) == 2


NEWCOMER = f"""{FOLDER}
print("here", flush=True)
sys.stdin.readline()
try:
    print("won", folder.claim({{}}), flush=True)
except Claimed:
    print("lost", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("before", ["nobody", "an ended process"])
def test_of_many_newcomers_exactly_one_begins(tmp_path: Path, before: str) -> None:
    if before != "nobody":
        folder(open_store(tmp_path)).claim({})
        as_left_by_an_ended_process(tmp_path)
    pipe = subprocess.PIPE
    newcomers = [
        subprocess.Popen(
            [sys.executable, "-c", NEWCOMER, str(tmp_path), SPEC.to_json()],
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for _ in range(10)
    ]
    try:
        for process in newcomers:
            assert process.stdout
            assert process.stdout.readline() == "here\n"
        for process in newcomers:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        answers = [process.stdout.readline().split() for process in newcomers if process.stdout]
    finally:
        for process in newcomers:
            process.communicate()
    number = "1" if before == "nobody" else "2"
    assert sorted(answers) == [["lost"]] * 9 + [["won", number]]
    assert folder(open_store(tmp_path)).attempts()[-1] == int(number)


# signs of life


def test_a_hold_changes_the_claim_with_each_beat_and_frees_it_when_released(store: Store) -> None:
    claim = claimed_by(store)
    hold, stamps = Hold(store, SPEC.run_id, 1), {claim.stamp}
    for _ in range(3):
        assert hold.beat()
        present = claim_on(store, SPEC.run_id)
        assert present
        stamps.add(present.stamp)
    assert len(stamps) == 4
    hold.release()
    assert claim_on(store, SPEC.run_id) is None


def test_a_hold_that_was_stopped_does_not_free_what_is_another_ones_by_now(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    claimed_by(store)
    hold = Hold(store, SPEC.run_id, 1)
    assert hold.stop()
    hold.release()
    assert claim_on(store, SPEC.run_id)


def test_a_hold_gives_up_when_its_run_is_taken_over_finished_or_moved_away(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    claim = claimed_by(store)
    hold = Hold(store, SPEC.run_id, 1)
    assert folder(store).claim({}, silent=claim.stamp) == 2
    assert not hold.beat()
    shutil.rmtree(tmp_path / SPEC.run_id)
    assert not hold.beat()
    assert not (tmp_path / SPEC.run_id).exists()
    assert folder(store).claim({}) == 1
    assert hold.beat()
    files = {
        kind: File(f"attempt-1/{kind}-1-{digest(b'rows')[:16]}.parquet", 4, digest(b"rows"))
        for kind in ("epochs", "endpoints")
    }
    for file in files.values():
        store.write(f"{SPEC.run_id}/{file.name}", b"rows")
    folder(store).finish(Completed(1, False, 1, files))
    assert not hold.beat()
    assert not list(tmp_path.rglob("claim.json"))
    assert claim_on(store, SPEC.run_id) is None
    hold.stop()
