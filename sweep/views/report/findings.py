"""What a study found, as plain values: every number that the report shows. Nothing is drawn or worded here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sweep.gains.across import across
from sweep.gains.comparisons import Compared, earlier, keep_ratios
from sweep.planning.proposer import importances
from sweep.planning.work import Cohort
from sweep.statistics.paired import pairs_needed, smallest_p_value
from sweep.views.export.tables import candidate_row
from sweep.views.reading import Reading, RunFiles, ahead

PUBLISHED = {
    ("cifar10", "wrn-28-4"): {"dense": 0.869, "additive-reset": 0.8797, "multiplicative-reset": 0.8802}
}
"""Best test accuracy of any epoch, one run each, by the paper's own account."""
COURSES = [
    "test_accuracy",
    "dense_test_accuracy",
    "keep_ratio",
    "nonzero_rate",
    "connections",
    "active_neurons",
    "parameters",
]
"""Columns that are drawn epoch by epoch, where they have values."""
ENVIRONMENT = ("torch", "device", "threads", "code")
"""What the last bits of a run's numbers may depend on."""


@dataclass(frozen=True)
class Course:
    """A confirmed candidate over its epochs: of each column the mean, the least and the greatest of its finished seeds.

    A column without a value, as the keep ratio of a policy that has none, is not among them.
    """

    candidate: str
    seeds: int
    epochs: np.ndarray
    columns: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    resets: np.ndarray
    """Share of the seeds that reset after each epoch."""
    best: float
    """Mean over the seeds of each one's best epoch, at that epoch's r: what papers tend to report."""
    last: float
    """Mean over the seeds of the last epoch, at that epoch's r."""


def courses(reading: Reading) -> dict[str, Course]:
    """Of every confirmed candidate that has a finished run; one that diverged is no part of it."""
    found: dict[str, Course] = {}
    for cohort in reading.cohorts:
        runs = [reading.runs[run_id] for run_id in cohort.runs]
        finished = [run for run in runs if run.state in ("completed", "collapsed")]
        if cohort.phase == "confirm" and finished:
            found[cohort.candidate.name] = _course(cohort, finished)
    return found


def _course(cohort: Cohort, runs: Sequence[RunFiles]) -> Course:
    wanted = ["epoch", "reset", *COURSES]
    tables = [table for _, table in ahead(runs, lambda run: run.epochs(wanted)) if table is not None]
    stacked = {
        name: np.stack([table[name].cast(pa.float64()).to_numpy() for table in tables]) for name in wanted
    }
    drawn = [name for name in COURSES if np.isfinite(stacked[name]).any()]
    columns = {name: (stacked[name].mean(0), stacked[name].min(0), stacked[name].max(0)) for name in drawn}
    accuracy = stacked["test_accuracy"]
    best, last = np.nanmax(accuracy, axis=1), accuracy[:, -1]
    return Course(
        candidate=cohort.candidate.name,
        seeds=len(tables),
        epochs=stacked["epoch"][0],
        columns=columns,
        resets=np.nan_to_num(stacked["reset"]).mean(0),
        best=math.fsum(best) / len(best),
        last=math.fsum(last) / len(last),
    )


def findings(reading: Reading, compared: Sequence[Compared], drawn: dict[str, Course]) -> dict[str, Any]:
    """The numbers, section by section."""
    study, plan = reading.study, reading.plan
    analysis = study.analysis
    states = Counter(run.state for run in reading.runs.values())
    exact = (
        analysis.test == "sign-flip"
    )  # a t test has no least p, and so no number of pairs under which it can find nothing
    return {
        "study": study.name,
        "description": study.contents.description,
        "tasks": list(study.contents.tasks),
        "baselines": study.baselines,
        "keep_ratios": keep_ratios(study),
        "resampled": any(row.overlap for row in compared),
        "hash": reading.declared["hash"],
        "store": reading.ledger.store.where(),
        "complete": plan.complete,
        "runs": {
            state: states[state] for state in ("completed", "collapsed", "diverged", "failed", "unfinished")
        },
        "analysis": {
            **asdict(analysis),
            "family": study.family,
            "comparisons": study.comparisons,
            "pairs": study.confirm.seeds,
            "smallest_p": smallest_p_value(study.confirm.seeds) if exact else None,
            "pairs_needed": pairs_needed(study.comparisons, analysis.alpha) if exact else None,
        },
        "looks": [asdict(look) for look in reading.looks],
        "extensions": reading.declared["extensions"],
        "arms": [_arm(reading, cohort, drawn) for cohort in reading.cohorts if cohort.phase == "confirm"],
        "comparisons": [{**asdict(row), "finalists": study.finalists(row.arm)} for row in compared],
        "across": [asdict(row) for row in across(study, compared)],
        "earlier": [
            {
                "pairs": size,
                "comparisons": [{**asdict(row), "finalists": study.finalists(row.arm)} for row in rows],
            }
            for size, rows in earlier(plan, reading.looks, reading.correct).items()
        ],
        "search": [_search(reading, arm) for arm in study.arms if study.searched(arm)],
        "published": _published(reading),
        "failures": [{"run_id": run_id, **asdict(failure)} for run_id, failure in plan.failed.items()],
        **_environments(reading),
    }


