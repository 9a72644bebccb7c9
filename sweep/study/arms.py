"""An arm on a task as one value: what it trains, searches, is compared with, and which seeds confirm it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sweep.study import space
from sweep.study.contents import Arm, Choice, Contents, Match, Range, Values
from trainer import data
from trainer.spec import RunSpec, Task

Phase = Literal["search", "confirm"]
Role = Literal["baseline", "family", "repeat", "control"]


@dataclass(frozen=True)
class Candidate:
    """An arm with every setting filled in."""

    arm: str
    """The name of the arm on its task, such as `set@wine`."""
    name: str
    values: Values


@dataclass(frozen=True, eq=False)
class ResolvedArm:
    """An arm on a task, with everything that follows for it from the study."""

    contents: Contents
    """The whole study."""
    base: str
    """The arm's name in the file."""
    task: str
    """The name of the task; empty where the study lists none."""
    written: Arm
    """The arm as it is written, over what the task changes."""
    repeats: ResolvedArm | None
    """The arm on the same task whose finalists it runs once more, on seeds of its own."""
    follows: ResolvedArm | None
    """The arm on the same task that it is matched with."""
    seeds: list[int]
    """The seeds of its confirmation; arms that do not repeat another one share them."""

    @property
    def name(self) -> str:
        """The arm's name wherever results are kept: `set@wine`, or `set` where the study lists no tasks."""
        return named(self.base, self.task)

    @property
    def baseline(self) -> str:
        """The name of the baseline on the same task."""
        return named(self.contents.analysis.baseline, self.task)

    @property
    def source(self) -> ResolvedArm:
        """The arm that says what is trained: the repeated one, or this one."""
        return self.repeats or self

    @property
    def match(self) -> Match | None:
        """What it follows the other arm in."""
        return self.written.match

    @property
    def role(self) -> Role:
        """Why the study has it. A control is shown beside the family and not tested."""
        if self.base == self.contents.analysis.baseline:
            return "baseline"
        if self.base in self.contents.family:
            return "family"
        return "repeat" if self.repeats else "control"

    @property
    def tested(self) -> bool:
        """Whether a gain of it, over whichever arm, is one of the family."""
        return self.base in self.contents.family or self.base in self.contents.analysis.against

    def is_tested_over(self, other: ResolvedArm) -> bool:
        """Whether its gain over another arm on the same task is one of the family."""
        if other.role == "baseline":
            return self.base in self.contents.family
        return other.base in self.contents.analysis.against.get(self.base, [])

    @cached_property
    def searched(self) -> dict[str, Range | Choice]:
        """The settings that are searched, in the order they are written."""
        return space.searched(self.written)

    @property
    def finalists(self) -> int:
        """How many of its candidates are confirmed."""
        return self.contents.finalists(self.base)

    @property
    def budget(self) -> int:
        """How many candidates its search tries."""
        return self.contents.budget(self.base)

    @property
    def generations(self) -> list[int]:
        """How many candidates each generation of its search has."""
        size = self.contents.search.generation
        return [min(size, self.budget - start) for start in range(0, self.budget, size)]

    def takes_whole_numbers(self, setting: str) -> bool:
        """Whether a searched setting is one of whole numbers."""
        return space.is_whole(self.source.written, setting)

    @property
    def ends(self) -> list[Candidate]:
        """Candidates at the ends of everything searched, here or in the arm that settings are taken from."""
        settings = dict(self.searched)
        if self.match and self.follows:
            other = self.follows.written
            possible = {key: space.possible(self.contents.task, other, key) for key in self.match.settings}
            settings |= {key: values for key, values in possible.items() if values}
        corners = space.corners(self.written, settings)
        return [Candidate(self.name, self.name, values) for values in corners]

    def run(self, values: Values, phase: Phase, seed: int) -> RunSpec:
        """The run of a candidate's values with a seed in a phase."""
        filled: dict[str, Any] = dict(space.filled(self.contents.task, self.source.written, values))
        analysis, search = self.contents.analysis, phase == "search"
        ratios = analysis.endpoints[:1] if search else [*analysis.endpoints, *analysis.curve]
        held_out = self.contents.search.validation if search else 0.0
        filled["task"] |= {"validation": held_out, "endpoints": list(dict.fromkeys(ratios))}
        return RunSpec.read({**filled, "seed": seed})

    @cached_property
    def trained(self) -> Task:
        """What its confirmation trains, at the first end of what is searched."""
        return self.run(self.source.ends[0].values, "confirm", 0).task

    @cached_property
    def overlap(self) -> float:
        """Test rows over rows trained on, where every seed draws its own test rows; 0 where the test set is fixed."""
        if self.trained.resample is None:
            return 0.0
        train, test = data.sizes(self.trained)
        return test / (self.trained.train_size or train)


def named(base: str, task: str) -> str:
    """The name of an arm on a task; empty tasks are not named."""
    return f"{base}@{task}" if task else base


def without_task(name: str, task: str) -> str:
    """An arm's or a candidate's name where the heading says on which task it is."""
    return name.replace(f"@{task}", "", 1) if task else name


def resolve(contents: Contents, seeds: Callable[[str], list[int]]) -> dict[str, ResolvedArm]:
    """Every arm on every task by its name, task by task. `seeds` gives the confirmation's pool with a name."""
    found: dict[str, ResolvedArm] = {}
    pools = {arm: f"repeat-{arm}" if it.repeat else "confirm" for arm, it in contents.arms.items()}
    drawn = {pool: seeds(pool) for pool in dict.fromkeys(pools.values())}
    others_first = sorted(contents.arms, key=lambda arm: _waits(contents.arms[arm]))
    for task, settings in (contents.tasks or {"": {}}).items():
        on_task: dict[str, ResolvedArm] = {}
        for base in others_first:
            arm = contents.arms[base]
            on_task[base] = ResolvedArm(
                contents=contents,
                base=base,
                task=task,
                written=arm if arm.repeat else arm.on(settings),
                repeats=on_task[arm.repeat] if arm.repeat else None,
                follows=on_task[arm.match.arm] if arm.match else None,
                seeds=drawn[pools[base]],
            )
        found |= {named(base, task): on_task[base] for base in contents.arms}
    return found


def _waits(arm: Arm) -> int:
    """Where an arm stands among those that need another one: a matched arm needs a plain one, a repeat either."""
    return 2 if arm.repeat else 1 if arm.match else 0
