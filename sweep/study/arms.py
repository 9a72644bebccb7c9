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
    """An arm on a task, with everything that the study says about it."""

    contents: Contents
    """The whole study."""
    base: str
    """The arm's name in the file."""
    task: str
    """The name of the task; empty where the study lists none."""
    written: Arm
    """The arm as the file has it, with what its task changes."""
    repeats: ResolvedArm | None
    """The arm on the same task whose finalists this one runs once more, on seeds of its own."""
    follows: ResolvedArm | None
    """The arm on the same task that this one is matched with."""
    seeds: list[int]
    """The seeds of its confirmation. All arms but the repeats share them."""

    @property
    def name(self) -> str:
        """The arm's name wherever results are kept: `set@wine`, or `set` if the study lists no tasks."""
        return named(self.base, self.task)

    @property
    def baseline(self) -> str:
        """The name of the baseline on the same task."""
        return named(self.contents.analysis.baseline, self.task)

    @property
    def source(self) -> ResolvedArm:
        """The arm that says what is trained: the repeated arm, or this one."""
        return self.repeats or self

    @property
    def match(self) -> Match | None:
        """The arm that this one follows, and in what; None where it follows none."""
        return self.written.match

    @property
    def role(self) -> Role:
        """The arm's role in the study. A control is shown beside the family, with p-values as they are."""
        if self.base == self.contents.analysis.baseline:
            return "baseline"
        if self.base in self.contents.family:
            return "family"
        return "repeat" if self.repeats else "control"

    @property
    def tested(self) -> bool:
        """Whether the family has a gain of this arm, over the baseline or another arm."""
        return self.base in self.contents.family or self.base in self.contents.analysis.against

    def is_tested_over(self, other: ResolvedArm) -> bool:
        """Whether the family has the gain of this arm over another one on the same task."""
        if other.role == "baseline":
            return self.base in self.contents.family
        return other.base in self.contents.analysis.against.get(self.base, [])

    @cached_property
    def searched(self) -> dict[str, Range | Choice]:
        """The searched settings, in the order of the file."""
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
        """Whether a searched setting takes whole numbers."""
        return space.is_whole(self.source.written, setting)

    @property
    def ends(self) -> list[Candidate]:
        """Candidates at the ends of all searched settings, one setting moved at a time.

        A setting that is taken from another arm counts as searched: its ends are those of the other arm.
        """
        settings = dict(self.searched)
        if self.match and self.follows:
            for key in self.match.settings:
                if options := space.possible(self.contents.task, self.follows.written, key):
                    settings[key] = options
        corners = space.corners(self.written, settings)
        return [Candidate(self.name, self.name, values) for values in corners]

    def run(self, values: Values, phase: Phase, seed: int) -> RunSpec:
        """The run of a candidate's values with a seed in a phase."""
        filled: dict[str, Any] = dict(space.filled(self.contents.task, self.source.written, values))
        analysis = self.contents.analysis
        if phase == "search":
            validation, ratios = self.contents.search.validation, analysis.endpoints[:1]
        else:
            validation, ratios = 0.0, [*analysis.endpoints, *analysis.curve]
        filled["task"] |= {"validation": validation, "endpoints": list(dict.fromkeys(ratios))}
        return RunSpec.read({**filled, "seed": seed})

    @cached_property
    def trained(self) -> Task:
        """The task of its confirmation, with searched settings at their first end."""
        return self.run(self.source.ends[0].values, "confirm", 0).task

    @cached_property
    def overlap(self) -> float:
        """Test rows over training rows where each seed draws its test set; 0 where the test set is fixed."""
        if self.trained.resample is None:
            return 0.0
        train, test = data.sizes(self.trained)
        return test / (self.trained.train_size or train)


def named(base: str, task: str) -> str:
    """The name of an arm on a task: the arm's own name where the study lists no tasks."""
    return f"{base}@{task}" if task else base


def without_task(name: str, task: str) -> str:
    """The name of an arm or a candidate without its task, for use below a heading that names the task."""
    return name.replace(f"@{task}", "", 1) if task else name


def resolve(contents: Contents, seeds: Callable[[str], list[int]]) -> dict[str, ResolvedArm]:
    """Every arm on every task by its name, task by task. `seeds` draws the seed pool with a name."""
    resolved: dict[str, ResolvedArm] = {}
    pools = {name: f"repeat-{name}" if arm.repeat else "confirm" for name, arm in contents.arms.items()}
    drawn = {pool: seeds(pool) for pool in dict.fromkeys(pools.values())}
    needed_first = sorted(contents.arms, key=lambda name: _order(contents.arms[name]))
    for task, settings in (contents.tasks or {"": {}}).items():
        on_task: dict[str, ResolvedArm] = {}
        for base in needed_first:
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
        resolved |= {named(base, task): on_task[base] for base in contents.arms}
    return resolved


def _order(arm: Arm) -> int:
    """The order in which arms are resolved: a matched arm needs a plain one, and a repeat needs either."""
    if arm.repeat:
        return 2
    return 1 if arm.match else 0
