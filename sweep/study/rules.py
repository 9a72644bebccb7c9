"""The rules for a study, all reported at once: its shape, names and ranges, and what the trainer refuses."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from sweep.format import counted
from sweep.study import space
from sweep.study.arms import named
from sweep.study.contents import (
    DECLARED_ELSEWHERE,
    LEAST_GPU,
    NAME,
    Arm,
    Choice,
    Contents,
    Range,
    Values,
    is_searched,
)
from sweep.study.design import design_problems
from sweep.study.document import Place, Problem
from sweep.study.matching import match_problems
from sweep.study.trainer_rules import spec_problems
from trainer.models import own
from trainer.policies import POLICIES
from trainer.settings import SpecError, default_of, nearest, settings_of

MOST_VALUES = 10_000
"""The most values of a searched setting with a step."""
MOST_RUNS = 20_000
"""The most runs of a study. A plan of so many takes about 20 seconds (`benchmarks.plan`)."""
T = TypeVar("T")


def check(values: object, *, begun: bool = False) -> tuple[Contents | None, list[Problem]]:
    """The contents of a study, and all that is wrong with them. None where a part lacks its shape.

    A study that was `begun` stands as it was declared, also where its design would be refused today.
    """
    try:
        contents = Contents.read(values)
    except SpecError as error:
        return None, _without_consequences(_misshapen(values, list(error.problems)))
    problems = list(_problems(contents))
    if not problems and (runs := contents.most_runs) > MOST_RUNS:
        # what follows would take as long as the plan
        advice = "Lower budget, ladder, replicates or confirm.seeds, or make several studies of it."
        return contents, [(("search",), f"makes {runs:,} runs; a study has at most {MOST_RUNS:,}. {advice}")]
    # With a problem in one of these parts it is not clear what is compared.
    if not begun and not {where[0] for where, _ in problems} & {"arms", "tasks", "analysis"}:
        problems += design_problems(contents)
    return contents, _without_consequences(problems)


def _misshapen(values: Any, misshapen: list[Problem]) -> list[Problem]:
    """The problems of a study with misshapen parts: theirs, and those of the other parts."""
    broken = {_part(where) for where, _ in misshapen}
    arms = values.get("arms") if isinstance(values, dict) else None
    if not isinstance(arms, dict) or broken & {("arms",), ("task",), ("tasks",)}:
        return misshapen
    sound = {
        key: value for key, value in values.items() if key in settings_of(Contents) and (key,) not in broken
    }
    dense = {"policy": {"name": "dense"}}
    sound["arms"] = {name: dense if ("arms", name) in broken else arm for name, arm in arms.items()}
    try:
        contents = Contents.read({"analysis": {"baseline": ""}, **sound})
    except SpecError as error:
        # The number of arms is checked only here, where each of them has its shape.
        return [*misshapen, *error.problems]
    if ("search",) in broken:
        # The share that the search holds out is then unknown, and 0 breaks no rule.
        contents = replace(contents, search=replace(contents.search, validation=0.0))
    others = [(where, reason) for where, reason in _problems(contents) if _part(where) not in broken]
    return [*misshapen, *others]


def _part(where: Place) -> Place:
    """The part of a study that is checked by itself: an arm, or a key at the top."""
    return where[: 2 if where[:1] == ("arms",) else 1]


def _without_consequences(problems: list[Problem]) -> list[Problem]:
    """The problems without those that follow from another one: a key is missing because it is misspelt."""
    meant = {
        (*where[:-1], word)
        for where, reason in problems
        for word in re.findall(r"^no such setting\. Did you mean '(.+)'\?", reason)
    }
    return [
        (where, reason)
        for where, reason in problems
        if not (where in meant and reason.startswith("is missing"))
    ]


def _problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with a study whose parts have their shape."""
    yield from _task_problems(contents)
    for name, arm in contents.arms.items():
        own = [(("arms", name, *where), reason) for where, reason in _arm_problems(contents, name, arm)]
        yield from own
        if "name" in arm.policy and not is_searched("policy.name", arm.policy["name"]):
            yield from _more_spec_problems(contents, name, arm, own)
    yield from _analysis_problems(contents)
    yield from _resampling_problems(contents)
    yield from _number_problems(contents)
    yield from _published_problems(contents)


