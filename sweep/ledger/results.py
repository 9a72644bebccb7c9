"""What a finished run gave, read from its own files."""

from __future__ import annotations

from typing import Any

from sweep.planning.work import Result
from trainer.data import facts
from trainer.rows import EndpointRow, EpochRow, from_parquet, read_table
from trainer.run_folder import Completed, Outcome, RunFolder


def result_of(folder: RunFolder, outcome: Outcome) -> Result:
    """The figures of a run's outcome; DamagedRun where its tables are."""
    epochs = read_table(EpochRow, folder.table(outcome, "epochs"), ["seconds", "parameters"])
    parameters = epochs["parameters"].to_pylist() or [None]
    scores: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    if isinstance(outcome, Completed):
        for row in from_parquet(EndpointRow, folder.table(outcome, "endpoints")):
            scores[row.split][f"{row.keep_ratio:g}"] = row.accuracy
    return Result(
        outcome="diverged"
        if not isinstance(outcome, Completed)
        else "collapsed"
        if outcome.collapsed
        else "completed",
        epochs=outcome.epochs,
        seconds=sum(epochs["seconds"].to_pylist()),
        classes=facts(folder.spec.task.data).classes,
        **scores,
        parameters_start=parameters[0] or 0,
        parameters_end=parameters[-1] or 0,
    )


def from_plain(values: dict[str, Any]) -> Result:
    """The inverse of `dataclasses.asdict`; TypeError where it is not one."""
    return Result(**values)
