"""A study's YAML as validated models: what may be written, and the defaults. What goes beyond one key's shape stands in `study_check`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""Of a study, an arm and a task."""
ON = "@"
"""Between an arm and the task that it is run on; no name has it."""
Values = dict[str, Any]
"""What a candidate fills in: `task.learning_rate` or `policy.step` to its value."""
Count = Annotated[int, Field(ge=1, le=10_000)]
"""Of things that a study lists one by one. The limit stops a slip of the hand before it fills the memory."""
DECLARED_ELSEWHERE = {"validation": "search.validation", "endpoints": "analysis.endpoints"}
"""Settings of the trainer's task that follow from another part of the study."""


LEAST_GPU = 1e-4
"""Ray counts no smaller share."""


class Part(BaseModel):
    """A part of a study; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Part):
    """Numbers from low to high. Whether they are whole follows from the setting that is searched."""

    low: float = Field(description="the least value")
    high: float = Field(description="the greatest value")
    log: bool = Field(default=False, description="whether values are drawn evenly in their logarithm")
    step: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="the distance from one value to the next; null takes any value between"
    )


class Choice(Part):
    """One of a few values."""

    choice: Annotated[list[bool | int | float | str], Field(min_length=1)] = Field(
        description="the values to choose from"
    )


class Match(Part):
    """The arm whose first finalist on the same task is followed, and in what: in its number of parameters, in some settings, or in both."""

    arm: str = Field(description="the arm that is followed; it must not be a repeat or be matched itself")
    at: Literal["start", "end"] | None = Field(
        default=None,
        description="when in its runs its parameters are counted; start, where no settings are taken",
    )
    settings: list[str] = Field(
        default=[], min_length=1, description="what has the value that it has there, such as policy.epsilon"
    )

    @property
    def counted(self) -> Literal["start", "end"] | None:
        """When the other arm's parameters are counted; None where the network does not follow from them."""
        return self.at or (None if self.settings else "start")

    @model_serializer
    def _as_identified(self) -> dict[str, Any]:
        """As ledgers have it that were begun before settings could be taken."""
        parts = {"arm": self.arm, "at": self.counted, "settings": self.settings}
        return {key: value for key, value in parts.items() if value}


class Arm(Part):
    """A policy and what it changes in the task; or another arm once more, on seeds of its own (an A/A control)."""

    policy: dict[str, Any] = Field(
        default={}, description="the policy's name and settings, each a value, {low, high} or {choice}"
    )
    task: dict[str, Any] = Field(
        default={}, description="settings of the task that this arm changes or searches"
    )
    budget: Count | None = Field(default=None, description="candidates, where it is not search.budget")
    repeat: str | None = Field(
        default=None, description="the arm whose finalists run once more on disjoint seeds"
    )
    match: Match | None = Field(
        default=None,
        description="the arm that this one follows: a dense network with as many parameters, or settings as its finalist has them",
    )

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

    def on(self, task: str, settings: Values) -> Arm:
        """This arm on a task with settings of its own, over which the arm's own stand."""
        match = self.match and self.match.model_copy(update={"arm": f"{self.match.arm}{ON}{task}"})
        if self.repeat:
            return self.model_copy(update={"repeat": f"{self.repeat}{ON}{task}"})
        return self.model_copy(update={"task": {**settings, **self.task}, "match": match})


def is_searched(setting: str, value: object) -> bool:
    """Whether a setting's value is left to the search: a range or a choice is a mapping, and so is a table of data, but no other value."""
    return isinstance(value, dict) and (setting != "task.data" or "choice" in value)


