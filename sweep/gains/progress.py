"""The progress of a study, arm by arm: the figures that `sweep run` and `sweep status` show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.planning.pairing import Pairing, Side, sides
from sweep.planning.plan import Plan
from sweep.planning.values import Result
from sweep.statistics import Gain, gain_so_far
from sweep.study import Candidate, Phase


@dataclass(frozen=True)
class ArmView:
    """One arm, or one of its finalists where it has several."""

    arm: str
    candidate: str | None
    """The finalist; None while the search is under way, and with several searches."""
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


def overview(plan: Plan, expected: Mapping[tuple[Phase, str], int], epochs: Mapping[str, float]) -> Overview:
    """The progress of a plan.

    `expected` holds the number of runs in the end, and `epochs` the epochs done by each run under way.
    """
    finished = plan.finished.total()
    # an arm may have other finalists for other endpoints: how many there are is known after its search
    known = {name: len(plan.finalists(name)) for name in plan.study.arms}
    seeds = plan.study.confirm.seeds
    expected = {**expected, **{("confirm", name): n * seeds for name, n in known.items() if n}}
    return Overview(
        arms=list(_arm_views(plan, expected)),
        done=finished,
        total=finished if plan.complete else max(sum(expected.values()), finished),
        running=len(plan.queue.running),
        failed=len(plan.queue.failed),
        seconds_spent=math.fsum(result.seconds for result in plan.results.values()),
        seconds_left=_seconds_left(plan, expected, epochs),
    )


def _arm_views(plan: Plan, expected: Mapping[tuple[Phase, str], int]) -> Iterator[ArmView]:
    study = plan.study
    running = Counter(run.arm for run in plan.queue.running.values())
    failed = Counter(arm for run_id in plan.queue.failed for arm in plan.arms_of(run_id))
    for name, arms in study.methods.items():
        names = [arm.name for arm in arms]
        for rank, of_ratio in enumerate(_by_rank(plan, name)):
            by_search = [_finalists(of_ratio.values(), search) for search in range(len(arms))]
            results = [result for own in by_search for _, by_place in own for result in by_place.values()]
            outcomes = Counter(result.outcome for result in results)
            only = by_search[0][0][0] if len(arms) == 1 and by_search[0] else None
            is_baseline = rank == 0 and arms[0].role == "baseline"
            gains = {f"{r:g}": _gain(plan, side, r) for r, side in of_ratio.items()}
            yield ArmView(
                arm=name,
                candidate=only.name if only else None,
                settings=only.values if only else {},
                search_done=0 if rank else sum(plan.finished["search", arm] for arm in names),
                search_total=0 if rank else sum(expected.get(("search", arm), 0) for arm in names),
                confirm_done=len(results),
                confirm_total=sum(max(1, len(own)) for own in by_search) * study.confirm.seeds,
                running=0 if rank else sum(running[arm] for arm in names),
                failed=0 if rank else sum(failed[arm] for arm in names),
                diverged=outcomes["diverged"],
                collapsed=outcomes["collapsed"],
                endpoints={f"{r:g}": _mean_accuracy(side, r) for r, side in of_ratio.items()},
                gains={} if is_baseline else gains,
            )


def _finalists(sides: Iterable[Side], search: int) -> list[tuple[Candidate, Mapping[int, Result]]]:
    """The different finalists of one search among the sides of an arm."""
    found = [finalist for side in sides if (finalist := side.finalists[search])]
    return list({candidate.name: (candidate, results) for candidate, results in found}.values())


def _by_rank(plan: Plan, method: str) -> list[dict[float, Side]]:
    """The finalists of an arm from the best one on: what each endpoint is read of."""
    ratios = plan.study.analysis.endpoints
    columns = [sides(plan, method, ratio) for ratio in ratios]
    return [dict(zip(ratios, row, strict=True)) for row in zip(*columns, strict=True)]


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


def _mean_accuracy(side: Side, ratio: float) -> float | None:
    finalists = [finalist for finalist in side.finalists if finalist]
    scores = [result.score("test", ratio) for _, results in finalists for result in results.values()]
    return math.fsum(scores) / len(scores) if scores else None


def _gain(plan: Plan, side: Side, ratio: float) -> Gain:
    """The gain over the baseline's first finalist, over all pairs that are finished."""
    against = sides(plan, side.arm.baseline, ratio)[0]
    pairing = Pairing(side, against, ratio)
    return gain_so_far(*pairing.scores(plan.study.contents.blocks), overlap=side.arm.overlap)
