"""A study: one YAML file as validated values, and what follows from it without running anything: seeds, candidates and runs.

Every problem is found at once and told with file, line, key and the nearest right word. Knows the trainer's specs, and no engine.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sweep import document
from sweep.document import Place, Problem, RejectStudy
from trainer.policies import POLICIES
from trainer.randomness import derive
from trainer.settings import Problem as SpecProblem
from trainer.settings import SpecError, nearest, settings_of, whole_number
from trainer.spec import RunSpec, Task

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
FOLDER = Path(__file__).parent.parent / "search_spaces"
MOST_VALUES = 10_000
"""Of a searched setting with a step."""
MOST_EPOCHS = 1_000_000
MOST_CORNERS = 1_000
"""Of an arm, tried on the trainer's own rules before anything runs."""
T = TypeVar("T")
Values = dict[str, Any]
"""What a candidate fills in: `task.learning_rate` or `policy.step` to its value."""
Count = Annotated[int, Field(ge=1, le=10_000)]
"""Of things that a study lists one by one. The limit stops a slip of the hand before it fills the memory."""


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
    budget: Count | None = Field(default=None, description="candidates, where it is not search.budget")
    repeat: str | None = Field(default=None, description="the arm whose finalists run once more on disjoint seeds")


class Search(Part):
    """How searched arms find their finalists, on validation accuracy alone."""

    proposer: Literal["tpe", "random", "grid"] = "tpe"
    budget: Count = Field(default=32, description="candidates per searched arm")
    generation: Annotated[int, Field(ge=1)] = Field(default=4, description="candidates proposed at once")
    lag: Annotated[int, Field(ge=0)] = Field(default=2, description="generations that may run before the first one's scores are used")
    ladder: Annotated[list[Count], Field(min_length=1)] = Field(
        default=[1, 2, 4, 8], description="seeds of a candidate that is still in the race, rung by rung; half go on"
    )
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.1, description="share of the training set held out, per seed")
    finalists: Annotated[int, Field(ge=1)] = Field(default=1, description="candidates of each searched arm that are confirmed")


class Confirm(Part):
    """The runs that the comparisons are made of: whole training set, fresh seeds."""

    seeds: Count = 10
    include: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(default=[], description="seeds asked for by number; they come first")


class Analysis(Part):
    """What is compared, and how; fixed before the first confirmation run."""

    baseline: str
    family: list[str] | None = Field(default=None, description="arms whose gains are tested together; all but the baseline by default")
    endpoints: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = Field(
        default=[1.0, 0.05],
        description="keep ratios of the final weights that are tested; the first is primary, and what the search scores",
    )
    curve: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[], description="more keep ratios to measure in confirmation, untested"
    )
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
        if sum(map(len, own)) > len(set[int]().union(*own)):  # one in a million studies: drawn seeds have 32 bits
            raise RejectStudy([f"{name}: seed: draws the same number for the search and the confirmation. Write another seed."])

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


def find(study: str) -> Path:
    """The file of a study, given its path or the name of one in search_spaces/."""
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    known = sorted(p.stem for p in FOLDER.glob("*.yaml"))
    if study in known:
        return FOLDER / f"{study}.yaml"
    if path.is_dir():
        raise RejectStudy([f"{study}: is a folder; a study is a YAML file."])
    raise RejectStudy([f"{study}: no such study. Give a YAML file, or one of {', '.join(known)}.{nearest(study, known)}"])


def load(path: Path) -> Study:
    """The study in a file; RejectStudy with everything that is wrong with it."""
    shown = str(path)
    if not NAME.fullmatch(path.stem):
        raise RejectStudy([f"{shown}: a study is named after its file; use small letters, digits, - and _ ({path.stem!r} is not)."])
    found = document.read(path, shown)
    if not isinstance(found.values, dict):
        raise RejectStudy([f"{shown}:1  must be a mapping with the keys {', '.join(Contents.model_fields)}."])
    contents, problems = _contents(found.values)
    if problems := _once(problems):
        raise found.reject(problems)
    assert contents
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


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length}; it has {actual_length}.",
}
"""pydantic's kinds of error in this project's words."""
_KINDS = {dict: "mapping", list: "list", str: "text"}


