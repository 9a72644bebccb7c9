"""A study: one YAML file as validated values, and what follows from it without running anything: seeds, candidates and runs.

Every problem is found at once and told with file, line, key and the nearest right word. Knows the trainer's specs, and no engine.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sweep import document
from sweep.document import Document, Place, RejectStudy
from trainer.policies import POLICIES
from trainer.randomness import derive
from trainer.settings import SpecError, nearest, settings_of, whole_number
from trainer.spec import RunSpec, Task

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
FOLDER = Path(__file__).parent.parent / "search_spaces"
SEARCHED = {"low", "high", "log", "step", "choice"}
Values = dict[str, Any]
"""What a candidate fills in: `task.learning_rate` or `policy.step` to its value."""


class Part(BaseModel):
    """A part of a study; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Part):
    """Numbers from low to high. Whether they are whole follows from the setting that is searched."""

    low: float
    high: float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None


class Choice(Part):
    """One of a few values."""

    choice: Annotated[list[bool | int | float | str], Field(min_length=1)]


class Arm(Part):
    """A policy and what it changes in the task; or another arm once more, on seeds of its own (an A/A control)."""

    policy: dict[str, Any] = Field(default={}, description="the policy's name and settings, each a value, {low, high} or {choice}")
    task: dict[str, Any] = Field(default={}, description="settings of the task that this arm changes or searches")
    budget: Annotated[int, Field(ge=1)] | None = Field(default=None, description="candidates, where it is not search.budget")
    repeat: str | None = Field(default=None, description="the arm whose finalists run once more on disjoint seeds")


class Search(Part):
    """How searched arms find their finalists, on validation accuracy alone."""

    proposer: Literal["tpe", "random", "grid"] = "tpe"
    budget: Annotated[int, Field(ge=1)] = Field(default=32, description="candidates per searched arm")
    generation: Annotated[int, Field(ge=1)] = Field(default=16, description="candidates proposed at once")
    lag: Annotated[int, Field(ge=0)] = Field(default=2, description="generations that may run before the first one's scores are used")
    ladder: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        default=[1, 2, 4, 8], description="seeds of a candidate that is still in the race, rung by rung; half go on"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.1, description="share of the training set held out, per seed")
    finalists: Annotated[int, Field(ge=1)] = Field(default=1, description="candidates of each searched arm that are confirmed")


class Confirm(Part):
    """The runs that the comparisons are made of: whole training set, fresh seeds."""

    seeds: Annotated[int, Field(ge=1)] = 10
    include: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default=[], description="seeds asked for by number; they come first")


class Analysis(Part):
    """What is compared, and how; fixed before the first confirmation run."""

    baseline: str
    family: list[str] | None = Field(default=None, description="arms whose gains are tested together; all but the baseline by default")
    endpoints: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = Field(
        default=[1.0, 0.05], description="keep ratios of the final weights that are tested; the first is primary, and what the search scores"
    )
    curve: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[], description="more keep ratios to measure in confirmation, untested")
    test: Literal["sign-flip", "paired-t"] = "sign-flip"
    correction: Literal["holm"] = "holm"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05


class Resources(Part):
    """How it is run; nothing here changes what is measured."""

    cpus: Annotated[int, Field(ge=1)] = Field(default=1, description="cores, and threads, of a run")
    gpus: Annotated[float, Field(ge=0)] = Field(default=0.0, description="GPUs of a run; a fraction shares one")
    workers: Annotated[int, Field(ge=1)] | None = Field(default=None, description="most runs at once; all the cluster has by default")
    attempts: Annotated[int, Field(ge=1)] = Field(default=3, description="tries at a run before it counts as failed")
    deadline: Annotated[float, Field(gt=0)] = Field(default=600.0, description="seconds without progress after which a run is ended")
    commit_seconds: Annotated[float, Field(ge=0)] = Field(default=30.0, description="from one checkpoint to the next")


