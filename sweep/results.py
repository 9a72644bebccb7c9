"""What a finished run gave, read from its own files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sweep.told import Result
from trainer.data import DATASETS
from trainer.rows import EndpointRow, from_parquet
from trainer.run_folder import Completed, Outcome, RunFolder


def result_of(folder: RunFolder, outcome: Outcome) -> Result:
    """The figures of a run's outcome; DamagedRun where its tables are."""
    seconds = pq.read_table(pa.BufferReader(folder.table(outcome, "epochs")), columns=["seconds"])["seconds"]
    scores: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    if isinstance(outcome, Completed):
        for row in from_parquet(EndpointRow, folder.table(outcome, "endpoints")):
            scores[row.split][f"{row.keep_ratio:g}"] = row.accuracy
    return Result(
        outcome="diverged" if not isinstance(outcome, Completed) else "collapsed" if outcome.collapsed else "completed",
        epochs=outcome.epochs,
        seconds=sum(seconds.to_pylist()),
        classes=DATASETS[folder.spec.task.data].classes,
        **scores,
    )


def from_plain(values: dict[str, Any]) -> Result:
    """The inverse of `dataclasses.asdict`; TypeError where it is not one."""
    return Result(**values)
