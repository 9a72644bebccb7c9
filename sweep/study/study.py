"""A study: a file in, and out come its seeds, candidates and runs, without running anything. Knows the trainer's specs, and no engine."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Literal

from sweep.errors import RejectStudy
from sweep.study import space
from sweep.study.contents import ON, Choice, Contents, Range, Values
from trainer import data
from trainer.data import Data
from trainer.models import names
from trainer.randomness import derive
from trainer.settings import written
from trainer.spec import RunSpec, Task

EXACT = 2**53
"""Below it every whole number has a float of its own."""
OPERATION = ("description", "resources")
"""Parts of a study that may change at any time: they say how it runs, and not what it measures."""


@dataclass(frozen=True)
class Candidate:
    """An arm with every setting filled in."""

    arm: str
    name: str
    values: Values


class Study:
    """A study that can work."""

    def __init__(self, name: str, contents: Contents) -> None:
        self.name, self.contents = name, contents
        self.search, self.confirm, self.analysis, self.resources = (
            contents.search,
            contents.confirm,
            contents.analysis,
            contents.resources,
        )
        self.arms = contents.expanded
        """Every arm on every task, by names such as `set@wine`; those of the file where it lists no tasks."""
        self.tasks = list(contents.tasks) or [""]
        self.search_seeds = self._pool("search", max(self.search.ladder))
        self.pools = {
            arm: self._pool(
                f"repeat-{self.base_of(arm)}" if self.arms[arm].repeat else "confirm", self.confirm.seeds
            )
            for arm in self.arms
        }
        own = {tuple(pool) for pool in (self.search_seeds, *self.pools.values())}
        if sum(map(len, own)) > len(
            set[int]().union(*own)
        ):  # one in a million studies: drawn seeds have 32 bits
            raise RejectStudy(
                [
                    f"{name}: seed: draws the same number for the search and the confirmation. Write another seed."
                ]
            )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what is measured, as JSON values: the same however its numbers are written, and without keys that
        were added since ledgers were begun where they are left at what was meant before."""
        whole = written(self.contents)
        whole["arms"] = {
            name: {key: it for key, it in arm.items() if key != "match" or it}
            for name, arm in whole["arms"].items()
        }
        whole["analysis"] = {key: it for key, it in whole["analysis"].items() if key != "against" or it}
        return {
            key: _canonical(value)
            for key, value in whole.items()
            if key not in OPERATION and (key != "tasks" or value)
        }

    def task_of(self, arm: str) -> str:
        """The task that an arm is run on; empty where the study lists none."""
        return arm.partition(ON)[2]

    def base_of(self, arm: str) -> str:
        """An arm as it is called in the file, whatever the task."""
        return arm.partition(ON)[0]

    def baseline_of(self, arm: str) -> str:
        """The baseline on the task of an arm."""
        return self._on(self.analysis.baseline, self.task_of(arm))

    @property
    def baselines(self) -> list[str]:
        """The baseline on every task."""
        return [self._on(self.analysis.baseline, task) for task in self.tasks]

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together, task by task."""
        return [self._on(arm, task) for task in self.tasks for arm in self.contents.family]

    def is_tested(self, arm: str, reference: str) -> bool:
        """Whether an arm's gain over another one on the same task is one of the family."""
        if reference in self.baselines:
            return arm in self.family
        return self.base_of(reference) in self.analysis.against.get(self.base_of(arm), [])

    @property
    def tested(self) -> list[str]:
        """The arms with a gain in the family, over whichever arm, task by task."""
        return [arm for arm in self.arms if arm in self.family or self.base_of(arm) in self.analysis.against]

    @property
    def comparisons(self) -> int:
        """How many tests the correction is for."""
        return self.contents.comparisons

    @property
    def data(self) -> list[Data]:
        """The data sets that its runs need, in an order that does not change."""
        own = [arm for arm, it in self.arms.items() if not it.repeat]
        return sorted(
            {self.run(candidate, "confirm", 0).task.data for arm in own for candidate in self.ends(arm)},
            key=str,
        )

    def searched(self, arm: str) -> dict[str, Range | Choice]:
        """The settings that are searched in an arm, in the order they are written."""
        return space.searched(self.arms[arm])

    def finalists(self, arm: str) -> int:
        """How many candidates of an arm are confirmed."""
        return self.contents.finalists(self.base_of(arm))

    def budget(self, arm: str) -> int:
        """Candidates of a searched arm."""
        return self.contents.budget(self.base_of(arm))

    def generations(self, arm: str) -> list[int]:
        """How many candidates each generation of a searched arm has."""
        size, budget = self.search.generation, self.budget(arm)
        return [min(size, budget - start) for start in range(0, budget, size)]

    def whole(self, arm: str, setting: str) -> bool:
        """Whether a searched setting takes whole numbers."""
        return space.is_whole(self.arms[arm], setting)

    def ends(self, arm: str) -> list[Candidate]:
        """Candidates of an arm at the ends of everything searched, here or in the arm that settings are taken from."""
        settings = self.searched(arm)
        if match := self.arms[arm].match:
            found = {
                it: space.possible(self.contents.task, self.arms[match.arm], it) for it in match.settings
            }
            settings |= {setting: it for setting, it in found.items() if it}
        return [Candidate(arm, arm, values) for values in space.corners(self.arms[arm], settings)]

    def taken(self, arm: str, finalist: Candidate) -> Values:
        """The settings that an arm takes from another one's finalist, as that one's runs have them."""
        match = self.arms[arm].match
        spec = self.run(finalist, "confirm", 0)
        parts = {"task": spec.task, "policy": spec.policy.build(spec.seed)}
        named = [(setting, *setting.split(".", 1)) for setting in (match.settings if match else [])]
        return {setting: getattr(parts[part], key) for setting, part, key in named}

    def task(self, arm: str) -> Task:
        """What the confirmation of an arm trains, at the first end of what is searched."""
        return self.run(self.ends(self.arms[arm].repeat or arm)[0], "confirm", 0).task

    def overlap(self, arm: str) -> float:
        """Test rows over rows trained on, where every confirmation seed draws both from the same rows; 0 where the test set is fixed."""
        task = self.task(arm)
        if task.resample is None:
            return 0.0
        train, test = data.sizes(task)
        return test / (task.train_size or train)

    def matched(self, arm: str, parameters: int) -> str:
        """The network of a matched arm, once it is known how many parameters the other one has."""
        task = self.task(arm)
        facts = data.facts(task.data)
        return names.matched(task.model, math.prod(facts.image), facts.classes, parameters)

    def run(self, candidate: Candidate, phase: Literal["search", "confirm"], seed: int) -> RunSpec:
        """The run of a candidate with a seed in a phase."""
        arm = self.arms[self.arms[candidate.arm].repeat or candidate.arm]
        values = space.filled(self.contents.task, arm, candidate.values)
        search = phase == "search"
        ratios = self.analysis.endpoints[:1] if search else [*self.analysis.endpoints, *self.analysis.curve]
        values["task"] |= {
            "validation": self.search.validation if search else 0.0,
            "endpoints": list(dict.fromkeys(ratios)),
        }
        return RunSpec.read({**values, "seed": seed})

    def _on(self, arm: str, task: str) -> str:
        return f"{arm}{ON}{task}" if task else arm

    def _pool(self, name: str, size: int) -> list[int]:
        """Seeds of a pool: the first n are the same however many there are."""
        included = self.confirm.include if name == "confirm" else []
        pool, taken = included[:size], set(self.confirm.include)
        for i in itertools.count():
            if len(pool) == size:
                return pool
            seed = derive(self.contents.seed, f"pool-{name}", i) >> 31
            if seed not in taken:
                pool.append(seed)
                taken.add(seed)
        raise AssertionError("there is always another seed")


def _canonical(value: Any) -> Any:
    """A JSON value with 40.0 written as 40: a study does not change with the way that a number is put down."""
    if isinstance(value, dict):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value
