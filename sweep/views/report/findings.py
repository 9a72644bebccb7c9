"""What a study found, as plain values: every number that the report shows. Nothing is drawn or worded here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sweep.format import plain_json
from sweep.gains.across import across
from sweep.gains.comparisons import earlier, keep_ratios
from sweep.gains.rows import Across, Compared
from sweep.planning.proposer import importances
from sweep.planning.work import Cohort, Failure, Look
from sweep.statistics import pairs_needed, smallest_p_value
from sweep.study import Study
from sweep.views.cohorts import candidate_row
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
STATES = ("completed", "collapsed", "diverged", "failed", "unfinished")


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared):
    """A comparison as the report has it."""

    finalists: int
    """How many finalists its arm has."""

    @classmethod
    def of(cls, study: Study, row: Compared) -> Comparison:
        return cls(**vars(row), finalists=study.arms[row.arm].finalists)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds."""

    mean: float | None
    deviation: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Confirmed:
    """A confirmed candidate's own figures: accuracy at every measured ratio, and the best epoch beside the last."""

    arm: str
    task: str
    candidate: str
    finalists: int
    settings: dict[str, Any]
    seeds: int
    finished: int
    diverged: int
    collapsed: int
    accuracy: dict[str, Spread]
    """Test accuracy, by keep ratio."""
    best_epoch: float | None
    last_epoch: float | None
    inflation: float | None
    parameters_start: float | None
    parameters_end: float | None


@dataclass(frozen=True)
class Tried:
    """A candidate of a search."""

    candidate: str
    settings: dict[str, Any]
    seeds: int
    score: float | None


@dataclass(frozen=True)
class Searched:
    """An arm's candidates in the order they were proposed, and which of its settings mattered."""

    arm: str
    candidates: list[Tried]
    importances: dict[str, float]


@dataclass(frozen=True)
class Earlier:
    """What the tests said at a look before this one."""

    pairs: int
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Findings:
    """The numbers of a study."""

    study: Study
    hash: str
    store: str
    complete: bool
    runs: dict[str, int]
    """How many there are, by state."""
    looks: list[Look]
    extensions: list[dict[str, Any]]
    arms: list[Confirmed]
    comparisons: list[Comparison]
    across: list[Across]
    earlier: list[Earlier]
    search: list[Searched]
    failures: dict[str, Failure]
    """By run_id."""
    versions: list[dict[str, Any]]
    """What the runs ran on, and how many did."""
    mixed: list[str]
    """In what the runs that are compared ran on different things."""

    @property
    def keep_ratios(self) -> bool:
        """Whether the keep ratio at which a network is read matters."""
        return keep_ratios(self.study)

    @property
    def resampled(self) -> bool:
        """Whether each seed draws its own test rows."""
        return any(row.overlap for row in self.comparisons)

    @property
    def published(self) -> dict[str, float]:
        """What the paper reports, by policy, where this study trains what the paper trained."""
        task = self.study.contents.task
        return PUBLISHED.get((str(task.get("data")), str(task.get("model"))), {})

    @property
    def declared(self) -> dict[str, Any]:
        """The declared analysis, with what follows from it for the tests."""
        study = self.study
        # a t test has no least p, and so no number of pairs under which it can find nothing
        exact = study.analysis.test == "sign-flip"
        return {
            **asdict(study.analysis),
            "family": study.family,
            "comparisons": study.comparisons,
            "pairs": study.confirm.seeds,
            "smallest_p": smallest_p_value(study.confirm.seeds) if exact else None,
            "pairs_needed": pairs_needed(study.comparisons, study.analysis.alpha) if exact else None,
        }

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, section by section: `report --json`, and report.json of an export."""
        study = self.study
        return plain_json(
            {
                "study": study.name,
                "description": study.contents.description,
                "tasks": list(study.contents.tasks),
                "baselines": study.baselines,
                "keep_ratios": self.keep_ratios,
                "resampled": self.resampled,
                "hash": self.hash,
                "store": self.store,
                "complete": self.complete,
                "runs": self.runs,
                "analysis": self.declared,
                "looks": [asdict(look) for look in self.looks],
                "extensions": self.extensions,
                "arms": [asdict(arm) for arm in self.arms],
                "comparisons": [asdict(row) for row in self.comparisons],
                "across": [asdict(row) for row in self.across],
                "earlier": [asdict(look) for look in self.earlier],
                "search": [asdict(search) for search in self.search],
                "published": self.published,
                "failures": [{"run_id": run_id, **asdict(it)} for run_id, it in self.failures.items()],
                "versions": self.versions,
                "mixed": self.mixed,
            }
        )


@dataclass(frozen=True)
class Course:
    """A confirmed candidate over its epochs: mean, least and greatest of each column over its finished seeds.

    A column without a value, as the keep ratio of a policy that has none, is not among them.
    """

    candidate: str
    seeds: int
    epochs: np.ndarray
    columns: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    resets: np.ndarray
    """Share of the seeds that reset after each epoch."""
    best: float
    """Mean over the seeds of each one's best epoch, at that epoch's r; papers tend to report it."""
    last: float
    """Mean over the seeds of the last epoch, at that epoch's r."""