def _contents(values: dict[str, Any]) -> tuple[Contents | None, list[Problem]]:
    """A study's contents, and what is wrong with them: all of it, though one part may not even have the right shape."""
    try:
        contents = Contents.model_validate(values)
        return contents, list(_problems(contents))
    except ValidationError as error:
        misshapen = list(_shape_problems(error))
    broken = {_part(place) for place, _ in misshapen}
    arms = values.get("arms")
    if not isinstance(arms, dict) or broken & {("arms",), ("task",)}:
        return None, misshapen
    sound = {key: value for key, value in values.items() if key in Contents.model_fields and (key,) not in broken}
    sound["arms"] = {name: {"policy": {"name": "dense"}} if ("arms", name) in broken else arm for name, arm in arms.items()}
    try:
        contents = Contents.model_validate({"analysis": {"baseline": ""}, **sound})
    except ValidationError as error:  # pydantic counts the arms only once each of them is well-formed
        return None, [*misshapen, *_shape_problems(error)]
    if ("search",) in broken:  # then nothing is known of what it holds out
        contents = contents.model_copy(update={"search": contents.search.model_copy(update={"validation": 0.0})})
    return None, [*misshapen, *((place, reason) for place, reason in _problems(contents) if _part(place) not in broken)]


def _part(place: Place) -> Place:
    """What can be looked at by itself: an arm, or a key of the whole study."""
    return place[: 2 if place[:1] == ("arms",) else 1]


def _once(problems: list[Problem]) -> list[Problem]:
    """Without what follows from another one: a key that is missing because it is misspelt."""
    meant = {(*place[:-1], word) for place, reason in problems for word in re.findall(r"^no such setting\. Did you mean '(.+)'\?", reason)}
    return [(place, reason) for place, reason in problems if not (place in meant and reason.startswith("is missing"))]


def _shape_problems(error: ValidationError, within: Place = (), takes: type[Part] | None = None) -> Iterator[Problem]:
    """What pydantic found, in this project's words."""
    for found in error.errors():
        place, kind, given = (*within, *found["loc"]), found["type"], found["input"]
        owner, model = ("a searched setting", takes) if takes else _taker(place)
        shown = repr(given) if len(repr(given)) <= 60 else f"a long {_KINDS[type(given)]}"
        if kind == "extra_forbidden":
            legal = list(model.model_fields)
            yield place, f"no such setting.{nearest(str(place[-1]), legal)}\n    {owner} takes: {', '.join(legal)}."
        elif kind == "missing":
            yield place, f"is missing; {owner} needs it."
        elif "choice" in place[len(within) : -2]:  # one error for each type that a choice may have
            yield place[:-1], f"must be a finite number, a text, true or false; it is {shown}."
        else:
            words = _WORDS[kind].format_map(found.get("ctx", {}))
            yield place, words if kind == "too_short" else f"{words}; it is {shown}.{_hint(kind, given, words)}"


def _hint(kind: str, given: object, words: str) -> str:
    if isinstance(given, str) and kind == "literal_error":
        return nearest(given, re.findall(r"'([^']+)'", words))
    if isinstance(given, str) and kind in ("int_type", "float_type") and re.fullmatch(r"[-+.0-9eE]*[0-9]", given):
        return " Write it without quotes."
    return f" Write it as {given:.0f}." if isinstance(given, float) and kind == "int_type" and given.is_integer() else ""


def _taker(place: Place) -> tuple[str, type[Part]]:
    """Who takes the key at a place, and what it is."""
    parts: dict[str, type[Part]] = {"search": Search, "confirm": Confirm, "analysis": Analysis, "resources": Resources}
    match place:
        case ("arms", _, _):
            return "an arm", Arm
        case (str(part), _) if part in parts:
            return part, parts[part]
        case _:
            return "a study", Contents


