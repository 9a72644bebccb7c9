"""Metric points for MLflow, made from the rows of a run or a cohort. A point that was given never changes.

Epoch e of a cohort exists only when all its runs have kept e. A final figure over k pairs is at step k. So
the points do not depend on the order in which seeds finish, nor on when they are computed.

Gains are in points, and accuracies are shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sweep.gains.compared import Stage
from sweep.gains.comparisons import comparisons, stage
from sweep.gains.rows import Compared
from sweep.planning.pairing import Pairing, complete_blocks, places
from sweep.views.mlflow.parents import Parent
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
DIGITS = 12
"""Accuracies that agree up to this decimal are equal."""


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


def cohort_points(cohort: Curves, after: int, runs_in_a_pair: int = 1) -> Iterator[Point]:
    """Mean and standard error of each column for the epochs later than `after`.

    They are over the runs, or over the means of so many runs that make one half of a pair.
    """
    for column, matrix in cohort.matrices.items():
        yield from _mean_points(column, _means(matrix, runs_in_a_pair), after)


def gain_points(
    cohort: Curves, baseline: Curves, after: int, overlap: float = 0.0, runs_in_a_pair: int = 1
) -> Iterator[Point]:
    """The paired gain over the baseline, in points, for the epochs later than `after`.

    Its standard error takes overlapping splits into account.
    """
    epochs = min(cohort.epochs, baseline.epochs)
    for column in GAINED:
        gains = 100 * (cohort.matrices[column][:, :epochs] - baseline.matrices[column][:, :epochs])
        yield from _mean_points(f"{column}_gain", _means(gains, runs_in_a_pair), after, overlap)


def _means(matrix: np.ndarray, size: int) -> np.ndarray:
    """The means of every `size` rows, each over the values that are there; NaN where there is none."""
    if size == 1:
        return matrix
    parts = matrix.reshape(-1, size, matrix.shape[1])
    there = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        return np.where(there, parts, 0).sum(axis=1) / there.sum(axis=1)


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


def prefix_points(
    candidate: Sequence[float], baseline: Sequence[float], suffix: str = ""
) -> Iterator[Point]:
    """The gain over the first k pairs and the number of pairs with one, at step k."""
    differences = np.subtract(candidate, baseline)
    better = np.cumsum(np.round(differences, DIGITS) > 0)
    for k in range(1, len(differences) + 1):
        yield Point(f"gain{suffix}", 100 * math.fsum(differences[:k]) / k, k)
        yield Point(f"better{suffix}", float(better[k - 1]), k)


def search_points(reading: Reading, runs: Sequence[RunFiles]) -> Iterator[Point]:
    """A candidate's validation accuracy, once all its runs have finished, at the step that is their number.

    It is there for every endpoint that the search scores.
    """
    results = [run.result for run in runs if run.result]
    if not runs or len(results) < len(runs):
        return
    for ratio in scored(reading):
        scores = [result.score("validation", ratio) for result in results]
        yield Point(f"validation_score{suffix_of(reading, ratio)}", math.fsum(scores) / len(runs), len(runs))


def scored(reading: Reading) -> Sequence[float]:
    """The endpoints that the search scores."""
    endpoints = reading.study.analysis.endpoints
    return endpoints[:1] if reading.study.search.objective == "first" else endpoints


def suffix_of(reading: Reading, ratio: float) -> str:
    """What follows the name of a metric at an endpoint: nothing at the first one."""
    return "" if ratio == reading.study.analysis.endpoints[0] else f"_at_r_{ratio:g}"


def final_points(parent: Parent, looks: Sequence[Sequence[Compared]]) -> Iterator[Point]:
    """A parent's scores and gains, each at the step that is its number of pairs.

    `looks` are the comparisons at each look. Intervals and p-values are there only where a comparison is
    complete.
    """
    match parent.stands_for:
        case "search":
            yield from _best(parent)
        case _ if parent.phase == "search":
            yield from search_points(parent.reading, parent.runs)
        case _:
            for ratio, pairing in parent.pairings.items():
                suffix = suffix_of(parent.reading, ratio)
                yield from _score(parent, pairing, suffix)
                yield from _gains(parent, pairing, suffix)
            for rows in looks:
                for suffix, row in rows_of(parent, rows):
                    yield from _tested(row, suffix, gain=suffix.startswith("_over_"))


def _best(parent: Parent) -> Iterator[Point]:
    """The best validation accuracy in a search, once it is complete."""
    scores = [score for cohort in parent.cohorts for score in cohort.scores]
    if parent.is_complete and scores:
        yield Point("best_validation_score", max(scores), len(parent.cohorts))


def _score(parent: Parent, pairing: Pairing, suffix: str) -> Iterator[Point]:
    """The mean test accuracy, once all runs have finished."""
    blocks = parent.reading.plan.open_blocks
    results = [pairing.candidate.result(*place) for place in places(parent.arm, blocks)]
    scores = [result.score("test", pairing.ratio) for result in results if result]
    if scores and len(scores) == len(results):
        yield Point(f"score{suffix}", math.fsum(scores) / len(scores), pairing.in_pairs(blocks))


def _gains(parent: Parent, pairing: Pairing, suffix: str) -> Iterator[Point]:
    """The gains over the first pairs, up to the first pair that lacks a run.

    The baseline is paired with itself: its gain of 0 gives it a place in the sorted table.
    """
    blocks = 0
    while blocks < parent.reading.plan.open_blocks and pairing.is_complete(blocks + 1, blocks):
        blocks += 1
    own, baseline = pairing.scores(blocks)
    for point in prefix_points(own, baseline, suffix):
        yield point
        if pairing is parent.pairing and point.key.startswith("gain"):
            yield Point("pairs", point.step, point.step)


def rows_of(parent: Parent, compared: Sequence[Compared]) -> Iterator[tuple[str, Compared]]:
    """The comparisons of a parent's finalists, each with what follows the names of its metrics.

    Those over the baseline come first, then those of the family over other arms.
    """
    arms, methods = parent.reading.study.arms, parent.reading.study.methods
    own = [
        row
        for row in compared
        if row.arm == parent.arm.method
        and (pairing := parent.pairings.get(row.keep_ratio))
        and row.rank == pairing.candidate.rank + 1
    ]
    baseline = arms[parent.arm.baseline].method
    for row in own:
        if row.reference_arm == baseline:
            yield suffix_of(parent.reading, row.keep_ratio), row
    for row in own:
        if row.reference_arm != baseline and row.role == "family":
            over = f"_over_{methods[row.reference_arm][0].base}"
            yield f"{over}{suffix_of(parent.reading, row.keep_ratio)}", row


def looks_of(reading: Reading, compared: Sequence[Compared]) -> list[Sequence[Compared]]:
    """The comparisons at every look whose figures are shown, given those of today.

    They are the declared looks that are complete, whenever the view is updated. Looks at any time would be
    too many: of these only the one at the end of the study is shown.
    """
    if not compared:
        return []
    plan, contents = reading.plan, reading.study.contents
    at, done = stage(plan, grew_after_look=reading.grew_after_look), complete_blocks(plan)
    declared = [] if reading.grew_after_look or contents.analysis.looks == "any" else contents.looks
    earlier: list[Sequence[Compared]] = [
        comparisons(plan, at=Stage(blocks, at_any_time=False, look=number))
        for number, blocks in enumerate(declared, 1)
        if blocks <= done and (at.at_any_time or number < at.look)
    ]
    return [*earlier, compared] if not at.at_any_time or at.blocks == contents.blocks else earlier


def _tested(row: Compared, suffix: str, *, gain: bool) -> Iterator[Point]:
    """The figures of a complete comparison, at the step that is its number of pairs.

    The interval is the family's for a tested comparison. `gain` asks for the gain too, for comparisons whose
    gain nothing else sends.
    """
    if row.state != "complete":
        return
    low, high = interval_of(row)
    figures = {"gain": row.gain if gain else None, "gain_low": low, "gain_high": high}
    figures["gain_standard_error"] = row.standard_error
    for name, value in figures.items():
        if value is not None:
            yield Point(f"{name}{suffix}", 100 * value, row.pairs)
    if gain:
        yield Point(f"better{suffix}", row.better, row.pairs)
    if row.p_holm is not None:
        yield Point(f"p_holm{suffix}", row.p_holm, row.pairs)


def interval_of(row: Compared) -> tuple[float | None, float | None]:
    """The interval of a gain: the family's where it is tested, that of the comparison alone elsewhere."""
    return (row.family_low, row.family_high) if row.role == "family" else (row.ci_low, row.ci_high)
