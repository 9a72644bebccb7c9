"""Matching: an arm whose network has as many parameters as another arm's finalist, or which takes that finalist's settings.

What can be wrong with it in a study's file, and what an arm takes once the finalist is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sweep.errors import RejectStudy
from sweep.study.arms import Candidate, ResolvedArm
from sweep.study.contents import DECLARED_ELSEWHERE, Arm, Contents, Match, Values, is_searched
from sweep.study.document import Place, Problem
from trainer.data import facts
from trainer.models import names
from trainer.policies import POLICIES
from trainer.policies.connectivity import StaticSparse
from trainer.policies.keep_ratio import Dense
from trainer.settings import nearest, settings_of
from trainer.spec import Task

SHARED = ("data", "resample")
"""Settings of the task that decide the test set."""


def taken(arm: ResolvedArm, finalist: Candidate, counts: Sequence[int], study: str) -> Values:
    """What a matched arm takes from the other one's finalist: settings as its runs have them, and a network.

    `counts` are the parameters of that finalist's runs, 0 where a run does not say; a diverged one is counted too.
    """
    assert arm.match
    assert arm.follows
    spec = arm.follows.run(finalist.values, "confirm", 0)
    parts = {"task": spec.task, "policy": spec.policy.build(spec.seed)}
    keys = [(setting, *setting.split(".", 1)) for setting in arm.match.settings]
    values: Values = {setting: getattr(parts[part], key) for setting, part, key in keys}
    return {**values, "task.model": _network(arm, counts, study)} if arm.match.at else values


def _network(arm: ResolvedArm, counts: Sequence[int], study: str) -> str:
    """The dense network that is nearest to the mean count.

    RejectStudy where no run says how many parameters it had: another network would be another comparison than the
    declared one.
    """
    assert arm.follows
    if known := [count for count in counts if count]:
        return network(arm, round(math.fsum(known) / len(known)))
    raise RejectStudy(
        [
            f"{study}: arms.{arm.base}.match: no run of {arm.follows.name!r} says how many parameters it had: all "
            "were made before runs said so. Leave the arm out, or give the study another name: then they are made anew."
        ]
    )


def network(arm: ResolvedArm, parameters: int) -> str:
    """The name of a matched arm's network with about so many parameters."""
    shape = facts(arm.trained.data)
    return names.matched(arm.trained.model, math.prod(shape.image), shape.classes, parameters)


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
    if arm.match.at is None:
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