def _problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with a study whose parts are well-formed."""
    for key, value in contents.task.items():
        if _is_searched(value):
            yield ("task", key), "is searched, and every arm starts from it. Search it in the task of an arm."
        elif key in _DECLARED_ELSEWHERE:
            yield ("task", key), f"is declared in {_DECLARED_ELSEWHERE[key]}."
    for name, arm in contents.arms.items():
        told = [(("arms", name, *place), reason) for place, reason in _arm_problems(contents, name, arm)]
        yield from told
        if "name" in arm.policy and not _is_searched(arm.policy["name"]):
            wrong = {place for place, _ in told if len(place) > 2}
            more = _spec_problems(contents, name, arm)
            yield from ((place, reason) for place, reason in more if not any(place[:n] in wrong for n in range(3, 6)))
    yield from _analysis_problems(contents)
    ladder = contents.search.ladder
    if any(after <= before for before, after in itertools.pairwise(ladder)):
        yield ("search", "ladder"), f"must rise from rung to rung; it is {ladder}."
    if twice := _twice(contents.confirm.include):
        yield ("confirm", "include"), f"names {twice[0]} twice."
    if len(contents.confirm.include) > contents.confirm.seeds:
        yield ("confirm", "include"), f"names {len(contents.confirm.include)} seeds; confirm.seeds is {contents.confirm.seeds}."
    gpus = contents.resources.gpus
    if gpus > 1 and gpus != int(gpus):
        yield ("resources", "gpus"), f"above 1 it must be whole; it is {gpus:g}."


def _analysis_problems(contents: Contents) -> Iterator[Problem]:
    arms, analysis = list(contents.arms), contents.analysis
    if analysis.baseline not in arms:
        yield (
            ("analysis", "baseline"),
            f"must be one of the arms {', '.join(arms)}; it is {analysis.baseline!r}.{nearest(analysis.baseline, arms)}",
        )
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
        if twice := _twice(ratios):
            yield ("analysis", key), f"names {twice[0]} twice."


def _arm_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
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
    if "name" not in arm.policy:
        yield ("policy",) if arm.policy else (), f"needs a {'name' if arm.policy else 'policy'}: {', '.join(POLICIES)}."
        return
    for key in _DECLARED_ELSEWHERE:
        if key in arm.task:
            yield ("task", key), f"is declared in {_DECLARED_ELSEWHERE[key]}."
    if _is_searched(arm.policy["name"]):
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
            yield from _shape_problems(error, place, Choice if "choice" in written else Range)
        else:
            yield from ((place, reason) for reason in _range_problems(contents, arm, setting, understood[setting]))
    if contents.search.proposer == "grid" and searched and len(understood) == len(searched):
        points = [_points(it, _whole(arm, setting)) for setting, it in understood.items()]
        budget = arm.budget or contents.search.budget
        if all(0 < count <= MOST_VALUES for count in points) and math.prod(points) != budget:
            yield ("budget",), f"must be {math.prod(points)}, the points of this arm's grid; it is {budget}."


def _range_problems(contents: Contents, arm: Arm, setting: str, searched: Range | Choice) -> Iterator[str]:
    if isinstance(searched, Choice):
        if twice := _twice([(isinstance(value, bool), value) for value in searched.choice]):
            yield f"names {twice[0][1]!r} twice."
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
    points = _points(searched, _whole(arm, setting))
    if contents.search.proposer == "grid" and not points and searched.low < searched.high:
        yield "needs a step, or a choice, for the proposer 'grid'."
    if points > MOST_VALUES and (searched.step or contents.search.proposer == "grid"):
        yield f"has more than {MOST_VALUES:,} values; take a larger step."


def _spec_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """What the trainer says of the arm at the ends of everything searched; told where the setting is written."""
    misplaced = {f"task.{key}" for key, value in contents.task.items() if _is_searched(value) or key in _DECLARED_ELSEWHERE}  # told already
    task = {key: value for key, value in contents.task.items() if f"task.{key}" not in misplaced}
    searched: dict[str, Range | Choice] = {}
    unclear = misplaced - set(_ELSEWHERE)
    for setting, written in _written(arm).items():
        if _is_searched(written):
            try:
                searched[setting] = _distribution(written)
            except ValidationError:
                unclear.add(setting)  # told already
    endpoints = list(dict.fromkeys([*contents.analysis.endpoints, *contents.analysis.curve]))
    found: dict[Place, str] = {}
    for values in _extremes(arm, searched):
        filled = _filled(task, arm, values)
        for setting in unclear:
            part, key = setting.split(".", 1)
            filled[part].pop(key, None)
        filled["task"] |= {"validation": contents.search.validation if searched else 0.0, "endpoints": endpoints}
        for problem in _refused({**filled, "seed": 0}):
            if problem.path not in unclear:
                found.setdefault(_where(name, arm, problem, searched, values), problem.reason)
    yield from found.items()


def _refused(run: dict[str, Any]) -> Iterable[SpecProblem]:
    try:
        epochs = RunSpec.read(run).task.epochs
    except SpecError as error:
        return error.problems
    return [SpecProblem("task.epochs", f"must be at most {MOST_EPOCHS:,}; it is {epochs:,}.")] if epochs > MOST_EPOCHS else []


def _where(name: str, arm: Arm, problem: SpecProblem, searched: dict[str, Range | Choice], values: Values) -> Place:
    """Where a setting that the trainer refused is written."""
    part, _, key = problem.path.partition(".")
    if problem.path in _ELSEWHERE:
        return _ELSEWHERE[problem.path]
    if part == "task" and key not in arm.task:
        return ("task", key) if key else ("task",)
    place = ("arms", name, part, *([key] if key else []))
    if problem.path not in searched or problem.reason.startswith("no such setting"):
        return place
    it, value = searched[problem.path], values[problem.path]
    if isinstance(it, Choice):
        return (*place, "choice", it.choice.index(value))
    return (*place, "low" if value == it.low else "high")


def _extremes(arm: Arm, searched: dict[str, Range | Choice]) -> list[Values]:
    """Every combination of the ends of everything searched; where those are too many, one moved at a time."""
    ends = _ends(arm, searched)
    if math.prod(map(len, ends.values())) > MOST_CORNERS:
        return corners(arm, searched)
    return [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]


def corners(arm: Arm, searched: dict[str, Range | Choice]) -> list[Values]:
    """Candidates at the ends of every searched setting, one setting moved at a time."""
    ends = _ends(arm, searched)
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]


def _ends(arm: Arm, searched: dict[str, Range | Choice]) -> dict[str, list[Any]]:
    return {key: it.choice if isinstance(it, Choice) else [_typed(arm, key, v) for v in (it.low, it.high)] for key, it in searched.items()}


def grid(searched: Range | Choice, whole: bool) -> list[Any]:
    """Every value of a searched setting; none where there is no end to them."""
    if isinstance(searched, Choice):
        return searched.choice
    values = [round(searched.low + i * (searched.step or 1.0), 12) for i in range(int(_points(searched, whole)))]
    return [int(value) for value in values] if whole else values


def _points(searched: Range | Choice, whole: bool) -> float:
    """How many values a searched setting has; 0 where there is no end to them. Infinite where a float holds no more."""
    if isinstance(searched, Choice):
        return len(searched.choice)
    step = searched.step or (1.0 if whole and not searched.log else None)
    if step is None or searched.low > searched.high:
        return 0
    steps = (searched.high - searched.low) / step + 1e-9
    return math.floor(steps) + 1 if math.isfinite(steps) else math.inf


def _twice(values: Iterable[T]) -> list[T]:
    """What stands in a list more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


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
    return whole_number(POLICIES.get(str(arm.policy.get("name")), Task) if part == "policy" else Task, key)


def _typed(arm: Arm, setting: str, value: float) -> float | int:
    return int(value) if _whole(arm, setting) and value == int(value) else value
