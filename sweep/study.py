"""A study: a file in, and out come its seeds, candidates and runs, without running anything. Knows the trainer's specs, and no engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweep import document, space
from sweep.contents import DECLARED_ELSEWHERE, NAME, Choice, Contents, Range, Values
from sweep.document import RejectStudy
from sweep.study_check import check
from trainer.policies import POLICIES
from trainer.randomness import derive
from trainer.settings import nearest, settings_of
from trainer.spec import RunSpec, Task

EXACT = 2**53
"""Below it every whole number has a float of its own."""
FOLDER = Path(__file__).parent.parent / "search_spaces"
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
        """Everything that decides what is measured, as JSON values: the same however its numbers are written."""
        whole = self.contents.model_dump(mode="json")
        return {key: _canonical(value) for key, value in whole.items() if key not in OPERATION}

    @property
    def family(self) -> list[str]:
        """The arms whose gains over the baseline are tested together."""
        return self.contents.family

    @property
    def comparisons(self) -> int:
        """How many tests the correction is for."""
        return self.contents.comparisons

    @property
    def data(self) -> list[str]:
        """The data sets that its runs need."""
        own = [arm for arm, it in self.arms.items() if not it.repeat]
        return sorted({self.run(candidate, "confirm", 0).task.data for arm in own for candidate in self.ends(arm)})

    def searched(self, arm: str) -> dict[str, Range | Choice]:
        """The settings that are searched in an arm, in the order they are written."""
        return space.searched(self.arms[arm])

    def finalists(self, arm: str) -> int:
        """How many candidates of an arm are confirmed."""
        return self.contents.finalists(arm)

    def budget(self, arm: str) -> int:
        """Candidates of a searched arm."""
        return self.contents.budget(arm)

    def generations(self, arm: str) -> list[int]:
        """How many candidates each generation of a searched arm has."""
        size, budget = self.search.generation, self.budget(arm)
        return [min(size, budget - start) for start in range(0, budget, size)]

    def whole(self, arm: str, setting: str) -> bool:
        """Whether a searched setting takes whole numbers."""
        return space.is_whole(self.arms[arm], setting)

    def ends(self, arm: str) -> list[Candidate]:
        """Candidates of an arm at the ends of everything searched."""
        return [Candidate(arm, arm, values) for values in space.corners(self.arms[arm], self.searched(arm))]

    def run(self, candidate: Candidate, phase: Literal["search", "confirm"], seed: int) -> RunSpec:
        """The run of a candidate with a seed in a phase."""
        arm = self.arms[self.arms[candidate.arm].repeat or candidate.arm]
        values = space.filled(self.contents.task, arm, candidate.values)
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


def _canonical(value: Any) -> Any:
    """A JSON value with 40.0 written as 40: a study does not change with the way that a number is put down."""
    if isinstance(value, dict):
        return {key: _canonical(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_canonical(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


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
    contents, problems = check(found.values)
    if problems:
        raise found.reject(problems)
    assert contents
    return Study(path.stem, contents)


def from_identity(name: str, identity: Mapping[str, Any]) -> Study:
    """The study that `identity` was taken from."""
    return Study(name, Contents.model_validate(identity))


def from_declared(name: str, declared: Mapping[str, Any]) -> Study:
    """The study that a ledger was begun with."""
    identity = declared["identity"]
    arms = {arm: identity["arms"][arm] for arm in declared["arms"]}
    return from_identity(name, {**identity, "arms": arms, "description": declared.get("description", "")})


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
    task = {key: {} for key in settings_of(Task) if key not in DECLARED_ELSEWHERE}
    for owner in (whole, definitions["Arm"]):
        owner["properties"]["task"] |= {"properties": task, "additionalProperties": False}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}, indent=2) + "\n"