def courses(reading: Reading) -> dict[str, Course]:
    """The course of every confirmed candidate that has a finished run; a run that diverged is no part of it."""
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


def findings(
    reading: Reading, drawn: dict[str, Course], compared: Sequence[Compared] | None = None
) -> Findings:
    """The numbers of a study as it stands. Looking is recorded, unless `compared` has the comparisons already."""
    study, plan = reading.study, reading.plan
    rows = reading.compare() if compared is None else compared
    states = Counter(run.state for run in reading.runs.values())
    looks_before = earlier(plan, reading.looks, reading.correct).items()
    versions, mixed = _environments(reading)
    return Findings(
        study=study,
        hash=reading.declared["hash"],
        store=reading.ledger.store.where(),
        complete=plan.complete,
        runs={state: states[state] for state in STATES},
        looks=reading.looks,
        extensions=reading.declared["extensions"],
        arms=[_confirmed(reading, it, drawn) for it in reading.cohorts if it.phase == "confirm"],
        comparisons=[Comparison.of(study, row) for row in rows],
        across=across(study, rows),
        earlier=[
            Earlier(size, [Comparison.of(study, row) for row in found]) for size, found in looks_before
        ],
        search=[_searched(reading, name) for name, arm in study.arms.items() if arm.searched],
        failures=plan.queue.failed,
        versions=versions,
        mixed=mixed,
    )


def _confirmed(reading: Reading, cohort: Cohort, drawn: dict[str, Course]) -> Confirmed:
    analysis, name = reading.study.analysis, cohort.candidate.name
    row = candidate_row(reading, cohort)
    results = [result for run_id in cohort.runs if (result := reading.plan.results.get(run_id))]
    ratios = list(dict.fromkeys([*analysis.endpoints, *analysis.curve]))
    course = drawn.get(name)
    return Confirmed(
        arm=row.arm,
        task=row.task,
        candidate=name,
        finalists=reading.study.arms[row.arm].finalists,
        settings=cohort.candidate.values,
        seeds=row.seeds,
        finished=row.finished,
        diverged=row.diverged,
        collapsed=row.collapsed,
        accuracy={
            f"{ratio:g}": _spread([result.score("test", ratio) for result in results]) for ratio in ratios
        },
        best_epoch=course.best if course else None,
        last_epoch=course.last if course else None,
        inflation=course.best - course.last if course else None,
        parameters_start=_mean_count([result.parameters_start for result in results]),
        parameters_end=_mean_count([result.parameters_end for result in results]),
    )


def _mean_count(counts: Sequence[int]) -> float | None:
    """The mean; None where a count is unknown, as in ledgers of before."""
    return math.fsum(counts) / len(counts) if counts and all(counts) else None


def _spread(scores: Sequence[float]) -> Spread:
    n = len(scores)
    deviation = float(np.std(scores, ddof=1)) if n > 1 else None
    error = deviation / math.sqrt(n) if deviation is not None else None
    return Spread(math.fsum(scores) / n if n else None, deviation, error)


def _searched(reading: Reading, arm: str) -> Searched:
    cohorts = [it for it in reading.cohorts if it.phase == "search" and it.candidate.arm == arm]
    rows = [candidate_row(reading, cohort) for cohort in cohorts]
    tried = [
        Tried(row.candidate, cohort.candidate.values, row.seeds, row.score)
        for cohort, row in zip(cohorts, rows, strict=True)
    ]
    scored = [(it.settings, it.score) for it in tried if it.score is not None]
    return Searched(arm, tried, importances(reading.study, arm, scored))


def _environments(reading: Reading) -> tuple[list[dict[str, Any]], list[str]]:
    """What the runs ran on, and in what those that are compared ran on different things."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    confirm: set[tuple[Any, ...]] = set()
    for run, attempts in ahead(reading.runs.values(), lambda run: run.attempts):
        if attempts:
            last = attempts[-1]
            named = (*ENVIRONMENT, "device_name", "commit")
            counts[tuple((key, last.get(key, "unknown")) for key in named)] += 1
            if run.cohort.phase == "confirm":
                confirm |= {tuple(attempt.get(key) for key in ENVIRONMENT) for attempt in attempts}
    columns = zip(ENVIRONMENT, zip(*confirm, strict=True), strict=False)
    return (
        [{**dict(key), "runs": count} for key, count in counts.most_common()],
        [name for name, values in columns if len(set(values)) > 1],
    )
