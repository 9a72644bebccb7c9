"""A study's findings as plain values: every number of the report. Words and pictures are made elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweep.format import plain_json
from sweep.gains.across import across
from sweep.gains.comparisons import earlier, keep_ratio_matters
from sweep.gains.rows import Across, Compared
from sweep.planning.proposer import importances
from sweep.planning.values import Cohort, Failure, Growth, Look
from sweep.statistics import pairs_needed, smallest_p_value
from sweep.study import Study
from sweep.views.cohorts import candidate_row
from sweep.views.reading import STATES, Reading, ahead
from sweep.views.report.courses import Course

PUBLISHED = {
    ("cifar10", "wrn-28-4"): {"dense": 0.869, "additive-reset": 0.8797, "multiplicative-reset": 0.8802}
}
"""What the paper reports: the best test accuracy of any epoch, from one run each."""
ENVIRONMENT = ("torch", "device", "threads", "code")
"""What a run's numbers may depend on in their last digits."""


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared):
    """A comparison as the report shows it."""

    finalists: int
    """The number of finalists of its arm."""

    @classmethod
    def of(cls, study: Study, row: Compared) -> Comparison:
        return cls(**vars(row), finalists=study.arms[row.arm].finalists)


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, with its standard deviation and standard error."""

    mean: float | None
    deviation: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Confirmed:
    """A confirmed candidate's own figures: its accuracy at every keep ratio, its best epoch and its last."""

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
    """A candidate of a search, with its score."""

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
    """The comparisons as they were at an earlier look, over its number of pairs."""

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
    """The number of runs, by state."""
    looks: list[Look]
    grew_after_look: Growth
    """How the study was extended after its gains could be seen."""
    extensions: list[dict[str, Any]]
    arms: list[Confirmed]
    comparisons: list[Comparison]
    across: list[Across]
    earlier: list[Earlier]
    search: list[Searched]
    failures: dict[str, Failure]
    """Failed runs, by run id."""
    versions: list[dict[str, Any]]
    """What the runs ran on: a row for each combination, with its number of runs."""
    mixed: list[str]
    """The keys of ENVIRONMENT in which runs of the confirmation differ."""

    @property
    def keep_ratio_matters(self) -> bool:
        """Whether keep ratios matter in this study."""
        return keep_ratio_matters(self.study)

    @property
    def resampled(self) -> bool:
        """Whether each seed draws its own test set."""
        return any(row.overlap for row in self.comparisons)

    @property
    def published(self) -> dict[str, float]:
        """What the paper reports, by policy. Empty where this study's task is not the paper's."""
        task = self.study.contents.task
        return PUBLISHED.get((str(task.get("data")), str(task.get("model"))), {})

    @property
    def declared(self) -> dict[str, Any]:
        """The declared analysis, and what follows from it: the number of tests and of pairs needed."""
        study = self.study
        # a t test has no smallest p-value, so no number of pairs is too small for it
        exact, looks = study.analysis.test == "sign-flip", len(study.contents.looks)
        return {
            **asdict(study.analysis),
            "family": study.family,
            "comparisons": study.comparisons,
            "pairs": study.contents.blocks,
            "smallest_p": smallest_p_value(study.contents.blocks) if exact else None,
            "pairs_needed": pairs_needed(study.comparisons * looks, study.analysis.alpha) if exact else None,
        }

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON values: what `report --json` prints, and report.json in an export."""
        study = self.study
        return plain_json(
            {
                "study": study.name,
                "description": study.contents.description,
                "tasks": list(study.contents.tasks),
                "baselines": study.baselines,
                "keep_ratios": self.keep_ratio_matters,
                "resampled": self.resampled,
                "hash": self.hash,
                "store": self.store,
                "complete": self.complete,
                "runs": self.runs,
                "analysis": self.declared,
                "looks": [asdict(look) for look in self.looks],
                "grew_after_look": self.grew_after_look,
                "extensions": self.extensions,
                "arms": [asdict(arm) for arm in self.arms],
                "comparisons": [asdict(row) for row in self.comparisons],
                "across": [asdict(row) for row in self.across],
                "earlier": [asdict(look) for look in self.earlier],
                "search": [asdict(search) for search in self.search],
                "published": self.published,
                "failures": [
                    {"run_id": run_id, **asdict(failure)} for run_id, failure in self.failures.items()
                ],
                "versions": self.versions,
                "mixed": self.mixed,
            }
        )


def findings_of(
    reading: Reading, courses: dict[str, Course], compared: Sequence[Compared] | None = None
) -> Findings:
    """The findings of a study so far. A look is recorded, unless the caller gives the comparisons."""
    study, plan = reading.study, reading.plan
    rows = reading.compare() if compared is None else compared
    states = Counter(run.state for run in reading.runs.values())
    looks_before = earlier(plan, reading.looks, reading.right_images).items()
    versions, mixed = _environments(reading)
    return Findings(
        study=study,
        hash=reading.declared["hash"],
        store=reading.ledger.store.where(),
        complete=plan.complete,
        runs={state: states[state] for state in STATES},
        looks=reading.looks,
        grew_after_look=reading.grew_after_look,
        extensions=reading.declared["extensions"],
        arms=[
            _confirmed(reading, cohort, courses) for cohort in reading.cohorts if cohort.phase == "confirm"
        ],
        comparisons=[Comparison.of(study, row) for row in rows],
        across=across(study, rows),
        earlier=[
            Earlier(pairs, [Comparison.of(study, row) for row in rows]) for pairs, rows in looks_before
        ],
        search=[_searched(reading, name) for name, arm in study.arms.items() if arm.searched],
        failures=plan.queue.failed,
        versions=versions,
        mixed=mixed,
    )


def _confirmed(reading: Reading, cohort: Cohort, courses: dict[str, Course]) -> Confirmed:
    analysis, name = reading.study.analysis, cohort.candidate.name
    row = candidate_row(reading, cohort)
    results = [result for run_id in cohort.runs if (result := reading.plan.results.get(run_id))]
    ratios = list(dict.fromkeys([*analysis.endpoints, *analysis.curve]))
    course = courses.get(name)
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
    """The mean of some counts; None where one is unknown, as in older ledgers."""
    return math.fsum(counts) / len(counts) if counts and all(counts) else None


def _spread(scores: Sequence[float]) -> Spread:
    n = len(scores)
    deviation = float(np.std(scores, ddof=1)) if n > 1 else None
    error = deviation / math.sqrt(n) if deviation is not None else None
    return Spread(math.fsum(scores) / n if n else None, deviation, error)


def _searched(reading: Reading, arm: str) -> Searched:
    cohorts = [
        cohort for cohort in reading.cohorts if cohort.phase == "search" and cohort.candidate.arm == arm
    ]
    rows = [candidate_row(reading, cohort) for cohort in cohorts]
    tried = [
        Tried(row.candidate, cohort.candidate.values, row.seeds, row.score)
        for cohort, row in zip(cohorts, rows, strict=True)
    ]
    scored = [(candidate.settings, candidate.score) for candidate in tried if candidate.score is not None]
    return Searched(arm, tried, importances(reading.study, arm, scored))


def _environments(reading: Reading) -> tuple[list[dict[str, Any]], list[str]]:
    """What the runs ran on, and the keys in which runs of the confirmation differ."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    confirming: set[tuple[Any, ...]] = set()
    for run, attempts in ahead(reading.runs.values(), lambda run: run.attempts):
        if attempts:
            last = attempts[-1]
            named = (*ENVIRONMENT, "device_name", "commit")
            counts[tuple((key, last.get(key, "unknown")) for key in named)] += 1
            if run.cohort.phase == "confirm":
                confirming |= {tuple(attempt.get(key) for key in ENVIRONMENT) for attempt in attempts}
    columns = zip(ENVIRONMENT, zip(*confirming, strict=True), strict=False)
    return (
        [{**dict(key), "runs": count} for key, count in counts.most_common()],
        [name for name, values in columns if len(set(values)) > 1],
    )
