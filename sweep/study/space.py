"""The values of searched settings: which ones there are, where they end, and how they fill in an arm.

The proposer decides which of them are tried.
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
"""The most combinations of an arm's searched settings that the trainer checks before anything runs."""


def searched(arm: Arm) -> dict[str, Range | Choice]:
    """The searched settings of an arm, in the order of the file."""
    return {setting: distribution(value) for setting, value in arm.open_settings.items()}


def distribution(written: dict[str, Any], where: Place = ()) -> Range | Choice:
    """A searched setting from its mapping; SpecError where that is neither a range nor a choice."""
    return read(Choice if "choice" in written else Range, written, where, takes="a searched setting")


def possible(task: Mapping[str, Any], arm: Arm, setting: str) -> Range | Choice | None:
    """The values that a setting of an arm can have: searched ones, or one; None where it is missing."""
    if setting in arm.open_settings:
        return distribution(arm.open_settings[setting])
    part, key = setting.split(".", 1)
    defaults = {field.name: field.default for field in dataclasses.fields(_owner(arm, part))}
    written = filled(task, arm, {}).get(part, {})
    value = written.get(key, defaults.get(key, dataclasses.MISSING))
    return None if value is dataclasses.MISSING else Choice(choice=[value])


def is_whole(arm: Arm, setting: str) -> bool:
    """Whether a setting takes whole numbers."""
    part, key = setting.split(".", 1)
    return whole_number(_owner(arm, part), key)


def grid(options: Range | Choice, whole: bool) -> list[Any]:
    """Every value of a searched setting; none where every number of a range is allowed."""
    if isinstance(options, Choice):
        return options.choice
    step = options.step or 1.0
    values = [round(options.low + i * step, 12) for i in range(int(points(options, whole)))]
    return [int(value) for value in values] if whole else values


def points(options: Range | Choice, whole: bool) -> float:
    """The number of values of a searched setting; 0 where every number of a range is allowed.

    Infinite where the number is too large for a float.
    """
    if isinstance(options, Choice):
        return len(options.choice)
    step = options.step or (1.0 if whole and not options.log else None)
    if step is None or options.low > options.high:
        return 0
    steps = (options.high - options.low) / step + 1e-9
    return math.floor(steps) + 1 if math.isfinite(steps) else math.inf


def corners(arm: Arm, settings: dict[str, Range | Choice]) -> list[Values]:
    """Candidates at the ends of every searched setting, one setting moved at a time."""
    ends = _ends(arm, settings)
    first = {key: values[0] for key, values in ends.items()}
    return [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]


def extremes(arm: Arm, settings: dict[str, Range | Choice]) -> list[Values]:
    """Candidates at every combination of ends of searched settings, or the corners if those are too many."""
    ends = _ends(arm, settings)
    if math.prod(map(len, ends.values())) > MOST_CORNERS:
        return corners(arm, settings)
    return [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]


def filled(task: Mapping[str, Any], arm: Arm, values: Values) -> dict[str, dict[str, Any]]:
    """The task and the policy of a candidate: its values over the arm's, those over the study's `task`."""
    parts = {"task": {**task, **arm.task}, "policy": {**arm.policy}}
    for setting, value in values.items():
        part, key = setting.split(".", 1)
        parts[part][key] = value
    return parts


def _owner(arm: Arm, part: str) -> type:
    """The dataclass that has the settings of a part of an arm: its policy's, or Task."""
    return POLICIES.get(str(arm.policy.get("name")), Task) if part == "policy" else Task


def _ends(arm: Arm, settings: dict[str, Range | Choice]) -> dict[str, list[Any]]:
    """The ends of each setting: low and high of a range, or every value of a choice."""
    ends: dict[str, list[Any]] = {}
    for setting, options in settings.items():
        if isinstance(options, Choice):
            ends[setting] = options.choice
        else:
            ends[setting] = [_typed(arm, setting, end) for end in (options.low, options.high)]
    return ends


def _typed(arm: Arm, setting: str, value: float) -> float | int:
    """A number, as a whole one where the setting takes whole numbers."""
    return int(value) if is_whole(arm, setting) and value == int(value) else value
