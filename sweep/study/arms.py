"""An arm on a task in one search: what it trains, searches, is compared with, and its seeds."""

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
    """The name of the resolved arm, such as `set@wine`, or `set@wine~2` in the second search."""
    name: str
    values: Values


@dataclass(frozen=True, eq=False)
class ResolvedArm:
    """An arm on a task in one of the searches, with everything that the study says about it."""

    contents: Contents
    """The whole study."""
    base: str
    """The arm's name in the file."""
    task: str
    """The name of the task; empty where the study lists none."""
    replicate: int
    """The number of the search, counted from 1."""
    written: Arm
    """What is trained: the arm as the file has it (a repeat: the other arm), with what its task changes."""
    repeats: ResolvedArm | None
    """The arm whose finalists this one runs once more, on seeds of its own.

    None in a study with several searches: there a repeat is searched anew."""
    follows: ResolvedArm | None
    """The arm on the same task and in the same search that this one is matched with."""
    search_seeds: list[int]
    """The seeds of its search. All arms of a search share them, but for the repeats."""
    seeds: list[int]
    """The seeds of its confirmation. All arms of a search share them, but for the repeats."""

    @property
    def name(self) -> str:
        """The name wherever results are kept: `set`, `set@wine` on a task, `set@wine~2` in search 2."""
        return named(self.base, self.task, self.replicate)

    @property
    def method(self) -> str:
        """The name of the arm on its task, whatever the search: what a comparison is about."""
        return named(self.base, self.task)

    @property
    def baseline(self) -> str:
        """The name of the baseline on the same task in the same search."""
        return named(self.contents.analysis.baseline, self.task, self.replicate)

    @property
    def is_repeat(self) -> bool:
        """Whether it is another arm once more, on seeds of its own."""
        return self.contents.arms[self.base].repeat is not None

    @property
    def match(self) -> Match | None:
        """The arm that this one follows, and in what; None where it follows none."""
        return None if self.repeats else self.written.match

    @property
    def role(self) -> Role:
        """The arm's role in the study. A control is shown beside the family, with p-values as they are."""
        if self.base == self.contents.analysis.baseline:
            return "baseline"
        if self.base in self.contents.family:
            return "family"
        return "repeat" if self.is_repeat else "control"

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
    def open_settings(self) -> dict[str, Range | Choice]:
        """The settings that a search decides, in the order of the file."""
        return space.searched(self.written)

    @property
    def searched(self) -> dict[str, Range | Choice]:
        """The settings that this arm searches itself: none where it takes another one's finalists."""
        return {} if self.repeats else self.open_settings

    @property
    def is_drawn(self) -> bool:
        """Whether another search would give it other settings: it is searched, or takes from one that is."""
        follows = (self.repeats or self).follows
        return bool(self.open_settings) or bool(follows and follows.is_drawn)

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
        return space.is_whole(self.written, setting)

    @property
    def ends(self) -> list[Candidate]:
        """Candidates at the ends of all searched settings, one setting moved at a time.

        A setting that is taken from another arm counts as searched: its ends are those of the other arm.
        """
        if self.repeats:
            return self.repeats.ends
        settings = dict(self.open_settings)
        if self.match and self.follows:
            for key in self.match.settings:
                if options := space.possible(self.contents.task, self.follows.written, key):
                    settings[key] = options
        corners = space.corners(self.written, settings)
        return [Candidate(self.name, self.name, values) for values in corners]

    def run(self, values: Values, phase: Phase, seed: int) -> RunSpec:
        """The run of a candidate's values with a seed in a phase."""
        filled: dict[str, Any] = dict(space.filled(self.contents.task, self.written, values))
        analysis, search = self.contents.analysis, self.contents.search
        validation, ratios = 0.0, [*analysis.endpoints, *analysis.curve]
        if phase == "search":
            validation = search.validation
            # A study's first search keeps the runs that it had before studies could have more.
            if search.objective == "first" and self.replicate == 1:
                ratios = analysis.endpoints[:1]
        filled["task"] |= {"validation": validation, "endpoints": list(dict.fromkeys(ratios))}
        return RunSpec.read({**filled, "seed": seed})

    @cached_property
    def trained(self) -> Task:
        """The task of its confirmation, with searched settings at their first end."""
        return self.run(self.ends[0].values, "confirm", 0).task

    @cached_property
    def overlap(self) -> float:
        """Test rows over all other rows where each seed draws its test set; 0 where the test set is fixed.

        The other rows count whether or not a run trains on all of them: what correlates two seeds is how
        many test rows they share.
        """
        if self.trained.resample is None:
            return 0.0
        train, test = data.sizes(self.trained)
        return test / train


def named(base: str, task: str, replicate: int = 1) -> str:
    """The name of an arm on a task in a search.

    It is the arm's own name where the study lists no tasks, and in the first search.
    """
    return (f"{base}@{task}" if task else base) + (f"~{replicate}" if replicate > 1 else "")


def without_task(name: str, task: str) -> str:
    """The name of an arm or a candidate without its task, for use below a heading that names the task."""
    return name.replace(f"@{task}", "", 1) if task else name


def resolve(contents: Contents, pool: Callable[[str, int], list[int]]) -> dict[str, ResolvedArm]:
    """Every arm on every task in every search by its name: task by task, then search by search.

    `pool` draws the seed pool with a name and a size.
    """
    resolved: dict[str, ResolvedArm] = {}
    needed_first = sorted(contents.arms, key=lambda name: _order(contents.arms[name]))
    several = contents.search.replicates > 1
    for task, settings in (contents.tasks or {"": {}}).items():
        for replicate in range(1, contents.search.replicates + 1):
            together: dict[str, ResolvedArm] = {}
            for base in needed_first:
                arm, original = contents.arms[base], contents.original(base)
                own = several or not arm.repeat
                search_pool, confirm_pool = _pools(base, arm, replicate, several)
                together[base] = ResolvedArm(
                    contents=contents,
                    base=base,
                    task=task,
                    replicate=replicate,
                    written=original.on(settings),
                    repeats=together[arm.repeat] if arm.repeat and not own else None,
                    follows=together[original.match.arm] if original.match and own else None,
                    search_seeds=pool(search_pool, max(contents.search.ladder)),
                    seeds=pool(confirm_pool, contents.confirm.seeds),
                )
            resolved |= {together[base].name: together[base] for base in contents.arms}
    return resolved


def _pools(base: str, arm: Arm, replicate: int, several: bool) -> tuple[str, str]:
    """The names of an arm's pools of seeds in a search, for the search and for the confirmation.

    The first search has the pools that a study with one search has.
    """
    if not arm.repeat:
        number = f"-{replicate}" if replicate > 1 else ""
        return f"search{number}", f"confirm{number}"
    # `~` is in no arm's name, so that no two names are alike
    number = f"~{replicate}" if replicate > 1 else ""
    return f"search-repeat-{base}{number}" if several else "search", f"repeat-{base}{number}"


def _order(arm: Arm) -> int:
    """The order in which arms are resolved: a matched arm needs a plain one, and a repeat needs either."""
    if arm.repeat:
        return 2
    return 1 if arm.match else 0
