"""The searches of the arms: their candidates, what mattered, and what a smaller search would have found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweep.planning.proposer import importances
from sweep.planning.values import Cohort, Result
from sweep.statistics import tuning_curve
from sweep.study import Study
from sweep.views.cohorts import candidate_row
from sweep.views.reading import Reading

NOT_INDEPENDENT = {
    "tpe": "tpe proposes candidates from the scores of earlier ones: they are not drawn independently.",
    "grid": "the candidates are the points of a grid: they are not drawn.",
}
"""Why there is no tuning curve, by proposer."""


@dataclass(frozen=True)
class Tried:
    """A candidate of a search, with its score."""

    candidate: str
    settings: dict[str, Any]
    seeds: int
    score: float | None
    search: int
    """The number of the search, from 1."""
    picked_for: list[float]
    """The endpoints for which it was picked."""


@dataclass(frozen=True)
class Searched:
    """An arm's candidates, search by search in the order they were proposed, and which settings mattered."""

    arm: str
    candidates: list[Tried]
    importances: dict[str, float]
    searches: int


@dataclass(frozen=True)
class TuningCurve:
    """The validation accuracy that the pick of a search is expected to have, by the search's budget.

    The i-th entry is for a budget of i candidates, counted from 1. A pick's own score is optimistic: it was
    picked because it is high.
    """

    keep_ratio: float
    mean: list[float]
    deviation: list[float]
    """How much the pick's score varies from one such search to another."""


@dataclass(frozen=True)
class Tuning:
    """The tuning curves of an arm, from the candidates of all its searches."""

    arm: str
    budget: int
    """The candidates of one search."""
    candidates: int
    """The candidates of all searches that the curves are made of."""
    why_not: str | None
    """Why there are no curves; None where there are."""
    curves: list[TuningCurve]
    """A curve for each endpoint that the search measured."""

    def deviation(self, ratio: float) -> float | None:
        """How much the pick's score at an endpoint varies from search to search; None where unknown."""
        found = [curve for curve in self.curves if curve.keep_ratio == ratio]
        return found[0].deviation[min(self.budget, self.candidates) - 1] if found else None


def searched_arms(reading: Reading) -> list[Searched]:
    """Every searched arm, each once, with the candidates of all its searches."""
    picked: dict[str, list[float]] = {}
    for finalist in reading.finalists:
        for ratio, cohorts in finalist.by_ratio.items():
            for cohort in cohorts:
                picked.setdefault(cohort.candidate.name, []).append(ratio)
    return [
        _searched(reading, method, picked)
        for method, arms in reading.study.methods.items()
        if arms[0].searched
    ]


def _cohorts(reading: Reading, method: str) -> list[Cohort]:
    """The candidates in all searches of an arm."""
    arms = {arm.name for arm in reading.study.methods[method]}
    return [
        cohort for cohort in reading.cohorts if cohort.phase == "search" and cohort.candidate.arm in arms
    ]


def _searched(reading: Reading, method: str, picked: dict[str, list[float]]) -> Searched:
    study, tried = reading.study, list[Tried]()
    for cohort in _cohorts(reading, method):
        row, search = candidate_row(reading, cohort), study.arms[cohort.candidate.arm].replicate
        for_ratios = picked.get(row.candidate, [])
        settings = cohort.candidate.values
        tried.append(Tried(row.candidate, settings, row.seeds, row.score, search, for_ratios))
    scored = [(candidate.settings, candidate.score) for candidate in tried if candidate.score is not None]
    return Searched(method, tried, importances(study, method, scored), len(study.methods[method]))


def tuning_of(reading: Reading) -> list[Tuning]:
    """The tuning curves of every searched arm, as far as its candidates are drawn at random."""
    study = reading.study
    return [
        _tuning(study, method, [_first_rung(reading, cohort) for cohort in _cohorts(reading, method)])
        for method, arms in study.methods.items()
        if arms[0].searched
    ]


def _first_rung(reading: Reading, cohort: Cohort) -> list[Result] | None:
    """A candidate's results on the seeds that every candidate has; None while one has not finished."""
    runs = cohort.runs[: reading.study.search.ladder[0]]
    results = [result for run_id in runs if (result := reading.plan.results.get(run_id))]
    return results if results and len(results) == len(runs) else None


def _tuning(study: Study, method: str, candidates: Sequence[list[Result] | None]) -> Tuning:
    tried = [results for results in candidates if results]
    budget, why_not = study.methods[method][0].budget, NOT_INDEPENDENT.get(study.search.proposer)
    if why_not or not tried:
        return Tuning(method, budget, len(tried), why_not or "no candidate has finished yet.", [])
    scores = {
        ratio: [
            math.fsum(result.score("validation", ratio) for result in results) / len(results)
            for results in tried
        ]
        for ratio in study.analysis.endpoints
        if _measured(tried, ratio)
    }
    budgets = range(1, len(tried) + 1)
    curves: list[TuningCurve] = []
    for ratio, values in scores.items():
        curve = tuning_curve(_order(study, scores, ratio), values, budgets)
        means, deviations = zip(*curve, strict=True)
        curves.append(TuningCurve(ratio, list(means), list(deviations)))
    return Tuning(method, budget, len(tried), None, curves)


def _measured(tried: Sequence[list[Result]], ratio: float) -> bool:
    """Whether all searches measured the candidates at a keep ratio; a diverged run scores 0 anywhere."""
    runs = [result for results in tried for result in results if result.outcome != "diverged"]
    return all(f"{ratio:g}" in result.validation for result in runs)


def _order(study: Study, scores: dict[float, list[float]], ratio: float) -> list[float]:
    """What the search picks the candidates by for an endpoint: the highest one is picked."""
    if study.search.objective == "each":
        return scores[ratio]
    if study.search.objective == "first":
        return scores[study.analysis.endpoints[0]]
    # doubled, so that the shared rank of equals is whole
    columns = [
        [2 * sum(other > own for other in column) + column.count(own) for own in column]
        for column in scores.values()
    ]
    first, most = columns[0], 4 * len(columns[0])
    # of equal mean ranks the better one at the first endpoint is picked
    return [-float(most * sum(own) + first[i]) for i, own in enumerate(zip(*columns, strict=True))]
