"""What the comparisons say across tasks: each task is one block, and its seed-averaged gain one value. Pure.

Nothing is tested over fewer tasks than the study lists: where one is incomplete, the comparison across them says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from sweep.gains.comparisons import Compared
from sweep.statistics.paired import across_tasks, holm
from sweep.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Across:
    """One arm held against one reference over all tasks, by the first finalist of each. Gains are shares, not points."""

    arm: Annotated[str, "of the study, whatever the task"]
    reference_arm: Annotated[str, "the arm it is held against, on every task"]
    keep_ratio: Annotated[float, "of the final weights that are compared"]
    role: Annotated[
        str, "family: tested, under the correction; control: shown, not tested; repeat: an arm's own null"
    ]
    tasks: Annotated[int, "on which the comparison is complete"]
    missing: Annotated[list[str], "the other tasks, and how many pairs each has"]
    median_gain: Annotated[float | None, "over those tasks, of the mean gain over a task's pairs"]
    wins: Annotated[int, "tasks with a gain above 0"]
    ties: Annotated[int, "tasks with a gain of 0; the test leaves them out"]
    p_value: Annotated[
        float | None,
        "Wilcoxon's signed-rank test of the tasks' gains, exact; null until every task is complete",
    ]
    p_holm: Annotated[float | None, "corrected over the family's comparisons across tasks; null outside it"]
    claimable: Annotated[
        bool,
        "whether so many tasks could show anything at alpha after the correction; never with fewer than six",
    ]


def across(study: Study, rows: Sequence[Compared]) -> list[Across]:
    """Every arm over every reference, in the order of the first task; none where the study has fewer than two tasks."""
    if len(study.tasks) < 2:
        return []
    first: dict[tuple[str, str, float], dict[str, Compared]] = {}
    for row in rows:
        key = (study.base_of(row.arm), study.base_of(row.reference_arm), row.keep_ratio)
        if key[0] != key[1]:
            first.setdefault(key, {}).setdefault(row.task, row)
    tests = sum(next(iter(it.values())).role == "family" for it in first.values())
    found = [_across(study, key, list(it.values()), tests) for key, it in first.items()]
    family = [i for i, it in enumerate(found) if it.role == "family"]
    p_values = [p for i in family if (p := found[i].p_value) is not None]
    if p_values and len(p_values) == len(family):
        for i, p in zip(family, holm(p_values), strict=True):
            found[i] = replace(found[i], p_holm=p)
    return found


def _across(study: Study, key: tuple[str, str, float], rows: Sequence[Compared], tests: int) -> Across:
    gains = {row.task: row.gain for row in rows if row.state == "complete" and row.gain is not None}
    missing = [
        f"{row.task}: {row.pairs} of {study.confirm.seeds - row.first_place} pairs"
        for row in rows
        if row.task not in gains
    ]
    whole = (
        across_tasks(gains, alpha=study.analysis.alpha, comparisons=max(tests, 1))
        if len(gains) > 1
        else None
    )
    return Across(
        arm=key[0],
        reference_arm=key[1],
        keep_ratio=key[2],
        role=rows[0].role,
        tasks=len(gains),
        missing=missing,
        median_gain=whole.median_gain if whole else _only(gains.values()),
        wins=whole.wins if whole else sum(gain > 0 for gain in gains.values()),
        ties=whole.ties if whole else sum(gain == 0 for gain in gains.values()),
        p_value=whole.p_value if whole and not missing else None,
        p_holm=None,
        claimable=whole is not None and whole.claimable,
    )


def _only(gains: Iterable[float]) -> float | None:
    return next(iter(gains), None)
