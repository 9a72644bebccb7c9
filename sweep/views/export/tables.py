"""The exported tables: their columns with meanings and units, and their rows, made from the ledger.

The columns of runs are declared here, those of epochs and endpoints in `trainer.rows`, of comparisons in
`sweep.gains.rows`, and most of those of candidates in `sweep.views.cohorts`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa

from sweep.gains.rows import Across, Compared
from sweep.planning.values import Cohort
from sweep.views.cohorts import CandidateRow, candidate_row
from sweep.views.reading import Reading, RunFiles, ahead
from sweep.views.report.findings import Findings
from trainer.data import facts, held_out_of, sizes
from trainer.rows import EndpointRow, EpochRow, schema

TABLES_VERSION = 3
"""The version of the tables' columns."""
SHARE, COUNT, NATS, SECONDS = "share from 0 to 1", "count", "nats", "s"
COUNTS = (
    *("epoch", "epochs", "cycle", "images", "classes", "threads", "attempts"),
    *("train_rows", "test_rows", "other_rows"),
    *("place", "search", "seeds", "rank", "searches", "look", "looks", "finished"),
    *("pairs", "pairs_without", "better", "equal", "tasks", "wins", "ties"),
    *("run_pairs", "failed_pairs", "wins_without"),
    *("connections", "active_neurons", "parameters", "reference_parameters"),
    *("diverged", "collapsed", "reference_diverged", "reference_collapsed"),
)
"""Columns that are counts."""
SHARES = (
    *("gain", "gain_without", "median_gain", "median_gain_without", "detectable_gain"),
    *("score", "score_standard_error"),
    *("standard_error", "standard_error_without", "two_way_standard_error"),
    *("ci_low", "ci_high", "family_low", "family_high", "margin"),
    *("search_deviation", "search_deviation_low", "search_deviation_high"),
    *("seed_deviation", "seed_deviation_low", "seed_deviation_high"),
)
"""Columns that are shares, beside the accuracies."""
UNITS = {
    "keep_ratio": SHARE,
    "endpoints": SHARE,
    "nonzero_rate": SHARE,
    "nonzero_rate_by_site": SHARE,
    "train_loss": NATS,
    "test_loss": NATS,
    "loss": NATS,
    "seconds": SECONDS,
    "images_per_second": "images/s",
    "ended_at": "UTC",
    "started_at": "UTC",
    **dict.fromkeys(COUNTS, COUNT),
    **dict.fromkeys(SHARES, SHARE),
    **dict.fromkeys(("p_value", "p_error", "p_holm", "welch_p_value", "wilcoxon_p_value"), "probability"),
    "effect_size": "standard deviations of the pair differences",
    "correlation": "from -1 to 1",
    "overlap": "test rows per other row",
}
"""Units by column. Other columns are accuracies (shares), or have no unit."""
ABOUT = {
    "epochs": "one row per run and epoch",
    "endpoints": "one row per run, split and declared keep ratio: the final weights, with one bit per image",
    "runs": "one row per run",
    "candidates": "one row per candidate and phase",
    "comparisons": "one row per candidate, reference and endpoint: gains, intervals, p-values",
    "across": "one row per arm, reference and endpoint: what the comparisons say across tasks; "
    "empty where the study lists fewer than two",
}


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of the study."""

    run_id: Annotated[str, "the hash of its spec: the key of epochs and endpoints"]
    arm: Annotated[str, "of the study, whatever the search"]
    search: Annotated[int, "number of the search, from 1; 1 where each arm has one search"]
    task: Annotated[str, "that the arm is run on; empty where the study lists no tasks"]
    candidate: Annotated[str, "the first candidate that it belongs to; candidates.run_ids has them all"]
    phase: Annotated[str, "search or confirm"]
    place: Annotated[int, "of its seed in the phase's pool, from 0: runs of one place are paired"]
    seed: Annotated[int, "of the run"]
    taken_from: Annotated[str | None, "study of the store that trained it; null: this one"]
    state: Annotated[
        str,
        "completed; collapsed: with the training loss of a guess in the end; "
        "diverged: its loss was not a number; failed; unfinished",
    ]
    reason: Annotated[str | None, "why it failed"]
    epochs: Annotated[int | None, "trained; null while it has not finished"]
    seconds: Annotated[float | None, "sum over its epochs, with evaluation"]
    classes: Annotated[int, "of its data set"]
    train_rows: Annotated[int, "images that it is trained on, without those held out"]
    test_rows: Annotated[int, "images that it is tested on"]
    other_rows: Annotated[int, "images that are no test images, whether or not it is trained on them"]
    attempts: Annotated[int, "tries at it"]
    node: Annotated[str | None, "of the last attempt"]
    device: Annotated[str | None, "that it was trained on: cpu or cuda"]
    device_name: Annotated[str | None, "of the processor or GPU"]
    threads: Annotated[int | None, "of the processor"]
    torch: Annotated[str | None, "version"]
    code: Annotated[str | None, "hash over the trainer's source"]
    own_code: Annotated[str | None, "package that has its network, and a hash over that; null: one of ours"]
    commit: Annotated[str | None, "of the repository"]
    started_at: Annotated[datetime | None, "first attempt"]
    ended_at: Annotated[datetime | None, "outcome written"]
    spec: Annotated[str, "canonical JSON: everything that decides its numbers"]


@dataclass(frozen=True, kw_only=True)
class ExportedCandidate(CandidateRow):
    """One candidate in one phase, with the search that it comes from.

    A column for its validation score at each endpoint follows, and one for each searched setting.
    """

    search: Annotated[int, "number of the search, from 1; 1 where each arm has one search"]
    endpoints: Annotated[list[float], "keep ratios that it is a finalist for; empty in the search"]


def table_schema(row: type) -> pa.Schema:
    """The Arrow schema of a row class, with meanings, units and the version of the tables."""
    fields: list[pa.Field] = []
    for field in schema(row):
        metadata = dict(field.metadata or {})
        if unit := unit_of(field.name):
            metadata[b"unit"] = unit.encode()
        fields.append(field.with_metadata(metadata))
    return pa.schema(fields, metadata={"schema": row.__name__, "schema_version": str(TABLES_VERSION)})


def unit_of(column: str) -> str:
    """A column's unit; empty for names and flags."""
    return SHARE if column.endswith("accuracy") else UNITS.get(column, "")


