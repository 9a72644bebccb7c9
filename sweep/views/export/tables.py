"""The tables that notebooks get: their columns, meanings and units, and how they are filled from the ledger.

The columns of an epoch and of an endpoint are the trainer's, in `trainer.rows`; here stand those of runs, candidates and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any

import pyarrow as pa

from sweep.gains.rows import Across, Compared
from sweep.planning.work import Cohort
from sweep.views.cohorts import CandidateRow, candidate_row
from sweep.views.reading import Reading, RunFiles, ahead
from trainer.data import facts, held_out_of, sizes
from trainer.rows import EndpointRow, EpochRow, schema

TABLES_VERSION = 2
SHARE, COUNT, NATS, SECONDS = "share from 0 to 1", "count", "nats", "s"
UNITS = {
    "keep_ratio": SHARE,
    "nonzero_rate": SHARE,
    "nonzero_rate_by_site": SHARE,
    "train_loss": NATS,
    "test_loss": NATS,
    "loss": NATS,
    "seconds": SECONDS,
    "images_per_second": "images/s",
    "ended_at": "UTC",
    "started_at": "UTC",
    **dict.fromkeys(
        (
            "epoch",
            "cycle",
            "images",
            "place",
            "first_place",
            "seeds",
            "finished",
            "epochs",
            "attempts",
            "threads",
        ),
        COUNT,
    ),
    **dict.fromkeys(
        ("classes", "pairs", "pairs_without", "train_rows", "test_rows", "tasks", "wins", "ties"), COUNT
    ),
    **dict.fromkeys(("connections", "active_neurons", "parameters", "reference_parameters"), COUNT),
    **dict.fromkeys(("diverged", "collapsed", "reference_diverged", "reference_collapsed"), COUNT),
    **dict.fromkeys(
        (
            "gain",
            "gain_without",
            "median_gain",
            "standard_error",
            "standard_error_without",
            "two_way_standard_error",
        ),
        SHARE,
    ),
    **dict.fromkeys(
        (
            "ci_low",
            "ci_high",
            "family_low",
            "family_high",
            "detectable_gain",
            "score",
            "score_standard_error",
        ),
        SHARE,
    ),
    **dict.fromkeys(("p_value", "p_error", "p_holm", "welch_p_value", "wilcoxon_p_value"), "probability"),
    "effect_size": "standard deviations of the pair differences",
    "correlation": "from -1 to 1",
    "overlap": "test rows per row trained on",
}
"""By column; those that are not here are accuracies (shares), names, or without a unit."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One run of the study."""

    run_id: Annotated[str, "the hash of its spec: the key of epochs and endpoints"]
    arm: Annotated[str, "of the study"]
    task: Annotated[str, "that the arm is run on; empty where the study lists no tasks"]
    candidate: Annotated[str, "the first candidate that it belongs to; candidates.run_ids has them all"]
    phase: Annotated[str, "search or confirm"]
    place: Annotated[int, "of its seed in the phase's pool, from 0: runs of one place are paired"]
    seed: Annotated[int, "of the run"]
    state: Annotated[
        str,
        "completed; collapsed: with the training loss of a guess in the end; diverged: its loss was not a number; failed; unfinished",
    ]
    reason: Annotated[str | None, "why it failed"]
    epochs: Annotated[int | None, "trained; null while it has not finished"]
    seconds: Annotated[float | None, "sum over its epochs, with evaluation"]
    classes: Annotated[int, "of its data set"]
    train_rows: Annotated[int, "images that it is trained on, without those held out"]
    test_rows: Annotated[int, "images that it is tested on"]
    attempts: Annotated[int, "tries at it"]
    node: Annotated[str | None, "of the last attempt"]
    device: Annotated[str | None, "that it was trained on: cpu or cuda"]
    device_name: Annotated[str | None, "of the processor or GPU"]
    threads: Annotated[int | None, "of the processor"]
    torch: Annotated[str | None, "version"]
    code: Annotated[str | None, "hash over the trainer's source"]
    commit: Annotated[str | None, "of the repository"]
    started_at: Annotated[datetime | None, "first attempt"]
    ended_at: Annotated[datetime | None, "outcome written"]
    spec: Annotated[str, "canonical JSON: everything that decides its numbers"]


