"""A plan played to its end without training.

It shows what will run, how long it takes and how busy the cluster is. Pure: no Ray, no disk, no clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sweep.planning.plan import Plan
from sweep.planning.values import Proposal, Result, Run
from sweep.study import Phase, Study, Values
from sweep.study.contents import Choice, Range
from sweep.study.space import grid
from trainer.randomness import uniform

PARAMETERS = 10_000
"""The parameters of every invented run. Arms that are matched by their parameters need a number."""


@dataclass
class Played:
    """The figures of a plan that was played. Times are in the unit of the runs' durations."""

    makespan: float = 0.0
    busy: float = 0.0
    slots: int = 1
    runs: Counter[tuple[Phase, str]] = field(default_factory=Counter)
    epochs: int = 0

    @property
    def utilisation(self) -> float:
        """The share of their time in which the slots train."""
        return self.busy / (self.makespan * self.slots) if self.makespan else 1.0


def play(
    plan: Plan,
    slots: int,
    result: Callable[[Run], Result],
    seconds: Callable[[Run], float],
    propose: Callable[[Study, Proposal], list[Values]],
) -> Played:
    """Hand the plan's runs to the slots, on a virtual clock, until no work is left."""
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
    """Play the rest of a plan with random candidates and scores.

    They change the number of runs only where an arm may have another finalist for each endpoint. A study
    that may end early is played to the end.
    """
    plan.open_all()
    return play(plan, slots, _any_result, seconds, scattered)


def scattered(study: Study, due: Proposal) -> list[Values]:
    """Random candidates of a generation, for counting runs. They differ unless the space is too small."""
    arm = study.arms[due.arm]

    def value(setting: str, options: Range | Choice, i: int) -> object:
        share = uniform(study.contents.seed, f"forecast-{due.arm}-{setting}", due.generation, i)
        whole = arm.takes_whole_numbers(setting)
        if isinstance(options, Choice) or options.step:
            points = grid(options, whole)
            return points[int(share * len(points))]
        drawn = options.low + share * (options.high - options.low)
        return int(drawn) if whole else drawn

    return [
        {setting: value(setting, options, i) for setting, options in arm.searched.items()}
        for i in range(due.size)
    ]


def _any_result(run: Run) -> Result:
    """A made-up result with a random score at each endpoint."""
    ratios = run.spec.task.endpoints
    scores = {f"{ratio:g}": uniform(0, run.run_id, i) for i, ratio in enumerate(ratios)}
    return Result("completed", run.spec.task.epochs, 0.0, 10, scores, scores, PARAMETERS, PARAMETERS)
