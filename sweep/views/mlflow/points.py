"""Metric points for a tracker, from rows: a run's own, and those of a cohort. A point that was given once never changes.

Epoch e of a cohort exists only once all its runs have kept e, and a final figure over k pairs stands at step k: so neither the order in
which seeds finish nor the moment of looking can show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.gains.rows import Compared
from sweep.gains.seeds import first_place
from sweep.planning.work import Cohort
from sweep.views.reading import Reading, RunFiles
from trainer.rows import WALL, EpochRow, schema

COLUMNS = [
    field.name
    for field in schema(EpochRow)
    if field.name not in WALL and field.name not in ("run_id", "epoch", "nonzero_rate_by_site")
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
    """How many."""


def curves(runs: Sequence[RunFiles], epochs: int) -> Curves:
    """Of a cohort, so many epochs or as many as can be read. A run that diverged has accuracy 0 from then on, and nothing else.

    Whether it did is read from its rows: they are there before its outcome is.
    """
    tables = [run.epochs() for run in runs]
    whole = min(
        (0 if table is None else table.num_rows for table in tables if table is None or not _lost(table)),
        default=epochs,
    )
    made = Curves(
        {column: np.full((len(runs), min(epochs, whole)), np.nan) for column in AVERAGED}, min(epochs, whole)
    )
    for i, (run, table) in enumerate(zip(runs, tables, strict=True)):
        if table is not None:
            _fill(made, i, run, table)
    return made


def _fill(made: Curves, i: int, run: RunFiles, table: pa.Table) -> None:
    alive = min(table.num_rows - _lost(table), made.epochs)
    gone = np.arange(alive + 1, made.epochs + 1) if _lost(table) else np.arange(0)
    task = run.spec.task
    evaluated = (gone % task.evaluate_every == 0) | (gone == task.epochs)
    for column, matrix in made.matrices.items():
        matrix[i, :alive] = table[column].slice(0, alive).to_numpy()
        if column.endswith("accuracy") and (task.validation or "validation" not in column):
            matrix[i, gone - 1] = np.where(evaluated | (column == "train_accuracy"), 0.0, np.nan)


def _lost(table: pa.Table) -> bool:
    """Whether the last epoch's loss is not a number."""
    return bool(table.num_rows) and not math.isfinite(table["train_loss"][-1].as_py())


def shared_epochs(runs: Sequence[RunFiles]) -> int:
    """Epochs that every run of a cohort has kept; one that diverged keeps back none."""
    going = [run.committed for run in runs if run.state != "diverged"]
    return min(going) if going else max(run.committed for run in runs)


def cohort_points(found: Curves, after: int) -> Iterator[Point]:
    """Mean and standard error of each column over the seeds, for the epochs after the given one."""
    for column, matrix in found.matrices.items():
        yield from _mean_points(column, matrix, after)


def gain_points(found: Curves, baseline: Curves, after: int, overlap: float = 0.0) -> Iterator[Point]:
    """The paired gain over the baseline, epoch by epoch; its standard error with what overlapping splits add."""
    epochs = min(found.epochs, baseline.epochs)
    for column in GAINED:
        gains = found.matrices[column][:, :epochs] - baseline.matrices[column][:, :epochs]
        yield from _mean_points(f"{column}_gain", gains, after, overlap)


def _mean_points(key: str, matrix: np.ndarray, after: int, overlap: float = 0.0) -> Iterator[Point]:
    for epoch in range(after, matrix.shape[1]):
        values = matrix[:, epoch]
        values = values[~np.isnan(values)]
        if not len(values):
            continue
        finite = bool(np.isfinite(values).all())
        yield Point(key, (math.fsum(values) if finite else sum(values.tolist())) / len(values), epoch + 1)
        if len(values) > 1 and finite:
            yield Point(
                f"{key}_standard_error",
                float(values.std(ddof=1)) * math.sqrt(1 / len(values) + overlap),
                epoch + 1,
            )


def prefix_gains(candidate: Sequence[float], baseline: Sequence[float], key: str) -> Iterator[Point]:
    """The gain over the first k pairs, at step k, as far as all pairs before have both halves."""
    differences = np.asarray(candidate, float) - np.asarray(baseline, float)
    for k in range(1, len(differences) + 1):
        if not math.isfinite(differences[k - 1]):
            return
        yield Point(key, math.fsum(differences[:k]) / k, k)


def final_points(reading: Reading, cohort: Cohort, compared: Sequence[Compared]) -> Iterator[Point]:
    """Scores and gains over so many seeds, at that step; the interval and p only where the comparison is complete."""
    done = len(cohort.runs) if all(not math.isnan(score) for score in cohort.scores) else 0
    if done:
        yield Point(
            "validation_score" if cohort.phase == "search" else "score",
            math.fsum(cohort.scores) / done,
            done,
        )
    if cohort.phase == "search":
        return
    study, name = reading.study, cohort.candidate.name
    base_arm = study.arms[cohort.candidate.arm].baseline
    rows = {
        row.keep_ratio: row for row in compared if row.candidate == name and row.reference_arm == base_arm
    }
    # the baseline's own gain is 0, so that it has a place among the others; nobody has one before it is chosen
    is_baseline = [it.name for it in reading.plan.finalists(base_arm)[:1]] == [name]
    base = cohort.runs if is_baseline else baseline_runs(reading, cohort)
    own, base = (
        runs[first_place(study, cohort.candidate.arm, reading.looks) : len(base)]
        for runs in (cohort.runs, base)
    )
    for i, ratio in enumerate(study.analysis.endpoints):
        at = "" if i == 0 else f"_at_r_{ratio:g}"
        for point in prefix_gains(_scores(reading, own, ratio), _scores(reading, base, ratio), f"gain{at}"):
            yield point
            if not at:
                yield Point("pairs", point.step, point.step)
        if row := rows.get(ratio):
            yield from _tested(row, at)
        for row in compared:
            if (
                row.candidate == name
                and row.keep_ratio == ratio
                and row.role == "family"
                and row.reference_arm != base_arm
            ):
                yield from _tested(row, f"_over_{study.arms[row.reference_arm].base}{at}", gain=True)


def baseline_runs(reading: Reading, cohort: Cohort) -> Sequence[str]:
    """The runs that a confirmed cohort is paired with; none for the baseline itself and in the search, which has no common baseline."""
    finalists = reading.plan.finalists(reading.study.arms[cohort.candidate.arm].baseline)
    if cohort.phase == "search" or not finalists or finalists[0].name == cohort.candidate.name:
        return ()
    return next(it.runs for it in reading.cohorts if it.phase == "confirm" and it.candidate == finalists[0])


def _scores(reading: Reading, runs: Iterable[str], ratio: float) -> list[float]:
    results = [reading.plan.results.get(run_id) for run_id in runs]
    return [result.score("test", ratio) if result else math.nan for result in results]


def _tested(row: Compared, key: str, *, gain: bool = False) -> Iterator[Point]:
    """What is said of a comparison once it is complete, at the step of its pairs; with its gain, where nothing else tells that."""
    if row.state == "complete":
        figures = {"gain": row.gain if gain else None, "gain_low": row.ci_low, "gain_high": row.ci_high}
        figures |= {"gain_standard_error": row.standard_error, "p_holm": row.p_holm}
        yield from (
            Point(f"{name}{key}", value, row.pairs) for name, value in figures.items() if value is not None
        )
