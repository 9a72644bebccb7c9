"""How far a study is, arm by arm: figures for the table that is shown while it runs, for `sweep status` and for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.gains.comparisons import Look, first_place
from sweep.planning.plan import Plan
from sweep.planning.work import Phase, Result
from sweep.statistics.paired import Gain, gain_so_far


@dataclass(frozen=True)
class ArmView:
    """One arm, or one of its finalists where it has several."""

    arm: str
    candidate: str | None
    settings: dict[str, Any]
    search_done: int
    search_total: int
    confirm_done: int
    confirm_total: int
    running: int
    failed: int
    diverged: int
    collapsed: int
    endpoints: dict[str, float | None]
    """Mean test accuracy over the seeds confirmed so far, by keep ratio."""
    gains: dict[str, Gain]
    """Over the first finalist of the baseline on the same task, on the seeds that both have, by keep ratio."""


@dataclass(frozen=True)
class Overview:
    """A study's state. Seconds are those of one run after the other."""

    arms: list[ArmView]
    done: int
    total: int
    running: int
    failed: int
    seconds_spent: float
    seconds_left: float | None
    """None until a run has finished."""


def overview(
    plan: Plan,
    expected: Mapping[tuple[Phase, str], int],
    epochs: Mapping[str, float],
    looks: Sequence[Look] = (),
) -> Overview:
    """`expected` has the runs there will be in all, `epochs` how far those under way are; gains are of the seeds after the last look."""
    study = plan.study
    ratios = study.analysis.endpoints
    bases = {baseline: (plan.confirmed(baseline) or [{}])[0] for baseline in study.baselines}
    running = Counter(run.arm for run, _ in plan.running.values())
    failed = Counter(arm for run_id in plan.failed for arm in plan.arms_of(run_id))
    arms: list[ArmView] = []
    for arm in study.arms:
        finalists = plan.finalists(arm)
        base, overlap = bases[study.baseline_of(arm)], study.overlap(arm)
        places = range(first_place(study, arm, looks), study.confirm.seeds)
        confirmed: list[dict[int, Result]] = plan.confirmed(arm) or [{}]
        for rank, results in enumerate(confirmed):
            first = rank == 0
            outcomes = Counter(result.outcome for result in results.values())
            arms.append(
                ArmView(
                    arm=arm,
                    candidate=finalists[rank].name if finalists else None,
                    settings=finalists[rank].values if finalists else {},
                    search_done=plan.finished["search", arm] if first else 0,
                    search_total=expected.get(("search", arm), 0) if first else 0,
                    confirm_done=len(results),
                    confirm_total=study.confirm.seeds,
                    running=running[arm] if first else 0,
                    failed=failed[arm] if first else 0,
                    diverged=outcomes["diverged"],
                    collapsed=outcomes["collapsed"],
                    endpoints={f"{ratio:g}": _mean(_scores(results, ratio)) for ratio in ratios},
                    gains={}
                    if arm in bases and first
                    else {f"{r:g}": _gain(places, results, base, r, overlap) for r in ratios},
                )
            )
    done, total = plan.finished.total(), max(sum(expected.values()), plan.finished.total())
    spent = math.fsum(result.seconds for result in plan.results.values())
    return Overview(
        arms, done, total, len(plan.running), len(plan.failed), spent, _seconds_left(plan, expected, epochs)
    )


def _seconds_left(
    plan: Plan, expected: Mapping[tuple[Phase, str], int], epochs: Mapping[str, float]
) -> float | None:
    """By the pace on each task so far; on one that has none yet, by that of all."""
    study = plan.study
    if not plan.epochs:
        return None
    pace: dict[str, float] = {}
    for task in study.tasks:
        own = [arm for arm in study.arms if study.task_of(arm) == task and plan.epochs[arm]] or list(
            plan.epochs
        )
        pace[task] = math.fsum(plan.seconds[arm] for arm in own) / sum(plan.epochs[arm] for arm in own)
    lengths = {
        task: study.task(baseline).epochs
        for task, baseline in zip(study.tasks, study.baselines, strict=True)
    }
    left = dict.fromkeys(study.tasks, 0.0)
    for (phase, arm), count in expected.items():
        left[study.task_of(arm)] += (count - plan.finished[phase, arm]) * lengths[study.task_of(arm)]
    for run_id, done in epochs.items():
        if run_id in plan.running:
            left[study.task_of(plan.running[run_id][0].arm)] -= done
    return math.fsum(max(0.0, left[task]) * pace[task] for task in study.tasks)


def _scores(results: Mapping[int, Result], ratio: float) -> list[float]:
    return [result.score("test", ratio) for result in results.values()]


def _mean(scores: list[float]) -> float | None:
    return math.fsum(scores) / len(scores) if scores else None


def _gain(
    places: range, results: Mapping[int, Result], base: Mapping[int, Result], ratio: float, overlap: float
) -> Gain:
    def by_place(found: Mapping[int, Result]) -> list[float]:
        return [found[place].score("test", ratio) if place in found else math.nan for place in places]

    return gain_so_far(by_place(results), by_place(base), overlap)