class Contents(Part):
    """A study's YAML."""

    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=1, description="where the study's own seeds and proposals come from")
    task: dict[str, Any] = Field(description="what is trained; every arm starts from it")
    arms: Annotated[dict[str, Arm], Field(min_length=2)]
    search: Search = Search()
    confirm: Confirm = Confirm()
    analysis: Analysis
    resources: Resources = Resources()


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
        self.search, self.confirm, self.analysis, self.resources = contents.search, contents.confirm, contents.analysis, contents.resources
        self.arms = contents.arms
        self.baseline = contents.analysis.baseline
        self.search_seeds = self._pool("search", max(self.search.ladder))
        self.pools = {arm: self._pool(f"repeat-{arm}" if self.arms[arm].repeat else "confirm", self.confirm.seeds) for arm in self.arms}
        own = {tuple(pool) for pool in (self.search_seeds, *self.pools.values())}
        every = [seed for pool in own for seed in pool]
        assert len(set(every)) == len(every), "two pools share a seed"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what is measured, as JSON values."""
        return {key: value for key, value in self.contents.model_dump(mode="json").items() if key not in OPERATION}

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together."""
        named = self.analysis.family
        return [arm for arm in self.arms if arm in named] if named else [arm for arm in self.arms if arm != self.baseline]

    @property
    def comparisons(self) -> int:
        """How many tests the correction is for."""
        return len(self.analysis.endpoints) * sum(self.finalists(arm) for arm in self.family)

    def searched(self, arm: str) -> dict[str, Range | Choice]:
        """The settings that are searched in an arm, in the order they are written."""
        return _searched(self.arms[arm])

    def finalists(self, arm: str) -> int:
        """How many candidates of an arm are confirmed."""
        arm = self.arms[arm].repeat or arm
        return min(self.search.finalists, self.budget(arm)) if self.searched(arm) else 1

    def budget(self, arm: str) -> int:
        """Candidates of a searched arm."""
        return self.arms[arm].budget or self.search.budget

    def generations(self, arm: str) -> list[int]:
        """How many candidates each generation of a searched arm has."""
        size, budget = self.search.generation, self.budget(arm)
        return [min(size, budget - start) for start in range(0, budget, size)]

    def whole(self, arm: str, setting: str) -> bool:
        """Whether a searched setting takes whole numbers."""
        return _whole(self.arms[arm], setting)

    def ends(self, arm: str) -> list[Candidate]:
        """Candidates of an arm at the ends of everything searched."""
        return [Candidate(arm, arm, values) for values in corners(self.arms[arm], self.searched(arm))]

    def run(self, candidate: Candidate, phase: Literal["search", "confirm"], seed: int) -> RunSpec:
        """The run of a candidate with a seed in a phase."""
        arm = self.arms[self.arms[candidate.arm].repeat or candidate.arm]
        values = _filled(self.contents.task, arm, candidate.values)
        search = phase == "search"
        ratios = self.analysis.endpoints[:1] if search else [*self.analysis.endpoints, *self.analysis.curve]
        values["task"] |= {"validation": self.search.validation if search else 0.0, "endpoints": list(dict.fromkeys(ratios))}
        return RunSpec.read({**values, "seed": seed})

    def _pool(self, name: str, size: int) -> list[int]:
        """Seeds of a pool: the first n are the same however many there are."""
        drawn = (derive(self.contents.seed, f"pool-{name}", i) >> 31 for i in itertools.count())
        others = (seed for seed in drawn if seed not in self.confirm.include)
        included = self.confirm.include if name == "confirm" else []
        return [*included, *itertools.islice(others, max(0, size - len(included)))][:size]


