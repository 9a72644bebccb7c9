"""Everything wrong with a study, told at once: its shape, names and ranges, and what the trainer refuses."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from sweep.statistics import pairs_needed, smallest_p_value
from sweep.study import space
from sweep.study.contents import DECLARED_ELSEWHERE, NAME, Arm, Choice, Contents, Range, Values, is_searched
from sweep.study.document import Place, Problem
from sweep.study.matching import match_problems
from sweep.study.trainer_rules import spec_problems
from trainer.policies import POLICIES
from trainer.settings import SpecError, default_of, nearest, settings_of

MOST_VALUES = 10_000
"""Of a searched setting with a step."""
T = TypeVar("T")


def check(values: object) -> tuple[Contents | None, list[Problem]]:
    """A study's contents, and all that is wrong with them, though a part may not even have its shape."""
    try:
        contents = Contents.read(values)
    except SpecError as error:
        return None, _once(_misshapen(values, list(error.problems)))
    problems = list(_problems(contents))
    if not {_part(place)[0] for place, _ in problems} & {
        "arms",
        "tasks",
        "analysis",
    }:  # else it is not yet clear what is compared
        problems += _design_problems(contents)
    return contents, _once(problems)


def _misshapen(values: Any, misshapen: list[Problem]) -> list[Problem]:
    """What is wrong with a study that has misshapen parts: those, and the problems of the other parts."""
    broken = {_part(place) for place, _ in misshapen}
    arms = values.get("arms") if isinstance(values, dict) else None
    if not isinstance(arms, dict) or broken & {("arms",), ("task",), ("tasks",)}:
        return misshapen
    sound = {
        key: value for key, value in values.items() if key in settings_of(Contents) and (key,) not in broken
    }
    sound["arms"] = {
        name: {"policy": {"name": "dense"}} if ("arms", name) in broken else arm
        for name, arm in arms.items()
    }
    try:
        contents = Contents.read({"analysis": {"baseline": ""}, **sound})
    except SpecError as error:  # the arms are counted only once each of them is well-formed
        return [*misshapen, *error.problems]
    if ("search",) in broken:  # then nothing is known of what it holds out
        contents = replace(contents, search=replace(contents.search, validation=0.0))
    return [
        *misshapen,
        *((place, reason) for place, reason in _problems(contents) if _part(place) not in broken),
    ]


def _part(place: Place) -> Place:
    """What can be looked at by itself: an arm, or a key of the whole study."""
    return place[: 2 if place[:1] == ("arms",) else 1]


def _once(problems: list[Problem]) -> list[Problem]:
    """Without what follows from another one: a key that is missing because it is misspelt."""
    meant = {
        (*place[:-1], word)
        for place, reason in problems
        for word in re.findall(r"^no such setting\. Did you mean '(.+)'\?", reason)
    }
    return [
        (place, reason)
        for place, reason in problems
        if not (place in meant and reason.startswith("is missing"))
    ]


