"""A study's YAML as dataclasses: what may be written, what it means, and the defaults.

Rules that concern more than the shape of one key are in `rules`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from trainer.options import COMMIT_SHARE
from trainer.settings import WITHOUT_POINT, Filled, Share, Within, read

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
"""The names that studies, arms and tasks may have."""
Values = dict[str, Any]
"""The values that a candidate fills in, by setting: `task.learning_rate` or `policy.step`."""
Count = Annotated[int, Within(at_least=1, at_most=10_000), WITHOUT_POINT]
"""A number of things that are listed one by one. The limit keeps a typing error from filling the memory."""
Positive = Annotated[int, Within(at_least=1), WITHOUT_POINT]
Seed = Annotated[int, Within(at_least=0, below=2**63), WITHOUT_POINT]
Fraction = Annotated[float, Within(above=0, below=1)]
"""A share that is neither 0 nor 1."""
DECLARED_ELSEWHERE = {"validation": "search.validation", "endpoints": "analysis.endpoints"}
"""Settings of the trainer's task that a study declares in another part."""
LEAST_GPU = 0.1
"""The smallest share of a GPU: ten runs in one process use up torch's streams (`trainer.streams`)."""


def _wrong_choice(value: object) -> str | None:
    """Why a value cannot be chosen; None where it can."""
    good = isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
    return None if good else f"must be a finite number, a text, true or false; it is {value!r}."


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high; whole ones where the searched setting takes whole numbers."""

    low: float
    """The least value."""
    high: float
    """The greatest value."""
    log: bool = False
    """Whether values are drawn evenly on a logarithmic scale."""
    step: Annotated[float, Within(above=0)] | None = None
    """The distance from one value to the next; null allows every value from low to high."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values."""

    choice: Annotated[list[Annotated[Any, _wrong_choice]], Filled(1)]
    """The values to choose from."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """Another arm whose first finalist on the same task is followed, in its size or in settings or both."""

    arm: str
    """The arm to follow; it must not be a repeat or matched itself."""
    at: Literal["start", "end"] | None = field(default=None, metadata={"added": True})
    """When in its runs its parameters are counted. null is start if `settings` is empty, else never."""
    settings: Annotated[list[str], Filled(1)] = field(default_factory=list[str], metadata={"added": True})
    """The settings whose values are taken from that finalist, such as policy.epsilon."""

    def __post_init__(self) -> None:
        if not self.settings:
            object.__setattr__(self, "at", self.at or "start")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A policy and what it changes in the task; or another arm again on other seeds (an A/A comparison)."""

    policy: dict[str, Any] = field(default_factory=dict[str, Any])
    """The policy's name and settings: values, or {low, high, log, step} or {choice} to be searched."""
    task: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the task that this arm changes or searches."""
    budget: Count | None = None
    """The number of candidates of this arm; null takes search.budget."""
    repeat: str | None = None
    """The arm whose finalists this arm runs once more, on seeds of its own."""
    match: Match | None = None
    """The arm that this one follows: in the number of parameters, in settings, or in both."""

    @property
    def written(self) -> dict[str, Any]:
        """Each setting as the file has it, by its name in a candidate, such as `policy.step`."""
        return {
            f"{part}.{key}": value
            for part in ("policy", "task")
            for key, value in getattr(self, part).items()
        }

    @property
    def open_settings(self) -> dict[str, dict[str, Any]]:
        """The searched settings among `written`."""
        return {setting: value for setting, value in self.written.items() if is_searched(setting, value)}

    def on(self, settings: Values) -> Arm:
        """This arm on a task with settings of its own. Where both have a setting, the arm's counts."""
        return replace(self, task={**settings, **self.task})


