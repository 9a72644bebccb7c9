"""What the trainer itself would refuse of an arm, on every task and at the ends of everything searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sweep.study import space
from sweep.study.contents import DECLARED_ELSEWHERE, Arm, Choice, Contents, Range, Values, is_searched
from sweep.study.document import Place, Problem
from sweep.study.matching import match_problems, source
from trainer.settings import Problem as SpecProblem
from trainer.settings import SpecError
from trainer.spec import RunSpec

MOST_EPOCHS = 1_000_000
_ELSEWHERE: dict[str, Place] = {
    f"task.{key}": tuple(place.split(".")) for key, place in DECLARED_ELSEWHERE.items()
}


def spec_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """What the trainer says of the arm, on every task."""
    tasks = contents.tasks or {"": {}}
    found = {
        task: dict(_refused_at(contents, name, arm, task, settings)) for task, settings in tasks.items()
    }
    for task, problems in found.items():
        for place, reason in problems.items():
            if place[0] == "tasks" or all(other.get(place) == reason for other in found.values()):
                yield place, reason
            elif reason.startswith("is missing") and place[0] == "task":
                yield ("tasks", task, *place[1:]), reason
            else:
                yield place, f"on the task {task!r}: {reason}"


def _refused_at(
    contents: Contents, name: str, arm: Arm, task_name: str, settings: Values
) -> Iterator[Problem]:
    """What it says on one task, at the ends of everything searched; told where the setting is written."""
    written = {**contents.task, **settings}
    misplaced = {
        f"task.{key}"
        for key, value in written.items()
        if is_searched(f"task.{key}", value) or key in DECLARED_ELSEWHERE
    }  # told already
    task = {key: value for key, value in written.items() if f"task.{key}" not in misplaced}
    searched: dict[str, Range | Choice] = {}
    unclear = misplaced - set(_ELSEWHERE)
    for setting, written in arm.open_settings.items():
        try:
            searched[setting] = space.distribution(written)
        except SpecError:
            unclear.add(setting)  # told already
    taken, told = _taken(contents, name, arm, task), set[str]()
    if taken and (found_in := source(contents, name, arm)):
        told = {reason for _, reason in _refused_at(contents, *found_in, task_name, settings)}
    unclear |= {setting for setting, it in taken.items() if it is None}
    endpoints = list(dict.fromkeys([*contents.analysis.endpoints, *contents.analysis.curve]))
    found: dict[Place, str] = {}
    for values in space.extremes(arm, {**searched, **{setting: it for setting, it in taken.items() if it}}):
        filled = space.filled(task, arm, values)
        for setting in unclear:
            part, key = setting.split(".", 1)
            filled[part].pop(key, None)
        filled["task"] |= {
            "validation": contents.search.validation if searched else 0.0,
            "endpoints": endpoints,
        }
        for problem in _refused({**filled, "seed": 0}):
            if problem.path in taken:
                assert arm.match
                if (
                    problem.path not in unclear and problem.reason not in told
                ):  # else the other arm is where it is told
                    found.setdefault(
                        ("arms", name, "match", "settings", arm.match.settings.index(problem.path)),
                        problem.reason,
                    )
            elif problem.path not in unclear:
                place = _where(name, arm, problem, searched, values)
                own = len(place) > 1 and place[0] == "task" and place[1] in settings
                found.setdefault(("tasks", task_name, *place[1:]) if own else place, problem.reason)
    yield from found.items()


def _taken(contents: Contents, name: str, arm: Arm, task: Values) -> dict[str, Range | Choice | None]:
    """What the settings may be that an arm takes from another one; None where a told problem hides it."""
    found: dict[str, Range | Choice | None] = {}
    other = source(contents, name, arm)
    wrong = {
        place[2] for place, _ in match_problems(contents, name, arm) if place[:2] == ("match", "settings")
    }
    for setting in [it for i, it in enumerate(arm.match.settings if arm.match else []) if i not in wrong]:
        try:
            found[setting] = space.possible(task, other[1], setting) if other else None
        except SpecError:
            found[setting] = None
    return found


def _refused(run: dict[str, Any]) -> Iterable[SpecProblem]:
    try:
        epochs = RunSpec.read(run).task.epochs
    except SpecError as error:
        return error.problems
    return (
        [SpecProblem(("task", "epochs"), f"must be at most {MOST_EPOCHS:,}; it is {epochs:,}.")]
        if epochs > MOST_EPOCHS
        else []
    )


def _where(
    name: str, arm: Arm, problem: SpecProblem, searched: dict[str, Range | Choice], values: Values
) -> Place:
    """Where a setting that the trainer refused is written."""
    part, *keys = problem.place
    if problem.path in _ELSEWHERE:
        return _ELSEWHERE[problem.path]
    if part == "task" and not (keys and keys[0] in arm.task):
        return ("task", *keys)
    place = ("arms", name, part, *keys)
    if problem.path not in searched or problem.reason.startswith("no such setting"):
        return place
    it, value = searched[problem.path], values[problem.path]
    if isinstance(it, Choice):
        return (*place, "choice", it.choice.index(value))
    return (*place, "low" if value == it.low else "high")
