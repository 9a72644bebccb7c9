"""The table of model families. Names are read without torch; a model's code is imported when it is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from trainer.models import names, own

if TYPE_CHECKING:
    import torch

    from trainer.models.sites import Network

Image = tuple[int, int, int]
"""Channels, height and width."""


class Settings(Protocol):
    """The settings of a task that concern its model."""

    @property
    def model(self) -> str: ...
    @property
    def init(self) -> Literal["fan-out", "fan-in"]: ...
    @property
    def shortcut(self) -> Literal["activated", "raw"]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def init_scale(self) -> float: ...


@dataclass(frozen=True)
class Family:
    """A model family: the form of its names, which of them are legal, its settings and its builder."""

    form: str
    pattern: re.Pattern[str]
    takes: tuple[str, ...]
    """Settings of a task that only this family uses."""
    wrong: Callable[[str], str | None]
    misfit: Callable[[Image], str | None]
    """Returns why the family cannot take samples of this shape, or None."""
    build: Callable[[Settings, Image, int, torch.Generator], Network]


def _wrong_wrn(name: str) -> str | None:
    depth, widen = map(int, name.split("-")[1:])
    if depth < 10 or (depth - 4) % 6:
        legal = "10, 16, 22, 28, ... (six layers a block, and four)"
        return f"has depth {depth}; a wide ResNet's depth is {legal}."
    return None if widen >= 1 else "needs a widen factor of at least 1."


def _no_image(image: Image) -> str | None:
    if image[1] > 1 or image[2] > 1:
        return None
    samples = f"these samples are {image[0]} numbers without an order"
    return f"convolves images, and {samples}. Fully connected networks take them: mlp-100-100."


def _build_wrn(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Network:
    from trainer.models.wide_resnet import WideResNet

    depth, widen = map(int, task.model.split("-")[1:])
    return WideResNet(
        depth, widen, classes, image=image, init=task.init, shortcut=task.shortcut, generator=generator
    )


def _build_mlp(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Network:
    from trainer.models.mlp import Mlp

    found = names.mlp(task.model)
    assert found
    inputs = image[0] * image[1] * image[2]
    scale, share = task.init_scale, task.dropout
    return Mlp(
        found[0],
        classes,
        inputs=inputs,
        srelu=found[1],
        dropout=share,
        init_scale=scale,
        generator=generator,
    )


FAMILIES = {
    "wrn": Family(
        "wrn-DEPTH-WIDEN, as in wrn-28-4",
        re.compile(r"wrn-\d{1,4}-\d{1,3}"),
        ("init", "shortcut"),
        _wrong_wrn,
        _no_image,
        _build_wrn,
    ),
    "mlp": Family(
        "mlp-WIDTH-WIDTH-... (with SReLU: mlp-srelu-...), as in mlp-1000-1000-1000",
        names.MLP,
        ("dropout", "init_scale"),
        lambda _: None,
        lambda _: None,
        _build_mlp,
    ),
    "own": Family(
        "package.module:build, a function of one's own",
        own.NAME,
        (),
        lambda _: None,
        lambda _: None,
        own.build,
    ),
}


def parse(name: str) -> Family:
    """The family of a model's name. ValueError says why the name is wrong."""
    for family in FAMILIES.values():
        if family.pattern.fullmatch(name):
            if why := family.wrong(name):
                raise ValueError(f"{name!r} {why}")
            return family
    hint = f" Did you mean {name.lower()!r}?" if name != name.lower() and not wrong(name.lower()) else ""
    raise ValueError(
        f"no such model: {name!r}.{hint} Models are named {'; '.join(f.form for f in FAMILIES.values())}."
    )


def wrong(name: str) -> str | None:
    """The reason why a name stands for no model, or None."""
    try:
        parse(name)
    except ValueError as error:
        return str(error)
    return None


def useless(name: str) -> dict[str, str]:
    """The settings that this model does not use. Each maps to the form of the names that use it."""
    family = parse(name)
    if family is FAMILIES["own"]:  # only its code knows what it uses
        return {}
    return {
        setting: other.form for other in FAMILIES.values() if other is not family for setting in other.takes
    }


def build(task: Settings, image: Image, classes: int, generator: torch.Generator) -> Network:
    """Build the task's model on the CPU for samples of this shape. `generator` draws its weights."""
    return parse(task.model).build(task, image, classes, generator)
