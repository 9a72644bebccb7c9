"""The confirmed arms' own figures: accuracy, best epoch, failures, size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.planning.values import Cohort, Result
from sweep.statistics import failure_limits
from sweep.views.reading import Finalist, Reading
from sweep.views.report.courses import Course


@dataclass(frozen=True)
class Spread:
    """A mean with its standard deviation and standard error: over searches, or else over seeds."""

    mean: float | None
    deviation: float | None
    standard_error: float | None


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """An arm's finalist of a rank in the confirmation, over all searches."""

    arm: str
    task: str
    rank: int
    """Its place among the arm's finalists, from 1."""
    candidate: str | None
    """The finalist of the only search, for the first endpoint; None with several searches."""
    finalists: int
    searches: int
    settings: dict[str, Any]
    """What the only search picked for the first endpoint; empty with several searches."""
    settings_by_search: list[dict[str, dict[str, Any]]]
    """What each search picked, by endpoint."""
    seeds: int
    """The runs that the finalists have."""
    finished: int
    diverged: int
    collapsed: int
    failure_rate: float | None
    """The share of the finished runs that diverged or collapsed."""
    failure_low: float | None
    failure_high: float | None
    """The exact limits of that share at alpha."""
    accuracy: dict[str, Spread]
    """Test accuracy, by keep ratio. An endpoint has the finalists that were picked for it."""
    best_epoch: float | None
    """At each run's best epoch, at r = 1."""
    last_epoch: float | None
    inflation: float | None
    best_epoch_own_ratio: float | None
    """At each run's best epoch, at that epoch's keep ratio: what papers report."""
    parameters_start: float | None
    parameters_end: float | None

    @property
    def failed(self) -> int:
        """The runs that diverged or collapsed."""
        return self.diverged + self.collapsed


def confirmed(reading: Reading, finalist: Finalist, course: Course | None) -> Confirmed:
    """The figures of a finalist from what is finished so far."""
    study, arm = reading.study, finalist.arm
    runs = list(dict.fromkeys(run_id for cohort in finalist.cohorts for run_id in cohort.runs))
    outcomes = [result.outcome for run_id in runs if (result := reading.plan.results.get(run_id))]
    failed = sum(outcome != "completed" for outcome in outcomes)
    limits = failure_limits(failed, len(outcomes), study.analysis.alpha) if outcomes else (None, None)
    ratios = list(dict.fromkeys([*study.analysis.endpoints, *study.analysis.curve]))
    single = len(study.methods[arm.method]) == 1 and len(finalist.primary) == 1
    first = finalist.primary[0].candidate if single else None
    sizes = [result for cohort in finalist.primary for result in _results(reading, cohort)]
    return Confirmed(
        arm=arm.method,
        task=arm.task,
        rank=finalist.rank + 1,
        candidate=first.name if first else None,
        finalists=arm.finalists,
        searches=len(study.methods[arm.method]),
        settings=first.values if first else {},
        settings_by_search=_settings_by_search(reading, finalist),
        seeds=len(runs),
        finished=len(outcomes),
        diverged=outcomes.count("diverged"),
        collapsed=outcomes.count("collapsed"),
        failure_rate=failed / len(outcomes) if outcomes else None,
        failure_low=limits[0],
        failure_high=limits[1],
        accuracy={f"{ratio:g}": _accuracy(reading, finalist, ratio) for ratio in ratios},
        best_epoch=course.best if course else None,
        last_epoch=course.last if course else None,
        inflation=course.best - course.last if course else None,
        best_epoch_own_ratio=course.best_at_own_ratio.accuracy if course else None,
        parameters_start=_mean_count([result.parameters_start for result in sizes]),
        parameters_end=_mean_count([result.parameters_end for result in sizes]),
    )


def _settings_by_search(reading: Reading, finalist: Finalist) -> list[dict[str, dict[str, Any]]]:
    """What each search picked, by endpoint; a search that is under way has nothing yet."""
    arms = reading.study.methods[finalist.arm.method]
    found: dict[str, dict[str, dict[str, Any]]] = {arm.name: {} for arm in arms}
    for ratio, cohorts in finalist.by_ratio.items():
        for cohort in cohorts:
            found[cohort.candidate.arm][f"{ratio:g}"] = cohort.candidate.values
    return list(found.values())


def _results(reading: Reading, cohort: Cohort) -> list[Result]:
    return [result for run_id in cohort.runs if (result := reading.plan.results.get(run_id))]


def _accuracy(reading: Reading, finalist: Finalist, ratio: float) -> Spread:
    """The accuracy at a keep ratio. Where searches draw the settings, each search counts once."""
    cohorts = finalist.by_ratio.get(ratio, finalist.primary)
    by_search = [[result.score("test", ratio) for result in _results(reading, cohort)] for cohort in cohorts]
    by_search = [scores for scores in by_search if scores]
    if len(reading.study.methods[finalist.arm.method]) > 1 and finalist.arm.is_drawn:
        return _spread([math.fsum(scores) / len(scores) for scores in by_search])
    return _spread([score for scores in by_search for score in scores])


def _mean_count(counts: Sequence[int]) -> float | None:
    """The mean of some counts; None where one is unknown, as in older ledgers."""
    return math.fsum(counts) / len(counts) if counts and all(counts) else None


def _spread(scores: Sequence[float]) -> Spread:
    n = len(scores)
    deviation = float(np.std(scores, ddof=1)) if n > 1 else None
    error = deviation / math.sqrt(n) if deviation is not None else None
    return Spread(math.fsum(scores) / n if n else None, deviation, error)
