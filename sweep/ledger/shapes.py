"""The shape of each sealed file of a study; those of a run are in `trainer.sealed`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from sweep.errors import HalfRemoved
from sweep.study.contents import NAME
from trainer.sealed import Number, Process, Time, Whole, checked
from trainer.settings import Excerpt, Filled, SettingError, Within
from trainer.store import LARGEST_SEALED, Store, unseal

DECLARATION = "study.json"
REMOVED = "removed_since"
"""What the study.json of a study that is being removed says, and nothing else."""


def _wrong_value(value: object) -> str | None:
    """Why a setting of a candidate cannot have a value; None where it can."""
    return (
        None if isinstance(value, bool | int | float | str) else "must be a number, a text, true or false."
    )


def _wrong_doing(value: object) -> str | None:
    """Why a lease cannot say this of what its holder is doing; None where it can."""
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    counts = isinstance(value, int) and 0 <= value < 2**63
    return None if texts or counts else "must be a count, or texts by name."


def _wrong_name(text: str) -> str | None:
    return None if NAME.fullmatch(text) else "must be the name of a study."


@dataclass(frozen=True)
class Extension(Excerpt):
    """A growth of a study."""

    at: Time
    changes: list[str]
    confirmed_before: Whole
    before: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Declared(Excerpt):
    """A study.json. What its identity holds is checked where the study is made from it."""

    identity: dict[str, Any]
    hash: str
    arms: list[str]
    extensions: list[Extension]
    tasks: list[str] = field(default_factory=list[str])
    taken_seeds: list[Whole] = field(default_factory=list[int])
    declared_at: Time | None = None

    def __post_init__(self) -> None:
        for key, names in (("arms", self.arms), ("tasks", self.tasks)):
            if not _are_keys(names, self.identity.get(key, {})):
                raise SettingError(key, f"must be the {key} of the identity.")


def _are_keys(names: Sequence[str], values: object) -> bool:
    return isinstance(values, dict) and sorted(names) == sorted(values)


@dataclass(frozen=True)
class Scored(Excerpt):
    """A candidate with the score that a generation was proposed from."""

    values: dict[str, Annotated[Any, _wrong_value]]
    score: float
    seeds: Number


@dataclass(frozen=True)
class Generation(Excerpt):
    """A file of generations/."""

    study: str
    arm: str
    generation: Whole
    candidates: Annotated[list[dict[str, Annotated[Any, _wrong_value]]], Filled(1)]
    proposed_from: list[Scored]
    proposed_with: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class LeaseRecord(Process):
    """A file of lease/. What its holder is doing is said once there are runs under way."""

    since: Time
    beat: Whole
    state: Literal["held", "released"]
    now: dict[str, Annotated[Any, _wrong_doing]]
    handed_in: bool = False

    def __post_init__(self) -> None:
        if self.now and not all(isinstance(self.now.get(key), int) for key in ("running", "slots")):
            raise SettingError("now", "must say how many runs are under way, and on how many slots.")


@dataclass(frozen=True)
class Index(Excerpt):
    """An index.json. Each run has the stamp of its outcome.json and its result."""

    runs: dict[str, list[Any]]


@dataclass(frozen=True)
class FailureRecord(Excerpt):
    """A file of failures/."""

    reason: str
    node: str
    attempts: Whole
    what: str
    log: list[str]
    at: Time


@dataclass(frozen=True)
class LookRecord:
    """A file of looks/."""

    at: Time
    pairs: Whole
    arms: list[str]
    said: list[str] = field(default_factory=list[str])
    taken_from: str = ""


@dataclass(frozen=True)
class Taken(Excerpt):
    """A file of taken/."""

    study: Annotated[str, _wrong_name]
    run_id: str
    at: Time


@dataclass(frozen=True)
class GpuHoursRecord(Excerpt):
    """A gpu-hours.json."""

    used: Annotated[float, Within(at_least=0)]
    budget: Annotated[float, Within(above=0)] | None


@dataclass(frozen=True)
class Removed:
    """A study.json of a study that is being removed."""

    removed_since: Time


SHAPES: dict[str, type] = {
    "study.json": Declared,
    "generations": Generation,
    "lease": LeaseRecord,
    "index.json": Index,
    "failures": FailureRecord,
    "looks": LookRecord,
    "taken": Taken,
    "gpu-hours.json": GpuHoursRecord,
}
"""The shapes by the first part of a file's name."""


def content(store: Store, name: str) -> dict[str, Any]:
    """The content of a study's sealed file. ValueError: damaged. FileNotFoundError: missing.

    Raises HalfRemoved where it is the study.json of a study that is being removed.
    """
    body = unseal(store.read(name, LARGEST_SEALED))
    if name == DECLARATION and REMOVED in body:
        raise HalfRemoved(store.where(), checked(body, Removed)[REMOVED])
    return checked(body, SHAPES[name.split("/")[0]])