def candidate_schema(reading: Reading) -> pa.Schema:
    """The schema of candidates, with columns for the validation scores and for the searched settings."""
    fields = table_schema(ExportedCandidate)
    for ratio in reading.study.analysis.endpoints:
        meaning = f"mean over the seeds in the search at r = {ratio:g}, once all have finished"
        metadata = {"meaning": meaning, "unit": SHARE}
        fields = fields.append(pa.field(_validation_column(ratio), pa.float64(), metadata=metadata))
    metadata = {"meaning": "as searched, or as it follows from match; null in other arms"}
    for setting, kind in _searched(reading).items():
        fields = fields.append(pa.field(setting, kind, metadata=metadata))
    return fields


def _validation_column(ratio: float) -> str:
    return f"validation_accuracy_at_r_{ratio:g}"


def _searched(reading: Reading) -> dict[str, pa.DataType]:
    """The type of each searched setting's column: numbers where every value is one, otherwise text."""
    values: dict[str, list[Any]] = {}
    for arm in reading.study.arms.values():
        for setting in arm.searched:
            values.setdefault(setting, [])
    for cohort in reading.cohorts:
        for setting, value in cohort.candidate.values.items():
            values.setdefault(setting, []).append(value)
    return {
        setting: pa.float64() if all(map(_is_number, settings)) else pa.string()
        for setting, settings in values.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def epoch_tables(reading: Reading) -> Iterator[pa.Table]:
    """The epochs of every run so far, a table each."""
    for _, table in ahead(reading.runs.values(), RunFiles.epochs):
        if table is not None:
            yield table.cast(table_schema(EpochRow))


def endpoint_tables(reading: Reading) -> Iterator[pa.Table]:
    """The endpoints of every finished run, a table each."""
    for _, table in ahead(reading.runs.values(), RunFiles.endpoints):
        if table is not None:
            yield table.cast(table_schema(EndpointRow))


def run_tables(reading: Reading) -> Iterator[pa.Table]:
    """The rows of all runs, as tables of at most 1,000 rows. The last one may be empty."""
    columns = table_schema(RunRow)
    batch: list[dict[str, Any]] = []
    for _, row in ahead(reading.runs.values(), _run_row):
        batch.append(asdict(row))
        if len(batch) == 1000:
            yield pa.Table.from_pylist(batch, schema=columns)
            batch = []
    yield pa.Table.from_pylist(batch, schema=columns)


def _run_row(run: RunFiles) -> RunRow:
    last = run.attempts[-1] if run.attempts else {}
    failed = run.reading.plan.queue.failed.get(run.run_id)
    started = run.attempts[0]["started_at"] if run.attempts else None
    task, arm = run.spec.task, run.reading.study.arms[run.cohort.candidate.arm]
    others, tested = sizes(task)
    return RunRow(
        run_id=run.run_id,
        arm=arm.method,
        search=arm.replicate,
        task=arm.task,
        candidate=run.cohort.candidate.name,
        phase=run.cohort.phase,
        place=run.place,
        seed=run.seed,
        taken_from=run.reading.taken.get(run.run_id),
        state=run.state,
        reason=failed.reason if failed else None,
        epochs=run.result.epochs if run.result else None,
        seconds=run.result.seconds if run.result else None,
        classes=facts(task.data).classes,
        train_rows=task.train_size or others - held_out_of(task),
        test_rows=tested,
        other_rows=others,
        attempts=len(run.attempts),
        **{
            key: last.get(key)
            for key in ("node", "device", "device_name", "threads", "torch", "code", "own_code", "commit")
        },
        started_at=datetime.fromisoformat(started) if started else None,
        ended_at=datetime.fromisoformat(run.ended_at) if run.ended_at else None,
        spec=run.spec.to_json(),
    )


def candidate_table(reading: Reading) -> pa.Table:
    """Every candidate in every phase that it reached."""
    columns, finalist_for = candidate_schema(reading), _finalist_for(reading)
    records = [
        asdict(_candidate(reading, cohort, finalist_for))
        | _validation(reading, cohort)
        | _settings(cohort, columns)
        for cohort in reading.cohorts
    ]
    return pa.Table.from_pylist(records, schema=columns)


def _candidate(
    reading: Reading, cohort: Cohort, finalist_for: Mapping[str, list[float]]
) -> ExportedCandidate:
    arm = reading.study.arms[cohort.candidate.arm]
    endpoints = finalist_for[cohort.candidate.name] if cohort.phase == "confirm" else []
    row: dict[str, Any] = {**vars(candidate_row(reading, cohort)), "arm": arm.method}
    return ExportedCandidate(**row, search=arm.replicate, endpoints=endpoints)


def _finalist_for(reading: Reading) -> dict[str, list[float]]:
    """The endpoints that each candidate is a finalist for, by its name."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for arm in reading.study.arms:
        for ratio in reading.study.analysis.endpoints:
            for candidate, _ in reading.plan.picked(arm, ratio):
                found[candidate.name].append(ratio)
    return found


def _validation(reading: Reading, cohort: Cohort) -> dict[str, float]:
    """The mean validation accuracy of a candidate of a search at each endpoint where it is measured."""
    results = [reading.plan.results.get(run_id) for run_id in cohort.runs]
    finished = [result for result in results if result]
    if cohort.phase != "search" or not results or len(finished) < len(results):
        return {}
    arm = reading.study.arms[cohort.candidate.arm]
    measured = arm.run(cohort.candidate.values, "search", arm.search_seeds[0]).task.endpoints
    return {
        _validation_column(ratio): math.fsum(result.score("validation", ratio) for result in finished)
        / len(finished)
        for ratio in reading.study.analysis.endpoints
        if ratio in measured
    }


def _settings(cohort: Cohort, columns: pa.Schema) -> dict[str, Any]:
    """A candidate's settings, as values of their columns."""
    return {
        setting: float(value) if pa.types.is_floating(columns.field(setting).type) else str(value)
        for setting, value in cohort.candidate.values.items()
    }


def comparison_table(rows: Sequence[Compared]) -> pa.Table:
    """The comparisons, a row each."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=table_schema(Compared))


def across_table(rows: Sequence[Across]) -> pa.Table:
    """The comparisons across tasks, a row each. There are none where the study lists fewer than two."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=table_schema(Across))


@dataclass(frozen=True)
class Table:
    """A table of the export: its columns, and its rows in batches."""

    name: str
    columns: pa.Schema
    batches: Iterable[pa.Table]


def tables_of(reading: Reading, findings: Findings) -> list[Table]:
    """The tables of an export, in the order in which they are written.

    Epochs, endpoints and runs are read while they are written.
    """
    small = {
        "candidates": candidate_table(reading),
        "comparisons": comparison_table(findings.comparisons),
        "across": across_table(findings.across),
    }
    return [
        Table("epochs", table_schema(EpochRow), epoch_tables(reading)),
        Table("endpoints", table_schema(EndpointRow), endpoint_tables(reading)),
        Table("runs", table_schema(RunRow), run_tables(reading)),
        *(Table(name, table.schema, [table]) for name, table in small.items()),
    ]


def schema_docs(columns: pa.Schema) -> list[tuple[str, str, str, str]]:
    """Name, type, unit and meaning of each column."""
    return [
        (
            field.name,
            str(field.type),
            (field.metadata or {}).get(b"unit", b"").decode(),
            (field.metadata or {})[b"meaning"].decode(),
        )
        for field in columns
    ]
