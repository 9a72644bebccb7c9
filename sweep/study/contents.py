"""A study's YAML as dataclasses: what may be written, what it means, and the defaults.

What goes beyond the shape of one key stands in `rules`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from trainer.settings import WITHOUT_POINT, Filled, Share, Within, read

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""How studies, arms and tasks may be named."""
Values = dict[str, Any]
"""What a candidate fills in: `task.learning_rate` or `policy.step` to its value."""
Count = Annotated[int, Within(at_least=1, at_most=10_000), WITHOUT_POINT]
"""How many things a study lists one by one. The limit stops a slip of the hand before it fills the memory."""
Positive = Annotated[int, Within(at_least=1), WITHOUT_POINT]
Seed = Annotated[int, Within(at_least=0, below=2**63), WITHOUT_POINT]
Fraction = Annotated[float, Within(above=0, below=1)]
"""A share that is neither nothing nor all."""
DECLARED_ELSEWHERE = {"validation": "search.validation", "endpoints": "analysis.endpoints"}
"""Settings of the trainer's task that follow from another part of the study."""
LEAST_GPU = 1e-4
"""Ray counts no smaller share."""


def _wrong_choice(value: object) -> str | None:
    good = isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return None if good else f"must be a finite number, a text, true or false; it is {value!r}."


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high. Whether they are whole follows from the setting that is searched."""

    low: float
    """The least value."""
    high: float
    """The greatest value."""
    log: bool = False
    """Whether values are drawn evenly in their logarithm."""
    step: Annotated[float, Within(above=0)] | None = None
    """The distance from one value to the next; null takes any value between."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values."""

    choice: Annotated[list[Annotated[Any, _wrong_choice]], Filled(1)]
    """The values to choose from."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The arm whose first finalist on the same task is followed: in its size, in settings, or in both."""

    arm: str
    """The arm that is followed; it must not be a repeat or be matched itself."""
    at: Literal["start", "end"] | None = field(default=None, metadata={"added": True})
    """When in its runs its parameters are counted; start, where no settings are taken."""
    settings: Annotated[list[str], Filled(1)] = field(default_factory=list[str], metadata={"added": True})
    """What has the value that it has there, such as policy.epsilon."""

    def __post_init__(self) -> None:
        if not self.settings:
            object.__setattr__(self, "at", self.at or "start")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A policy and what it changes in the task; or another arm again, on its own seeds (an A/A control)."""

    policy: dict[str, Any] = field(default_factory=dict[str, Any])
    """The policy's name and settings, each a value, {low, high, log, step} or {choice}."""
    task: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the task that this arm changes or searches."""
    budget: Count | None = None
    """Candidates, where it is not search.budget."""
    repeat: str | None = None
    """The arm whose finalists run once more on disjoint seeds."""
    match: Match | None = None
    """The arm that this one follows: a dense network with as many parameters, or its finalist's settings."""

    @property
    def written(self) -> dict[str, Any]:
        """Each setting as it stands in the file, by the name that a candidate has for it."""
        return {
            f"{part}.{key}": value
            for part in ("policy", "task")
            for key, value in getattr(self, part).items()
        }

    @property
    def open_settings(self) -> dict[str, dict[str, Any]]:
        """Those of them that are searched."""
        return {setting: value for setting, value in self.written.items() if is_searched(setting, value)}

    def on(self, settings: Values) -> Arm:
        """This arm on a task that has settings of its own, over which the arm's stand."""
        return replace(self, task={**settings, **self.task})


