"""Matched arms: an arm takes a network size or settings from another arm's finalist.

Here is what can be wrong with `match` in a study, and what the arm takes once there is a finalist.
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
"""Settings of the task that decide the test set, which all arms share."""


def taken(arm: ResolvedArm, finalist: Candidate, counts: Sequence[int], study: str) -> Values:
    """The values that a matched arm takes from the other arm's finalist: settings, and a network.

    `counts` are the numbers of parameters of that finalist's runs, diverged ones included; 0 where a run
    does not say.
    """
    assert arm.match
    assert arm.follows
    spec = arm.follows.run(finalist.values, "confirm", 0)
    parts = {"task": spec.task, "policy": spec.policy.build(spec.seed)}
    values: Values = {}
    for setting in arm.match.settings:
        part, key = setting.split(".", 1)
        values[setting] = getattr(parts[part], key)
    if arm.match.at:
        values["task.model"] = _network(arm, counts, study)
    return values


def _network(arm: ResolvedArm, counts: Sequence[int], study: str) -> str:
    """The dense network whose size is nearest to the mean count.

    RejectStudy where no run says how many parameters it had. A guess would make a comparison that the study
    did not declare.
    """
    assert arm.follows
    if known_counts := [count for count in counts if count]:
        return network(arm, round(math.fsum(known_counts) / len(known_counts)))
    problem = (
        f"no run of {arm.follows.name!r} says how many parameters it had: all were made before runs said so"
    )
    remedy = "Leave the arm out, or give the study another name: then they are made anew."
    raise RejectStudy([f"{study}: arms.{arm.base}.match: {problem}. {remedy}"])


def network(arm: ResolvedArm, parameters: int) -> str:
    """The name of the matched arm's network with about this number of parameters."""
    shape = facts(arm.trained.data)
    return names.matched(arm.trained.model, math.prod(shape.image), shape.classes, parameters)


def match_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """What is wrong with `match` in an arm."""
    if arm.match is None:
        return
    yield from _source_problems(contents, name, arm.match)
    yield from _settings_problems(contents, name, arm, arm.match)
    if arm.match.at:
        yield from _network_problems(contents, name, arm)


def source(contents: Contents, name: str, arm: Arm) -> tuple[str, Arm] | None:
    """The name and the arm that another arm follows; None where it follows none, or cannot follow it."""
    if not arm.match or arm.match.arm not in _sources(contents, name):
        return None
    return arm.match.arm, contents.arms[arm.match.arm]


def _sources(contents: Contents, name: str) -> list[str]:
    """The arms that an arm can follow: the others that wait for no arm themselves."""
    return [
        other for other, arm in contents.arms.items() if other != name and not arm.repeat and not arm.match
    ]


def _source_problems(contents: Contents, name: str, match: Match) -> Iterator[Problem]:
    """Why an arm cannot follow the arm that it names."""
    sources = _sources(contents, name)
    if match.arm in sources:
        return
    hint = nearest(match.arm, sources)
    if match.arm in contents.arms:
        hint = " An arm is matched with one that waits for no other."
    reason = f"must be one of the arms {', '.join(sources)}; it is {match.arm!r}.{hint}"
    yield ("match", "arm"), reason


def _settings_problems(contents: Contents, name: str, arm: Arm, match: Match) -> Iterator[Problem]:
    """Why settings cannot be taken from another arm."""
    followed = source(contents, name, arm)
    both = [arm, followed[1]] if followed else [arm]
    policies = [POLICIES.get(str(one.policy.get("name"))) for one in both]
    policy_settings = [set(settings_of(cls)) for cls in policies if cls]
    shared_keys = set[str].intersection(*policy_settings) if policy_settings else set[str]()
    shared = [f"policy.{key}" for key in sorted(shared_keys)]
    not_taken = (*DECLARED_ELSEWHERE, *SHARED)
    legal = [*shared, *(f"task.{key}" for key in settings_of(Task) if key not in not_taken)]
    for i, setting in enumerate(match.settings):
        where: Place = ("match", "settings", i)
        part, _, key = setting.partition(".")
        # Another rule reports an unknown policy; its settings are then not known here.
        unclear = part == "policy" and None in policies
        if setting in match.settings[:i]:
            yield where, f"{setting!r} stands twice."
        elif part == "task" and key in SHARED:
            yield where, f"must not be {setting!r}: arms have their test sets in common, to be paired."
        elif setting not in legal and not unclear:
            choices = f"{', '.join(shared) or 'none of the policies'}, or one of the task"
            rule = f"must be a setting that {name!r} and {match.arm!r} both have: {choices}"
            yield where, f"{rule}; it is {setting!r}.{nearest(setting, legal)}"
        elif setting == "task.model" and match.at:
            yield where, f"follows from at: the network has as many parameters as that of {match.arm!r}."
        elif setting in arm.written:
            yield (part, key), f"follows from match: it is what {match.arm!r} has. Leave it out here."


def _network_problems(contents: Contents, name: str, arm: Arm) -> Iterator[Problem]:
    """Why an arm's network cannot be matched by its parameters."""
    if issubclass(POLICIES.get(str(arm.policy.get("name")), Dense), StaticSparse):
        policy = f"the policy {arm.policy['name']!r}"
        reason = f"has no use beside {policy}: it takes connections out of the network that is matched."
        yield ("match",), reason
    if is_searched("task.model", arm.task.get("model")):
        reason = "cannot be searched: its widths follow from match. Give one model, for its depth."
        yield ("task", "model"), reason
        return
    for where, model in dict(_models(contents, arm)).items():
        if names.mlp(str(model)) is None:
            rule = "is matched by its parameters, so that it must be fully connected, as mlp-1000-1000"
            yield where, f"{name!r} {rule}; it is {model!r}."


def _models(contents: Contents, arm: Arm) -> Iterator[tuple[Place, object]]:
    """The arm's model on every task, with where to report a problem. The trainer reports a missing one."""
    if "model" in arm.task:
        yield ("task", "model"), arm.task["model"]
        return
    for settings in contents.tasks.values() or [{}]:
        if (model := {**contents.task, **settings}.get("model")) is not None:
            yield ("match",), model
