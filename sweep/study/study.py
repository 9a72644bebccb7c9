"""A study that can work: its arms on every task, its seeds, what is compared, and its runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from sweep.errors import RejectStudy
from sweep.study.arms import Candidate, Phase, ResolvedArm, named, resolve
from sweep.study.contents import Contents
from trainer.data import Data
from trainer.models import own
from trainer.randomness import derive
from trainer.settings import written
from trainer.spec import RunSpec, Task

EXACT = 2**53
"""Every whole number below this has a float of its own."""
OPERATION = ("description", "published", "resources", "notify")
"""The parts of a study that may change at any time, because they do not change what is measured."""


class Study:
    """A study, and everything that follows from it before anything runs."""

    def __init__(self, name: str, contents: Contents, taken: Iterable[int] = ()) -> None:
        self.name, self.contents = name, contents
        self.search, self.confirm, self.analysis = contents.search, contents.confirm, contents.analysis
        self.resources = contents.resources
        self.tasks = list(contents.tasks) or [""]
        self.taken = frozenset(taken)
        """Seeds that are not drawn for a confirmation, because another study of the store has had them."""
        self._pools: dict[str, list[int]] = {}
        self.arms: dict[str, ResolvedArm] = resolve(contents, self._pool)
        """Every arm on every task in every search, by names such as `set@wine` and `set@wine~2`."""
        self._refuse_shared_seeds()

    def without(self, taken: Iterable[int]) -> Study:
        """The same study, without these seeds in its confirmation."""
        other = Study(self.name, self.contents, taken)
        other.resources = self.resources
        return other

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what is measured, as JSON values.

        It does not depend on how numbers are written. Keys that are newer than some ledgers (`tasks`,
        `match`, `against`) are left out where they are empty, so that an old study keeps its identity.
        """
        values = {key: value for key, value in written(self.contents).items() if key not in OPERATION}
        if not values["tasks"]:
            del values["tasks"]
        for arm in values["arms"].values():
            if not arm["match"]:
                del arm["match"]
        if not values["analysis"]["against"]:
            del values["analysis"]["against"]
        return _canonical(values)

    @cached_property
    def methods(self) -> dict[str, list[ResolvedArm]]:
        """Every arm on every task by its name, with the arm as each search has it, in order."""
        methods: dict[str, list[ResolvedArm]] = {}
        for arm in self.arms.values():
            methods.setdefault(arm.method, []).append(arm)
        return methods

    @property
    def confirm_pools(self) -> dict[str, list[int]]:
        """The seeds of every pool of the confirmation, by the pool's name."""
        return {name: pool for name, pool in self._pools.items() if not name.startswith("search")}

    @property
    def baselines(self) -> list[str]:
        """The baseline on every task."""
        return [named(self.analysis.baseline, task) for task in self.tasks]

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together, task by task."""
        return [named(arm, task) for task in self.tasks for arm in self.contents.family]

    @property
    def tested(self) -> list[str]:
        """The arms of which the family has a gain, over the baseline or another arm, task by task."""
        return [name for name, arms in self.methods.items() if arms[0].tested]

    @property
    def comparisons(self) -> int:
        """The number of comparisons in the family."""
        return self.contents.comparisons

    def margin(self, ratio: float) -> float | None:
        """The largest difference that does not matter at an endpoint, as a share; None without a margin."""
        if self.analysis.margin is None:
            return None
        return self.analysis.margin[self.analysis.endpoints.index(ratio)] / 100

    @property
    def data(self) -> list[Data]:
        """The data sets that the study's runs need, in a fixed order."""
        return sorted({task.data for task in self._trained()}, key=str)

    @property
    def own_models(self) -> list[Task]:
        """A task for each model that is code of one's own, on each data set."""
        tasks = {(task.model, task.data): task for task in self._trained() if own.package_of(task.model)}
        return list(tasks.values())

    def _trained(self) -> Iterator[Task]:
        """What is trained at the ends of every arm's settings."""
        for arm, *_ in self.methods.values():
            if not arm.is_repeat:
                yield from (self.run(end, "confirm", 0).task for end in arm.ends)

    def run(self, candidate: Candidate, phase: Phase, seed: int) -> RunSpec:
        """The run of a candidate with a seed in a phase."""
        return self.arms[candidate.arm].run(candidate.values, phase, seed)

    def _pool(self, name: str, size: int) -> list[int]:
        """The seeds of a pool. A larger pool begins with the same seeds."""
        if name in self._pools:
            return self._pools[name]
        included = self.confirm.include if name == "confirm" else []
        pool, not_drawn = included[:size], set(self.confirm.include)
        if not name.startswith("search"):
            not_drawn |= self.taken
        for i in itertools.count():
            if len(pool) == size:
                break
            seed = derive(self.contents.seed, f"pool-{name}", i) >> 31
            if seed not in not_drawn:
                pool.append(seed)
                not_drawn.add(seed)
        self._pools[name] = pool
        return pool

    def _refuse_shared_seeds(self) -> None:
        """Reject a study with a seed in two pools.

        Seeds are drawn with 32 bits, so that this happens to one study in a million.
        """
        pools = self._pools.values()
        if sum(map(len, pools)) > len(set[int]().union(*pools)):
            reason = "draws the same number for two purposes. Write another seed."
            raise RejectStudy([f"{self.name}: seed: {reason}"])


def _canonical(value: Any) -> Any:
    """A JSON value with 40.0 as 40: both mean the same study."""
    if isinstance(value, dict):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part) for part in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return int(value)
    return value
