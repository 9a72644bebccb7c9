"""The comparisons across tasks. Each task gives one value: its gain, averaged over seeds. Pure.

Nothing is tested over fewer tasks than the study lists: where a task is incomplete, the row says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from sweep.gains.comparisons import declared_pairs
from sweep.gains.rows import Across, Compared
from sweep.statistics import across_tasks, holm
from sweep.study import Study


def across(study: Study, rows: Sequence[Compared]) -> list[Across]:
    """Compare every arm with every reference, in the order of the first task.

    A study of fewer than two tasks has no such comparison.
    """
    if len(study.tasks) < 2:
        return []
    first_finalists: dict[tuple[str, str, float], dict[str, Compared]] = {}
    for row in rows:
        key = (study.arms[row.arm].base, study.arms[row.reference_arm].base, row.keep_ratio)
        if key[0] != key[1]:
            first_finalists.setdefault(key, {}).setdefault(row.task, row)
    tests = sum(next(iter(by_task.values())).role == "family" for by_task in first_finalists.values())
    found = [_across(study, key, list(by_task.values()), tests) for key, by_task in first_finalists.items()]
    family = [i for i, row in enumerate(found) if row.role == "family"]
    p_values = [p for i in family if (p := found[i].p_value) is not None]
    if p_values and len(p_values) == len(family):
        for i, p in zip(family, holm(p_values), strict=True):
            found[i] = replace(found[i], p_holm=p)
    return found


def _across(study: Study, key: tuple[str, str, float], rows: Sequence[Compared], tests: int) -> Across:
    complete = [row for row in rows if row.state == "complete" and row.gain is not None]
    gains = {row.task: row.gain for row in complete if row.gain is not None}
    lacking = [row for row in rows if row.task not in gains]
    tested = None
    if len(gains) > 1:
        tested = across_tasks(gains, alpha=study.analysis.alpha, comparisons=max(tests, 1))
    return Across(
        arm=key[0],
        reference_arm=key[1],
        keep_ratio=key[2],
        role=rows[0].role,
        tasks=len(gains),
        missing=[f"{row.task}: {row.pairs} of {declared_pairs(study, row)} pairs" for row in lacking],
        median_gain=tested.median_gain if tested else next(iter(gains.values()), None),
        wins=tested.wins if tested else sum(gain > 0 for gain in gains.values()),
        ties=tested.ties if tested else sum(gain == 0 for gain in gains.values()),
        p_value=tested.p_value if tested and not lacking else None,
        p_holm=None,
        claimable=tested is not None and tested.claimable,
        **_without_failed(complete),
    )


def _without_failed(rows: Sequence[Compared]) -> dict[str, Any]:
    """What failed runs have to do with the gains. It leaves pairs out by their outcome, so it is no test."""
    pairs, failed = sum(row.seeds for row in rows), sum(row.seeds - row.pairs_without for row in rows)
    gains = [row.gain_without for row in rows if row.gain_without is not None]
    said = bool(failed) and len(gains) == len(rows)
    return {
        "run_pairs": pairs,
        "failed_pairs": failed,
        "median_gain_without": median(gains) if said else None,
        "wins_without": sum(gain > 0 for gain in gains) if said else None,
    }