def table_schema(row: type) -> pa.Schema:
    """A row's Arrow schema: the trainer's, with a unit for each column that has one, and the tables' version."""
    base = schema(row)
    made = [
        field.with_metadata(
            {**(field.metadata or {}), **({b"unit": unit.encode()} if (unit := unit_of(field.name)) else {})}
        )
        for field in base
    ]
    return pa.schema(made, metadata={"schema": row.__name__, "schema_version": str(TABLES_VERSION)})


def unit_of(column: str) -> str:
    """A column's unit; empty for names and flags."""
    return SHARE if column.endswith("accuracy") else UNITS.get(column, "")


def candidate_schema(reading: Reading) -> pa.Schema:
    """The candidates' schema with the settings that this study searches."""
    made = table_schema(CandidateRow)
    for setting, kind in _searched(reading).items():
        made = made.append(
            pa.field(
                setting,
                kind,
                metadata={"meaning": "as searched, or as it follows from match; null in other arms"},
            )
        )
    return made


def _searched(reading: Reading) -> dict[str, pa.DataType]:
    """Each searched setting's type: numbers where every value is one, words otherwise."""
    values: dict[str, list[Any]] = {}
    for arm in reading.study.arms:
        for setting in reading.study.arms[arm].searched:
            values.setdefault(setting, [])
    for cohort in reading.cohorts:
        for setting, value in cohort.candidate.values.items():
            values.setdefault(setting, []).append(value)
    return {
        setting: pa.float64() if all(_is_number(it) for it in found) else pa.string()
        for setting, found in values.items()
    }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def epoch_tables(reading: Reading) -> Iterator[pa.Table]:
    """Every run's epochs so far, run by run."""
    for _, table in ahead(reading.runs.values(), RunFiles.epochs):
        if table is not None:
            yield table.cast(table_schema(EpochRow))


def endpoint_tables(reading: Reading) -> Iterator[pa.Table]:
    """Every finished run's endpoints, run by run."""
    for _, table in ahead(reading.runs.values(), RunFiles.endpoints):
        if table is not None:
            yield table.cast(table_schema(EndpointRow))


def run_rows(reading: Reading) -> Iterator[RunRow]:
    """Every run, one after the other."""
    for _, row in ahead(reading.runs.values(), _run_row):
        yield row


def _run_row(run: RunFiles) -> RunRow:
    last = run.attempts[-1] if run.attempts else {}
    failed = run.reading.plan.queue.failed.get(run.run_id)
    started, task = run.attempts[0]["started_at"] if run.attempts else None, run.spec.task
    return RunRow(
        run_id=run.run_id,
        arm=run.cohort.candidate.arm,
        task=run.reading.study.arms[run.cohort.candidate.arm].task,
        candidate=run.cohort.candidate.name,
        phase=run.cohort.phase,
        place=run.place,
        seed=run.seed,
        state=run.state,
        reason=failed.reason if failed else None,
        epochs=run.result.epochs if run.result else None,
        seconds=run.result.seconds if run.result else None,
        classes=facts(task.data).classes,
        train_rows=task.train_size or sizes(task)[0] - held_out_of(task),
        test_rows=sizes(task)[1],
        attempts=len(run.attempts),
        **{
            key: last.get(key)
            for key in ("node", "device", "device_name", "threads", "torch", "code", "commit")
        },
        started_at=datetime.fromisoformat(started) if started else None,
        ended_at=datetime.fromisoformat(run.ended_at) if run.ended_at else None,
        spec=run.spec.to_json(),
    )


def candidate_table(reading: Reading) -> pa.Table:
    """Every candidate in every phase that it reached."""
    made = candidate_schema(reading)
    records = [{**asdict(candidate_row(reading, it)), **_settings(it, made)} for it in reading.cohorts]
    return pa.Table.from_pylist(records, schema=made)


def _settings(cohort: Cohort, made: pa.Schema) -> dict[str, Any]:
    return {
        setting: float(value) if pa.types.is_floating(made.field(setting).type) else str(value)
        for setting, value in cohort.candidate.values.items()
    }


def comparison_table(rows: Sequence[Compared]) -> pa.Table:
    """The comparisons, a row each."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=table_schema(Compared))


def across_table(rows: Sequence[Across]) -> pa.Table:
    """The comparisons across tasks, a row each; none where the study lists fewer than two."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=table_schema(Across))


def schema_docs(made: pa.Schema) -> list[tuple[str, str, str, str]]:
    """Name, type, unit and meaning of each column."""
    return [
        (
            field.name,
            str(field.type),
            (field.metadata or {}).get(b"unit", b"").decode(),
            (field.metadata or {})[b"meaning"].decode(),
        )
        for field in made
    ]
