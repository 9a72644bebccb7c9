"""Warnings about a study, before it costs anything. None of them keeps it from running."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from sweep.statistics import tasks_needed
from sweep.study import ResolvedArm, Study
from trainer.data import facts
from trainer.models import names
from trainer.policies.connectivity import NpsetFrozen, StaticSparse, erdos_renyi
from trainer.settings import SettingError
from trainer.spec import RunSpec

LOW_RATIO = 0.1
"""A keep-ratio policy that stays above this value trains at mild sparsity only."""


def warnings(study: Study) -> list[str]:
    """Every warning about a study, once, even where it is true on several tasks."""
    found = (
        *_task_warnings(study),
        *_arms_warnings(study),
        *_budget_warnings(study),
        *_claim_warnings(study),
    )
    return list(dict.fromkeys(found))


def _task_warnings(study: Study) -> Iterator[str]:
    """The warning that a study lists too few tasks for a claim across tasks."""
    analysis, tasks = study.analysis, len(study.tasks)
    pairs_of_arms = len(study.contents.family) + sum(map(len, analysis.against.values()))
    across = len(analysis.endpoints) * pairs_of_arms
    needed = tasks_needed(across, analysis.alpha)
    if 1 < tasks < needed:
        comparisons = f"{across} comparison{'s' if across > 1 else ''} across tasks"
        yield (
            f"{tasks} tasks: a claim across tasks needs {needed}, because an exact signed-rank test "
            f"over fewer tasks rejects nothing after the correction for {comparisons}. "
            "The comparisons on each task are tested all the same."
        )


def _arms_warnings(study: Study) -> Iterator[str]:
    """The warnings about arms; arms with the same warning share a line."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, (arm, *_) in study.methods.items():
        if not arm.is_repeat:
            for reason in _arm_warnings(study, arm):
                found[reason].append(name)
    for reason, arms in found.items():
        several = len({study.arms[arm].base for arm in arms}) > 1
        yield f"{_named(study, arms)}: {reason.format(its='their' if several else 'its')}"


def _budget_warnings(study: Study) -> Iterator[str]:
    """The warnings that arms are tuned with different budgets, or that the baseline is not tuned."""
    budgets = {arm.base: arm.budget for arm in study.arms.values() if arm.searched and not arm.is_repeat}
    if len(set(budgets.values())) > 1:
        listed = ", ".join(f"{arm} {budget}" for arm, budget in budgets.items())
        yield f"the searched arms have different budgets ({listed}): the one with more is favoured."
    if budgets and not study.arms[study.baselines[0]].searched:
        yield (
            f"the baseline {study.analysis.baseline!r} is not searched and other arms are: "
            "part of their gain may come from the tuning."
        )


def _claim_warnings(study: Study) -> Iterator[str]:
    """The warnings about what the comparisons will be able to claim."""
    analysis, search = study.analysis, study.search
    drawn = [name for name in study.tested if study.arms[name].is_drawn]
    drawn += [name for name in study.baselines if study.arms[name].is_drawn]
    if drawn and search.objective == "first" and len(analysis.endpoints) > 1:
        others = " and ".join(f"r = {ratio:g}" for ratio in analysis.endpoints[1:])
        yield (
            f"{others} is tested, and the search scores r = {analysis.endpoints[0]:g} alone: what it picks "
            f"is a matter of luck at {others}. Write search.objective: each, or rank."
        )
    if drawn and search.replicates == 1:
        yield (
            "one search for each arm: a gain will be a claim about the settings that this search picks, "
            "and another search picks others. Write search.replicates for a claim about the arm."
        )
    if search.replicates > 1 and analysis.test == "paired-t":
        yield (
            "paired-t over searches: where they end in two kinds of settings, it finds differences that are "
            "not there far more often than alpha says. The sign-flip test does not."
        )
    looks, blocks = study.contents.looks, study.contents.blocks
    if looks[-1] < blocks:
        yield (
            f"the last look is at {looks[-1]} of {blocks} pairs: with more, the test is one for looks at "
            "any time, and the chance of any false gain is up to twice alpha."
        )