def find(study: str) -> Path:
    """The file of a study, given its path or the name of one in search_spaces/."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if study in known:
        return FOLDER / f"{study}.yaml"
    raise RejectStudy([f"{study}: no such study. Give a YAML file, or one of {', '.join(known)}.{nearest(study, known)}"])


def load(path: Path) -> Study:
    """The study in a file; RejectStudy with everything that is wrong with it."""
    shown = str(path)
    if not NAME.fullmatch(path.stem):
        raise RejectStudy([f"{shown}: a study is named after its file; use small letters, digits, - and _ ({path.stem!r} is not)."])
    found = document.read(path, shown)
    if not isinstance(found.values, dict):
        raise RejectStudy([f"{shown}:1  must be a mapping with the keys {', '.join(Contents.model_fields)}."])
    try:
        contents = Contents.model_validate(found.values)
    except ValidationError as error:
        raise RejectStudy(found.problem(tuple(e["loc"]), _said(cast("dict[str, Any]", e))) for e in error.errors()) from None
    if problems := [found.problem(place, reason) for place, reason in _problems(contents)]:
        raise RejectStudy(problems)
    return Study(path.stem, contents)


def from_identity(name: str, identity: Mapping[str, Any]) -> Study:
    """The study that `identity` was taken from."""
    return Study(name, Contents.model_validate(identity))


def schema() -> str:
    """The JSON schema of a study, for editors."""
    whole = Contents.model_json_schema()
    definitions = whole["$defs"]
    policies = sorted({key for cls in POLICIES.values() for key in settings_of(cls)})
    definitions["Arm"]["properties"]["policy"] = {
        "type": "object",
        "properties": {"name": {"enum": list(POLICIES)}, **{key: {} for key in policies}},
        "additionalProperties": False,
        "required": ["name"],
        "description": "the policy's name and settings, each a value, {low, high, log, step} or {choice}",
    }
    task = {key: {} for key in settings_of(Task) if key not in _DECLARED_ELSEWHERE}
    for owner in (whole, definitions["Arm"]):
        owner["properties"]["task"] |= {"properties": task, "additionalProperties": False}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}, indent=2) + "\n"


_DECLARED_ELSEWHERE = {"validation": "search.validation", "endpoints": "analysis.endpoints"}
_ELSEWHERE: dict[str, Place] = {f"task.{key}": tuple(place.split(".")) for key, place in _DECLARED_ELSEWHERE.items()}


def _said(error: dict[str, Any], takes: list[str] | None = None) -> str:
    """A problem that pydantic found, in this project's words."""
    place, kind, given = tuple(error["loc"]), error["type"], error.get("input")
    if kind == "extra_forbidden":
        legal, word = takes or _part(place[:-1]), str(place[-1])
        return f"no such setting.{nearest(word, legal)}\n    {_owner(place)} takes: {', '.join(legal)}."
    if kind == "missing":
        return "is missing; a study needs it."
    message = error["msg"].removeprefix("Input should be ")
    shown = repr(given) if len(repr(given)) <= 60 else type(given).__name__
    near = nearest(given, re.findall(r"'([^']+)'", message)) if kind == "literal_error" and isinstance(given, str) else ""
    return f"must be {message}; it is {shown}.{near}"


def _owner(place: Place) -> str:
    match place:
        case ("arms", _, _):
            return "an arm"
        case (part, _) if part in Contents.model_fields:
            return str(part)
        case (_,) if place[0] not in SEARCHED | {"max", "min"}:
            return "a study"
        case _:
            return "a searched setting"


def _part(place: Place) -> list[str]:
    """The keys that the part of a study at a place takes."""
    if place[:1] == ("arms",):
        return list(Arm.model_fields)
    part = {"search": Search, "confirm": Confirm, "analysis": Analysis, "resources": Resources}.get(str(place[0]) if place else "", Contents)
    return list(part.model_fields)


def _problems(contents: Contents) -> Iterator[tuple[Place, str]]:
    """What is wrong with a study whose parts are well-formed."""
    for key, value in contents.task.items():
        if _is_searched(value):
            yield ("task", key), "is searched, and every arm starts from it. Search it in the task of an arm."
        elif key in _DECLARED_ELSEWHERE:
            yield ("task", key), f"is declared in {_DECLARED_ELSEWHERE[key]}."
    for name, arm in contents.arms.items():
        yield from ((("arms", name, *place), reason) for place, reason in _arm_problems(contents, name, arm))
        if "name" in arm.policy and not _is_searched(arm.policy["name"]):
            yield from _spec_problems(contents, name, arm)
    yield from _analysis_problems(contents)
    ladder = contents.search.ladder
    if any(after <= before for before, after in itertools.pairwise(ladder)):
        yield ("search", "ladder"), f"must rise from rung to rung; it is {ladder}."
    if len(set(contents.confirm.include)) < len(contents.confirm.include):
        yield ("confirm", "include"), "names a seed twice."
    if len(contents.confirm.include) > contents.confirm.seeds:
        yield ("confirm", "include"), f"names {len(contents.confirm.include)} seeds; confirm.seeds is {contents.confirm.seeds}."
    gpus = contents.resources.gpus
    if gpus > 1 and gpus != int(gpus):
        yield ("resources", "gpus"), f"above 1 it must be whole; it is {gpus:g}."


