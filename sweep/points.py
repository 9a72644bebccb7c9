"""Metric points for a tracker, from rows: a run's own, and those of a cohort. A point that was given once never changes.

Epoch e of a cohort exists only once all its runs have kept e, and a final figure over k pairs stands at step k: so neither the order in
which seeds finish nor the moment of looking can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.reading import RunFiles
from trainer.rows import WALL, EpochRow, schema

COLUMNS = [
    field.name for field in schema(EpochRow) if field.name not in WALL and field.name not in ("run_id", "epoch", "nonzero_rate_by_site")
]
AVERAGED = [name for name in COLUMNS if name not in ("reset", "cycle", "smoothed_train_accuracy")]
GAINED = ("dense_test_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step."""

    key: str
    value: float
    step: int


def run_points(table: pa.Table, after: int) -> Iterator[Point]:
    """Every column of the epochs after the given one; null is no point, NaN and infinities are themselves."""
    later = table.slice(after)
    epochs = later["epoch"].to_pylist()
    for column in COLUMNS:
        for epoch, value in zip(epochs, later[column].to_pylist(), strict=True):
            if value is not None:
                yield Point(column, float(value), epoch)


@dataclass(frozen=True)
class Curves:
    """A cohort's epochs as matrices, seeds by epochs; NaN where a seed has no value."""

    matrices: Mapping[str, np.ndarray]
    epochs: int
    """That all its runs have kept."""


def curves(runs: Sequence[RunFiles], epochs: int) -> Curves:
    """Of a cohort whose runs all have so many epochs. A run that diverged has accuracy 0 from then on, and nothing else."""
    matrices = {column: np.full((len(runs), epochs), np.nan) for column in AVERAGED}
    for i, run in enumerate(runs):
        table = run.epochs()
        assert table is not None
        have = min(table.num_rows, epochs)
        for column, matrix in matrices.items():
            matrix[i, :have] = table[column].slice(0, have).to_numpy()
        if run.state == "diverged":
            evaluated = _evaluated(run, epochs)
            for column, matrix in matrices.items():
                matrix[i, have - 1 :] = np.where(evaluated[have - 1 :], 0.0, np.nan) if column.endswith("accuracy") else np.nan
            if not run.spec.task.validation:
                matrices["validation_accuracy"][i], matrices["dense_validation_accuracy"][i] = np.nan, np.nan
    return Curves(matrices, epochs)


def _evaluated(run: RunFiles, epochs: int) -> np.ndarray:
    numbers, task = np.arange(1, epochs + 1), run.spec.task
    return (numbers % task.evaluate_every == 0) | (numbers == task.epochs)


def shared_epochs(runs: Sequence[RunFiles]) -> int:
    """Epochs that every run of a cohort has kept; one that diverged keeps back none."""
    going = [run.committed for run in runs if run.state != "diverged"]
    return min(going) if going else max(run.committed for run in runs)


def cohort_points(found: Curves, after: int) -> Iterator[Point]:
    """Mean and standard error of each column over the seeds, for the epochs after the given one."""
    for column, matrix in found.matrices.items():
        yield from _mean_points(column, matrix, after)


def gain_points(found: Curves, baseline: Curves, after: int) -> Iterator[Point]:
    """The paired gain over the baseline, epoch by epoch."""
    epochs = min(found.epochs, baseline.epochs)
    for column in GAINED:
        yield from _mean_points(f"{column}_gain", found.matrices[column][:, :epochs] - baseline.matrices[column][:, :epochs], after)


def _mean_points(key: str, matrix: np.ndarray, after: int) -> Iterator[Point]:
    for epoch in range(after, matrix.shape[1]):
        values = matrix[:, epoch]
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        yield Point(key, math.fsum(values) / len(values), epoch + 1)
        if len(values) > 1:
            yield Point(f"{key}_standard_error", float(values.std(ddof=1)) / math.sqrt(len(values)), epoch + 1)


def prefix_gains(candidate: Sequence[float], baseline: Sequence[float], key: str) -> Iterator[Point]:
    """The gain over the first k pairs, at step k, as far as all pairs before have both halves."""
    differences = np.asarray(candidate, float) - np.asarray(baseline, float)
    for k in range(1, len(differences) + 1):
        if not math.isfinite(differences[k - 1]):
            return
        yield Point(key, math.fsum(differences[:k]) / k, k)
