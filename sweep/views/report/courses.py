"""The confirmed arms over their epochs, as arrays. `pictures` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.views.reading import Finalist, Reading, RunFiles, ahead

COURSES = [
    "train_accuracy",
    "test_accuracy",
    "dense_test_accuracy",
    "keep_ratio",
    "nonzero_rate",
    "connections",
    "active_neurons",
    "parameters",
]
"""Columns that are drawn over the epochs, where they have values."""
Key = tuple[str, int]
"""An arm's finalist of a rank: the arm's name, and the rank from 1."""


@dataclass(frozen=True)
class Best:
    """Each run's best epoch at that epoch's own keep ratio, as papers often report it: means over the runs.

    A policy without keep ratios has no ratio. Older runs have no nonzero rate.
    """

    accuracy: float
    epoch: float
    keep_ratio: float | None
    nonzero_rate: float | None


@dataclass(frozen=True)
class Course:
    """An arm's finalist over its epochs: mean, least and greatest of each column over its runs.

    With several searches these are the finalists of all searches for the first endpoint. A column without
    values is left out, such as the keep ratio of a policy that has none.
    """

    runs: int
    epochs: np.ndarray
    columns: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    resets: np.ndarray
    """The share of runs that reset after each epoch."""
    best: float
    """Mean test accuracy at each run's best epoch, at r = 1."""
    last: float
    """Mean test accuracy at the last epoch, at r = 1."""
    best_at_own_ratio: Best
    gap: float
    """Mean training accuracy of the last epoch, less its test accuracy at the same keep ratio."""


def courses_of(reading: Reading) -> dict[Key, Course]:
    """The course of every finalist that has finished runs. Runs that diverged are left out."""
    courses: dict[Key, Course] = {}
    for finalist in reading.finalists:
        finished = [run for run in _runs(reading, finalist) if run.state in ("completed", "collapsed")]
        if finished:
            courses[finalist.arm.method, finalist.rank + 1] = _course(finished)
    return courses


def _runs(reading: Reading, finalist: Finalist) -> list[RunFiles]:
    """The runs of the finalists for the first endpoint, each once."""
    ids = dict.fromkeys(run_id for cohort in finalist.primary for run_id in cohort.runs)
    return [reading.runs[run_id] for run_id in ids]


def _course(runs: Sequence[RunFiles]) -> Course:
    wanted = ["epoch", "reset", *COURSES]
    tables = [table for _, table in ahead(runs, lambda run: run.epochs(wanted)) if table is not None]
    values = [{name: table[name].cast(pa.float64()).to_numpy() for name in wanted} for table in tables]
    # searches may settle on other numbers of epochs; only runs of one length are drawn together
    lengths = [len(run["epoch"]) for run in values]
    length = max(set(lengths), key=lambda n: (lengths.count(n), n))
    alike = [run for run in values if len(run["epoch"]) == length]
    stacked = {name: np.stack([run[name] for run in alike]) for name in wanted}
    drawn = [name for name in COURSES if np.isfinite(stacked[name]).any()]
    columns = {name: (stacked[name].mean(0), stacked[name].min(0), stacked[name].max(0)) for name in drawn}
    own = [run["test_accuracy"] for run in values]
    dense = [run["dense_test_accuracy"] for run in values]
    # a policy without a keep ratio has no second column: its accuracy is that at r = 1
    dense = [at_1 if np.isfinite(at_1).any() else at_own for at_1, at_own in zip(dense, own, strict=True)]
    return Course(
        runs=len(alike),
        epochs=stacked["epoch"][0],
        columns=columns,
        resets=np.nan_to_num(stacked["reset"]).mean(0),
        best=_mean([np.nanmax(accuracy) for accuracy in dense]),
        last=_mean([accuracy[-1] for accuracy in dense]),
        best_at_own_ratio=_best(values),
        gap=_mean([run["train_accuracy"][-1] - run["test_accuracy"][-1] for run in values]),
    )


def _best(runs: Sequence[dict[str, np.ndarray]]) -> Best:
    places = [int(np.nanargmax(run["test_accuracy"])) for run in runs]

    def mean(column: str) -> float:
        return _mean([float(run[column][place]) for run, place in zip(runs, places, strict=True)])

    ratio, rate = mean("keep_ratio"), mean("nonzero_rate")
    return Best(
        accuracy=mean("test_accuracy"),
        epoch=mean("epoch"),
        keep_ratio=ratio if math.isfinite(ratio) else None,
        nonzero_rate=rate if math.isfinite(rate) else None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
