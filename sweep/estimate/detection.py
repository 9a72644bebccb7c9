"""What the comparisons of a study can find, and what the confirmation of another study says about that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sweep.ledger.ledger import Ledger
from sweep.planning.pairing import PICKED_ANEW, tested_pairings
from sweep.planning.plan import Plan
from sweep.planning.values import Growth
from sweep.statistics import (
    POWER,
    Tested,
    equivalence_margin,
    minimum_detectable_gain,
    pairs_for_gain,
    power,
    upper_deviation,
)
from sweep.study import Study

CAUTIOUS = 0.8
"""The level of the upper limit of a deviation that a pilot gives."""
EQUIVALENCE = 0.75
"""The chance with which a comparison without a true gain is found to lie within the margin."""


@dataclass(frozen=True)
class Strictest:
    """The tested comparison with the fewest pairs and the most overlap, at the strictest step of Holm."""

    study: Study
    pairs: int
    overlap: float
    at_any_time: bool
    share: float
    """The share of alpha that the tests have."""

    @classmethod
    def of(cls, study: Study, grew_after_look: Growth) -> Strictest:
        at_any_time = bool(grew_after_look) or study.analysis.looks == "any"
        share = PICKED_ANEW if grew_after_look == "picks" else 1.0
        overlap = max(study.arms[arm].overlap for arm in study.tested)
        by_search = any(pairing.by_search for pairing in tested_pairings(Plan(study, {}, {})))
        several = study.search.replicates > 1 and not by_search
        blocks = study.contents.blocks if at_any_time else study.contents.looks[-1]
        return cls(study, blocks * study.confirm.seeds if several else blocks, overlap, at_any_time, share)

    @property
    def searches(self) -> int:
        return self.study.search.replicates

    @property
    def alpha(self) -> float:
        """The alpha of one comparison: what the strictest step of Holm leaves, divided by the looks."""
        looks = 1 if self.at_any_time else len(self.study.contents.looks)
        return self.share * self.study.analysis.alpha / self.study.comparisons / looks

    @property
    def test(self) -> Tested:
        """The test that it has at the end."""
        return "any" if self.at_any_time else self.study.analysis.test

    def power(self, effect: float) -> float:
        """The chance that it finds a gain of so many standard deviations of the pair differences."""
        return power(self.pairs, effect, self.alpha, self.test, self.overlap)

    @cached_property
    def detectable_sd(self) -> float:
        """The gain that it finds with a chance of 80 %, in those standard deviations."""
        return minimum_detectable_gain(
            self.pairs, 1.0, alpha=self.alpha, power=POWER, test=self.test, overlap=self.overlap
        )

    @cached_property
    def equivalence_sd(self) -> float:
        """The margin within which it finds a gain of 0 to lie with a chance of 75 %, likewise."""
        return equivalence_margin(
            self.pairs,
            alpha=self.alpha,
            chance=EQUIVALENCE,
            test=self.test,
            overlap=self.overlap,
        )

    def pairs_for(self, effect: float, chance: float) -> int | None:
        """The least number of pairs that finds such a gain with a chance; None where it is too large."""
        return pairs_for_gain(
            effect,
            1.0,
            alpha=self.alpha,
            power=chance,
            test=self.test,
            overlap=self.overlap,
        )


@dataclass(frozen=True)
class Pilot:
    """What the pairs of another study say about a comparison. Those pairs are not tested here."""

    arm: str
    reference_arm: str
    keep_ratio: float
    unit: str
    pairs: int
    deviation: float
    """The standard deviation of the pair differences, in points."""
    deviation_high: float
    """Its upper 80 % limit."""
    detectable_gain: float
    """The gain that the planned pairs find with a chance of 80 % if that limit is true, in points."""
    margin: float
    """The margin within which they find a gain of 0 to lie with a chance of 75 %, likewise."""
    pairs_for_a_point: int | None
    """The pairs that find a gain of one point; None where there would have to be too many."""


def pilot_of(pilot: Ledger, strictest: Strictest) -> list[Pilot]:
    """What the finished confirmation runs of another study say about the pairs of this one."""
    other = pilot.state().plan
    found: list[Pilot] = []
    for pairing in tested_pairings(other):
        own, reference = pairing.scores(other.study.contents.blocks)
        differences = 100 * np.subtract(own, reference)
        if len(differences) < 2:
            continue
        deviation = float(differences.std(ddof=1))
        high = upper_deviation(deviation, len(differences), CAUTIOUS)
        found.append(
            Pilot(
                arm=pairing.candidate.arm.method,
                reference_arm=pairing.against.arm.method,
                keep_ratio=pairing.ratio,
                unit="search" if pairing.by_search else "seed",
                pairs=len(differences),
                deviation=deviation,
                deviation_high=high,
                detectable_gain=strictest.detectable_sd * high,
                margin=strictest.equivalence_sd * high,
                pairs_for_a_point=strictest.pairs_for(1 / high, POWER) if high else None,
            )
        )
    return found
