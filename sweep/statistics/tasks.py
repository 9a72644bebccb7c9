"""A test over gains on several tasks. Each task is one block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweep.errors import NotComparable
from sweep.statistics.detection import pairs_needed
from sweep.statistics.paired import signed_rank

LEAST_TASKS = 6
"""The fewest tasks over which an exact two-sided test can reject at 5 %: over five its least p is 2 / 32."""


@dataclass(frozen=True)
class AcrossTasks:
    """The gains of a comparison on several tasks, with a test over them."""

    tasks: int
    median_gain: float
    wins: int
    ties: int
    """The number of tasks without a gain or a loss. The test leaves them out."""
    p_value: float
    """The p-value of Wilcoxon's test over the gains; exact up to 20 tasks."""
    claimable: bool
    """Whether there are enough tasks to reject at alpha, at the strictest step of Holm's correction."""


def across_tasks(gains: Mapping[str, float], *, alpha: float = 0.05, comparisons: int = 1) -> AcrossTasks:
    """A test over the gain of each task, averaged over its seeds.

    What varies here is the task. Seeds of different tasks never enter one sample.
    """
    if wrong := [task for task, gain in gains.items() if not math.isfinite(gain)]:
        raise NotComparable(f"task {wrong[0]!r} has no gain: it is {gains[wrong[0]]}.")
    if len(gains) < 2:
        raise NotComparable(f"a test over tasks needs at least 2; there are {len(gains)}.")
    # Rounded like in the test: a difference in the last bits of a mean is no win.
    values = np.round(np.array(list(gains.values())), 12)
    return AcrossTasks(
        tasks=len(values),
        median_gain=float(np.median(values)),
        wins=int((values > 0).sum()),
        ties=int((values == 0).sum()),
        p_value=signed_rank(values),
        claimable=len(values) >= tasks_needed(comparisons, alpha),
    )


def tasks_needed(comparisons: int, alpha: float) -> int:
    """The least number of tasks over which a family with this many comparisons can reject; at least six."""
    return max(LEAST_TASKS, pairs_needed(comparisons, alpha))