def is_searched(setting: str, value: object) -> bool:
    """Whether a setting is searched.

    Its value is then a mapping, a range or a choice. The only other mapping is a table of data.
    """
    return isinstance(value, dict) and (setting != "task.data" or "choice" in value)


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search of an arm for its finalists. It reads validation accuracy alone."""

    proposer: Literal["tpe", "random", "grid"] = "tpe"
    """What proposes candidates. tpe learns from earlier scores; random and grid do not."""
    budget: Count = 32
    """The number of candidates of each searched arm."""
    generation: Positive = 4
    """The number of candidates that are proposed at once."""
    lag: Annotated[int, Within(at_least=0), WITHOUT_POINT] = 2
    """The number of generations that may start before the scores of the first one are used."""
    ladder: Annotated[list[Count], Filled(1)] = field(default_factory=lambda: [1, 2, 4, 8])
    """The number of seeds of a candidate at each rung. Half of the candidates go on to the next rung."""
    validation: Fraction = 0.1
    """The share of the training set that is held out for validation, drawn anew for each seed."""
    finalists: Positive = 1
    """The number of candidates of each searched arm that are confirmed."""
    replicates: Count = field(default=1, metadata={"added": True})
    """How often each arm is searched anew, with other seeds. budget and confirm.seeds are for one search."""
    objective: Literal["first", "rank", "each"] = field(default="first", metadata={"added": True})
    """What a candidate is picked by: the first endpoint, or its mean rank over all; each picks for each."""


@dataclass(frozen=True, kw_only=True)
class Confirm:
    """The confirmation: runs on the whole training set with fresh seeds. Gains come from it alone."""

    seeds: Count = 10
    """The number of runs of each finalist of a search."""
    include: list[Seed] = field(default_factory=list[int])
    """Seeds that are chosen by number. They come first; the rest is drawn."""
    stop: Literal["decided"] | None = field(default=None, metadata={"added": True})
    """decided ends the study at the first of analysis.looks at which every tested comparison is decided."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is compared, and how. It is fixed before the first confirmation run."""

    baseline: str
    """The arm over which gains are taken."""
    family: list[str] | None = None
    """The arms whose gains are tested together; null takes all but the baseline and the repeats."""
    against: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """More comparisons of the family: arms, and other arms than the baseline over which they are tested."""
    endpoints: Annotated[list[Share], Filled(1)] = field(default_factory=lambda: [1.0, 0.05])
    """Keep ratios at which the final weights are tested. The first is primary; see search.objective."""
    curve: list[Share] = field(default_factory=list[float])
    """More keep ratios at which the final weights are measured in the confirmation, but not tested."""
    test: Literal["sign-flip", "paired-t", "resampled-t"] = "sign-flip"
    """The test of a gain. resampled-t is for task.resample, and required there."""
    correction: Literal["holm"] = "holm"
    """How p-values are corrected for the number of comparisons in the family."""
    alpha: Fraction = 0.05
    """The accepted chance of any false gain in the whole family."""
    looks: Annotated[list[Count], Filled(1)] | Literal["any"] | None = field(
        default=None, metadata={"added": True}
    )
    """The numbers of pairs (with replicates: of searches) at which gains are tested; or any. null: once."""
    margin: Annotated[list[Annotated[float, Within(above=0)]], Filled(1)] | None = field(
        default=None, metadata={"added": True}
    )
    """The largest difference that does not matter, in points, for each endpoint; null claims no equality."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How runs are carried out. Nothing here changes what is measured."""

    cpus: Positive = 1
    """The number of cores of a run, and of its threads."""
    gpus: Annotated[float, Within(at_least=0)] = 0.0
    """The number of GPUs of a run: 0, a fraction from 0.1, or a whole number. With a fraction, runs share a
    GPU."""
    workers: Positive | None = None
    """The most runs at once; null takes as many as the cluster has room for."""
    attempts: Positive = 3
    """The number of tries at a run before it counts as failed. A try that ended with
    its node does not count."""
    deadline: Annotated[float, Within(above=0)] = 600.0
    """The number of seconds without progress after which an attempt is ended."""
    commit_share: Share = COMMIT_SHARE
    """The share of a run's time that its checkpoints may take. 1 makes one at the end of each epoch."""
    gpu_hours: Annotated[float, Within(above=0)] | None = None
    """The GPU time that the study may take over all sessions: of each run, `gpus` times its hours under way.
    When it is spent, runs keep their last epoch and stop. null sets no limit."""

    @property
    def sharing(self) -> int:
        """How many runs share a GPU; 1 where a run has a GPU to itself, or has none."""
        return math.floor(1 / self.gpus + 1e-9) if LEAST_GPU <= self.gpus < 1 else 1


