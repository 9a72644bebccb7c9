"""Real sweeps for tests: a study of seconds, the command as a process, and readers of its ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from tests.conftest import ROOT
from trainer.rows import WALL

FAULTS = Path(__file__).parent / "chaos" / "faults"
"""A folder that, on PYTHONPATH, adds faulty policies to every process of a sweep (its sitecustomize.py)."""


AS_URGENT = {"RAY_worker_niceness": "0"}
"""Ray lowers its workers to niceness 15: beside other busy processes, such as tests, they would starve."""
TASK: dict[str, Any] = {
    "data": "digits",
    "model": "mlp-16",
    "epochs": 6,
    "batch_size": 32,
    "train_size": 96,
    "evaluate_every": 3,
}
"""Almost nothing to train: a run takes a few hundredths of a second, as training is not what is tested."""
UNHURRIED: dict[str, Any] = {"task": {"epochs": 60, "evaluate_every": 20}}
"""Runs of a second or so, so that a random moment is likely to fall within one."""


def study_values(**parts: Any) -> dict[str, Any]:
    """Return the values of a study of 18 short runs: two arms, a search of two generations, six pairs."""
    values: dict[str, Any] = {
        "task": TASK,
        "arms": {
            "dense": {"policy": {"name": "dense"}},
            "additive": {
                "policy": {"name": "additive-reset", "step": 0.3},
                "task": {"learning_rate": {"low": 0.03, "high": 0.3, "log": True}},
            },
        },
        "search": {"budget": 4, "generation": 2, "lag": 0, "ladder": [1, 2], "validation": 0.1},
        "confirm": {"seeds": 6},
        "analysis": {"baseline": "dense", "endpoints": [1.0]},
        "resources": {"commit_share": 1},
    }
    for name, part in parts.items():
        values[name] = {**values.get(name, {}), **part} if isinstance(part, dict) else part
    return values


def write_study(folder: Path, name: str = "small", **parts: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(study_values(**parts), sort_keys=False))
    return path


def write_gpu_results(
    folder: Path, device: str = "NVIDIA H100 80GB HBM3", *, prefix: str = "gpu", **parts: Any
) -> Path:
    """Write a results file as `python -m benchmarks.gpu` does, with made-up figures that a plan reads.

    With another prefix it is another kind of file of the same form.
    """
    values: dict[str, Any] = {
        "measured": True,
        "device": device,
        "commit": "0" * 40,
        "versions": {"torch": "2.11.0"},
        "task": {
            "data": "synthetic-cifar",
            "model": "wrn-28-4",
            "batch_size": 128,
            "precision": "bfloat16",
            "train": 50_000,
            "test": 10_000,
        },
        "packed": [packed(1, 0.8), packed(4, 1.25, threads=True), packed(4, 1.6, mps=True)],
    }
    for name, part in parts.items():
        values[name] = {**values.get(name, {}), **part} if isinstance(part, dict) else part
    path = folder / f"{prefix}-{re.sub('[^a-z0-9]+', '-', device.lower())}.json"
    path.write_text(json.dumps(values))
    return path


def packed(
    runs: int, epochs_per_second: float, *, mps: bool = False, threads: bool = False
) -> dict[str, Any]:
    return {"runs": runs, "mps": mps, "threads": threads, "epochs_per_second": epochs_per_second}


def sweep_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "sweep", *map(str, arguments)]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a sweep: nothing points it elsewhere, and the faulty policies are there.

    MLflow is off; it has tests of its own.
    """
    kept = {
        key: value for key, value in os.environ.items() if key not in ("STORE", "RAY_ADDRESS", "DATA_DIR")
    }
    ours = {
        "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}",
        "COLUMNS": "200",
        "MLFLOW_TRACKING_URI": "none",
        **AS_URGENT,
    }
    return {**kept, **ours, **(more or {})}


def sweep(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        sweep_command(*arguments),
        capture_output=True,
        text=True,
        check=False,
        env=environment(env),
        cwd=ROOT,
        timeout=timeout,
    )


class Started:
    """The command under way; its output goes to a file."""

    def __init__(self, folder: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        self.log = folder / f"sweep-{time.monotonic_ns()}.log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                sweep_command(*arguments), stdout=out, stderr=out, env=environment(env), cwd=ROOT
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """Kill the driver and all its descendants, the cluster among them, as nearly at once as can be."""
        # A stopped driver starts nothing while its descendants are counted.
        self.process.send_signal(signal.SIGSTOP)
        for pid in [*descendants(self.process.pid), self.process.pid]:
            _signal(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def over(self) -> bool:
        """True once the command has ended by itself."""
        return self.process.poll() is not None

    def until(self, condition: Callable[[], Any], seconds: float = 200) -> Any:
        """Wait for a condition while the command runs; return its value."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"it did not happen within {seconds} s:\n{self.log.read_text()}"
            assert not self.over, f"the command ended before it happened:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def wait(self, seconds: float = 280) -> int:
        return self.process.wait(seconds)


def descendants(pid: int) -> list[int]:
    """Return every process under one, as the kernel knows them now."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def actors(pid: int) -> list[int]:
    """Return the processes under a driver that make attempts."""
    return _those(descendants(pid), works_on_attempts)


def hosts(pids: list[int]) -> list[int]:
    """Return those processes that each train several runs."""
    return _those(pids, lambda command_line: command_line.startswith(b"ray::HostProcess"))


def _those(pids: list[int], wanted: Callable[[bytes], bool]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        try:
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if wanted(command_line):
            found.append(pid)
    return found


def works_on_attempts(command_line: bytes) -> bool:
    """Say whether a process is one of Tune's actors.

    An idle actor has our class's name, and a working one that of the class which Tune makes of it.
    """
    return command_line.startswith((b"ray::_Attempt", b"ray::ResourceTrainable"))


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def folders(store: Path, study: str = "small") -> list[Path]:
    """Return the folders of a study's runs."""
    return sorted(path for path in (store / study / "runs").glob("*") if path.is_dir())


def rows(store: Path, study: str = "small") -> dict[str, list[dict[str, Any]]]:
    """Return every finished run's table without wall columns; a run without an outcome is an error."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for folder in folders(store, study):
        assert (folder / "outcome.json").exists(), folder
        table = pq.read_table(folder / "epochs.parquet")
        tables[folder.name] = table.drop_columns(
            [name for name in table.column_names if name in WALL]
        ).to_pylist()
    return tables


def generations(store: Path, study: str = "small") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / study / "generations").glob("*.json"))}


def committed(store: Path, study: str = "small") -> dict[tuple[str, int], Any]:
    """Return when each epoch in a committed table ended, by run and epoch."""
    found: dict[tuple[str, int], Any] = {}
    for path in (store / study / "runs").glob("*/attempt-*/epochs-*.parquet"):
        try:
            table = pq.read_table(path, columns=["epoch", "ended_at"])
        except FileNotFoundError:
            continue  # superseded by a later one since it was listed
        for row in table.to_pylist():
            found[path.parts[-3], row["epoch"]] = row["ended_at"]
    return found


def final(store: Path, study: str = "small") -> dict[tuple[str, int], Any]:
    """Return when each epoch of the finished runs ended."""
    return {
        (folder.name, row["epoch"]): row["ended_at"]
        for folder in folders(store, study)
        for row in pq.read_table(folder / "epochs.parquet", columns=["epoch", "ended_at"]).to_pylist()
    }
