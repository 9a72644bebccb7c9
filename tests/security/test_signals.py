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
from typing import IO, Any

import pytest

from tests.conftest import run_values
from tests.security.victim import PATIENCE_SECONDS, arguments, environment
from tests.sweeps import AS_URGENT, descendants, write_study
from trainer.orders import Order
from trainer.spec import RunSpec

LONG: dict[str, Any] = {"model": "mlp-16", "epochs": 100_000, "evaluate_every": 50_000}
"""A run that does not end by itself."""


@pytest.fixture(autouse=True)
def a_hang_up_ends() -> Generator[None]:
    """Let SIGHUP do what it usually does, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Started:
    """A command in a process group of its own, under way."""

    def __init__(self, folder: Path, module: str, *more: str | Path, stdin: str = "") -> None:
        self.log = folder / "said"
        (folder / "stdin").write_text(stdin)
        self.terminal = -1
        with self.log.open("w") as out, (folder / "stdin").open() as lines:
            self.process = self._start(folder, arguments(module, *more), lines, out)

    def _start(self, folder: Path, command: list[str], lines: IO[str], out: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=lines,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=environment({**AS_URGENT, "MLFLOW_TRACKING_URI": "none"}),
        )

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def to_group(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


class OnATerminal(Started):
    """A command whose output goes to a terminal; `terminal` is the end that a person would see."""

    def _start(self, folder: Path, command: list[str], lines: IO[str], out: Any) -> subprocess.Popen[bytes]:
        self.terminal, theirs = pty.openpty()
        os.set_blocking(self.terminal, False)
        try:
            return super()._start(folder, command, lines, theirs)
        finally:
            os.close(theirs)

    def read(self) -> None:
        """Read what was written: a terminal that is full would stop the command."""
        with suppress(BlockingIOError):
            while os.read(self.terminal, 65536):
                pass


@contextmanager
def ending(command: Started) -> Generator[Any]:
    """Leave nothing of a command behind."""
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
    with ending(Started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store")) as command:
        command.until(lambda: commits(tmp_path))
        ours = descendants(command.process.pid)
        command.to_group(number)
        code = command.process.wait(PATIENCE_SECONDS)
        said = command.log.read_text()
    assert code == 128 + number, said
    assert f"stopped by {number.name}. To continue: " in said
    assert "Traceback" not in said
    ended(ours)


def test_rays_processes_end_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    with ending(Started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store")) as command:
        command.until(lambda: commits(tmp_path))
        # two helpers of Ray's, which know nothing of runs, notice it within a minute
        ours = [pid for pid in descendants(command.process.pid) if "Agent" not in _name(pid)]
        assert any("raylet" in _name(pid) for pid in ours)
        command.process.kill()
        command.process.wait()
        ended(ours)


@pytest.mark.parametrize("seen", ["study small:", "gcs_server", "raylet"])
def test_a_signal_while_ray_starts_says_how_to_continue(tmp_path: Path, seen: str) -> None:
    with ending(Started(tmp_path, "sweep", "run", long_study(tmp_path), "--store", "store")) as command:
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
    options = [*which, "--store", "runs", "--device", "cpu", "--threads", "1", "--commit-share", "1"]
    with ending(OnATerminal(tmp_path, "trainer", *options, stdin=Order(spec).to_json() + "\n")) as command:
        command.until(lambda: command.read() or commits(tmp_path))
        os.close(command.terminal)
        for _ in range(2):
            with suppress(ProcessLookupError):
                command.to_group(signal.SIGHUP)
        assert command.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGHUP
    assert commits(tmp_path)


def test_a_trainer_hears_a_signal_that_was_blocked_where_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(RunSpec.read(run_values(**LONG)).to_json())
    options = ["run.json", "--store", "runs", "--device", "cpu", "--threads", "1", "--commit-share", "1"]
    # as docker/slurm/ray.sbatch does, so that Ray does not hear it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with ending(Started(tmp_path, "trainer", *options)) as command:
            command.until(lambda: commits(tmp_path))
            command.to_group(signal.SIGTERM)
            assert command.process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_trainer_under_nohup_goes_on(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(RunSpec.read(run_values(**LONG)).to_json())
    options = ["run.json", "--store", "runs", "--device", "cpu", "--threads", "1", "--commit-share", "1"]
    # as nohup does
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending(Started(tmp_path, "trainer", *options)) as command:
            command.until(lambda: commits(tmp_path))
            command.to_group(signal.SIGHUP)
            kept = commits(tmp_path)
            command.until(lambda: commits(tmp_path) != kept)
    finally:
        signal.signal(signal.SIGHUP, before)


def ended(pids: list[int]) -> None:
    """Wait until the processes have ended."""
    end = time.monotonic() + PATIENCE_SECONDS
    while left := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < end, [_name(pid) for pid in left]
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _name(pid: int) -> str:
    """The command line of a process; empty where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _names(pid: int) -> str:
    """The command lines of the processes under one."""
    return " ".join(map(_name, descendants(pid)))
