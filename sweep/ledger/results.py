"""The result of a finished run, read from the run's own files."""

from __future__ import annotations

from typing import Any, Literal

from sweep.planning.values import Result
from trainer.data import facts
from trainer.rows import EndpointRow, EpochRow, from_parquet, read_table
from trainer.run_folder import Completed, Outcome, RunFolder


def result_of(folder: RunFolder, outcome: Outcome) -> Result:
    """The figures of a run's outcome. Raises DamagedRun where the run's tables are damaged."""
    epochs = read_table(EpochRow, folder.table(outcome, "epochs"), ["seconds", "parameters"])
    parameters = epochs["parameters"].to_pylist() or [None]
    scores: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    if isinstance(outcome, Completed):
        for row in from_parquet(EndpointRow, folder.table(outcome, "endpoints")):
            scores[row.split][f"{row.keep_ratio:g}"] = row.accuracy
    return Result(
        outcome=_kind(outcome),
        epochs=outcome.epochs,
        seconds=sum(epochs["seconds"].to_pylist()),
        classes=facts(folder.spec.task.data).classes,
        **scores,
        parameters_start=parameters[0] or 0,
        parameters_end=parameters[-1] or 0,
    )


def _kind(outcome: Outcome) -> Literal["completed", "collapsed", "diverged"]:
    if not isinstance(outcome, Completed):
        return "diverged"
    return "collapsed" if outcome.collapsed else "completed"


def from_plain(values: dict[str, Any]) -> Result:
    """The inverse of `dataclasses.asdict`. Raises TypeError where a field is missing or unknown."""
    return Result(**values)
