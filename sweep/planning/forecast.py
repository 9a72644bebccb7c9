"""A plan played to its end without training: what will run, how long it takes and how full the cluster is. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sweep.planning.plan import Plan
from sweep.planning.work import Proposal, Result, Run
from sweep.study.arms import Phase
from sweep.study.contents import Choice, Range, Values
from sweep.study.space import grid
from sweep.study.study import Study
from trainer.randomness import uniform

PARAMETERS = 10_000
"""Of every invented run: some, for the arms that are matched by them."""


@dataclass
class Played:
    """What happened. Times are in the unit of the run's duration."""

    makespan: float = 0.0
    busy: float = 0.0
    slots: int = 1
    runs: Counter[tuple[Phase, str]] = field(default_factory=Counter)
    epochs: int = 0

    @property
    def utilisation(self) -> float:
        """Share of the slots' time in which they train."""
        return self.busy / (self.makespan * self.slots) if self.makespan else 1.0


def play(
    plan: Plan,
    slots: int,
    result: Callable[[Run], Result],
    seconds: Callable[[Run], float],
    propose: Callable[[Study, Proposal], list[Values]],
) -> Played:
    """Hand the plan's work to so many slots on a virtual clock until nothing is left to do."""
    played, now = Played(slots=slots), 0.0
    busy: list[tuple[float, int, Run]] = []
    while True:
        while due := plan.wanted():
            plan.propose(due.arm, due.generation, propose(plan.study, due))
        while len(busy) < slots and (run := plan.queue.next(now)):
            played.runs[run.phase, run.arm] += 1
            played.epochs += run.spec.task.epochs
            played.busy += seconds(run)
            heapq.heappush(busy, (now + seconds(run), played.runs.total(), run))
        if not busy:
            played.makespan = now
            return played
        now, _, run = heapq.heappop(busy)
        plan.finish(run.run_id, result(run))


def forecast(
    plan: Plan, slots: int, seconds: Callable[[Run], float] = lambda run: run.spec.task.epochs
) -> Played:
    """The rest of a plan, with candidates and scores drawn at random: neither changes how many runs there are."""
    return play(plan, slots, _any_result, seconds, scattered)


def scattered(study: Study, due: Proposal) -> list[Values]:
    """Candidates anywhere in the space, for counting: different from each other wherever the space has room."""

    def value(setting: str, it: Range | Choice, i: int) -> object:
        share = uniform(study.contents.seed, f"forecast-{due.arm}-{setting}", due.generation, i)
        if isinstance(it, Choice) or it.step:
            points = grid(it, study.arms[due.arm].takes_whole_numbers(setting))
            return points[int(share * len(points))]
        drawn = it.low + share * (it.high - it.low)
        return int(drawn) if study.arms[due.arm].takes_whole_numbers(setting) else drawn

    return [
        {setting: value(setting, it, i) for setting, it in study.arms[due.arm].searched.items()}
        for i in range(due.size)
    ]


def _any_result(run: Run) -> Result:
    score = uniform(0, run.run_id)
    scores = {f"{ratio:g}": score for ratio in run.spec.task.endpoints}
    return Result("completed", run.spec.task.epochs, 0.0, 10, scores, scores, PARAMETERS, PARAMETERS)
