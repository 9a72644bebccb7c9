"""Measure `sweep run` beside stock Ray Tune on the same runs and two cores: `python -m benchmarks.sweep`.

Each measurement is a process with its own cluster, from start to exit; the two sides take turns. The
parts of the time are read from outside: from the rows' own times and from the times of files. `--quick`
uses tiny sizes and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.study import ARMS, CORES, QUICK, TASK, specs, write
from trainer.rows import EpochRow, from_parquet

SEEDS = 6
"""Confirmation seeds. The command refuses fewer: no test of so few pairs could find anything."""
AT_MOST = {"fixed cost, s": 9.0}
AT_LEAST = {"efficiency": 0.6, "efficiency after start-up": 0.9}
"""What is required of the medians; the ratio to stock Ray Tune is reported beside it."""
LIMIT_SECONDS = 1200.0
"""The most that one measurement may take; more is a hang."""
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "COLUMNS": "120",
}
"""Variables of both sides, so that neither waits for a network.

The first, in spite of its name, has Ray listen on the loopback interface alone.
"""


@dataclass(frozen=True)
class Ran:
    """One run as its rows record it.

    `began` is the start of its first epoch and `ended` the end of its last, as `time.time`.
    """

    run_id: str
    epochs: int
    seconds: float
    began: float
    ended: float


@dataclass(frozen=True)
class Measured:
    """One sweep. The parts follow one another and add up to the wall time.

    Idle time is that of both cores, halved, within `training`.
    """

    wall: float
    training_seconds: float
    efficiency: float
    efficiency_after_start: float
    fixed: float
    """Wall time that does not grow with the work: before the first epoch and after the last one."""
    parts: dict[str, float]
    idle: dict[str, float]
    runs: int
    epochs: int

    @classmethod
    def of(
        cls, began: float, ended: float, before: dict[str, float], after: dict[str, float], runs: list[Ran]
    ) -> Measured:
        """`before` and `after` hold the moments at which each part ended, in order, around the training."""
        first, last = min(run.began for run in runs), max(run.ended for run in runs)
        moments = {**before, "to the first epoch": first, "training": last, **after, "exit": ended}
        parts = {
            name: moment - previous
            for (name, moment), previous in zip(moments.items(), [began, *moments.values()], strict=False)
        }
        trained = sum(run.seconds for run in runs)
        return cls(
            wall=ended - began,
            training_seconds=trained,
            efficiency=trained / CORES / (ended - began),
            efficiency_after_start=trained / CORES / (last - first),
            fixed=ended - began - (last - first),
            parts=parts,
            idle={name: seconds / CORES for name, seconds in _idle(runs, first, last).items()},
            runs=len(runs),
            epochs=sum(run.epochs for run in runs),
        )


def _idle(runs: list[Ran], first: float, last: float) -> dict[str, float]:
    """Return the seconds in which a core trained nothing, by kind."""
    cores: list[list[Ran]] = [[] for _ in range(CORES)]
    for run in sorted(runs, key=lambda run: run.began):  # on the core that has been free the longest
        min(cores, key=lambda core: core[-1].ended if core else 0.0).append(run)
    used = [core for core in cores if core]
    return {
        "a core not begun": sum(core[0].began - first for core in used)
        + (CORES - len(used)) * (last - first),
        "between runs": sum(after.began - before.ended for core in used for before, after in pairwise(core)),
        "within runs": sum(run.ended - run.began - run.seconds for run in runs),
        "a core done": sum(last - core[-1].ended for core in used),
    }


def ours(study: Path, folder: Path) -> Measured:
    """Run the real command with its view in MLflow, as the other side has MLflow's callback."""
    store, view = folder / "store", f"sqlite:///{folder / 'mlflow.db'}"
    more = ["--store", str(store), "--mlflow-uri", view, "--json"]
    began, ended = _run([sys.executable, "-m", "sweep", "run", str(study), *more], folder)
    ledger = store / study.stem
    wanted = {spec.run_id for arm in specs(study).values() for spec in arm}
    outcomes = {path.parent.name: path.stat().st_mtime for path in ledger.glob("runs/*/outcome.json")}
    assert outcomes.keys() == wanted, f"{len(outcomes)} of {len(wanted)} runs have an outcome"
    runs: list[Ran] = []
    for run_id in wanted:
        rows = from_parquet(EpochRow, (ledger / "runs" / run_id / "epochs.parquet").read_bytes())
        runs.append(_ran(run_id, [(row.seconds, row.ended_at.timestamp()) for row in rows]))
    written = {
        "Python, imports, study": ledger / "study.json",
        "Ray's start, preflight": ledger / "preflight",  # empty again: the time is that of the last deletion
    }
    before = {part: path.stat().st_mtime for part, path in written.items() if path.exists()}
    after = {
        "last outcome": max(outcomes.values()),
        "Tune's and Ray's end": (ledger / "index.json").stat().st_mtime,
    }
    return Measured.of(began, ended, before, after, runs)


def stock(study: Path, folder: Path) -> Measured:
    """Run `benchmarks.stock`."""
    began, ended = _run([sys.executable, "-m", "benchmarks.stock", str(study), str(folder)], folder)
    reports = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted((folder / "stock").glob("*/result.json"))
    ]
    runs = [
        _ran(trial[0]["run"], [(report["seconds"], report["ended_at"]) for report in trial])
        for trial in reports
    ]
    assert {run.run_id for run in runs} == {spec.run_id for arm in specs(study).values() for spec in arm}, (
        "it trained other runs"
    )
    moments = json.loads((folder / "moments.json").read_text())
    return Measured.of(began, ended, moments, {"Tune's end": moments.pop("Tune")}, runs)