def _arm_warnings(study: Study, arm: ResolvedArm) -> Iterator[str]:
    """The warnings about one arm on one task, with {its} where one arm's warning says "its"."""
    specs = [study.run(candidate, "confirm", 0) for candidate in arm.ends]
    yield from _ratio_warnings(specs)
    policies = [spec.policy.build(spec.seed) for spec in specs]
    epsilons = [policy.epsilon for policy in policies if isinstance(policy, StaticSparse)]
    # a network that is matched in size is known only when the other arm's finalist is
    sized = arm.match is None or arm.match.at is None
    if epsilons and sized and all(all_dense(spec, min(epsilons)) for spec in specs):
        yield (
            "all {its} layers are dense, so that nothing is removed or rewired; "
            "take a smaller epsilon or a wider network."
        )
    starts = [policy.start for policy in policies if isinstance(policy, NpsetFrozen)]
    epochs = max(spec.task.epochs for spec in specs)
    if starts and min(starts) >= epochs:
        yield f"{{its}} neurons are never pruned: policy.start is {min(starts)} of {epochs} epochs."
    search = study.search
    if search.proposer == "tpe" and arm.searched and len(arm.generations) <= search.lag + 1:
        yield (
            "all {its} candidates are proposed before a score is known; "
            "tpe needs a smaller search.generation or lag."
        )


def _ratio_warnings(specs: list[RunSpec]) -> Iterator[str]:
    """The warning that a policy moves the keep ratio and never takes it down to LOW_RATIO."""
    lowest, spec = min(((lowest_ratio(spec), spec) for spec in specs), key=lambda found: found[0])
    if LOW_RATIO < lowest < 1 and any(moves(spec) for spec in specs):
        epochs, steeper = spec.task.epochs, steeper_setting(spec)
        mild = f"{{its}} keep ratio stays at {lowest:.2g} or above in all {epochs} epochs"
        advice = f" To reach {LOW_RATIO:g}, set {steeper}." if steeper else ""
        yield f"{mild}: none is trained at high sparsity.{advice}"


def _named(study: Study, arms: list[str]) -> str:
    """The arms by name: `arms.set` where all of its tasks are meant, else `arms.set@wine`."""
    bases = Counter(study.arms[arm].base for arm in arms)
    labels = [base if bases[base := study.arms[arm].base] == len(study.tasks) else arm for arm in arms]
    return ", ".join(f"arms.{label}" for label in dict.fromkeys(labels))


def all_dense(spec: RunSpec, epsilon: float) -> bool:
    """Whether this epsilon makes every layer of an MLP dense; False for other networks."""
    network = names.mlp(spec.task.model)
    if network is None:
        return False
    data = facts(spec.task.data)
    sizes = [math.prod(data.image), *network[0], data.classes]
    return all(erdos_renyi(epsilon, rows, columns) == rows * columns for columns, rows in pairwise(sizes))


def lowest_ratio(spec: RunSpec) -> float:
    """The smallest keep ratio of a run whose training accuracy only rises, so that no reset comes early."""
    policy = spec.policy.build(spec.seed)
    lowest = policy.keep_ratio
    for epoch in range(1, spec.task.epochs):
        policy.after_epoch(1 - 0.9 * math.exp(-3 * epoch / spec.task.epochs))
        lowest = min(lowest, policy.keep_ratio)
    return lowest


def steeper_setting(spec: RunSpec) -> str:
    """A policy setting and its value that take the run's keep ratio down to LOW_RATIO.

    It is empty where no single setting does that.
    """
    settings = spec.policy.settings
    falls = min(spec.task.epochs, settings.get("period") or spec.task.epochs) - 1
    if not falls:
        return ""
    step, decay = (1 - LOW_RATIO) / falls, LOW_RATIO ** (1 / falls)
    rounded = {
        "step": (math.ceil(1e4 * step) / 1e4, "more"),
        "decay": (math.floor(1e4 * decay) / 1e4, "less"),
    }
    for key, (value, steeper) in rounded.items():
        if settings.get(key):
            policy = replace(spec.policy, settings=MappingProxyType({**settings, key: value}))
            # a policy may refuse what is steeper, because its ratio would fall to 0
            with contextlib.suppress(SettingError):
                if lowest_ratio(replace(spec, policy=policy)) <= LOW_RATIO:
                    return f"policy.{key} to {value:g} or {steeper}"
    return ""


def moves(spec: RunSpec) -> bool:
    """Whether the run's policy changes the keep ratio."""
    policy = spec.policy.build(spec.seed)
    start = policy.keep_ratio
    policy.after_epoch(0.5)
    return policy.keep_ratio != start
