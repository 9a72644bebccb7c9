"""Trainers of many runs, `python -m trainer --from-stdin`, as processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.sweeps import environment
from trainer.orders import Order
from trainer.spec import RunSpec

LONG: dict[str, Any] = {"model": "mlp-16", "epochs": 100_000, "evaluate_every": 50_000}
"""A run that does not end by itself."""


def command(store: Path, workers: int = 2, *more: str) -> list[str]:
    options = ["--workers", str(workers), "--device", "cpu", "--threads", "1", "--commit-share", "1"]
    return [sys.executable, "-m", "trainer", "--from-stdin", "--store", str(store), *options, *more]


def train_lines(lines: str, store: Path, workers: int = 2, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(store, workers, *more),
        input=lines,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
        timeout=280,
    )


def lines_of(*specs: RunSpec) -> str:
    return "".join(f"{Order(spec).to_json()}\n" for spec in specs)


def until(condition: Callable[[], Any], seconds: float = 200) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def commits(store: Path) -> set[str]:
    """Return the runs that have a commit."""
    return {path.parts[-3] for path in store.glob("*/attempt-*/checkpoint-*")}
