"""What can be wrong with the tasks of a study: what they change, the splits they draw, and the networks that are matched on them."""

from __future__ import annotations

from collections.abc import Iterator

from sweep.study.contents import DECLARED_ELSEWHERE, NAME, Arm, Contents, Match, Values, is_searched
from sweep.study.document import Place, Problem
from trainer.models import names
from trainer.policies import POLICIES
from trainer.policies.connectivity import StaticSparse
from trainer.policies.keep_ratio import Dense
from trainer.settings import nearest, settings_of
from trainer.spec import Task

SHARED = ("data", "resample")
"""Settings of the task that decide the test set."""


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


def match_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """Why an arm's network or settings cannot follow another's."""
    if arm.match is None:
        return
    other = arm.match.arm
    others = [it for it, its in contents.arms.items() if it != name and not its.repeat and not its.match]
    if other not in others:
        own = "" if other not in contents.arms else " An arm is matched with one that waits for no other."
        yield (
            ("match", "arm"),
            f"must be one of the arms {', '.join(others)}; it is {other!r}.{own or nearest(other, others)}",
        )
    yield from _taken_problems(contents, name, arm, arm.match)
    if arm.match.counted is None:
        return
    if issubclass(POLICIES.get(str(arm.policy.get("name")), Dense), StaticSparse):
        yield (
            ("match",),
            f"has no use beside the policy {arm.policy['name']!r}: it takes connections out of the network that is matched.",
        )
    if is_searched("task.model", arm.task.get("model")):
        yield (
            ("task", "model"),
            "cannot be searched: its widths follow from match. Give one model, for its depth.",
        )
        return
    for place, model in dict(_models(contents, arm)).items():
        if names.mlp(str(model)) is None:
            yield (
                place,
                f"{name!r} is matched by its parameters, so that it must be fully connected, as mlp-1000-1000; it is {model!r}.",
            )


def source(contents: Contents, name: str, arm: Arm) -> tuple[str, Arm] | None:
    """The arm that another one follows; None where it follows none, or none that it could."""
    other = contents.arms.get(arm.match.arm) if arm.match else None
    return (
        (arm.match.arm, other)
        if arm.match and other and arm.match.arm != name and not other.repeat and not other.match
        else None
    )


def _taken_problems(contents: Contents, name: str, arm: Arm, match: Match) -> Iterator[Problem]:
    """Why settings cannot be taken from another arm."""
    found = source(contents, name, arm)
    policies = [POLICIES.get(str(it.policy.get("name"))) for it in (arm, *([found[1]] if found else []))]
    known = [set(settings_of(cls)) for cls in policies if cls]
    shared = [f"policy.{key}" for key in sorted(set[str].intersection(*known) if known else ())]
    legal = [
        *shared,
        *(f"task.{key}" for key in settings_of(Task) if key not in (*DECLARED_ELSEWHERE, *SHARED)),
    ]
    for i, setting in enumerate(match.settings):
        place: Place = ("match", "settings", i)
        part, _, key = setting.partition(".")
        if setting in match.settings[:i]:
            yield place, f"{setting!r} stands twice."
        elif part == "task" and key in SHARED:
            yield place, f"must not be {setting!r}: arms have their test sets in common, to be paired."
        elif setting not in legal and not (
            part == "policy" and None in policies
        ):  # an unknown policy is told elsewhere
            both = f"{name!r} and {match.arm!r} both have: {', '.join(shared) or 'none of the policies'}, or one of the task"
            yield place, f"must be a setting that {both}; it is {setting!r}.{nearest(setting, legal)}"
        elif setting == "task.model" and match.at:
            yield place, f"follows from at: the network has as many parameters as that of {match.arm!r}."
        elif setting in arm.written:
            yield (part, key), f"follows from match: it is what {match.arm!r} has. Leave it out here."


def _models(contents: Contents, arm: Arm) -> Iterator[tuple[Place, object]]:
    """The model of an arm on every task, where it is written; the trainer tells where there is none."""
    if "model" in arm.task:
        yield ("task", "model"), arm.task["model"]
        return
    for settings in contents.tasks.values() or [{}]:
        if (model := {**contents.task, **settings}.get("model")) is not None:
            yield ("match",), model