@dataclass(frozen=True, kw_only=True)
class Published:
    """A paper's figures. The report shows them beside ours, and nothing depends on them."""

    source: str
    """Whose figures they are, and how they were measured: data, epoch, number of runs."""
    accuracy: Annotated[dict[str, Share], Filled(1)]
    """The published test accuracy of each arm, as a share; with several tasks, by ARM@TASK."""
    differs: list[str] = field(default_factory=list[str])
    """What is done differently here."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A study's YAML."""

    description: str = ""
    """The question of the study, in words. It may change at any time."""
    published: Published | None = None
    """What a paper reports, to be shown beside what is found here. It may change at any time."""
    seed: Seed = 1
    """The number from which the seeds of runs and the proposals of candidates are drawn."""
    task: dict[str, Any]
    """What is trained. Every arm starts from it."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Several tasks by name, each with what it changes in `task`. Every arm runs on each of them."""
    arms: Annotated[dict[str, Arm], Filled(2)]
    """The arms that are compared, by name. One of them is the baseline."""
    search: Search = Search()
    """How the finalists of searched arms are found."""
    confirm: Confirm = Confirm()
    """The runs from which the gains are taken."""
    analysis: Analysis
    """What is compared, and how."""
    resources: Resources = Resources()
    """How runs are carried out."""
    notify: list[Literal["done", "failed", "stalled", "spent"]] | None = None
    """The events of which the address in SWEEP_NOTIFY_URL is told; null takes all of them. Without that
    variable nobody is told. It may change at any time."""

    @classmethod
    def read(cls, given: object) -> Contents:
        """A study from plain values, or a SpecError that holds every problem in any part."""
        return read(cls, given, takes="a study")

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together; a repeat only where it is named."""
        if named := self.analysis.family:
            return [arm for arm in self.arms if arm in named]
        return [name for name, arm in self.arms.items() if name != self.analysis.baseline and not arm.repeat]

    @property
    def comparisons(self) -> int:
        """The number of comparisons in the family. All tasks are in one family."""
        over_baseline = sum(self.finalists(arm) for arm in self.family)
        over_others = sum(self.finalists(arm) * len(others) for arm, others in self.analysis.against.items())
        tasks, endpoints = max(1, len(self.tasks)), len(self.analysis.endpoints)
        return endpoints * tasks * (over_baseline + over_others)

    @property
    def blocks(self) -> int:
        """How many parts the pairs of a comparison come in: searches, or seeds where there is one search.

        No comparison has fewer pairs than this.
        """
        return self.search.replicates if self.search.replicates > 1 else self.confirm.seeds

    @property
    def looks(self) -> list[int]:
        """The declared looks, in blocks. A study without any, or with any number of them, ends in one."""
        declared = self.analysis.looks
        return declared if isinstance(declared, list) else [self.blocks]

    @property
    def most_runs(self) -> int:
        """The number of runs, where no two endpoints or arms share any."""
        picks = len(self.analysis.endpoints) if self.search.objective == "each" else 1
        confirmed = self.confirm.seeds * picks
        runs = sum(self._search_runs(arm) + self.finalists(arm) * confirmed for arm in self.arms)
        return max(1, len(self.tasks)) * self.search.replicates * runs

    def _search_runs(self, arm: str) -> int:
        """The number of runs of one search of an arm. A repeat is searched where a pair is a search."""
        if not self.original(arm).open_settings or (self.arms[arm].repeat and self.search.replicates == 1):
            return 0
        generations, rest = divmod(self.budget(arm), self.search.generation)
        return generations * self._climb(self.search.generation) + self._climb(rest)

    def _climb(self, candidates: int) -> int:
        """The number of runs of a generation with so many candidates."""
        runs, seeds = 0, 0
        for rung in self.search.ladder:
            runs += candidates * (rung - seeds)
            candidates, seeds = math.ceil(candidates / 2), rung
        return runs

    def original(self, arm: str) -> Arm:
        """The arm that says what is trained: the repeated one, or the arm itself."""
        return self.arms[self.arms[arm].repeat or arm]

    def budget(self, arm: str) -> int:
        """How many candidates a search of an arm tries."""
        return self.original(arm).budget or self.search.budget

    def finalists(self, arm: str) -> int:
        """How many candidates of an arm are confirmed after a search, for each endpoint it picks for."""
        return min(self.search.finalists, self.budget(arm)) if self.original(arm).open_settings else 1
