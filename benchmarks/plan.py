"""Measure what planning costs: `python -m benchmarks.plan` plays a study of 20,000 runs in two minutes.

It plays the study twice. The first time is by the clock, with the real proposer, whose time is told
apart. The second traces allocations, which is slower.
"""

from __future__ import annotations

import json
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sweep.planning.forecast import play, scattered
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Proposal, Result, Run
from sweep.study import Study, Values
from sweep.study.contents import Contents
from trainer.randomness import uniform
from trainer.spec import RunSpec

RESULTS = Path(__file__).parent / "results"
RUNS, SLOTS, EPOCHS = 20_000, 64, 500
ARMS, GENERATIONS, SEEDS = 8, 60, 80
"""Eight searched arms of 60 generations of 16 at 40 runs each, and ten confirmed arms of 80 seeds."""


def contents() -> Contents:
    """The study of 20,000 runs."""
    searched = {
        "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
        "weight_decay": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    step = {"low": 0.002, "high": 0.1, "log": True}
    policies: list[dict[str, Any]] = [
        {"name": "additive-reset", "step": step, "drop": 0.01 + i / 1000} for i in range(ARMS)
    ]
    whole = {
        "task": {"data": "digits", "model": "wrn-10-1", "epochs": EPOCHS},
        "arms": {
            "dense": {"policy": {"name": "dense"}},
            "fixed": {"policy": {"name": "fixed", "ratio": 0.3}},
            **{f"additive-{i}": {"policy": policy, "task": searched} for i, policy in enumerate(policies)},
        },
        "search": {"budget": GENERATIONS * 16, "generation": 16, "ladder": [1, 2, 4, 8], "lag": 2},
        "confirm": {"seeds": SEEDS},
        "analysis": {"baseline": "dense"},
    }
    return Contents.read(whole)


class Watch:
    """Add up the seconds spent in a watched call."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - start


def timed(study: Study, watch: Watch) -> Study:
    """Time the making of a study's run specs, which is the trainer's work and no planning."""
    make = study.run

    def run(*what: Any) -> RunSpec:
        def made() -> RunSpec:
            spec = make(*what)
            _ = spec.run_id  # hashed here and once more by the plan, whose own share this is
            return spec

        return watch.over(made)

    vars(study)["run"] = run
    return study


def result(run: Run) -> Result:
    """A made-up result."""
    score = uniform(0, run.run_id)
    return Result("completed", EPOCHS, 1.0, 10, {"1": score, "0.05": score}, {"1": score, "0.05": score})


def by_the_clock() -> dict[str, float]:
    """Return the milliseconds for each run; the proposer's and the specs' are told apart."""
    making, proposing, results = Watch(), Watch(), Watch()
    study = timed(Study("plan", contents()), making)
    start = time.perf_counter()
    plan = Plan(study, {}, {})

    def proposed(study: Study, due: Proposal) -> list[Values]:
        return proposing.over(lambda: propose(study, due))

    played = play(plan, SLOTS, lambda run: results.over(lambda: result(run)), lambda _: 1.0, proposed)
    whole = time.perf_counter() - start
    assert plan.complete
    assert played.runs.total() == RUNS
    assert played.epochs == RUNS * EPOCHS
    planning = whole - proposing.seconds - results.seconds
    specs = making.seconds
    each = {
        "planning": planning,
        "of which making specs": specs,
        "of which the plan": planning - specs,
        "proposing": proposing.seconds,
    }
    return {name: 1000 * seconds / RUNS for name, seconds in each.items()}


def traced() -> dict[str, list[float]]:
    """Return the MB allocated at each quarter of the finished runs, and the peak within that quarter."""
    held: dict[str, list[float]] = {"held": [], "peak": []}
    finished = 0

    def give(run: Run) -> Result:
        nonlocal finished
        finished += 1
        if finished % (RUNS // 4) == 0:
            for name, size in zip(("held", "peak"), tracemalloc.get_traced_memory(), strict=True):
                held[name].append(size / 1e6)
            tracemalloc.reset_peak()
        return result(run)

    study = Study("plan", contents())
    tracemalloc.start()
    play(Plan(study, {}, {}), SLOTS, give, lambda _: 1.0, scattered)
    tracemalloc.stop()
    return held


def result_bytes() -> float:
    """Return the bytes of one result; a driver holds all results in any case."""
    plan = Plan(Study("plan", contents()), {}, {})
    runs = list(iter(lambda: plan.queue.next(0.0), None))
    tracemalloc.start()
    kept = [result(run) for run in runs]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(kept)


def main() -> None:
    """Measure both, print a table, keep a file."""
    console = Console(width=100)
    times = by_the_clock()
    console.print(f"{RUNS:,} runs of {EPOCHS} epochs on {SLOTS} slots")
    table = Table("milliseconds a run", "")
    for name, value in times.items():
        table.add_row(name, f"{value:.3f}")
    console.print(table)
    memory = traced()
    per_run = (memory["held"][-1] - memory["held"][0]) * 1e6 / (RUNS * 3 / 4)
    table = Table("MB at", *(f"{share} %" for share in (25, 50, 75, 100)))
    for name, values in memory.items():
        table.add_row(name, *(f"{value:.1f}" for value in values))
    own = result_bytes()
    console.print(
        table,
        f"{per_run:.0f} bytes for each finished run: {own:.0f} of its result,"
        " the rest its score and its share of a candidate",
    )
    RESULTS.mkdir(exist_ok=True)
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "optuna": version("optuna"),
        "cores": os.cpu_count(),
    }
    body = {
        "runs": RUNS,
        "epochs": EPOCHS,
        "slots": SLOTS,
        "milliseconds": times,
        "megabytes": memory,
        "bytes_per_run": per_run,
        "of_its_result": own,
        "machine": machine,
    }
    (RESULTS / "plan.json").write_text(json.dumps(body, indent=1) + "\n")
    console.print(f"kept in {RESULTS / 'plan.json'}")


if __name__ == "__main__":
    main()