def _problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with a study whose parts are well-formed."""
    yield from _task_problems(contents)
    for name, arm in contents.arms.items():
        told = [(("arms", name, *place), reason) for place, reason in _arm_problems(contents, name, arm)]
        yield from told
        if "name" in arm.policy and not is_searched("policy.name", arm.policy["name"]):
            wrong = {place for place, _ in told if len(place) > 2}
            if any(place[2:4] == ("match", "settings") for place in wrong):
                continue  # what the policy lacks is then not clear
            more = spec_problems(contents, name, arm)
            yield from (
                (place, reason) for place, reason in more if not any(place[:n] in wrong for n in range(3, 6))
            )
    yield from _analysis_problems(contents)
    yield from _resampling_problems(contents)
    ladder = contents.search.ladder
    if any(after <= before for before, after in itertools.pairwise(ladder)):
        yield ("search", "ladder"), f"must rise from rung to rung; it is {ladder}."
    if twice := _twice(contents.confirm.include):
        yield ("confirm", "include"), f"names {twice[0]} twice."
    if len(contents.confirm.include) > contents.confirm.seeds:
        yield (
            ("confirm", "include"),
            f"names {len(contents.confirm.include)} seeds; confirm.seeds is {contents.confirm.seeds}.",
        )
    gpus = contents.resources.gpus
    if gpus > 1 and gpus != int(gpus):
        yield ("resources", "gpus"), f"above 1 it must be whole; it is {gpus:g}."


def _analysis_problems(contents: Contents) -> Iterator[Problem]:
    arms, analysis = list(contents.arms), contents.analysis
    if analysis.baseline not in arms:
        yield (
            ("analysis", "baseline"),
            f"must be one of the arms {', '.join(arms)}; it is {analysis.baseline!r}."
            f"{nearest(analysis.baseline, arms)}",
        )
    elif contents.arms[analysis.baseline].repeat:
        yield ("analysis", "baseline"), "must be an arm of its own, and not another one's repeat."
    for i, arm in enumerate(analysis.family or []):
        if arm == analysis.baseline:
            yield (
                ("analysis", "family", i),
                f"{arm!r} is the baseline; it is what the others are compared with.",
            )
        elif arm not in arms:
            yield (
                ("analysis", "family", i),
                f"must be one of the arms {', '.join(arms)}; it is {arm!r}.{nearest(arm, arms)}",
            )
    yield from _against_problems(contents)
    if analysis.family == []:
        yield (
            ("analysis", "family"),
            "is empty: nothing would be tested. Leave it out to test every arm but the repeats.",
        )
    elif analysis.family is None and not contents.family:
        yield (
            ("analysis", "family"),
            "is left out, and every arm but the baseline is a repeat: nothing would be tested. Name one.",
        )
    for key, ratios in (
        ("family", analysis.family or []),
        ("endpoints", analysis.endpoints),
        ("curve", analysis.curve),
    ):
        if twice := _twice(ratios):
            yield ("analysis", key), f"names {twice[0]} twice."


def _against_problems(contents: Contents) -> Iterator[Problem]:
    arms, baseline = list(contents.arms), contents.analysis.baseline
    told: set[tuple[str, str]] = set()
    for arm, others in contents.analysis.against.items():
        place: Place = ("analysis", "against", arm)
        if arm not in arms:
            yield place, f"must be one of the arms {', '.join(arms)}; it is {arm!r}.{nearest(arm, arms)}"
        elif contents.arms[arm].repeat:
            yield place, f"{arm!r} only repeats another arm; name that one."
        if not others:
            yield place, "names no arm to be tested over."
        if twice := _twice(others):
            yield place, f"names {twice[0]} twice."
            continue
        for i, other in enumerate(others):
            if other not in arms:
                yield (
                    (*place, i),
                    f"must be one of the arms {', '.join(arms)}; it is {other!r}.{nearest(other, arms)}",
                )
            elif other == baseline:
                yield (*place, i), f"{other!r} is the baseline; gains over it are those of analysis.family."
            elif other == arm:
                yield (*place, i), "is the arm itself."
            elif contents.arms[other].repeat:
                yield (*place, i), f"{other!r} only repeats another arm; name that one."
            elif (other, arm) in told:
                yield (
                    (*place, i),
                    f"is the comparison that {other!r} has with {arm!r}, with the other sign: "
                    "leave one of them out.",
                )
            told.add((arm, other))


def _design_problems(contents: Contents) -> Iterator[Problem]:
    """Why a study that could run should not: its confirmation could not find anything."""
    pairs, comparisons, alpha = contents.confirm.seeds, contents.comparisons, contents.analysis.alpha
    if pairs < 2:
        yield ("confirm", "seeds"), f"a paired test needs at least 2; it is {pairs}."
    elif contents.analysis.test == "sign-flip" and smallest_p_value(pairs) > alpha / comparisons:
        yield (
            ("confirm", "seeds"),
            f"an exact sign-flip test of {pairs} pairs cannot go below p = {smallest_p_value(pairs):.2g}, "
            f"and {comparisons} comparisons under Holm at {alpha:g} need {alpha / comparisons:.2g}. "
            f"It takes at least {pairs_needed(comparisons, alpha)} seeds, or a smaller family.",
        )


def _arm_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    if not NAME.fullmatch(name):
        yield (), f"an arm's name has small letters, digits, - and _; it is {name!r}."
        return
    if arm.repeat is not None:
        others = [other for other, it in contents.arms.items() if not it.repeat]
        if arm.repeat not in others:
            yield (
                ("repeat",),
                f"must be one of the arms {', '.join(others)}; it is {arm.repeat!r}."
                f"{nearest(arm.repeat, others)}",
            )
        for key in settings_of(Arm):
            if key != "repeat" and getattr(arm, key) != default_of(Arm, key):
                yield (key,), f"has no use beside repeat: the arm takes everything from {arm.repeat!r}."
        return
    yield from match_problems(contents, name, arm)
    if "name" not in arm.policy:
        yield (
            ("policy",) if arm.policy else (),
            f"needs a {'name' if arm.policy else 'policy'}: {', '.join(POLICIES)}.",
        )
        return
    for key in DECLARED_ELSEWHERE:
        if key in arm.task:
            yield ("task", key), f"is declared in {DECLARED_ELSEWHERE[key]}."
    if is_searched("policy.name", arm.policy["name"]):
        yield ("policy", "name"), "cannot be searched; write an arm for each policy."
        return
    searched = arm.open_settings
    if arm.budget and not searched:
        yield ("budget",), "has no use: nothing is searched in this arm."
    understood: dict[str, Range | Choice] = {}
    for setting, written in searched.items():
        place = tuple(setting.split(".", 1))
        try:
            understood[setting] = space.distribution(written, place)
        except SpecError as error:
            yield from error.problems
        else:
            yield from (
                (place, reason) for reason in _range_problems(contents, arm, setting, understood[setting])
            )
    if contents.search.proposer == "grid" and searched and len(understood) == len(searched):
        points = [space.points(it, space.is_whole(arm, setting)) for setting, it in understood.items()]
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
    if space.is_whole(arm, setting) and any(end != int(end) for end in ends):
        yield "takes whole numbers; low, high and step must be whole."
    points = space.points(searched, space.is_whole(arm, setting))
    if contents.search.proposer == "grid" and not points and searched.low < searched.high:
        yield "needs a step, or a choice, for the proposer 'grid'."
    if points > MOST_VALUES and (searched.step or contents.search.proposer == "grid"):
        yield f"has more than {MOST_VALUES:,} values; take a larger step."


def _task_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with `task` and `tasks` whatever the arms are."""
    yield from _misplaced(("task",), contents.task)
    tasks = contents.tasks
    if len(tasks) == 1:
        yield ("tasks",), "has one task: write it under task. A list of tasks has two or more."
    for i, (name, settings) in enumerate(tasks.items()):
        if not NAME.fullmatch(name):
            yield ("tasks", name), f"a task's name has small letters, digits, - and _; it is {name!r}."
        yield from _misplaced(("tasks", name), settings)
        if same := [other for other in list(tasks)[:i] if tasks[other] == settings]:
            yield ("tasks", name), f"is the same as the task {same[0]!r}: its runs would count twice."