def _published_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with the arms that `published` names."""
    arms = [named(arm, task) for task in contents.tasks or [""] for arm in contents.arms]
    for arm in contents.published.accuracy if contents.published else ():
        if arm not in arms:
            yield ("published", "accuracy", arm), _one_of_the_arms(arm, arms)


def _more_spec_problems(contents: Contents, name: str, arm: Arm, own: list[Problem]) -> Iterator[Problem]:
    """What the trainer refuses of an arm, but for settings in which a problem is reported already."""
    wrong = {where for where, _ in own if len(where) > 2}
    # With a wrong setting in `match` it is not clear what the policy lacks.
    if any(where[2:4] == ("match", "settings") for where in wrong):
        return
    for where, reason in spec_problems(contents, name, arm):
        if not any(where[:n] in wrong for n in range(3, 6)):
            yield where, reason


def _number_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with the numbers of the search, the confirmation and the resources."""
    ladder = contents.search.ladder
    if any(after <= before for before, after in itertools.pairwise(ladder)):
        yield ("search", "ladder"), f"must rise from rung to rung; it is {ladder}."
    if twice := _twice(contents.confirm.include):
        yield ("confirm", "include"), f"names {twice[0]} twice."
    if contents.search.replicates > 1 and not any(arm.open_settings for arm in contents.arms.values()):
        reason = "has no use: no arm searches a setting, so that every search would find the same"
        yield ("search", "replicates"), f"{reason}. Write more confirm.seeds."
    included, seeds = len(contents.confirm.include), contents.confirm.seeds
    if included > seeds:
        yield ("confirm", "include"), f"names {included} seeds; confirm.seeds is {seeds}."
    gpus = contents.resources.gpus
    if gpus > 1 and gpus != int(gpus):
        yield ("resources", "gpus"), f"above 1 it must be whole; it is {gpus:g}."
    if 0 < gpus < LEAST_GPU:
        reason = f"must be 0 or at least {LEAST_GPU:g}, which is ten runs on a GPU; it is {gpus:g}."
        yield ("resources", "gpus"), reason
    if contents.resources.gpu_hours and not gpus:
        yield ("resources", "gpu_hours"), "has no use: resources.gpus is 0, so that no run takes a GPU."


def _one_of_the_arms(arm: str, arms: Iterable[str]) -> str:
    """The reason why a name that is no arm's is refused."""
    return f"must be one of the arms {', '.join(arms)}; it is {arm!r}.{nearest(arm, arms)}"


def _analysis_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with `analysis`, but for the test and the overlap of test sets."""
    arms, analysis = list(contents.arms), contents.analysis
    if analysis.baseline not in arms:
        yield ("analysis", "baseline"), _one_of_the_arms(analysis.baseline, arms)
    elif contents.arms[analysis.baseline].repeat:
        yield ("analysis", "baseline"), "must be an arm of its own, and not another one's repeat."
    for i, arm in enumerate(analysis.family or []):
        where: Place = ("analysis", "family", i)
        if arm == analysis.baseline:
            yield where, f"{arm!r} is the baseline; it is what the others are compared with."
        elif arm not in arms:
            yield where, _one_of_the_arms(arm, arms)
    yield from _against_problems(contents)
    if analysis.family == []:
        reason = "is empty: nothing would be tested. Leave it out to test every arm but the repeats."
        yield ("analysis", "family"), reason
    elif analysis.family is None and not contents.family:
        reason = (
            "is left out, and every arm but the baseline is a repeat: nothing would be tested. Name one."
        )
        yield ("analysis", "family"), reason
    if analysis.margin and len(analysis.margin) != len(analysis.endpoints):
        margins = counted(len(analysis.margin), "number")
        endpoints = counted(len(analysis.endpoints), "endpoint")
        yield ("analysis", "margin"), f"has {margins} for {endpoints}; each endpoint needs one."
    lists = {"family": analysis.family or [], "endpoints": analysis.endpoints, "curve": analysis.curve}
    for key, values in lists.items():
        if twice := _twice(values):
            yield ("analysis", key), f"names {twice[0]} twice."


def _against_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with `analysis.against`."""
    arms = list(contents.arms)
    earlier: set[tuple[str, str]] = set()
    for arm, others in contents.analysis.against.items():
        where: Place = ("analysis", "against", arm)
        if arm not in arms:
            yield where, _one_of_the_arms(arm, arms)
        elif contents.arms[arm].repeat:
            yield where, f"{arm!r} only repeats another arm; name that one."
        if not others:
            yield where, "names no arm to be tested over."
        if twice := _twice(others):
            yield where, f"names {twice[0]} twice."
            continue
        for i, other in enumerate(others):
            if reason := _wrong_reference(contents, arm, other, earlier):
                yield (*where, i), reason
            earlier.add((arm, other))


