"""Signals as batch systems and terminals send them: to a whole group, at any moment, more than once."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_values
from tests.security.victim import PATIENCE_SECONDS, arguments, environment
from tests.sweeps import AS_URGENT, descendants, write_study
from trainer.orders import Order
from trainer.spec import RunSpec

LONG: dict[str, Any] = {"model": "mlp-16", "epochs": 100_000, "evaluate_every": 50_000}
"""A run that does not end by itself."""


class Started:
    """A command in a process group of its own, under way."""

    def __init__(
        self, folder: Path, module: str, *more: str | Path, stdin: str = "", **options: Any
    ) -> None:
        self.log = folder / "said"
        (folder / "stdin").write_text(stdin)
        with self.log.open("w") as out, (folder / "stdin").open() as lines:
            self.process = subprocess.Popen(
                arguments(module, *more),
                cwd=folder,
                stdin=lines,
                stdout=out,
                stderr=out,
                start_new_session=True,
                **{"env": environment({**AS_URGENT, "MLFLOW_TRACKING_URI": "none"}), **options},
            )

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def to_group(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


@contextmanager
def started(folder: Path, module: str, *more: str | Path, **options: Any) -> Generator[Started]:
    """Start a command; at the end nothing of it is left."""
    command = Started(folder, module, *more, **options)
    try:
        yield command
    finally:
        left = [*descendants(command.process.pid), command.process.pid]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.process.wait()


def long_study(folder: Path) -> Path:
    return write_study(folder, task={"epochs": 100_000, "evaluate_every": 50_000})


def commits(store: Path) -> list[Path]:
    return list(store.rglob("checkpoint-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_lets_runs_commit(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store") as command:
        command.until(lambda: commits(tmp_path))
        ours = descendants(command.process.pid)
        command.to_group(number)
        code = command.process.wait(PATIENCE_SECONDS)
        said = command.log.read_text()
    assert code == 128 + number, said
    assert f"stopped by {number.name}. To continue: " in said
    assert "Traceback" not in said
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]


def test_rays_processes_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store") as command:
        command.until(lambda: commits(tmp_path))
        ours = descendants(command.process.pid)
        command.process.kill()
        command.process.wait()
        end = time.monotonic() + PATIENCE_SECONDS
        while left := [pid for pid in ours if _lives(pid)]:
            assert time.monotonic() < end, left
            time.sleep(0.1)


@pytest.mark.parametrize("seen", ["study small:", "gcs_server", "raylet"])
def test_a_signal_while_ray_starts_says_how_to_continue(tmp_path: Path, seen: str) -> None:
    with started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store") as command:
        command.until(lambda: seen in command.log.read_text() or seen in _names(command.process.pid))
        command.to_group(signal.SIGTERM)
        code = command.process.wait(PATIENCE_SECONDS)
        said = command.log.read_text()
    assert code == 128 + signal.SIGTERM, said
    assert "stopped by SIGTERM. To continue: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize("many", [False, True])
def test_a_trainer_whose_terminal_is_closed_commits(tmp_path: Path, many: bool) -> None:
    """The kernel and the shell both send SIGHUP, and nothing can be written to the terminal any more."""
    spec = RunSpec.read(run_values(**LONG))
    (tmp_path / "run.json").write_text(spec.to_json())
    which = ["--from-stdin"] if many else ["run.json"]
    options = [*which, "--store", "runs", "--device", "cpu", "--threads", "1", "--commit-seconds", "0"]
    ours, theirs = pty.openpty()
    lines = Order(spec).to_json() + "\n"
    with started(tmp_path, "trainer", *options, stdin=lines, stdout=theirs, stderr=theirs) as command:
        os.close(theirs)
        os.set_blocking(ours, False)
        command.until(lambda: _drain(ours) or commits(tmp_path))
        os.close(ours)
        for _ in range(2):
            with suppress(ProcessLookupError):
                command.to_group(signal.SIGHUP)
        assert command.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGHUP
    # one that commits and lets go of its run leaves a claim that is over
    assert len(commits(tmp_path)) == 1


def test_a_trainer_under_nohup_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(RunSpec.read(run_values(**LONG)).to_json())
    options = ["run.json", "--store", "runs", "--device", "cpu", "--threads", "1", "--commit-seconds", "0"]
    # as nohup does
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(tmp_path, "trainer", *options) as command:
            command.until(lambda: commits(tmp_path))
            command.to_group(signal.SIGHUP)
            kept = commits(tmp_path)
            command.until(lambda: commits(tmp_path) != kept)
    finally:
        signal.signal(signal.SIGHUP, before)


def _drain(terminal: int) -> None:
    """Read what came to a terminal: one that is full stops the command."""
    with suppress(BlockingIOError):
        while os.read(terminal, 65536):
            pass


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _names(pid: int) -> str:
    """The names of the processes under one."""
    names: list[str] = []
    for child in descendants(pid):
        with suppress(OSError):
            names.append(Path(f"/proc/{child}/comm").read_text())
    return " ".join(names)
