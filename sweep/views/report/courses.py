"""The confirmed candidates over their epochs, as arrays. `pictures` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.planning.values import Cohort
from sweep.views.reading import Reading, RunFiles, ahead

COURSES = [
    "test_accuracy",
    "dense_test_accuracy",
    "keep_ratio",
    "nonzero_rate",
    "connections",
    "active_neurons",
    "parameters",
]
"""Columns that are drawn over the epochs, where they have values."""


@dataclass(frozen=True)
class Course:
    """A confirmed candidate over its epochs: mean, least and greatest of each column over its seeds.

    A column without values is left out, such as the keep ratio of a policy that has none.
    """

    candidate: str
    seeds: int
    epochs: np.ndarray
    columns: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    resets: np.ndarray
    """The share of seeds that reset after each epoch."""
    best: float
    """Mean test accuracy at each seed's best epoch, at that epoch's keep ratio. Papers often report it."""
    last: float
    """Mean test accuracy at the last epoch, at that epoch's keep ratio."""


def courses_of(reading: Reading) -> dict[str, Course]:
    """The course of every confirmed candidate that has finished runs. Runs that diverged are left out."""
    courses: dict[str, Course] = {}
    for cohort in reading.cohorts:
        runs = [reading.runs[run_id] for run_id in cohort.runs]
        finished = [run for run in runs if run.state in ("completed", "collapsed")]
        if cohort.phase == "confirm" and finished:
            courses[cohort.candidate.name] = _course(cohort, finished)
    return courses


def _course(cohort: Cohort, runs: Sequence[RunFiles]) -> Course:
    wanted = ["epoch", "reset", *COURSES]
    tables = [table for _, table in ahead(runs, lambda run: run.epochs(wanted)) if table is not None]
    stacked = {
        name: np.stack([table[name].cast(pa.float64()).to_numpy() for table in tables]) for name in wanted
    }
    drawn = [name for name in COURSES if np.isfinite(stacked[name]).any()]
    columns = {name: (stacked[name].mean(0), stacked[name].min(0), stacked[name].max(0)) for name in drawn}
    accuracy = stacked["test_accuracy"]
    best, last = np.nanmax(accuracy, axis=1), accuracy[:, -1]
    return Course(
        candidate=cohort.candidate.name,
        seeds=len(tables),
        epochs=stacked["epoch"][0],
        columns=columns,
        resets=np.nan_to_num(stacked["reset"]).mean(0),
        best=math.fsum(best) / len(best),
        last=math.fsum(last) / len(last),
    )
