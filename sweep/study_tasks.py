"""What can be wrong with the tasks of a study: what they change, the splits they draw, and the networks that are matched on them."""

from __future__ import annotations

from collections.abc import Iterator

from sweep.contents import DECLARED_ELSEWHERE, NAME, Arm, Contents, Values, is_searched
from sweep.document import Place, Problem
from trainer.models import names
from trainer.policies import POLICIES
from trainer.policies.connectivity import StaticSparse
from trainer.policies.keep_ratio import Dense
from trainer.settings import nearest


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
            yield (*place, key), "is searched, and every arm starts from it. Search it in the task of an arm."
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
    every = [("tasks", task, {**contents.task, **settings}) for task, settings in contents.tasks.items()] or [("task", "", contents.task)]
    drawn = [f"{part}.{task}" if task else part for part, task, settings in every if settings.get("resample") is not None]
    test = contents.analysis.test
    if drawn and test != "resampled-t":
        yield (
            ("analysis", "test"),
            f"must be resampled-t, because each seed draws its test set from the same rows ({', '.join(drawn)}): such pairs are not "
            f"independent, and {test} would find gains that are none.",
        )
    elif test == "resampled-t" and not drawn:
        yield ("analysis", "test"), "is resampled-t, and no task resamples: its pairs are independent. Take sign-flip or paired-t."


def match_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """Why an arm's network cannot be matched with another's."""
    if arm.match is None:
        return
    other = arm.match.arm
    others = [it for it, its in contents.arms.items() if it != name and not its.repeat and not its.match]
    if other not in others:
        own = "" if other not in contents.arms else " An arm is matched with one whose network does not wait for another's."
        yield ("match", "arm"), f"must be one of the arms {', '.join(others)}; it is {other!r}.{own or nearest(other, others)}"
    if issubclass(POLICIES.get(str(arm.policy.get("name")), Dense), StaticSparse):
        yield ("match",), f"has no use beside the policy {arm.policy['name']!r}: it takes connections out of the network that is matched."
    if is_searched("task.model", arm.task.get("model")):
        yield ("task", "model"), "cannot be searched: its widths follow from match. Give one model, for its depth."
        return
    for place, model in dict(_models(contents, arm)).items():
        if names.mlp(str(model)) is None:
            yield place, f"{name!r} is matched by its parameters, so that it must be fully connected, as mlp-1000-1000; it is {model!r}."


def _models(contents: Contents, arm: Arm) -> Iterator[tuple[Place, object]]:
    """The model of an arm on every task, where it is written; the trainer tells where there is none."""
    if "model" in arm.task:
        yield ("task", "model"), arm.task["model"]
        return
    for settings in contents.tasks.values() or [{}]:
        if (model := {**contents.task, **settings}.get("model")) is not None:
            yield ("match",), model
