"""One arm under two names, each searched, through the real plan: how often does it differ from itself?

`python -m benchmarks.type_one --null self` plays it. Settings matter here, also at an endpoint that the
search does not score, so that what a search picks is luck. `benchmarks.chances` has many more cells,
simulated with NumPy; this has two of the hardest with the tool's own search, pairs and tests.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist, fmean
from typing import Literal

from sweep.gains.comparisons import comparisons
from sweep.planning.forecast import play
from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Result, Run
from sweep.study import Study
from sweep.study.contents import Contents
from trainer.randomness import uniform

ENDPOINTS = (1.0, 0.05)
SEED_DEVIATION = 0.01
"""The standard deviation of a run's luck at one endpoint; settings are measured in it."""
SEARCHES, SEEDS, BUDGET, SLOTS = 10, 10, 4, 32
COLLAPSES, FALL = 0.05, 0.4
"""The share of runs that collapse in a cell with collapses, and what they lose."""
RATE = {"low": 0.01, "high": 1.0, "log": True}


@dataclass(frozen=True)
class Cell:
    """What settings and seeds do, and what the search scores."""

    surface: Literal["bowl", "two basins"]
    settings: tuple[float, float]
    """The deviation of a candidate's true value at each endpoint, in deviations of a seed."""
    collapses: bool
    objective: Literal["first", "rank", "each"]

    @property
    def words(self) -> str:
        at = " and ".join(f"{deviation:g}" for deviation in self.settings)
        noise = "5 % collapses" if self.collapses else "no collapses"
        return f"{self.surface}, settings {at} seed deviations, {noise}, objective {self.objective}"


HARD = (
    Cell("bowl", (0.0, 3.0), False, "first"),
    Cell("two basins", (1.0, 3.0), True, "first"),
)
"""The search scores the endpoint at which settings do little, and the other one is tested too."""


def claims(cell: Cell, searches: int, seed: int) -> bool:
    """Whether a study claims that the arm differs from itself.

    With several searches the claim is about the arm. With one, and as many seeds as there would be searches,
    it is about the one pick.
    """
    study = study_of(cell, seed, searches)
    plan = Plan(study, {}, {})
    play(plan, SLOTS, lambda run: result(cell, seed, run), lambda _: 1.0, propose)
    rows = [row for row in comparisons(plan) if row.role == "family"]
    assert len(rows) == study.comparisons == 2
    return any(row.verdict in ("better", "worse") for row in rows)


def study_of(cell: Cell, seed: int, searches: int) -> Study:
    """The study: one arm under two names.

    They search settings of different names, so that they do not try the same values.
    """
    arm = {"policy": {"name": "dense"}}
    values = {
        "seed": seed,
        "task": {"data": "digits", "model": "wrn-10-1", "epochs": 40},
        "arms": {
            "one": {**arm, "task": {"learning_rate": RATE}},
            "other": {**arm, "task": {"weight_decay": RATE}},
        },
        "search": {
            "proposer": "random",
            "budget": BUDGET,
            "generation": BUDGET,
            "lag": 0,
            "ladder": [1],
            "replicates": searches,
            "objective": cell.objective,
        },
        "confirm": {"seeds": 1 if searches > 1 else SEEDS},
        "analysis": {"baseline": "one", "endpoints": list(ENDPOINTS)},
    }
    return Study("itself", Contents.read(values))


def result(cell: Cell, study_seed: int, run: Run) -> Result:
    """The result of a run: its candidate's true value at each endpoint, and its own luck."""
    task, scores = run.spec.task, dict[str, float]()
    values = f"{task.learning_rate} {task.weight_decay}"
    fallen = FALL if cell.collapses and uniform(study_seed, f"fallen {run.run_id}") < COLLAPSES else 0.0
    for ratio, deviation in zip(ENDPOINTS, cell.settings, strict=True):
        place = uniform(study_seed, f"worth {values}", round(100 * ratio))
        luck = normal(uniform(study_seed, f"luck {run.run_id}", round(100 * ratio)))
        worth = deviation * worth_of(cell.surface, place)
        scores[f"{ratio:g}"] = 0.5 + SEED_DEVIATION * (worth + luck) - fallen
    return Result("collapsed" if fallen else "completed", task.epochs, 40.0, 10, scores, scores)


def worth_of(surface: str, place: float) -> float:
    """The true value of a candidate at a place of its range, with mean 0 and deviation 1 over the range."""
    if surface == "bowl":
        return (1 / 3 - (2 * place - 1) ** 2) / math.sqrt(4 / 45)
    return 1.0 if place < 0.5 else -1.0


def normal(share: float) -> float:
    """A normal number from an even one."""
    return NormalDist().inv_cdf(0.5 + 0.999999 * (share - 0.5))


def rate(cell: Cell, searches: int, studies: int) -> float:
    """The share of so many studies that claim that the arm differs from itself."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return fmean(pool.map(partial(claims, cell, searches), range(1, studies + 1), chunksize=20))
