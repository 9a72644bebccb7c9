"""Gains on several tasks: each task is one block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweep.errors import NotComparable
from sweep.statistics.paired import signed_rank
from sweep.statistics.power import pairs_needed

LEAST_TASKS = 6
"""Over fewer tasks no exact two-sided test can reject at 5 %: 2 / 2^5 is more."""


@dataclass(frozen=True)
class AcrossTasks:
    """Gains on several tasks, each task one block."""

    tasks: int
    median_gain: float
    wins: int
    ties: int
    """Tasks without a gain or a loss; the test leaves them out."""
    p_value: float
    """Wilcoxon's, over the tasks' gains; exact up to 20 of them."""
    claimable: bool
    """Whether so many tasks could show anything at alpha after the strictest step of Holm's correction."""


def across_tasks(gains: Mapping[str, float], *, alpha: float = 0.05, comparisons: int = 1) -> AcrossTasks:
    """From each task's seed-averaged gain. Seeds of different tasks are never put into one sample: a task is what varies here."""
    if wrong := [task for task, gain in gains.items() if not math.isfinite(gain)]:
        raise NotComparable(f"task {wrong[0]!r} has no gain: it is {gains[wrong[0]]}.")
    if len(gains) < 2:
        raise NotComparable(f"a test over tasks needs at least 2; there are {len(gains)}.")
    values = np.round(
        np.array(list(gains.values())), 12
    )  # as the test does: the last bits of a mean are no win
    return AcrossTasks(
        tasks=len(values),
        median_gain=float(np.median(values)),
        wins=int((values > 0).sum()),
        ties=int((values == 0).sum()),
        p_value=signed_rank(values),
        claimable=len(values) >= tasks_needed(comparisons, alpha),
    )


def tasks_needed(comparisons: int, alpha: float) -> int:
    """The fewest tasks over which so many comparisons may claim anything; never fewer than six."""
    return max(LEAST_TASKS, pairs_needed(comparisons, alpha))
