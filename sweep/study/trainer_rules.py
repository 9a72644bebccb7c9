"""What the trainer refuses of an arm, on every task and at the ends of all searched settings."""

from __future__ import annotations

import contextlib
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
    f"task.{key}": tuple(part.split(".")) for key, part in DECLARED_ELSEWHERE.items()
}
"""Where a study declares the settings of a task that it declares elsewhere."""


def spec_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """What the trainer refuses of the arm. What it refuses on every task is reported once."""
    tasks = contents.tasks or {"": {}}
    by_task = {task: dict(_on_task(contents, name, arm, task, settings)) for task, settings in tasks.items()}
    for task, problems in by_task.items():
        for where, reason in problems.items():
            on_every_task = all(others.get(where) == reason for others in by_task.values())
            if where[0] == "tasks" or on_every_task:
                yield where, reason
            elif reason.startswith("is missing") and where[0] == "task":
                yield ("tasks", task, *where[1:]), reason
            else:
                yield where, f"on the task {task!r}: {reason}"


def _on_task(contents: Contents, name: str, arm: Arm, task_name: str, settings: Values) -> Iterator[Problem]:
    """What the trainer refuses of the arm on one task, with where the refused setting is written.

    Settings in which another rule reports a problem are left out of the runs, and of what is reported.
    """
    written = {**contents.task, **settings}
    misplaced = {
        f"task.{key}"
        for key, value in written.items()
        if is_searched(f"task.{key}", value) or key in DECLARED_ELSEWHERE
    }
    task = {key: value for key, value in written.items() if f"task.{key}" not in misplaced}
    searched = _well_formed(arm)
    taken = _taken(contents, name, arm, task)
    reported = misplaced - set(_ELSEWHERE) | (set(arm.open_settings) - set(searched))
    reported |= {setting for setting, options in taken.items() if options is None}
    of_source = set[str]()
    if taken and (followed := source(contents, name, arm)):
        of_source = {reason for _, reason in _on_task(contents, *followed, task_name, settings)}
    varied = {**searched, **{key: options for key, options in taken.items() if options}}
    problems: dict[Place, str] = {}
    for values in space.extremes(arm, varied):
        filled = space.filled(task, arm, values)
        for setting in reported:
            part, key = setting.split(".", 1)
            filled[part].pop(key, None)
        filled["task"] |= _declared(contents, bool(searched))
        for problem in _refused({**filled, "seed": 0}):
            is_taken = problem.path in taken
            # What the trainer refuses of the followed arm too is reported for that arm.
            if problem.path in reported or (is_taken and problem.reason in of_source):
                continue
            if is_taken and arm.match:
                where = ("arms", name, "match", "settings", arm.match.settings.index(problem.path))
            else:
                where = _where(name, arm, problem, searched, values)
                if len(where) > 1 and where[0] == "task" and where[1] in settings:
                    where = ("tasks", task_name, *where[1:])
            problems.setdefault(where, problem.reason)
    yield from problems.items()


def _well_formed(arm: Arm) -> dict[str, Range | Choice]:
    """The searched settings that are a range or a choice; another rule reports the others."""
    searched: dict[str, Range | Choice] = {}
    for setting, written in arm.open_settings.items():
        with contextlib.suppress(SpecError):
            searched[setting] = space.distribution(written)
    return searched


def _declared(contents: Contents, searched: bool) -> dict[str, Any]:
    """The settings of a task that follow from other parts of the study."""
    endpoints = list(dict.fromkeys([*contents.analysis.endpoints, *contents.analysis.curve]))
    return {"validation": contents.search.validation if searched else 0.0, "endpoints": endpoints}


def _taken(contents: Contents, name: str, arm: Arm, task: Values) -> dict[str, Range | Choice | None]:
    """The possible values of the settings that an arm takes from another one.

    None stands for those that are unknown because of a problem that another rule reports.
    """
    if not arm.match:
        return {}
    followed = source(contents, name, arm)
    wrong = {
        where[2] for where, _ in match_problems(contents, name, arm) if where[:2] == ("match", "settings")
    }
    taken: dict[str, Range | Choice | None] = {}
    for i, setting in enumerate(arm.match.settings):
        if i in wrong:
            continue
        try:
            taken[setting] = space.possible(task, followed[1], setting) if followed else None
        except SpecError:
            taken[setting] = None
    return taken


def _refused(run: dict[str, Any]) -> Iterable[SpecProblem]:
    """What is wrong with the spec of a run."""
    try:
        epochs = RunSpec.read(run).task.epochs
    except SpecError as error:
        return error.problems
    if epochs <= MOST_EPOCHS:
        return []
    return [SpecProblem(("task", "epochs"), f"must be at most {MOST_EPOCHS:,}; it is {epochs:,}.")]


def _where(
    name: str, arm: Arm, problem: SpecProblem, searched: dict[str, Range | Choice], values: Values
) -> Place:
    """Where the study has a setting that the trainer refused."""
    part, *keys = problem.place
    if problem.path in _ELSEWHERE:
        return _ELSEWHERE[problem.path]
    if part == "task" and not (keys and keys[0] in arm.task):
        return ("task", *keys)
    where = ("arms", name, part, *keys)
    if problem.path not in searched or problem.reason.startswith("no such setting"):
        return where
    options, value = searched[problem.path], values[problem.path]
    if isinstance(options, Choice):
        return (*where, "choice", options.choice.index(value))
    return (*where, "low" if value == options.low else "high")
