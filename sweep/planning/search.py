"""What the plan remembers of candidates on their way up the ladder and in confirmation. What follows from it, the plan says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sweep.planning.work import Phase, Result
from sweep.study.study import Candidate


@dataclass
class Entry:
    """A candidate in the plan, with one score for each seed that has finished."""

    candidate: Candidate
    phase: Phase
    scores: list[float] = field(default_factory=list)
    """At the primary endpoint, by place in the pool; NaN where the run has not finished."""
    results: dict[int, Result] = field(default_factory=dict)
    """By place in the pool; of confirmation runs alone, since the search has many and needs one number of each."""
    runs: list[str] = field(default_factory=list)

    def mean(self, seeds: int) -> float:
        return math.fsum(self.scores[:seeds]) / seeds


@dataclass
class Generation:
    """Candidates proposed together, halved rung by rung."""

    arm: str
    number: int
    entries: list[Entry]
    alive: list[int]
    rung: int = 0
    waiting: int = 0
    """Runs of this rung that have not finished."""
    done: bool = False


@dataclass
class Searching:
    """An arm's search so far."""

    generations: list[Generation] = field(default_factory=list)
    candidates: int = 0
    """In all of them. Not counted from the sizes that the study would give: it may have grown, and what is recorded stays."""
    done: int = 0
    """Generations that are done, up to the first that is not."""
