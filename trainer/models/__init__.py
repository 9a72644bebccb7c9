"""Every model family by its name. Names are read here without torch; the model itself is imported when one is built."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from trainer.models.wide_resnet import WideResNet
    from trainer.spec import Task


@dataclass(frozen=True)
class Family:
    """How a family's names look, which sizes are legal, and how to build one."""

    form: str
    pattern: str
    wrong: Callable[[tuple[int, ...]], str | None]
    build: Callable[[tuple[int, ...], Task, tuple[int, int, int], int, torch.Generator], WideResNet]


def _wrong_wrn(sizes: tuple[int, ...]) -> str | None:
    depth, widen = sizes
    if depth < 10 or (depth - 4) % 6:
        return f"has depth {depth}; a wide ResNet's depth is 10, 16, 22, 28, ... (six layers a block, and four)."
    return None if widen >= 1 else "needs a widen factor of at least 1."


def _build_wrn(sizes: tuple[int, ...], task: Task, image: tuple[int, int, int], classes: int, generator: torch.Generator) -> WideResNet:
    from trainer.models.wide_resnet import WideResNet

    depth, widen = sizes
    return WideResNet(depth, widen, classes, image=image, init=task.init, shortcut=task.shortcut, generator=generator)


FAMILIES = {"wrn": Family("wrn-DEPTH-WIDEN, as in wrn-28-4", r"wrn-(\d{1,4})-(\d{1,3})", _wrong_wrn, _build_wrn)}


def parse(name: str) -> tuple[Family, tuple[int, ...]]:
    """The family and the sizes a name stands for; ValueError says why there is none."""
    for family in FAMILIES.values():
        if match := re.fullmatch(family.pattern, name):
            sizes = tuple(map(int, match.groups()))
            if why := family.wrong(sizes):
                raise ValueError(f"{name!r} {why}")
            return family, sizes
    hint = f" Did you mean {name.lower()!r}?" if name != name.lower() and not wrong(name.lower()) else ""
    raise ValueError(f"no such model: {name!r}.{hint} Models are named {'; '.join(f.form for f in FAMILIES.values())}.")


def wrong(name: str) -> str | None:
    """Why a name stands for no model, or None."""
    try:
        parse(name)
    except ValueError as error:
        return str(error)
    return None


def build(task: Task, image: tuple[int, int, int], classes: int, generator: torch.Generator) -> WideResNet:
    """The task's model on the CPU, for images of (channels, height, width), its weights drawn from `generator`."""
    family, sizes = parse(task.model)
    return family.build(sizes, task, image, classes, generator)