class Search(Part):
    """How searched arms find their finalists, on validation accuracy alone."""

    proposer: Literal["tpe", "random", "grid"] = Field(
        default="tpe",
        description="what proposes candidates: tpe learns from earlier scores, random and grid do not",
    )
    budget: Count = Field(default=32, description="candidates per searched arm")
    generation: Annotated[int, Field(ge=1)] = Field(default=4, description="candidates proposed at once")
    lag: Annotated[int, Field(ge=0)] = Field(
        default=2, description="generations that may run before the first one's scores are used"
    )
    ladder: Annotated[list[Count], Field(min_length=1)] = Field(
        default=[1, 2, 4, 8],
        description="seeds of a candidate that is still in the race, rung by rung; half go on",
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of the training set held out, per seed"
    )
    finalists: Annotated[int, Field(ge=1)] = Field(
        default=1, description="candidates of each searched arm that are confirmed"
    )


class Confirm(Part):
    """The runs that the comparisons are made of: whole training set, fresh seeds."""

    seeds: Count = Field(default=10, description="runs of each candidate, and so pairs of each comparison")
    include: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        default=[], description="seeds asked for by number; they come first"
    )


class Analysis(Part):
    """What is compared, and how; fixed before the first confirmation run."""

    baseline: str = Field(description="the arm over which gains are taken")
    family: list[str] | None = Field(
        default=None,
        description="arms whose gains are tested together; all but the baseline and the repeats by default",
    )
    against: dict[str, list[str]] = Field(
        default={},
        description="more of the family: arms whose gains over other arms than the baseline are tested, and over which",
    )
    endpoints: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = Field(
        default=[1.0, 0.05],
        description="keep ratios of the final weights that are tested; the first is primary, and what the search scores",
    )
    curve: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[], description="more keep ratios to measure in confirmation, untested"
    )
    test: Literal["sign-flip", "paired-t", "resampled-t"] = Field(
        default="sign-flip",
        description="the test of a gain; resampled-t goes with task.resample, and only with it",
    )
    correction: Literal["holm"] = Field(
        default="holm", description="how p is corrected for the number of comparisons in the family"
    )
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05, description="the chance of any false gain in the whole family that is accepted"
    )


class Resources(Part):
    """How it is run; nothing here changes what is measured."""

    cpus: Annotated[int, Field(ge=1)] = Field(default=1, description="cores, and threads, of a run")
    gpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="GPUs of a run; a fraction shares one"
    )
    workers: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most runs at once; all the cluster has by default"
    )
    attempts: Annotated[int, Field(ge=1)] = Field(
        default=3, description="tries at a run before it counts as failed"
    )
    deadline: Annotated[float, Field(gt=0)] = Field(
        default=600.0, description="seconds without progress after which a run is ended"
    )
    commit_seconds: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="from one checkpoint to the next"
    )

    @property
    def sharing(self) -> int:
        """How many runs share a GPU; 1 where a run has it to itself, or none."""
        return math.floor(1 / max(self.gpus, LEAST_GPU) + 1e-9) if 0 < self.gpus < 1 else 1


class Contents(Part):
    """A study's YAML."""

    description: str = Field(default="", description="what the study asks, in words; may change at any time")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=1, description="where the study's own seeds and proposals come from"
    )
    task: dict[str, Any] = Field(description="what is trained; every arm starts from it")
    tasks: dict[str, dict[str, Any]] = Field(
        default={}, description="what each task changes in `task`; every arm is run on each of them"
    )
    arms: Annotated[dict[str, Arm], Field(min_length=2)] = Field(
        description="what is compared, by name; one of them is the baseline"
    )
    search: Search = Field(default=Search(), description="how finalists are found")
    confirm: Confirm = Field(default=Confirm(), description="the runs that comparisons are made of")
    analysis: Analysis = Field(description="what is compared, and how")
    resources: Resources = Field(default=Resources(), description="how runs are carried out")

    @property
    def expanded(self) -> dict[str, Arm]:
        """Every arm on every task, task by task, under names such as `set@wine`; the arms as they are where no tasks are listed."""
        if not self.tasks:
            return self.arms
        return {
            f"{name}{ON}{task}": arm.on(task, settings)
            for task, settings in self.tasks.items()
            for name, arm in self.arms.items()
        }

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together; an A/A control is shown, and tested only where it is named."""
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
