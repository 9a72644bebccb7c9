"""The seeds that may still be tested after a look, and how many more are needed. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from sweep.errors import RejectStudy
from sweep.planning.values import Look, Looks
from sweep.statistics import pairs_needed
from sweep.study import Study


def first_place(study: Study, arm: str, looks: Iterable[Look], seeds: int | None = None) -> int:
    """The place in the pool of the first seed that may still be tested.

    The seeds before it were tested already, at a look at fewer seeds.
    """
    seeds = seeds or study.confirm.seeds
    return max((look.pairs for look in looks if arm in look.arms and look.pairs < seeds), default=0)


def refuse_what_cannot_reject(study: Study, looks: Looks) -> None:
    """Raise RejectStudy where the seeds after a look are too few to be tested alone.

    The message names a number of seeds that is accepted.
    """
    seeds, begun = study.confirm.seeds, looks.begun
    for arm in study.arms:
        first, needed = first_place(study, arm, looks.seen), pairs_that_reject(study, arm)
        if not first or seeds - first >= needed:
            continue
        enough = seeds_with(study, looks.if_more, lambda arm: pairs_that_reject(study, arm))
        stay = ""
        if begun and begun < seeds and _can_stay(study, looks.seen, begun):
            stay = f", or stay at the {begun} that it has"
        raise RejectStudy(
            [
                f"{study.name}: confirm.seeds: the first {first} seeds of {arm!r} were compared already. "
                "Seeds that are added after a look are tested alone: "
                f"{seeds - first} of them cannot reject anything, {needed} can. "
                f"Ask for {enough} seeds or more{stay}."
            ]
        )


def _can_stay(study: Study, looks: Sequence[Look], begun: int) -> bool:
    """Whether the seeds that the ledger has leave every arm enough pairs that no look has seen."""
    return all(
        begun - first_place(study, arm, looks, begun) >= pairs_that_reject(study, arm) for arm in study.arms
    )


def pairs_that_reject(study: Study, arm: str) -> int:
    """The least pairs with which an arm could show a gain: two without a test of it, or with a t test."""
    exact = study.arms[arm].tested and study.analysis.test == "sign-flip"
    return pairs_needed(study.comparisons, study.analysis.alpha) if exact else 2


def seeds_with(study: Study, looks: Sequence[Look], pairs: Callable[[str], int]) -> int:
    """The least number of seeds, above the study's, that gives each arm `pairs` pairs unseen by a look."""
    return next(
        seeds
        for seeds in itertools.count(study.confirm.seeds + 1)
        if all(seeds - first_place(study, arm, looks, seeds) >= pairs(arm) for arm in study.arms)
    )