def _arm(reading: Reading, cohort: Cohort, drawn: dict[str, Course]) -> dict[str, Any]:
    """A confirmed candidate's own figures: accuracy at every measured ratio, and the best epoch beside the last."""
    analysis, name = reading.study.analysis, cohort.candidate.name
    row = candidate_row(reading, cohort)
    results = [result for run_id in cohort.runs if (result := reading.plan.results.get(run_id))]
    ratios = list(dict.fromkeys([*analysis.endpoints, *analysis.curve]))
    course = drawn.get(name)
    return {
        "arm": row.arm,
        "task": row.task,
        "candidate": name,
        "finalists": reading.study.finalists(row.arm),
        "settings": cohort.candidate.values,
        "seeds": row.seeds,
        "finished": row.finished,
        "diverged": row.diverged,
        "collapsed": row.collapsed,
        "accuracy": {
            f"{ratio:g}": _spread([result.score("test", ratio) for result in results]) for ratio in ratios
        },
        "best_epoch": course.best if course else None,
        "last_epoch": course.last if course else None,
        "inflation": course.best - course.last if course else None,
        "parameters_start": _mean_count([result.parameters_start for result in results]),
        "parameters_end": _mean_count([result.parameters_end for result in results]),
    }


def _mean_count(counts: Sequence[int]) -> float | None:
    """Null where one is unknown, as in ledgers of before."""
    return math.fsum(counts) / len(counts) if counts and all(counts) else None


def _spread(scores: Sequence[float]) -> dict[str, float | None]:
    n = len(scores)
    deviation = float(np.std(scores, ddof=1)) if n > 1 else None
    return {
        "mean": math.fsum(scores) / n if n else None,
        "deviation": deviation,
        "standard_error": deviation / math.sqrt(n) if deviation is not None else None,
    }


def _search(reading: Reading, arm: str) -> dict[str, Any]:
    """An arm's candidates in the order they were proposed, and which of its settings mattered."""
    cohorts = [it for it in reading.cohorts if it.phase == "search" and it.candidate.arm == arm]
    rows = [candidate_row(reading, cohort) for cohort in cohorts]
    told = [
        (cohort.candidate.values, row.score)
        for cohort, row in zip(cohorts, rows, strict=True)
        if row.score is not None
    ]
    candidates = [
        {"candidate": row.candidate, "settings": it.candidate.values, "seeds": row.seeds, "score": row.score}
        for it, row in zip(cohorts, rows, strict=True)
    ]
    return {"arm": arm, "candidates": candidates, "importances": importances(reading.study, arm, told)}


def _published(reading: Reading) -> dict[str, float]:
    """What the paper reports, by policy, where this study trains what the paper trained."""
    task = reading.study.contents.task
    return PUBLISHED.get((str(task.get("data")), str(task.get("model"))), {})


def _environments(reading: Reading) -> dict[str, Any]:
    """What the runs ran on, and whether those that are compared ran on different things."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    confirm: set[tuple[Any, ...]] = set()
    for run, attempts in ahead(reading.runs.values(), lambda run: run.attempts):
        if attempts:
            last = attempts[-1]
            counts[
                tuple((key, last.get(key, "unknown")) for key in (*ENVIRONMENT, "device_name", "commit"))
            ] += 1
            if run.cohort.phase == "confirm":
                confirm |= {tuple(attempt.get(key) for key in ENVIRONMENT) for attempt in attempts}
    return {
        "versions": [{**dict(key), "runs": count} for key, count in counts.most_common()],
        "mixed": [
            name
            for name, values in zip(ENVIRONMENT, zip(*confirm, strict=True), strict=False)
            if len(set(values)) > 1
        ],
    }
