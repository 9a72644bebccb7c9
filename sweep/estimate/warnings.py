"""What a user should know of a study before it costs anything, and may still want."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from sweep.statistics import tasks_needed
from sweep.study import Study
from trainer.data import facts
from trainer.models import names
from trainer.policies.connectivity import NpsetFrozen, StaticSparse, erdos_renyi
from trainer.spec import RunSpec

LOW_RATIO = 0.1
"""A keep-ratio policy that never comes under this trains at mild sparsity only."""


def warnings(study: Study) -> list[str]:
    """What a user should know before it costs anything, and may still want: once, though it be so on every task."""
    return list(dict.fromkeys(_warnings(study)))


def _warnings(study: Study) -> Iterator[str]:
    analysis, tasks = study.analysis, len(study.tasks)
    across = len(analysis.endpoints) * (
        len(study.contents.family) + sum(map(len, analysis.against.values()))
    )
    if 1 < tasks < (needed := tasks_needed(across, analysis.alpha)):
        yield (
            f"{tasks} tasks: a claim across tasks needs {needed}, because an exact signed-rank test of fewer can reject nothing once it is "
            f"corrected for {across} comparison{'s' if across > 1 else ''} across tasks; the comparisons on each task stand."
        )
    found: defaultdict[str, list[str]] = defaultdict(list)
    for arm, it in study.arms.items():
        for reason in () if it.repeats else _of_arm(study, arm):
            found[reason].append(arm)
    for reason, arms in found.items():
        several = len({study.arms[arm].base for arm in arms}) > 1
        yield f"{_named(study, arms)}: {reason.format(its='their' if several else 'its')}"
    budgets = {
        study.arms[arm].base: study.arms[arm].budget for arm in study.arms if study.arms[arm].searched
    }
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{arm} {budget}" for arm, budget in budgets.items())
        yield f"the searched arms have different budgets ({told}): the one with more is favoured."
    if budgets and not study.arms[study.baselines[0]].searched:
        yield f"the baseline {study.analysis.baseline!r} is not searched and other arms are: part of their gain may be the tuning."


def _of_arm(study: Study, arm: str) -> Iterator[str]:
    """What is said of one arm on one task, with {its} for whose it is: of several it is told in one line."""
    specs = [study.run(candidate, "confirm", 0) for candidate in study.arms[arm].ends]
    lowest, spec = min(((lowest_ratio(spec), spec) for spec in specs), key=lambda it: it[0])
    if LOW_RATIO < lowest < 1 and any(moves(spec) for spec in specs):
        epochs = spec.task.epochs
        mild = f"{{its}} keep ratio stays at {lowest:.2g} or above in all {epochs} epochs: none is trained at high sparsity."
        yield f"{mild} For {LOW_RATIO:g} it takes {steeper}." if (steeper := steeper_setting(spec)) else mild
    policies = [spec.policy.build(spec.seed) for spec in specs]
    epsilons = [policy.epsilon for policy in policies if isinstance(policy, StaticSparse)]
    match = study.arms[arm].match
    known = match is None or match.at is None  # else the network follows from a finalist
    if epsilons and known and all(all_dense(spec, min(epsilons)) for spec in specs):
        yield "all {its} layers are dense, so that nothing is removed or rewired; take a smaller epsilon or a wider network."
    starts, epochs = (
        [policy.start for policy in policies if isinstance(policy, NpsetFrozen)],
        max(spec.task.epochs for spec in specs),
    )
    if starts and min(starts) >= epochs:
        yield f"{{its}} neurons are never pruned: policy.start is {min(starts)} of {epochs} epochs."
    search = study.search
    if (
        search.proposer == "tpe"
        and study.arms[arm].searched
        and len(study.arms[arm].generations) <= search.lag + 1
    ):
        yield "all {its} candidates are proposed before a score is known; tpe needs a smaller search.generation or lag."


def _named(study: Study, arms: list[str]) -> str:
    """Arms as they are called in the file; those of which it is true on some tasks alone, with the task."""
    bases = Counter(study.arms[arm].base for arm in arms)
    shown = dict.fromkeys(
        base if bases[base := study.arms[arm].base] == len(study.tasks) else arm for arm in arms
    )
    return ", ".join(f"arms.{name}" for name in shown)


def all_dense(spec: RunSpec, epsilon: float) -> bool:
    """Whether a fully connected network has no layer that would be sparse at this epsilon. Of another network it is not told."""
    network = names.mlp(spec.task.model)
    if network is None:
        return False
    known = facts(spec.task.data)
    sizes = [math.prod(known.image), *network[0], known.classes]
    return all(erdos_renyi(epsilon, rows, columns) == rows * columns for columns, rows in pairwise(sizes))


def lowest_ratio(spec: RunSpec) -> float:
    """The smallest keep ratio of a run whose training accuracy only rises, so that nothing resets early."""
    policy = spec.policy.build(spec.seed)
    lowest = policy.keep_ratio
    for epoch in range(1, spec.task.epochs):
        policy.after_epoch(1 - 0.9 * math.exp(-3 * epoch / spec.task.epochs))
        lowest = min(lowest, policy.keep_ratio)
    return lowest


def steeper_setting(spec: RunSpec) -> str:
    """The one setting, with its value, that takes the run's keep ratio down to LOW_RATIO; empty where none does alone."""
    settings = spec.policy.settings
    falls = min(spec.task.epochs, settings.get("period") or spec.task.epochs) - 1
    if not falls:
        return ""
    step, decay = (1 - LOW_RATIO) / falls, LOW_RATIO ** (1 / falls)
    rounded = {
        "step": (math.ceil(1e4 * step) / 1e4, "more"),
        "decay": (math.floor(1e4 * decay) / 1e4, "less"),
    }
    for key, (value, or_what) in rounded.items():
        if settings.get(key):
            policy = replace(spec.policy, settings=MappingProxyType({**settings, key: value}))
            if lowest_ratio(replace(spec, policy=policy)) <= LOW_RATIO:
                return f"policy.{key} of {value:g} or {or_what}"
    return ""


def moves(spec: RunSpec) -> bool:
    """Whether the run's policy is one that changes the ratio."""
    policy = spec.policy.build(spec.seed)
    start = policy.keep_ratio
    policy.after_epoch(0.5)
    return policy.keep_ratio != start