WAYS = {"ours": ours, "stock": stock}


def _ran(run_id: str, epochs: list[tuple[float, float]]) -> Ran:
    (seconds, ended), (_, last) = epochs[0], epochs[-1]
    return Ran(run_id, len(epochs), sum(each for each, _ in epochs), ended - seconds, last)


def _run(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return when it began and ended. Its output is shown if it fails."""
    log = folder / "log.txt"
    with log.open("w") as to:
        began = time.time()
        process = subprocess.Popen(command, stdout=to, stderr=to, env={**os.environ, **ENVIRONMENT})
        try:
            code = process.wait(LIMIT_SECONDS)
            ended = time.time()
        finally:
            if process.poll() is None:
                process.terminate()  # not kill: it has a cluster to end
                process.wait(60)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}:\n" + "\n".join(log.read_text().splitlines()[-40:]))
    return began, ended


def planned(study: Path, folder: Path) -> tuple[int, int]:
    """Return the runs and epochs that the command plans."""
    command = [
        sys.executable,
        "-m",
        "sweep",
        "plan",
        str(study),
        "--store",
        str(folder / "none"),
        "--workers",
        str(CORES),
        "--json",
    ]
    plan = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return plan["runs_left"], plan["epochs"]


@contextmanager
def two_cores() -> Generator[None]:
    """Keep this process and those it starts to two cores."""
    allowed = os.sched_getaffinity(0)
    assert len(allowed) >= CORES, f"{len(allowed)} core: two are measured"
    os.sched_setaffinity(0, sorted(allowed)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def main() -> None:
    """Measure in turn, compare, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, for work on this file; nothing is kept"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    task = QUICK if options.quick else TASK
    console = Console()
    measured: dict[str, list[Measured]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, two_cores():
        study = Path(temporary, "bench-sweep.yaml")
        write(study, task, SEEDS)
        expected = planned(study, Path(temporary))
        assert expected == (len(ARMS) * SEEDS, len(ARMS) * SEEDS * task["epochs"]), (
            f"the plan has {expected} runs and epochs"
        )
        for repetition in range(options.repetitions):
            for way, measure in WAYS.items():
                folder = Path(temporary, f"{way}-{repetition}")
                folder.mkdir()
                found = measure(study, folder)
                assert (found.runs, found.epochs) == expected, (
                    f"{way} trained {found.runs} runs and {found.epochs} epochs of {expected}"
                )
                measured[way].append(found)
                console.log(
                    f"{way}: {found.wall:.1f} s, efficiency {found.efficiency:.2f},"
                    f" {found.efficiency_after_start:.2f} after start"
                )
    summary = show(measured, console)
    if options.quick:
        return
    kept = {
        "work": {"task": task, "runs": len(ARMS) * SEEDS, "cores": CORES},
        "summary": summary,
        "required": {"at most": AT_MOST, "at least": AT_LEAST},
        **{way: [asdict(each) for each in found] for way, found in measured.items()},
        "machine": machine.describe("ray", "optuna", "mlflow") | {"threads": 1},
    }
    path = machine.RESULTS / "sweep-cpu.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    console.print(f"kept in {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


def show(measured: dict[str, list[Measured]], console: Console) -> dict[str, float]:
    """Print the tables; return the medians of what is required, and of the ratio to stock Ray Tune."""
    table = Table("median seconds", *measured, title=f"the same runs on {CORES} cores")
    middle = {
        way: {name: _median([_flat(each)[name] for each in found]) for name in _flat(found[0])}
        for way, found in measured.items()
    }
    for name in dict.fromkeys(name for found in middle.values() for name in found):
        table.add_row(name, *(f"{found[name]:.2f}" if name in found else "" for found in middle.values()))
    console.print(table)
    walls: list[Any] = [[each.wall for each in measured[way]] for way in ("stock", "ours")]
    summary = {
        "fixed cost, s": middle["ours"]["fixed cost, s"],
        "efficiency": middle["ours"]["efficiency"],
        "efficiency after start-up": middle["ours"]["efficiency after start-up"],
        "stock / ours": _median([theirs / own for theirs, own in zip(*walls, strict=True)]),
    }
    verdicts = Table("figure", "measured", "required", "")
    for name, value in summary.items():
        most, least = AT_MOST.get(name), AT_LEAST.get(name)
        wanted = f"at most {most:g}" if most else f"at least {least:g}" if least else ""
        met = value <= (most or math.inf) and value >= (least or 0.0)
        verdicts.add_row(name, f"{value:.2f}", wanted, "" if not wanted else "met" if met else "missed")
    console.print(verdicts)
    return summary


def _flat(found: Measured) -> dict[str, float]:
    """Return every figure of a sweep by name."""
    return {
        "wall": found.wall,
        "fixed cost, s": found.fixed,
        **{f"  {name}": value for name, value in found.parts.items()},
        **{f"    idle: {name}": value for name, value in found.idle.items()},
        "trained, of both cores": found.training_seconds,
        "efficiency": found.efficiency,
        "efficiency after start-up": found.efficiency_after_start,
    }


_median = statistics.median


if __name__ == "__main__":
    main()