def _analysis_problems(contents: Contents) -> Iterator[tuple[Place, str]]:
    arms, analysis = list(contents.arms), contents.analysis
    if analysis.baseline not in arms:
        yield ("analysis", "baseline"), f"must be one of the arms {', '.join(arms)}; it is {analysis.baseline!r}.{nearest(analysis.baseline, arms)}"
    elif contents.arms[analysis.baseline].repeat:
        yield ("analysis", "baseline"), "must be an arm of its own, and not another one's repeat."
    for i, arm in enumerate(analysis.family or []):
        if arm == analysis.baseline:
            yield ("analysis", "family", i), f"{arm!r} is the baseline; it is what the others are compared with."
        elif arm not in arms:
            yield ("analysis", "family", i), f"must be one of the arms {', '.join(arms)}; it is {arm!r}.{nearest(arm, arms)}"
    if analysis.family == []:
        yield ("analysis", "family"), "is empty: nothing would be tested. Leave it out to test every arm."
    for key, ratios in (("family", analysis.family or []), ("endpoints", analysis.endpoints), ("curve", analysis.curve)):
        if len(set(ratios)) < len(ratios):
            yield ("analysis", key), "names the same one twice."


def _arm_problems(contents: Contents, name: str, arm: Arm) -> Iterator[tuple[Place, str]]:
    if not NAME.fullmatch(name):
        yield (), f"an arm's name has small letters, digits, - and _; it is {name!r}."
        return
    if arm.repeat is not None:
        others = [other for other, it in contents.arms.items() if not it.repeat]
        if arm.repeat not in others:
            yield ("repeat",), f"must be one of the arms {', '.join(others)}; it is {arm.repeat!r}.{nearest(arm.repeat, others)}"
        for key in sorted(arm.model_fields_set - {"repeat"}):
            yield (key,), f"has no use beside repeat: the arm takes everything from {arm.repeat!r}."
        return
    if not arm.policy:
        yield (), f"needs a policy: {', '.join(POLICIES)}."
        return
    for key in _DECLARED_ELSEWHERE:
        if key in arm.task:
            yield ("task", key), f"is declared in {_DECLARED_ELSEWHERE[key]}."
    if _is_searched(arm.policy.get("name")):
        yield ("policy", "name"), "cannot be searched; write an arm for each policy."
        return
    searched = {setting: written for setting, written in _written(arm).items() if _is_searched(written)}
    if arm.budget and not searched:
        yield ("budget",), "has no use: nothing is searched in this arm."
    understood: dict[str, Range | Choice] = {}
    for setting, written in searched.items():
        place = tuple(setting.split(".", 1))
        try:
            understood[setting] = _distribution(written)
        except ValidationError as error:
            takes = Choice if "choice" in written else Range
            yield from (((*place, *e["loc"]), _said(cast("dict[str, Any]", e), list(takes.model_fields))) for e in error.errors())
        else:
            yield from ((place, reason) for reason in _range_problems(contents, arm, setting, understood[setting]))
    if contents.search.proposer == "grid" and searched and len(understood) == len(searched):
        points = [len(grid(it, _whole(arm, setting))) for setting, it in understood.items()]
        budget = arm.budget or contents.search.budget
        if all(points) and math.prod(points) != budget:
            yield ("budget",), f"must be {math.prod(points)}, the points of this arm's grid; it is {budget}."


