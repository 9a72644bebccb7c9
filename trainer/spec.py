"""The spec of a run: a validated task, policy and seed. A hash of its canonical JSON is the run's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, cast

from trainer import data, models
from trainer.data import facts, held_out_of, sizes
from trainer.images import Images
from trainer.policies import POLICIES
from trainer.policies.base import BasePolicy
from trainer.settings import (
    Place,
    Problem,
    SettingError,
    Share,
    SpecError,
    Within,
    nearest,
    one_of,
    read,
    settings_of,
    written,
)
from trainer.tables import Table

RECIPE = 1
"""Number that grows whenever the same spec would give other results, so that old and new ones never mix."""

T = TypeVar("T")
Count = Annotated[int, Within(at_least=1)]
DataName = Annotated[str, data.wrong]
ModelName = Annotated[str, models.wrong]
Recipe = Annotated[int, lambda given: _wrong_recipe(given)]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained and how.

    Defaults are the paper's. Where the paper leaves a choice open, the default is our reading.
    """

    data: DataName | Table | Images
    """Name of a data set, or the object that declares a table or images of one's own."""
    model: ModelName
    """The network, by its name, or a function of one's own that builds it."""
    epochs: Count
    """Passes over the training images."""
    batch_size: Count = 128
    """Images in a step."""
    learning_rate: Annotated[float, Within(above=0)] = 0.1
    """Learning rate at the start."""
    schedule: Literal["cosine", "constant"] = field(default="cosine", metadata={"added": True})
    """How the learning rate changes. `cosine` takes it to 0 over all epochs, one step an epoch; `constant`
    keeps it. A rate near 0 hardly trains connections that are added late."""
    momentum: Annotated[float, Within(at_least=0, below=1)] = 0.9
    """Nesterov momentum."""
    weight_decay: Annotated[float, Within(at_least=0)] = 0.0
    """The share of each weight that is added to its own gradient."""
    validation: Annotated[float, Within(at_least=0, below=1)] = 0.0
    """Share of the training set held out for validation, drawn per seed."""
    train_size: Count | None = None
    """Number of images to train on, drawn per seed; null trains on all that are not held out."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """The number format of convolutions and matrix products."""
    drop_last: bool = False
    """Whether an epoch leaves out its last batch if that is smaller than the others."""
    init: Literal["fan-out", "fan-in"] = "fan-out"
    """Mode of the Kaiming initialisation of convolutions."""
    shortcut: Literal["activated", "raw"] = "activated"
    """Input of a block's 1x1 convolution, in blocks that change shape: the activated or the raw input."""
    dropout: Annotated[float, Within(at_least=0, below=1)] = field(default=0.0, metadata={"added": True})
    """Share of the surviving activations of a fully connected network dropped at random in training."""
    init_scale: Annotated[float, Within(above=0)] = field(default=0.1, metadata={"added": True})
    """Standard deviation of a fully connected network's initial weights, sparse or dense."""
    evaluate_every: Count = 1
    """Number of epochs from one evaluation to the next; the last epoch is always evaluated."""
    endpoints: tuple[Share, ...] = (1.0,)
    """Keep ratios at which the final weights are evaluated, image by image."""
    resample: Annotated[float, Within(above=0, below=1)] | None = field(
        default=None, metadata={"added": True}
    )
    """Share of all images (training and test) that each seed draws as its own test set; null takes the
    data's fixed test set."""

    def __post_init__(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        for setting, form in models.useless(self.model).items():
            if getattr(self, setting) != defaults[setting]:
                raise SettingError(
                    setting, f"has no use in {self.model}; networks that take it are named {form}."
                )
        if why := models.parse(self.model).misfit(facts(self.data).image):
            raise SettingError("model", f"{self.model} {why}")
        if not self.endpoints or len(set(self.endpoints)) < len(self.endpoints):
            raise SettingError(
                "endpoints", f"must be different keep ratios, at least one; they are {list(self.endpoints)}."
            )
        object.__setattr__(self, "endpoints", tuple(sorted(self.endpoints, reverse=True)))
        (total, tested), held_out = sizes(self), held_out_of(self)
        if not total or not tested:
            left = "test" if total else "train"
            raise SettingError(
                "resample",
                f"leaves no image to {left}: it takes {tested:,} of the {total + tested:,} as test images.",
            )
        size = total - held_out if self.train_size is None else self.train_size
        if self.validation and not held_out:
            raise SettingError(
                "validation",
                f"holds out no image of the {total:,}; the smallest share that does is {1 / total:.2g}.",
            )
        if size + held_out > total or size < 1:
            raise SettingError(
                "train_size",
                f"asks for {size:,} images beside the {held_out:,} held out; there are {total:,} in all.",
            )
        if self.drop_last and self.batch_size > size:
            raise SettingError(
                "drop_last",
                f"leaves nothing: a batch of {self.batch_size:,} is more than the {size:,} images.",
            )


@dataclass(frozen=True)
class Policy:
    """Name and settings of a policy, with defaults filled in."""

    name: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, given: object, place: Place = ("policy",)) -> Policy:
        """Read a policy from `{"name": ..., setting: value, ...}`."""
        if not isinstance(given, Mapping) or "name" not in given:
            raise SpecError([Problem(place, f"must be an object with a name: {', '.join(POLICIES)}.")])
        settings = dict(cast("Mapping[str, object]", given))
        name = settings.pop("name")
        if why := one_of(name, POLICIES):
            raise SpecError([Problem((*place, "name"), why)])
        machine = read(POLICIES[str(name)], settings, place, takes=str(name))
        return cls(str(name), MappingProxyType(written(machine)))

    def build(self, seed: int) -> BasePolicy:
        """The policy before its first epoch."""
        return POLICIES[self.name](**self.settings, seed=seed)


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides the numbers of a run."""

    task: Task
    policy: Policy
    seed: int
    recipe: int = RECIPE

    @classmethod
    def read(cls, given: object) -> RunSpec:
        """Read a run from plain values. SpecError holds every problem found in any part."""
        if not isinstance(given, Mapping):
            raise SpecError([Problem((), "must be an object with the keys task, policy and seed.")])
        values = dict(cast("Mapping[str, object]", given))
        parts = ("task", "policy", *settings_of(_Numbers))
        problems = [
            Problem((key,), _no_such_part(key, parts)) for key in map(str, values) if key not in parts
        ]
        problems += [
            Problem((key,), "is missing; a run needs it.") for key in ("task", "policy") if key not in values
        ]

        def part(reader: Callable[[object], T], value: object) -> T | None:
            try:
                return reader(value)
            except SpecError as error:
                problems.extend(error.problems)

        task = part(lambda value: read(Task, value, ("task",)), values["task"]) if "task" in values else None
        policy = part(Policy.read, values["policy"]) if "policy" in values else None
        number = part(
            lambda value: read(_Numbers, value, takes="a run"),
            {key: values[key] for key in parts[2:] if key in values},
        )
        if problems or not task or not policy or not number:
            raise SpecError(problems)
        return cls(task, policy, number.seed, number.recipe)

    @classmethod
    def from_json(cls, text: str) -> RunSpec:
        """Read a run from JSON text. Anything but one valid run is a SpecError."""
        return cls.read(parsed(text))

    def to_json(self) -> str:
        """The canonical JSON: sorted, without spaces, numbers in their declared types (1 becomes 1.0)."""
        values = {
            "task": written(self.task),
            "policy": {"name": self.policy.name, **self.policy.settings},
            "seed": self.seed,
            "recipe": self.recipe,
        }
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def run_id(self) -> str:
        """The run's id. It is the same for the same spec, on every machine and in every release."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def parsed(text: str) -> object:
    """The value of strict JSON text. SpecError says what is wrong with it."""
    try:
        return json.loads(text, object_pairs_hook=_no_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError([Problem((), f"is not JSON: {error}.")]) from None


@dataclass(frozen=True)
class _Numbers:
    seed: Annotated[int, Within(at_least=0, below=2**63)]
    recipe: Recipe = RECIPE


def _wrong_recipe(given: int) -> str | None:
    if given == RECIPE:
        return None
    return f"must be {RECIPE}, this trainer's; it is {given}. Another recipe's numbers need its own release."


def _no_such_part(key: str, parts: tuple[str, ...]) -> str:
    if key in settings_of(Task):
        return "stands at the top; it belongs inside task."
    return f"no such part of a run.{nearest(key, parts)}\n    a run takes: {', '.join(parts)}."


def _no_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    twice = [key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])]
    if twice:
        raise SpecError([Problem((twice[0],), "stands twice in one object.")])
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
