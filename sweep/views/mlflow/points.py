"""Metric points for MLflow, made from the rows of a run or a cohort. A point that was given never changes.

Epoch e of a cohort exists only when all its runs have kept e. A final figure over k pairs is at step k. So
the points do not depend on the order in which seeds finish, nor on when they are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.gains.rows import Compared
from sweep.planning.values import Cohort
from sweep.views.reading import Reading, RunFiles
from trainer.rows import WALL, EpochRow, schema

COLUMNS = [
    field.name
    for field in schema(EpochRow)
    if field.name not in WALL and field.name not in ("run_id", "epoch", "nonzero_rate_by_site")
]
AVERAGED = [name for name in COLUMNS if name not in ("reset", "cycle", "smoothed_train_accuracy")]
GAINED = ("dense_test_accuracy", "test_accuracy")
"""The columns whose paired gain is shown epoch by epoch."""


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step."""

    key: str
    value: float
    step: int


def run_points(table: pa.Table, after: int) -> Iterator[Point]:
    """The points of a run's epochs later than `after`. Null gives no point; NaN and infinities do."""
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
    """The number of epochs."""


def curves(runs: Sequence[RunFiles], epochs: int) -> Curves:
    """The first `epochs` epochs of a cohort, or as many of them as can be read.

    A run that diverged has accuracy 0 from that epoch on, and no other value. Whether it diverged is read
    from its rows, because they are written before its outcome.
    """
    tables = [run.epochs() for run in runs]
    if any(table is None for table in tables):
        epochs = 0
    lengths = [table.num_rows for table in tables if table is not None and not _diverged(table)]
    epochs = min([epochs, *lengths])
    filled = Curves({column: np.full((len(runs), epochs), np.nan) for column in AVERAGED}, epochs)
    for i, (run, table) in enumerate(zip(runs, tables, strict=True)):
        if table is not None:
            _fill(filled, i, run, table)
    return filled


def _fill(into: Curves, i: int, run: RunFiles, table: pa.Table) -> None:
    """Write a run's epochs into row `i` of every matrix."""
    diverged = _diverged(table)
    good = min(table.num_rows - diverged, into.epochs)
    lost = np.arange(good + 1, into.epochs + 1) if diverged else np.arange(0)
    task = run.spec.task
    evaluated = (lost % task.evaluate_every == 0) | (lost == task.epochs)
    for column, matrix in into.matrices.items():
        matrix[i, :good] = table[column].slice(0, good).to_numpy()
        if column.endswith("accuracy") and (task.validation or "validation" not in column):
            matrix[i, lost - 1] = np.where(evaluated | (column == "train_accuracy"), 0.0, np.nan)


def _diverged(table: pa.Table) -> bool:
    """Whether the last epoch's loss is not a number."""
    return bool(table.num_rows) and not math.isfinite(table["train_loss"][-1].as_py())


def shared_epochs(runs: Sequence[RunFiles]) -> int:
    """The number of epochs that all runs of a cohort have kept. Runs that diverged hold back none."""
    going = [run.committed for run in runs if run.state != "diverged"]
    return min(going) if going else max(run.committed for run in runs)


def cohort_points(cohort: Curves, after: int) -> Iterator[Point]:
    """Mean and standard error of each column over the seeds, for the epochs later than `after`."""
    for column, matrix in cohort.matrices.items():
        yield from _mean_points(column, matrix, after)


def gain_points(cohort: Curves, baseline: Curves, after: int, overlap: float = 0.0) -> Iterator[Point]:
    """The paired gain over the baseline for the epochs later than `after`.

    Its standard error takes overlapping splits into account.
    """
    epochs = min(cohort.epochs, baseline.epochs)
    for column in GAINED:
        gains = cohort.matrices[column][:, :epochs] - baseline.matrices[column][:, :epochs]
        yield from _mean_points(f"{column}_gain", gains, after, overlap)


def _mean_points(key: str, matrix: np.ndarray, after: int, overlap: float = 0.0) -> Iterator[Point]:
    """Mean and standard error of a matrix's columns, over the seeds that have a value."""
    for epoch, column in enumerate(matrix.T[after:], start=after + 1):
        values = column[~np.isnan(column)]
        n = len(values)
        if not n:
            continue
        finite = bool(np.isfinite(values).all())
        # fsum raises an error at infinities
        yield Point(key, (math.fsum(values) if finite else sum(values.tolist())) / n, epoch)
        if n > 1 and finite:
            error = float(values.std(ddof=1)) * math.sqrt(1 / n + overlap)
            yield Point(f"{key}_standard_error", error, epoch)


