"""The progress of a study, arm by arm: the figures that `sweep run` and `sweep status` show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.gains.seeds import first_place
from sweep.planning.plan import Plan
from sweep.planning.values import Look, Result
from sweep.statistics import Gain, gain_so_far
from sweep.study import Candidate, Phase


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
    """Gains over the first finalist of the task's baseline, on the seeds that both have, by keep ratio."""


@dataclass(frozen=True)
class Overview:
    """The state of a study. Its seconds are sums over runs, as if one run followed the other."""

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
    """The progress of a plan.

    `expected` holds the number of runs in the end, and `epochs` the epochs done by each run under way. Gains
    are over the seeds after the last look.
    """
    finished = plan.finished.total()
    return Overview(
        arms=list(_arm_views(plan, expected, looks)),
        done=finished,
        total=max(sum(expected.values()), finished),
        running=len(plan.queue.running),
        failed=len(plan.queue.failed),
        seconds_spent=math.fsum(result.seconds for result in plan.results.values()),
        seconds_left=_seconds_left(plan, expected, epochs),
    )


def _arm_views(
    plan: Plan, expected: Mapping[tuple[Phase, str], int], looks: Sequence[Look]
) -> Iterator[ArmView]:
    study, ratios = plan.study, plan.study.analysis.endpoints
    running = Counter(run.arm for run in plan.queue.running.values())
    failed = Counter(arm for run_id in plan.queue.failed for arm in plan.arms_of(run_id))
    for name, arm in study.arms.items():
        base = (plan.confirmed(arm.baseline) or [{}])[0]
        places = range(first_place(study, name, looks), study.confirm.seeds)
        confirmed: list[dict[int, Result]] = plan.confirmed(name) or [{}]
        finalists: list[Candidate | None] = [*plan.finalists(name)] or [None]
        for rank, (candidate, results) in enumerate(zip(finalists, confirmed, strict=True)):
            first = rank == 0
            outcomes = Counter(result.outcome for result in results.values())
            is_baseline = first and arm.role == "baseline"
            gains = {f"{r:g}": _gain(places, results, base, r, arm.overlap) for r in ratios}
            yield ArmView(
                arm=name,
                candidate=candidate.name if candidate else None,
                settings=candidate.values if candidate else {},
                search_done=plan.finished["search", name] if first else 0,
                search_total=expected.get(("search", name), 0) if first else 0,
                confirm_done=len(results),
                confirm_total=study.confirm.seeds,
                running=running[name] if first else 0,
                failed=failed[name] if first else 0,
                diverged=outcomes["diverged"],
                collapsed=outcomes["collapsed"],
                endpoints={f"{ratio:g}": _mean_accuracy(results, ratio) for ratio in ratios},
                gains={} if is_baseline else gains,
            )


def _seconds_left(
    plan: Plan, expected: Mapping[tuple[Phase, str], int], epochs: Mapping[str, float]
) -> float | None:
    """The time for the rest, at each task's pace so far. A task without finished runs has the mean pace."""
    study, running = plan.study, plan.queue.running
    if not plan.epochs:
        return None
    left = dict.fromkeys(study.tasks, 0.0)
    for (phase, name), count in expected.items():
        arm = study.arms[name]
        left[arm.task] += (count - plan.finished[phase, name]) * study.arms[arm.baseline].trained.epochs
    for run_id, done in epochs.items():
        if run_id in running:
            left[study.arms[running[run_id].arm].task] -= done
    return math.fsum(max(0.0, left[task]) * _pace(plan, task) for task in study.tasks)


def _pace(plan: Plan, task: str) -> float:
    """The seconds of an epoch on a task, as measured so far."""
    own = [name for name, arm in plan.study.arms.items() if arm.task == task and plan.epochs[name]]
    own = own or list(plan.epochs)
    return math.fsum(plan.seconds[arm] for arm in own) / sum(plan.epochs[arm] for arm in own)


def _mean_accuracy(results: Mapping[int, Result], ratio: float) -> float | None:
    scores = [result.score("test", ratio) for result in results.values()]
    return math.fsum(scores) / len(scores) if scores else None


def _gain(
    places: range, results: Mapping[int, Result], base: Mapping[int, Result], ratio: float, overlap: float
) -> Gain:
    def scores(by_place: Mapping[int, Result]) -> list[float]:
        return [by_place[place].score("test", ratio) if place in by_place else math.nan for place in places]

    return gain_so_far(scores(results), scores(base), overlap)
