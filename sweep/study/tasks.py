"""What can be wrong with the tasks of a study: what they change, and the splits they draw."""

from __future__ import annotations

from collections.abc import Iterator

from sweep.study.contents import DECLARED_ELSEWHERE, NAME, Contents, Values, is_searched
from sweep.study.document import Place, Problem


def task_problems(contents: Contents) -> Iterator[Problem]:
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


def resampling_problems(contents: Contents) -> Iterator[Problem]:
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