def prefix_gains(candidate: Sequence[float], baseline: Sequence[float], key: str) -> Iterator[Point]:
    """The gain over the first k pairs, at step k. It ends before the first pair that lacks a run."""
    differences = np.asarray(candidate, float) - np.asarray(baseline, float)
    for k in range(1, len(differences) + 1):
        if not math.isfinite(differences[k - 1]):
            return
        yield Point(key, math.fsum(differences[:k]) / k, k)


def final_points(reading: Reading, cohort: Cohort, compared: Sequence[Compared]) -> Iterator[Point]:
    """A cohort's score and gains, each at the step that is its number of seeds.

    Intervals and p-values are there only where the comparison is complete.
    """
    seeds = len(cohort.runs)
    if seeds and not any(map(math.isnan, cohort.scores)):
        key = "validation_score" if cohort.phase == "search" else "score"
        yield Point(key, math.fsum(cohort.scores) / seeds, seeds)
    if cohort.phase == "confirm":
        own, base = _paired_runs(reading, cohort)
        for i, ratio in enumerate(reading.study.analysis.endpoints):
            suffix = f"_at_r_{ratio:g}" if i else ""
            gains = prefix_gains(
                _scores(reading, own, ratio), _scores(reading, base, ratio), f"gain{suffix}"
            )
            for point in gains:
                yield point
                if i == 0:
                    yield Point("pairs", point.step, point.step)
            yield from _tests(reading, cohort, compared, ratio, suffix)


def _tests(
    reading: Reading, cohort: Cohort, compared: Sequence[Compared], ratio: float, suffix: str
) -> Iterator[Point]:
    """A candidate's complete comparisons at a keep ratio: over the baseline, then over other arms."""
    arms, candidate = reading.study.arms, cohort.candidate
    rows = [row for row in compared if row.candidate == candidate.name and row.keep_ratio == ratio]
    baseline = arms[candidate.arm].baseline
    for row in rows:
        if row.reference_arm == baseline:
            yield from _tested(row, suffix)
    for row in rows:
        if row.reference_arm != baseline and row.role == "family":
            yield from _tested(row, f"_over_{arms[row.reference_arm].base}{suffix}", gain=True)


def _paired_runs(reading: Reading, cohort: Cohort) -> tuple[Sequence[str], Sequence[str]]:
    """The runs of a confirmed cohort and those of its baseline."""
    arm = cohort.candidate.arm
    finalists = reading.plan.finalists(reading.study.arms[arm].baseline)
    # the baseline is paired with itself: its gain of 0 gives it a place in the sorted table
    is_baseline = bool(finalists) and finalists[0].name == cohort.candidate.name
    return cohort.runs, cohort.runs if is_baseline else baseline_runs(reading, cohort)


def baseline_runs(reading: Reading, cohort: Cohort) -> Sequence[str]:
    """The baseline's runs that a cohort is paired with.

    There are none for the baseline itself, and none in the search, whose arms share no baseline.
    """
    finalists = reading.plan.finalists(reading.study.arms[cohort.candidate.arm].baseline)
    if cohort.phase == "search" or not finalists or finalists[0].name == cohort.candidate.name:
        return ()
    return next(
        other.runs
        for other in reading.cohorts
        if other.phase == "confirm" and other.candidate == finalists[0]
    )


def _scores(reading: Reading, runs: Iterable[str], ratio: float) -> list[float]:
    results = [reading.plan.results.get(run_id) for run_id in runs]
    return [result.score("test", ratio) if result else math.nan for result in results]


def _tested(row: Compared, suffix: str, *, gain: bool = False) -> Iterator[Point]:
    """The figures of a complete comparison, at the step that is its number of pairs.

    `gain` asks for the gain too, for comparisons whose gain nothing else sends.
    """
    if row.state != "complete":
        return
    figures = {"gain": row.gain if gain else None, "gain_low": row.ci_low, "gain_high": row.ci_high}
    figures |= {"gain_standard_error": row.standard_error, "p_holm": row.p_holm}
    for name, value in figures.items():
        if value is not None:
            yield Point(f"{name}{suffix}", value, row.pairs)
