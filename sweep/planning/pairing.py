"""The pairs of a comparison: which runs of two arms belong together, and how many are there. Pure.

Pairs come in blocks. With several searches a block is a search with all its confirmation runs. With one
search it is a seed. A block counts once every tested arm has all its runs in it, so that all comparisons
are made over the same blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from sweep.planning.values import Result
from sweep.statistics import Comparison, paired_comparison
from sweep.study import Candidate, ResolvedArm, Study

FEWEST = 2
"""The fewest blocks that are tested where looks may be had at any time."""
PICKED_ANEW = 0.1
"""The share of alpha that is left for finalists which were picked anew after a look.

The look itself has spent alpha. By simulation (`benchmarks.chances`) the chance of any false gain is 5.2 %
with this share, and 7.4 % with all of alpha."""


class Picked(Protocol):
    """A plan, as far as it says which finalists there are and what their runs gave."""

    study: Study

    def picked(self, arm: str, ratio: float) -> list[tuple[Candidate, dict[int, Result]]]: ...


@dataclass(frozen=True)
class Side:
    """One side of the pairs: an arm's finalist of a rank for an endpoint, in every search."""

    arms: Sequence[ResolvedArm]
    """The arm in each search."""
    rank: int
    """The finalist's place among those of the arm, counted from 0."""
    finalists: Sequence[tuple[Candidate, Mapping[int, Result]] | None]
    """The finalist of each search with its finished runs by place; None while that search is under way."""

    @property
    def arm(self) -> ResolvedArm:
        """The arm, for everything that does not depend on the search."""
        return self.arms[0]

    def result(self, search: int, place: int) -> Result | None:
        """The result of a run, by search and by place in its pool, both counted from 0."""
        finalist = self.finalists[search]
        return finalist[1].get(place) if finalist else None


@dataclass(frozen=True)
class Pairing:
    """Two sides that are compared at a keep ratio."""

    candidate: Side
    against: Side
    ratio: float

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.candidate, self.against

    @property
    def is_tested(self) -> bool:
        """Whether it is one of the family's comparisons."""
        return self.candidate.arm.is_tested_over(self.against.arm)

    @property
    def by_search(self) -> bool:
        """Whether one search gives one pair: the means over its seeds. Else every seed gives a pair."""
        return len(self.candidate.arms) > 1 and any(side.arm.is_drawn for side in self.sides)

    def pairs(self, blocks: int) -> list[list[tuple[Result, Result]]]:
        """The finished pairs of runs in the first blocks, a list for each search."""
        found: list[list[tuple[Result, Result]]] = [[] for _ in self.candidate.arms]
        for search, place in places(self.candidate.arm, blocks):
            own, other = (side.result(search, place) for side in self.sides)
            if own and other:
                found[search].append((own, other))
        return found

    def is_complete(self, blocks: int, first: int = 0) -> bool:
        """Whether no run is missing in the first blocks; `first` of them are not looked at."""
        arm = self.candidate.arm
        return all(side.result(*at) for at in places(arm, blocks, first) for side in self.sides)

    def scores(self, blocks: int) -> list[list[float]]:
        """The test accuracies of both sides, pair by pair, over the finished pairs of the first blocks."""
        searches = [
            [[pair[side].score("test", self.ratio) for pair in pairs] for side in (0, 1)]
            for pairs in self.pairs(blocks)
            if pairs
        ]
        if self.by_search:
            searches = [[[math.fsum(half) / len(half)] for half in halves] for halves in searches]
        return [list(itertools.chain.from_iterable(halves[side] for halves in searches)) for side in (0, 1)]

    def in_pairs(self, blocks: int) -> int:
        """How many pairs so many blocks are."""
        seeds = self.candidate.arm.contents.confirm.seeds
        return blocks * seeds if len(self.candidate.arms) > 1 and not self.by_search else blocks

    def tested(
        self, study: Study, blocks: int, *, at_any_time: bool = False, share: float = 1.0
    ) -> Comparison:
        """The result of the test over the first blocks, which have to be complete, with a share of alpha."""
        analysis = study.analysis
        looks: list[int] | Literal["any"] = "any"
        if not at_any_time:
            looks = [self.in_pairs(look) for look in study.contents.looks]
            if blocks not in study.contents.looks:
                # an earlier look at fewer seeds, before the study grew: it was the only one
                looks = [self.in_pairs(blocks)]
        found = paired_comparison(
            *self.scores(blocks),
            alpha=share * analysis.alpha,
            test=analysis.test,
            comparisons=study.comparisons,
            overlap=self.candidate.arm.overlap,
            looks=looks,
        )
        return replace(found, p_value=min(1.0, found.p_value / share))


def places(arm: ResolvedArm, blocks: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """The runs of some blocks in order, each by its search and its place in the pool, counted from 0."""
    if arm.contents.search.replicates == 1:
        return ((0, place) for place in range(first, blocks))
    return itertools.product(range(first, blocks), range(arm.contents.confirm.seeds))


def sides(plan: Picked, method: str, ratio: float) -> list[Side]:
    """The finalists of an arm for an endpoint, the best one first. They are known when the searches end."""
    arms = plan.study.methods[method]
    picked = [plan.picked(arm.name, ratio) for arm in arms]
    ranks = max((len(finalists) for finalists in picked), default=0) or arms[0].finalists
    return [
        Side(arms, rank, [finalists[rank] if rank < len(finalists) else None for finalists in picked])
        for rank in range(ranks)
    ]


def pairings(plan: Picked, method: str, reference: str) -> Iterator[Pairing]:
    """The finalists of an arm beside the first one of another arm, at each endpoint."""
    by_ratio = [
        [Pairing(side, against, ratio) for side in sides(plan, method, ratio)]
        for ratio in plan.study.analysis.endpoints
        for against in sides(plan, reference, ratio)[:1]
    ]
    for same_rank in zip(*by_ratio, strict=True):
        yield from same_rank


def tested_pairings(plan: Picked) -> list[Pairing]:
    """The comparisons of the family."""
    study = plan.study
    return [
        pairing
        for name, (arm, *_) in study.methods.items()
        for other, (reference, *_) in study.methods.items()
        if arm.task == reference.task and arm.is_tested_over(reference)
        for pairing in pairings(plan, name, other)
    ]


def complete_blocks(plan: Picked) -> int:
    """The number of blocks at the start of the pools in which every tested arm has all its runs."""
    tested, most = tested_pairings(plan), plan.study.contents.blocks
    for block in range(most):
        if not all(pairing.is_complete(block + 1, block) for pairing in tested):
            return block
    return most


Verdict = Literal["better", "worse", "equivalent", "inconclusive"]


def verdict(low: float, high: float, margin: float | None = None) -> Verdict:
    """What the interval of a gain says: on which side of 0 it lies, or whether within the margin."""
    if low > 0 or high < 0:
        return "better" if low > 0 else "worse"
    inside = margin is not None and -margin < low and high < margin
    return "equivalent" if inside else "inconclusive"


def all_decided(plan: Picked, blocks: int) -> bool:
    """Whether every comparison of the family has a verdict at the look at so many blocks."""
    study = plan.study
    for pairing in tested_pairings(plan):
        found = pairing.tested(study, blocks)
        if verdict(found.family_low, found.family_high, study.margin(pairing.ratio)) == "inconclusive":
            return False
    return True
