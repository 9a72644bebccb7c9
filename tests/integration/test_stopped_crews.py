"""Many runs at once that are stopped: by signals, kills, a full disk, a reader that goes away."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import run_spec
from tests.crews import LONG, commits, lines_of, train_lines, until
from tests.loops import job_of
from tests.sweeps import descendants, rows
from trainer.worker import Worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_every_run_keep_its_last_epoch_and_frees_it(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    specs = [run_spec(seed=seed, **LONG) for seed in range(3)]
    process = started(lines_of(*specs), tmp_path)
    until(lambda: len(commits(tmp_path)) == 2)
    children = descendants(process.pid)
    for pid in [process.pid, *children]:  # as Ctrl-C does, and a batch system
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert "the same lines again go on" in said
    logs = [path.read_text() for path in tmp_path.glob("*/attempt-1/log.txt")]
    assert len(logs) == 2
    assert all("stopped; what was trained is kept" in log for log in logs)
    begun = next(spec for spec in specs if (tmp_path / spec.run_id).exists())
    again = Worker(job_of(str(tmp_path), begun))
    again.step()
    report = again.step()
    assert report.state == "training"
    assert any("attempt 2 continues from epoch" in line for line in report.messages)
    again.stop()


def test_a_killed_command_leaves_no_process_and_its_runs_can_be_taken_over(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    specs = [run_spec(seed=seed, **LONG) for seed in range(2)]
    process = started(lines_of(*specs), tmp_path)
    until(lambda: len(commits(tmp_path)) == 2)
    children = descendants(process.pid)
    process.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    for spec in specs:
        worker = Worker(job_of(str(tmp_path), spec))
        worker.step()
        assert worker.step().state == "training"
        worker.stop()


def test_a_disk_that_is_full_exits_3_and_the_same_lines_go_on(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    """A limit on file sizes stands for the full disk, as in tests/chaos."""
    specs = [run_spec(seed=seed, **LONG) for seed in range(2)]
    process = started(lines_of(*specs), tmp_path)
    until(lambda: len(commits(tmp_path)) == 2)
    for pid in descendants(process.pid):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, 4096))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 3, said
    assert "cannot write" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.partial"))
    worker = Worker(job_of(str(tmp_path), specs[0]))
    worker.step()
    assert any("continues from epoch" in line for line in worker.step().messages)
    worker.stop()


def test_a_second_signal_ends_the_command_and_its_processes_at_once(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started(lines_of(*[run_spec(seed=seed, **LONG) for seed in range(2)]), tmp_path)
    until(lambda: len(commits(tmp_path)) == 2)
    children = descendants(process.pid)
    # a process that is frozen cannot commit, so that the first signal alone ends nothing
    trainers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(trainers) == 2
    for pid in trainers:
        os.kill(pid, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_where_nobody_reads_the_results_every_run_keeps_what_it_has(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    specs = [run_spec(model="mlp-16", epochs=1), *[run_spec(seed=seed, **LONG) for seed in (2, 3)]]
    process = started(lines_of(*specs), tmp_path)
    assert process.stdout
    process.stdout.close()
    process.stdout = None
    assert process.stderr
    said = process.stderr.read()
    assert process.wait(timeout=200) == 128 + signal.SIGPIPE, said
    assert "nobody reads the results any more" in said
    assert "Traceback" not in said
    assert (tmp_path / specs[0].run_id / "outcome.json").exists()
    logs = [path.read_text() for path in tmp_path.glob("*/attempt-1/log.txt")]
    assert any("stopped; what was trained is kept" in log for log in logs)


def kept(store: Path) -> set[str]:
    return {path.name for path in store.rglob("checkpoint-*")}


@pytest.mark.slow
def test_a_command_that_is_killed_again_and_again_ends_with_the_rows_of_an_undisturbed_one(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    specs = [run_spec(seed=seed, model="mlp-16", epochs=600, evaluate_every=300) for seed in range(3)]
    calm, killed = (tmp_path / name / "small" / "runs" for name in ("calm", "killed"))
    chance = random.Random(17)
    assert train_lines(lines_of(*specs), calm).returncode == 0
    for _ in range(5):
        process = started(lines_of(*specs), killed)
        before = kept(killed)
        until(lambda before=before: kept(killed) - before)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
    done = train_lines(lines_of(*specs), killed)
    assert done.returncode == 0, done.stderr
    assert len(list(killed.glob("*/attempt-*"))) > len(specs)
    assert rows(tmp_path / "killed") == rows(tmp_path / "calm")