def _wrong_reference(contents: Contents, arm: str, other: str, earlier: set[tuple[str, str]]) -> str | None:
    """Why an arm cannot be tested over another one; None where it can.

    `earlier` are the comparisons of the study so far, as pairs of arms.
    """
    if other not in contents.arms:
        return _one_of_the_arms(other, contents.arms)
    if other == contents.analysis.baseline:
        return f"{other!r} is the baseline; gains over it are those of analysis.family."
    if other == arm:
        return "is the arm itself."
    if contents.arms[other].repeat:
        return f"{other!r} only repeats another arm; name that one."
    if (other, arm) in earlier:
        same = f"is the comparison that {other!r} has with {arm!r}, with the other sign"
        return f"{same}: leave one of them out."
    return None


def _arm_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """What is wrong with an arm, but for what the trainer refuses. Keys are those within the arm."""
    if not NAME.fullmatch(name):
        yield (), f"an arm's name has small letters, digits, - and _; it is {name!r}."
        return
    if arm.repeat is not None:
        yield from _repeat_problems(contents, arm, arm.repeat)
        return
    yield from match_problems(contents, name, arm)
    if not arm.policy:
        yield (), f"needs a policy: {', '.join(POLICIES)}."
        return
    if "name" not in arm.policy:
        yield ("policy",), f"needs a name: {', '.join(POLICIES)}."
        return
    for key in DECLARED_ELSEWHERE:
        if key in arm.task:
            yield ("task", key), f"is declared in {DECLARED_ELSEWHERE[key]}."
    if is_searched("policy.name", arm.policy["name"]):
        yield ("policy", "name"), "cannot be searched; write an arm for each policy."
        return
    if arm.budget and not arm.open_settings:
        yield ("budget",), "has no use: nothing is searched in this arm."
    yield from _searched_problems(contents, arm)


def _repeat_problems(contents: Contents, arm: Arm, repeated: str) -> Iterator[Problem]:
    """What is wrong with an arm that repeats another one."""
    others = [name for name, other in contents.arms.items() if not other.repeat]
    if repeated not in others:
        yield ("repeat",), _one_of_the_arms(repeated, others)
    for key in settings_of(Arm):
        if key != "repeat" and getattr(arm, key) != default_of(Arm, key):
            yield (key,), f"has no use beside repeat: the arm takes everything from {repeated!r}."


def _searched_problems(contents: Contents, arm: Arm) -> Iterator[Problem]:
    """What is wrong with the searched settings of an arm, one by one and as a grid."""
    searched: dict[str, Range | Choice] = {}
    for setting, written in arm.open_settings.items():
        where = tuple(setting.split(".", 1))
        try:
            searched[setting] = space.distribution(written, where)
        except SpecError as error:
            yield from error.problems
            continue
        for reason in _range_problems(contents, arm, setting, searched[setting]):
            yield where, reason
    if contents.search.proposer == "grid" and searched and len(searched) == len(arm.open_settings):
        points = [space.points(options, space.is_whole(arm, key)) for key, options in searched.items()]
        budget = arm.budget or contents.search.budget
        if all(0 < count <= MOST_VALUES for count in points) and math.prod(points) != budget:
            yield ("budget",), f"must be {math.prod(points)}, the points of this arm's grid; it is {budget}."


