"""The result of a finished run, read from the run's own files."""

from __future__ import annotations

import math
from typing import Any, Literal

from sweep.planning.values import Result
from trainer.data import facts
from trainer.rows import EndpointRow, EpochRow, from_parquet, read_table
from trainer.run_folder import Completed, DamagedRun, Outcome, RunFolder


def result_of(folder: RunFolder, outcome: Outcome) -> Result:
    """The figures of a run's outcome. Raises DamagedRun where the run's tables are damaged.

    Their hashes fit. But whoever can write the store can also write other tables, with hashes that fit.
    """
    try:
        result = _result_of(folder, outcome)
        if lacking := _lacking(result, folder, outcome):
            raise ValueError(lacking)
    except (ValueError, TypeError, KeyError) as error:
        where, why = folder.store.where(folder.root), (str(error).splitlines() or ["no figures"])[0]
        raise DamagedRun(
            f"{where}: its tables are not those of this run: {why}. Move it away to train the run anew."
        ) from error
    return result


def _result_of(folder: RunFolder, outcome: Outcome) -> Result:
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


def _lacking(result: Result, folder: RunFolder, outcome: Outcome) -> str:
    """What a result lacks to be that of this run; empty where it is."""
    task = folder.spec.task
    ratios = {f"{ratio:g}" for ratio in task.endpoints} if isinstance(outcome, Completed) else set[str]()
    wanted = {"test": ratios, "validation": ratios if task.validation else set[str]()}
    if result.epochs > task.epochs:
        return f"it has {result.epochs:,} epochs, and the run {task.epochs:,}"
    if {split: set(getattr(result, split)) for split in wanted} != wanted:
        return "it has other endpoints than the run"
    return _wrong_number(result)


def _wrong_number(result: Result) -> str:
    shares: list[object] = [*result.validation.values(), *result.test.values()]
    if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
        return "an accuracy is no share from 0 to 1"
    numbers: list[object] = [result.epochs, result.seconds, result.classes]
    numbers += [result.parameters_start, result.parameters_end]
    if not all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers):
        return "a count or a time is no number from 0 on"
    return ""


def _kind(outcome: Outcome) -> Literal["completed", "collapsed", "diverged"]:
    if not isinstance(outcome, Completed):
        return "diverged"
    return "collapsed" if outcome.collapsed else "completed"


def from_plain(values: dict[str, Any]) -> Result:
    """The inverse of `dataclasses.asdict`. TypeError or ValueError: it is no result."""
    if not (isinstance(values["validation"], dict) and isinstance(values["test"], dict)):
        raise TypeError("scores are by keep ratio")
    result = Result(**values)
    if result.outcome not in ("completed", "collapsed", "diverged"):
        raise ValueError("no such outcome")
    if wrong := _wrong_number(result):
        raise ValueError(wrong)
    return result