def is_searched(setting: str, value: object) -> bool:
    """Whether a setting's value is left to the search.

    A range or a choice is a mapping; so is a table of data, and no other value.
    """
    return isinstance(value, dict) and (setting != "task.data" or "choice" in value)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How searched arms find their finalists, on validation accuracy alone."""

    proposer: Literal["tpe", "random", "grid"] = "tpe"
    """What proposes candidates: tpe learns from earlier scores, random and grid do not."""
    budget: Count = 32
    """Candidates per searched arm."""
    generation: Positive = 4
    """Candidates proposed at once."""
    lag: Annotated[int, Within(at_least=0), WITHOUT_POINT] = 2
    """Generations that may run before the first one's scores are used."""
    ladder: Annotated[list[Count], Filled(1)] = field(default_factory=lambda: [1, 2, 4, 8])
    """Seeds of a candidate that is still in the race, rung by rung; half go on."""
    validation: Fraction = 0.1
    """Share of the training set held out, per seed."""
    finalists: Positive = 1
    """Candidates of each searched arm that are confirmed."""


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """The runs that the comparisons are made of: whole training set, fresh seeds."""

    seeds: Count = 10
    """Runs of each candidate, and so pairs of each comparison."""
    include: list[Seed] = field(default_factory=list[int])
    """Seeds asked for by number; they come first."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is compared, and how; fixed before the first confirmation run."""

    baseline: str
    """The arm over which gains are taken."""
    family: list[str] | None = None
    """Arms whose gains are tested together; all but the baseline and the repeats by default."""
    against: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """More of the family: arms whose gains over other arms than the baseline are tested, and over which."""
    endpoints: Annotated[list[Share], Filled(1)] = field(default_factory=lambda: [1.0, 0.05])
    """Keep ratios of the final weights that are tested; the first is primary, and what the search scores."""
    curve: list[Share] = field(default_factory=list[float])
    """More keep ratios to measure in confirmation, untested."""
    test: Literal["sign-flip", "paired-t", "resampled-t"] = "sign-flip"
    """The test of a gain; resampled-t goes with task.resample, and only with it."""
    correction: Literal["holm"] = "holm"
    """How p is corrected for the number of comparisons in the family."""
    alpha: Fraction = 0.05
    """The chance of any false gain in the whole family that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How it is run; nothing here changes what is measured."""

    cpus: Positive = 1
    """Cores, and threads, of a run."""
    gpus: Annotated[float, Within(at_least=0)] = 0.0
    """GPUs of a run; a fraction shares one."""
    workers: Positive | None = None
    """Most runs at once; all the cluster has by default."""
    attempts: Positive = 3
    """Tries at a run before it counts as failed."""
    deadline: Annotated[float, Within(above=0)] = 600.0
    """Seconds without progress after which a run is ended."""
    commit_seconds: Annotated[float, Within(at_least=0)] = 30.0
    """From one checkpoint to the next."""

    @property
    def sharing(self) -> int:
        """How many runs share a GPU; 1 where a run has it to itself, or none."""
        return math.floor(1 / max(self.gpus, LEAST_GPU) + 1e-9) if 0 < self.gpus < 1 else 1


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A study's YAML."""

    description: str = ""
    """What the study asks, in words; may change at any time."""
    seed: Seed = 1
    """Where the study's own seeds and proposals come from."""
    task: dict[str, Any]
    """What is trained; every arm starts from it."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """What each task changes in `task`; every arm is run on each of them."""
    arms: Annotated[dict[str, Arm], Filled(2)]
    """What is compared, by name; one of them is the baseline."""
    search: Search = Search()
    """How finalists are found."""
    confirm: Confirm = Confirm()
    """The runs that comparisons are made of."""
    analysis: Analysis
    """What is compared, and how."""
    resources: Resources = Resources()
    """How runs are carried out."""

    @classmethod
    def read(cls, given: object) -> Contents:
        """A study from plain values; SpecError holds every problem found in any part."""
        return read(cls, given, takes="a study")

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together; a repeat only where it is named."""
        if named := self.analysis.family:
            return [arm for arm in self.arms if arm in named]
        return [name for name, arm in self.arms.items() if name != self.analysis.baseline and not arm.repeat]

    @property
    def comparisons(self) -> int:
        """How many tests the correction is for: one family, whatever the number of tasks."""
        over_others = sum(self.finalists(arm) * len(others) for arm, others in self.analysis.against.items())
        return (
            len(self.analysis.endpoints)
            * max(1, len(self.tasks))
            * (sum(self.finalists(arm) for arm in self.family) + over_others)
        )

    def budget(self, arm: str) -> int:
        """Candidates of a searched arm."""
        return self.arms[arm].budget or self.search.budget

    def finalists(self, arm: str) -> int:
        """How many candidates of an arm are confirmed."""
        arm = self.arms[arm].repeat or arm
        return min(self.search.finalists, self.budget(arm)) if self.arms[arm].open_settings else 1