def _misplaced(place: Place, settings: Values) -> Iterator[Problem]:
    for key, value in settings.items():
        if is_searched(f"task.{key}", value):
            yield (
                (*place, key),
                "is searched, and every arm starts from it. Search it in the task of an arm.",
            )
        elif key in DECLARED_ELSEWHERE:
            yield (*place, key), f"is declared in {DECLARED_ELSEWHERE[key]}."


def _resampling_problems(contents: Contents) -> Iterator[Problem]:
    """Where the declared test does not fit how the test sets come about."""
    for name, arm in contents.arms.items():
        if "resample" in arm.task:
            where = "task or tasks" if contents.tasks else "task"
            yield (
                ("arms", name, "task", "resample"),
                f"decides the test set, which arms have to share to be paired. Write it under {where}.",
            )
    every = [
        ("tasks", task, {**contents.task, **settings}) for task, settings in contents.tasks.items()
    ] or [("task", "", contents.task)]
    drawn = [
        f"{part}.{task}" if task else part
        for part, task, settings in every
        if settings.get("resample") is not None
    ]
    test = contents.analysis.test
    if drawn and test != "resampled-t":
        yield (
            ("analysis", "test"),
            f"must be resampled-t, because each seed draws its test set from the same rows "
            f"({', '.join(drawn)}): such pairs are not independent, "
            f"and {test} would find gains that are none.",
        )
    elif test == "resampled-t" and not drawn:
        yield (
            ("analysis", "test"),
            "is resampled-t, and no task resamples: its pairs are independent. Take sign-flip or paired-t.",
        )


def _twice(values: Iterable[T]) -> list[T]:
    """What stands in a list more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