def _range_problems(contents: Contents, arm: Arm, setting: str, options: Range | Choice) -> Iterator[str]:
    """What is wrong with a searched setting."""
    if isinstance(options, Choice):
        if twice := _twice([(isinstance(value, bool), value) for value in options.choice]):
            yield f"names {twice[0][1]!r} twice."
        return
    low, high, whole = options.low, options.high, space.is_whole(arm, setting)
    if not low < high:
        yield f"low must be below high; they are {low:g} and {high:g}."
    if options.log and low <= 0:
        yield f"with log, low must be above 0; it is {low:g}."
    if options.log and options.step:
        yield "takes log or step, not both."
    if whole and any(number != int(number) for number in (low, high, options.step or 1.0)):
        yield "takes whole numbers; low, high and step must be whole."
    points = space.points(options, whole)
    if contents.search.proposer == "grid" and not points and low < high:
        yield "needs a step, or a choice, for the proposer 'grid'."
    if points > MOST_VALUES and (options.step or contents.search.proposer == "grid"):
        yield f"has more than {MOST_VALUES:,} values; take a larger step."


def _task_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with `task` and `tasks`, whatever the arms are."""
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


def _misplaced(where: Place, settings: Values) -> Iterator[Problem]:
    """Settings of a task that belong in another part of the study."""
    for key, value in settings.items():
        if is_searched(f"task.{key}", value):
            reason = "is searched, and every arm starts from it. Search it in the task of an arm."
            yield (*where, key), reason
        elif key in DECLARED_ELSEWHERE:
            yield (*where, key), f"is declared in {DECLARED_ELSEWHERE[key]}."


def code_problems(contents: Contents) -> Iterator[Problem]:
    """The models that are code which nobody allowed this process to run."""
    parts: dict[Place, Values] = {("task",): contents.task}
    parts |= {("tasks", name): settings for name, settings in contents.tasks.items()}
    parts |= {("arms", name, "task"): arm.task for name, arm in contents.arms.items()}
    for where, settings in parts.items():
        model: Any = settings.get("model")
        if isinstance(model, str) and (why := own.refusal(model)):
            yield (*where, "model"), f"{why}."
        for i, choice in enumerate(model["choice"] if isinstance(model, dict) else []):
            if why := own.refusal(str(choice)):
                yield (*where, "model", "choice", i), f"{why}."


def _resampling_problems(contents: Contents) -> Iterator[Problem]:
    """What is wrong with `task.resample`, and with a test that does not fit how test sets are drawn."""
    for name, arm in contents.arms.items():
        if "resample" in arm.task:
            part = "task or tasks" if contents.tasks else "task"
            reason = "decides the test set, which arms have to share to be paired"
            yield ("arms", name, "task", "resample"), f"{reason}. Write it under {part}."
    tasks = {f"tasks.{task}": {**contents.task, **settings} for task, settings in contents.tasks.items()}
    tasks = tasks or {"task": contents.task}
    resampled = [where for where, settings in tasks.items() if settings.get("resample") is not None]
    test = contents.analysis.test
    if resampled and test != "resampled-t":
        yield (
            ("analysis", "test"),
            f"must be resampled-t, because each seed draws its test set from the same rows "
            f"({', '.join(resampled)}): such pairs are not independent, "
            f"and {test} would find gains that are none.",
        )
    elif test == "resampled-t" and not resampled:
        reason = "is resampled-t, and no task resamples: its pairs are independent"
        yield ("analysis", "test"), f"{reason}. Take sign-flip or paired-t."


def _twice(values: Iterable[T]) -> list[T]:
    """The values that are in a list more than once."""
    return [value for value, count in Counter(values).items() if count > 1]
