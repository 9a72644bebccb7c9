"""The values of searched settings: which there are, where they end, and how they fill an arm.

What is tried is the proposer's to say.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any

from sweep.study.contents import Arm, Choice, Range, Values
from trainer.policies import POLICIES
from trainer.settings import Place, read, whole_number
from trainer.spec import Task

MOST_CORNERS = 1_000
"""Of an arm, tried on the trainer's own rules before anything runs."""


def searched(arm: Arm) -> dict[str, Range | Choice]:
    """The settings that are searched in an arm, in the order they are written."""
    return {setting: distribution(value) for setting, value in arm.open_settings.items()}


def distribution(written: dict[str, Any], place: Place = ()) -> Range | Choice:
    """A searched setting as it is written; SpecError where it is neither a range nor a choice."""
    return read(Choice if "choice" in written else Range, written, place, takes="a searched setting")


def possible(task: Mapping[str, Any], arm: Arm, setting: str) -> Range | Choice | None:
    """What a setting of an arm may be: what is searched, or its one value; None where it is missing."""
    part, key = setting.split(".", 1)
    written = {
        f"{name}.{key}": value for name, its in filled(task, arm, {}).items() for key, value in its.items()
    }
    if setting in arm.open_settings:
        return distribution(arm.open_settings[setting])
    defaults = {it.name: it.default for it in dataclasses.fields(_owner(arm, part))}
    value = written.get(setting, defaults.get(key, dataclasses.MISSING))
    return None if value is dataclasses.MISSING else Choice(choice=[value])


def is_whole(arm: Arm, setting: str) -> bool:
    """Whether a setting takes whole numbers."""
    part, key = setting.split(".", 1)
    return whole_number(_owner(arm, part), key)


def grid(it: Range | Choice, whole: bool) -> list[Any]:
    """Every value of a searched setting; none where there is no end to them."""
    if isinstance(it, Choice):
        return it.choice
    values = [round(it.low + i * (it.step or 1.0), 12) for i in range(int(points(it, whole)))]
    return [int(value) for value in values] if whole else values


def points(it: Range | Choice, whole: bool) -> float:
    """How many values a searched setting has; 0 where there is no end to them, infinite beyond a float."""
    if isinstance(it, Choice):
        return len(it.choice)
    step = it.step or (1.0 if whole and not it.log else None)
    if step is None or it.low > it.high:
        return 0
    steps = (it.high - it.low) / step + 1e-9
    return math.floor(steps) + 1 if math.isfinite(steps) else math.inf


def corners(arm: Arm, settings: dict[str, Range | Choice]) -> list[Values]:
    """Candidates at the ends of every searched setting, one setting moved at a time."""
    ends = _ends(arm, settings)
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]


def extremes(arm: Arm, settings: dict[str, Range | Choice]) -> list[Values]:
    """Every combination of the ends of all that is searched; where those are too many, the corners."""
    ends = _ends(arm, settings)
    if math.prod(map(len, ends.values())) > MOST_CORNERS:
        return corners(arm, settings)
    return [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]


def filled(task: Mapping[str, Any], arm: Arm, values: Values) -> dict[str, dict[str, Any]]:
    """A candidate's whole task and policy: its values over the arm's, over what every arm starts from."""
    whole = {"task": {**task, **arm.task}, "policy": {**arm.policy}}
    for setting, value in values.items():
        part, key = setting.split(".", 1)
        whole[part][key] = value
    return whole


def _owner(arm: Arm, part: str) -> type:
    return POLICIES.get(str(arm.policy.get("name")), Task) if part == "policy" else Task


def _ends(arm: Arm, settings: dict[str, Range | Choice]) -> dict[str, list[Any]]:
    return {
        key: it.choice if isinstance(it, Choice) else [_typed(arm, key, end) for end in (it.low, it.high)]
        for key, it in settings.items()
    }


def _typed(arm: Arm, setting: str, value: float) -> float | int:
    return int(value) if is_whole(arm, setting) and value == int(value) else value
