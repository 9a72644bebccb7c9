"""Studies made in code, and learning curves instead of training: the tests of the plan play them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from sweep.planning.plan import Plan
from sweep.planning.proposer import propose
from sweep.planning.values import Failure, Proposal, Result, Run
from sweep.study import Study, Values
from sweep.study.contents import Contents
from trainer.randomness import uniform
from trainer.spec import RunSpec

RATE = {"low": 0.03, "high": 0.3, "log": True}
STEP = {"low": 0.02, "high": 0.2}
TASK = {"data": "digits", "model": "wrn-10-1", "epochs": 20, "batch_size": 32, "train_size": 200}
ARMS: dict[str, Any] = {
    "dense": {"policy": {"name": "dense"}},
    "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": RATE}},
    "additive": {"policy": {"name": "additive-reset", "step": STEP}, "task": {"learning_rate": RATE}},
}
"""An arm as published, and two that are searched."""
Score = Callable[[RunSpec], float]
Propose = Callable[[Study, Proposal], list[Values]]


def study_of(
    arms: dict[str, Any] | None = None, *, seed: int = 1, baseline: str = "dense", **parts: dict[str, Any]
) -> Study:
    """A small study; `task`, `tasks`, `search`, `confirm` and `resources` replace these values."""
    search = {
        "proposer": "random",
        "budget": 12,
        "generation": 4,
        "lag": 1,
        "ladder": [1, 2, 4],
        "validation": 0.2,
    }
    whole = {
        "seed": seed,
        "task": {**TASK, **parts.get("task", {})},
        "tasks": parts.get("tasks", {}),
        "arms": arms or ARMS,
        "search": {**search, **parts.get("search", {})},
        "confirm": {"seeds": 4, **parts.get("confirm", {})},
        "analysis": {"baseline": baseline},
        "resources": parts.get("resources", {}),
    }
    return Study("simulated", Contents.read(whole))


def one_arm(setting: dict[str, Any] | None = None, **parts: Any) -> Study:
    """A study with a single searched arm, `tuned`."""
    return study_of(
        {
            "dense": ARMS["dense"],
            "tuned": {"policy": {"name": "dense"}, "task": {"learning_rate": setting or RATE}},
        },
        **parts,
    )


def curve(spec: RunSpec) -> list[float]:
    """Return the accuracy after every epoch.

    It rises to a height that depends on the settings and the seed, as fast as the learning rate allows.
    """
    task, step = spec.task, spec.policy.settings.get("step", 0.1)
    top = 0.8 - 0.05 * math.log(task.learning_rate / 0.1) ** 2 - (step - 0.08) ** 2
    noise = NormalDist(0, 0.02).inv_cdf(
        0.5 + 0.999 * (uniform(spec.seed, f"{task.learning_rate} {step} {task.validation}") - 0.5)
    )
    return [
        (top + noise) * (1 - math.exp(-epoch * task.learning_rate)) for epoch in range(1, task.epochs + 1)
    ]


def final(spec: RunSpec) -> float:
    """Return the last accuracy of a run's curve."""
    return curve(spec)[-1]


def result(score: float, outcome: Any = "completed") -> Result:
    """Return the result of a run that has this accuracy everywhere."""
    scores = {"1": score, "0.05": score}
    return Result(outcome, 20, 20.0, 10, scores, scores)


def counted(spec: RunSpec) -> tuple[int, int]:
    """Return the parameters at the start and at the end, which differ for every run."""
    start = 2_000 + int(8_000 * uniform(0, spec.run_id))
    return start, start // 2


def trained(run: Run, score: Score = final) -> Result:
    """Return the result of a run."""
    start, end = counted(run.spec)
    return replace(result(score(run.spec)), parameters_start=start, parameters_end=end)


def plan_of(study: Study) -> Plan:
    """Return the plan of a study that has no runs yet."""
    return Plan(study, {}, {})


def propose_all(plan: Plan, proposer: Propose = propose) -> list[Proposal]:
    """Propose whatever is due; return what was due."""
    dues: list[Proposal] = []
    while due := plan.wanted():
        plan.propose(due.arm, due.generation, proposer(plan.study, due))
        dues.append(due)
    return dues


def take(plan: Plan) -> list[Run]:
    """Take every run that is ready, most urgent first; from now on it is running."""
    taken: list[Run] = []
    while run := plan.queue.next(0.0):
        taken.append(run)
    return taken


def end(plan: Plan, score: Score = final, proposer: Propose = propose) -> list[Run]:
    """Play a plan until nothing is ready, everything at once; return the runs in their order."""
    runs: list[Run] = []
    propose_all(plan, proposer)
    while now := take(plan):
        runs += now
        for run in now:
            plan.finish(run.run_id, trained(run, score))
        propose_all(plan, proposer)
    return runs


@dataclass
class Sweep:
    """Every decision of a sweep, in a form that can be compared."""

    runs: set[str] = field(default_factory=set)
    candidates: dict[str, list[tuple[str, Values]]] = field(default_factory=dict)
    finalists: dict[str, list[tuple[str, Values]]] = field(default_factory=dict)
    scores: dict[str, list[list[float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, runs: set[str]) -> Sweep:
        return cls(
            runs,
            {arm: [(c.name, c.values) for c, _ in plan.searched(arm)] for arm in plan.study.arms},
            {arm: [(c.name, c.values) for c in plan.finalists(arm)] for arm in plan.study.arms},
            {arm: [scores for _, scores in plan.searched(arm)] for arm in plan.study.arms},
        )


def disturbed(study: Study, slots: int, chance: random.Random, *, losses: float, restarts: float) -> Sweep:
    """Play a whole sweep with disturbances.

    Runs end in any order, attempts are lost, and drivers die and begin anew from what was recorded.
    """
    results: dict[str, Result] = {}
    proposals: dict[tuple[str, int], list[Values]] = {}
    plan = plan_of(study)
    running: list[Run] = []
    while True:
        while due := plan.wanted():
            # JSON, as the ledger keeps proposals.
            proposals[due.arm, due.generation] = json.loads(json.dumps(propose(study, due)))
            if chance.random() < restarts:
                plan, running = Plan(study, dict(results), dict(proposals)), []
            else:
                plan.propose(due.arm, due.generation, proposals[due.arm, due.generation])
        while len(running) < slots and (run := plan.queue.next(0.0)):
            running.append(run)
        if not running:
            if plan.complete:
                return Sweep.of(plan, set(results))
            plan = Plan(study, dict(results), dict(proposals))  # the same command again
            continue
        run = running.pop(chance.randrange(len(running)))
        if chance.random() < losses:
            plan.queue.lose(
                run.run_id, Failure("lost"), node=f"node-{chance.randrange(3)}", blame=chance.random() < 0.7
            )
        else:
            results[run.run_id] = trained(run)
            plan.finish(run.run_id, results[run.run_id], node=f"node-{chance.randrange(3)}")
        if chance.random() < restarts / 4:
            plan, running = Plan(study, dict(results), dict(proposals)), []