def _range_problems(contents: Contents, arm: Arm, setting: str, searched: Range | Choice) -> Iterator[str]:
    if isinstance(searched, Choice):
        if len({json.dumps(value) for value in searched.choice}) < len(searched.choice):
            yield "names the same choice twice."
        return
    if not searched.low < searched.high:
        yield f"low must be below high; they are {searched.low:g} and {searched.high:g}."
    if searched.log and searched.low <= 0:
        yield f"with log, low must be above 0; it is {searched.low:g}."
    if searched.log and searched.step:
        yield "takes log or step, not both."
    ends = [searched.low, searched.high, searched.step or 1.0]
    if _whole(arm, setting) and any(end != int(end) for end in ends):
        yield "takes whole numbers; low, high and step must be whole."
    if contents.search.proposer == "grid" and not grid(searched, _whole(arm, setting)):
        yield "needs a step, or a choice, for the proposer 'grid'."


def _spec_problems(contents: Contents, name: str, arm: Arm) -> Iterator[tuple[Place, str]]:
    """What the trainer says of the arm at the ends of everything searched; told where the setting is written."""
    task = {key: value for key, value in contents.task.items() if not _is_searched(value) and key not in _DECLARED_ELSEWHERE}
    searched, unclear = {}, set[str]()
    for setting, written in _written(arm).items():
        if _is_searched(written):
            try:
                searched[setting] = _distribution(written)
            except ValidationError:
                unclear.add(setting)  # told already
    endpoints = list(dict.fromkeys([*contents.analysis.endpoints, *contents.analysis.curve]))
    for values in corners(arm, searched):
        filled = _filled(task, arm, values)
        for setting in unclear:
            part, key = setting.split(".", 1)
            del filled[part][key]
        filled["task"] |= {"validation": contents.search.validation if searched else 0.0, "endpoints": endpoints}
        try:
            RunSpec.read({**filled, "seed": 0})
        except SpecError as error:
            for problem in error.problems:
                part, _, key = problem.path.partition(".")
                if problem.path in unclear:
                    continue
                if problem.path in _ELSEWHERE:
                    yield _ELSEWHERE[problem.path], problem.reason
                elif part == "task" and key not in arm.task:
                    yield ("task", key) if key else ("task",), problem.reason
                else:
                    yield ("arms", name, part, *([key] if key else [])), problem.reason


def corners(arm: Arm, searched: dict[str, Range | Choice]) -> list[Values]:
    """Candidates at the ends of every searched setting, one setting moved at a time."""
    ends = {key: it.choice if isinstance(it, Choice) else [_typed(arm, key, v) for v in (it.low, it.high)] for key, it in searched.items()}
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]


def grid(searched: Range | Choice, whole: bool) -> list[Any]:
    """Every value of a searched setting; none where there is no end to them."""
    if isinstance(searched, Choice):
        return searched.choice
    step = searched.step or (1.0 if whole and not searched.log else None)
    if step is None:
        return []
    count = math.floor((searched.high - searched.low) / step + 1e-9) + 1
    values = [round(searched.low + i * step, 12) for i in range(count)]
    return [int(value) for value in values] if whole else values


def _filled(task: Mapping[str, Any], arm: Arm, values: Values) -> dict[str, dict[str, Any]]:
    filled = {"task": {**task, **arm.task}, "policy": {**arm.policy}}
    for setting, value in values.items():
        part, key = setting.split(".", 1)
        filled[part][key] = value
    return filled


def _written(arm: Arm) -> dict[str, Any]:
    return {f"{part}.{key}": value for part in ("policy", "task") for key, value in getattr(arm, part).items()}


def _searched(arm: Arm) -> dict[str, Range | Choice]:
    return {setting: _distribution(written) for setting, written in _written(arm).items() if _is_searched(written)}


def _is_searched(value: object) -> bool:
    return isinstance(value, dict)


def _distribution(written: dict[str, Any]) -> Range | Choice:
    return Choice.model_validate(written) if "choice" in written else Range.model_validate(written)


def _whole(arm: Arm, setting: str) -> bool:
    part, key = setting.split(".", 1)
    return whole_number(POLICIES.get(arm.policy.get("name", ""), Task) if part == "policy" else Task, key)


def _typed(arm: Arm, setting: str, value: float) -> float | int:
    return int(value) if _whole(arm, setting) and value == int(value) else value
