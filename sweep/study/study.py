"""A study that can work: its arms on every task, its seeds, what is compared, and its runs."""

from __future__ import annotations

import itertools
from typing import Any

from sweep.errors import RejectStudy
from sweep.study.arms import Candidate, Phase, ResolvedArm, named, resolve
from sweep.study.contents import Contents
from trainer.data import Data
from trainer.randomness import derive
from trainer.settings import written
from trainer.spec import RunSpec

EXACT = 2**53
"""Below it every whole number has a float of its own."""
OPERATION = ("description", "resources")
"""Parts of a study that may change at any time: they say how it runs, and not what it measures."""


class Study:
    """A study and everything that follows from it without running anything."""

    def __init__(self, name: str, contents: Contents) -> None:
        self.name, self.contents = name, contents
        self.search, self.confirm, self.analysis = contents.search, contents.confirm, contents.analysis
        self.resources = contents.resources
        self.tasks = list(contents.tasks) or [""]
        self.search_seeds = self._pool("search", max(self.search.ladder))
        self.arms: dict[str, ResolvedArm] = resolve(
            contents, lambda pool: self._pool(pool, self.confirm.seeds)
        )
        """Every arm on every task, by names such as `set@wine`; those of the file where it lists no tasks."""
        self._refuse_shared_seeds()

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what is measured, as JSON values.

        It is the same however numbers are written. Keys that were added since ledgers were begun are left out
        where they mean what was meant before.
        """
        values = written(self.contents)
        values["arms"] = {
            name: {key: part for key, part in arm.items() if key != "match" or part}
            for name, arm in values["arms"].items()
        }
        values["analysis"] = {
            key: part for key, part in values["analysis"].items() if key != "against" or part
        }
        return {
            key: _canonical(value)
            for key, value in values.items()
            if key not in OPERATION and (key != "tasks" or value)
        }

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
        """The arms with a gain in the family, over whichever arm, task by task."""
        return [name for name, arm in self.arms.items() if arm.tested]

    @property
    def comparisons(self) -> int:
        """How many tests the correction is for."""
        return self.contents.comparisons

    @property
    def data(self) -> list[Data]:
        """The data sets that its runs need, in an order that does not change."""
        own = [arm for arm in self.arms.values() if not arm.repeats]
        return sorted({self.run(end, "confirm", 0).task.data for arm in own for end in arm.ends}, key=str)

    def run(self, candidate: Candidate, phase: Phase, seed: int) -> RunSpec:
        """The run of a candidate with a seed in a phase."""
        return self.arms[candidate.arm].run(candidate.values, phase, seed)

    def _pool(self, name: str, size: int) -> list[int]:
        """The seeds of a pool: the first n are the same however many there are."""
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

    def _refuse_shared_seeds(self) -> None:
        """Two pools share a seed in one study of a million: drawn seeds have 32 bits."""
        pools = {tuple(pool) for pool in (self.search_seeds, *(arm.seeds for arm in self.arms.values()))}
        if sum(map(len, pools)) > len(set[int]().union(*pools)):
            reason = "draws the same number for the search and the confirmation. Write another seed."
            raise RejectStudy([f"{self.name}: seed: {reason}"])


def _canonical(value: Any) -> Any:
    """A JSON value with 40.0 written as 40: a study does not change with the way that a number is put down."""
    if isinstance(value, dict):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value
