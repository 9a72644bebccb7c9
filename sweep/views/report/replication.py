"""A paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweep.study.contents import Published
from sweep.views.report.confirmed import Confirmed
from sweep.views.report.courses import Course, Key


@dataclass(frozen=True, kw_only=True)
class Replicated:
    """An arm's finalist of a rank beside what the paper reports. Ours are means over runs."""

    arm: str
    rank: int
    published: float | None
    """The paper's test accuracy; None where it reports none for this arm."""
    best: float
    """Test accuracy at each run's best epoch, at that epoch's keep ratio: what papers often report."""
    epoch: float
    """The number of that epoch."""
    keep_ratio: float | None
    """The keep ratio of that epoch; None for a policy that has none."""
    nonzero_rate: float | None
    """The share of activations that were not zero then; None in older runs."""
    last: float
    """Test accuracy at the last epoch, at r = 1."""
    gap: float
    """The training accuracy of the last epoch, less its test accuracy at the same keep ratio."""


def replicated(
    published: Published | None, arms: Sequence[Confirmed], courses: Mapping[Key, Course]
) -> list[Replicated]:
    """A line for each arm with finished runs; none where the study names no paper."""
    if published is None:
        return []
    with_runs = [(arm, courses[arm.arm, arm.rank]) for arm in arms if (arm.arm, arm.rank) in courses]
    return [
        Replicated(
            arm=arm.arm,
            rank=arm.rank,
            published=published.accuracy.get(arm.arm),
            best=course.best_at_own_ratio.accuracy,
            epoch=course.best_at_own_ratio.epoch,
            keep_ratio=course.best_at_own_ratio.keep_ratio,
            nonzero_rate=course.best_at_own_ratio.nonzero_rate,
            last=course.last,
            gap=course.gap,
        )
        for arm, course in with_runs
    ]
