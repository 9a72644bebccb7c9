"""Real processes, really killed: no kept epoch is lost, and the rows are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import command, run_spec, train, unread, without_wall
from trainer.rows import EpochRow, from_parquet
from trainer.spec import RunSpec
from trainer.training import Training

pytestmark = pytest.mark.chaos
EPOCHS = 80


def start(run: Path, store: Path) -> subprocess.Popen[str]:
    return unread(command(run, store, "--commit-share", "1"))


def read_rows(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout
    for _ in range(count):
        assert process.stdout.readline(), process.stderr and process.stderr.read()


def rows_in(store: Path, spec: RunSpec) -> list[dict[str, Any]]:
    return without_wall(from_parquet(EpochRow, (store / spec.run_id / "epochs.parquet").read_bytes()))


def last_commit(store: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in store.rglob("checkpoint-*.pt")), default=0)


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, Any]]:
    return without_wall(list(Training(run_spec(epochs=EPOCHS))))


def test_killed_at_ten_random_moments_a_run_gives_the_same_rows_and_loses_no_commit(
    write_run: Any, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"schedule seed: {seed}")  # shown when the test fails
    draw = random.Random(seed)
    run, store = write_run(epochs=EPOCHS), tmp_path / "runs"
    for _ in range(10):
        kept = last_commit(store)
        process = start(run, store)
        if draw.random() < 0.2:  # while it imports, loads or claims
            delay = draw.uniform(0, 2)
        else:  # within the epochs and their commits
            read_rows(process, min(kept + draw.randrange(1, 4), EPOCHS - 1))
            delay = draw.uniform(0, 0.15)
        killer = threading.Timer(delay, process.kill)
        killer.start()
        process.communicate()
        killer.join()
        assert process.returncode in (-signal.SIGKILL, 0)
        finished = list(store.rglob("outcome.json"))  # what it stands for has replaced the checkpoints
        assert finished or last_commit(store) >= kept
    assert train(run, store).returncode == 0
    assert rows_in(store, run_spec(epochs=EPOCHS)) == undisturbed
    assert not list(store.rglob("*.partial"))


@pytest.mark.parametrize("moment", range(3))
def test_a_process_frozen_past_anothers_end_and_let_go_changes_nothing(
    write_run: Any, tmp_path: Path, moment: int, undisturbed: list[dict[str, Any]]
) -> None:
    run, store = write_run(epochs=EPOCHS), tmp_path / "runs"
    frozen = start(run, store)
    try:
        read_rows(frozen, 2 + 9 * moment)
        frozen.send_signal(signal.SIGSTOP)
        assert train(run, store).returncode == 0
        finished = {
            path: path.read_bytes()
            for path in store.rglob("*")
            if path.is_file() and "attempt-1" not in path.parts
        }
        frozen.send_signal(signal.SIGCONT)
        _, said = frozen.communicate(timeout=240)
    finally:
        frozen.kill()
        frozen.communicate()
    assert frozen.returncode == 3
    assert "attempt 1 stops" in said
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in finished} == finished
    assert rows_in(store, run_spec(epochs=EPOCHS)) == undisturbed


def test_a_disk_that_fills_up_fails_loudly_and_the_commit_before_still_reads(
    write_run: Any, tmp_path: Path, undisturbed: list[dict[str, Any]]
) -> None:
    """A limit on file sizes stands for the full disk: the kernel really cuts a write short and refuses."""
    run, store = write_run(epochs=EPOCHS), tmp_path / "runs"
    process = start(run, store)
    read_rows(process, 3)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
    _, said = process.communicate(timeout=240)
    assert process.returncode == 3
    assert "cannot write" in said
    assert "What was there before is untouched" in said
    assert "Traceback" not in said
    assert last_commit(store) >= 3
    assert not list(store.rglob("*.partial"))
    continued = train(run, store)
    assert continued.returncode == 0
    assert "continues from epoch" in continued.stderr
    assert rows_in(store, run_spec(epochs=EPOCHS)) == undisturbed
