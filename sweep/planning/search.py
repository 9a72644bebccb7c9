"""The search of one arm: generations of candidates, each halved rung by rung on a ladder of seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from sweep.planning.work import Proposal, Result
from sweep.study.arms import Candidate, Phase, ResolvedArm
from sweep.study.contents import Values


@dataclass
class Entry:
    """A candidate in a phase, with one score for each seed that has finished."""

    candidate: Candidate
    phase: Phase
    scores: list[float] = field(default_factory=list)
    """At the primary endpoint, in the order of the pool; NaN where the run has not finished."""
    results: dict[int, Result] = field(default_factory=dict)
    """Results of confirmation runs, by place in the pool. A search has many runs and needs one number of each."""
    runs: list[str] = field(default_factory=list)
    """Its runs by run_id, in the order of the pool."""

    def mean(self, seeds: int) -> float:
        return math.fsum(self.scores[:seeds]) / seeds


@dataclass
class Generation:
    """Candidates that were proposed together."""

    arm: str
    number: int
    entries: list[Entry]
    alive: list[int]
    """The entries that are still in the race."""
    rung: int = 0
    waiting: int = 0
    """How many runs of this rung have not finished."""
    done: bool = False


class Search:
    """An arm's search so far."""

    def __init__(self, arm: ResolvedArm) -> None:
        self.arm, self.settings = arm, arm.contents.search
        self.generations: list[Generation] = []
        self.candidates = 0
        """How many there are. Not counted by the sizes of the study: it may have grown, and what is recorded stays."""
        self.done = 0
        """How many generations are done, up to the first that is not."""

    def due(self) -> Proposal | None:
        """The next generation, once the scores that it is proposed from are known."""
        number, left = len(self.generations), self.arm.budget - self.candidates
        known = max(0, number - self.settings.lag)
        if left <= 0 or known > self.done:
            return None
        history = [scored for generation in self.generations[:known] for scored in self._scored(generation)]
        return Proposal(self.arm.name, number, min(left, self.settings.generation), history)

    def begin(self, values: list[Values]) -> Generation:
        """Start the next generation with these candidates."""
        name, number = self.arm.name, len(self.generations)
        entries = [Entry(Candidate(name, f"{name}-{number}.{i}", v), "search") for i, v in enumerate(values)]
        generation = Generation(name, number, entries, list(range(len(entries))))
        self.generations.append(generation)
        self.candidates += len(entries)
        return generation

    def wanted(self, generation: Generation) -> Iterator[tuple[int, int]]:
        """Entry and place in the pool of each run that the present rung lacks."""
        for index in generation.alive:
            have = len(generation.entries[index].scores)
            yield from ((index, place) for place in range(have, self.settings.ladder[generation.rung]))

    def climb(self, generation: Generation) -> bool:
        """End a rung: half of the candidates go on to the next one, the earlier of equals. False at the top."""
        ladder = self.settings.ladder
        if generation.rung + 1 < len(ladder):
            seeds = ladder[generation.rung]
            ranked = sorted(generation.alive, key=lambda i: (-generation.entries[i].mean(seeds), i))
            generation.alive = ranked[: -(-len(ranked) // 2)]
            generation.rung += 1
            return True
        generation.done = True
        while self.done < len(self.generations) and self.generations[self.done].done:
            self.done += 1
        return False

    @property
    def complete(self) -> bool:
        """Whether every generation is done."""
        return self.done == len(self.generations) and self.candidates >= self.arm.budget

    @property
    def entries(self) -> list[Entry]:
        """Every candidate, in the order they were proposed."""
        return [entry for generation in self.generations for entry in generation.entries]

    def best(self) -> list[Candidate]:
        """The finalists: the best of those that climbed the whole ladder, which were scored on the same seeds.

        Of equals the earlier is chosen. A candidate that was proposed twice is confirmed twice only where there is
        nothing else.
        """
        seeds = max(self.settings.ladder)
        at_the_top = [g.entries[i] for g in self.generations for i in sorted(g.alive)]
        best = sorted(at_the_top, key=lambda entry: -entry.mean(seeds))
        first = {tuple(entry.candidate.values.items()): entry for entry in reversed(best)}
        best.sort(key=lambda entry: first[tuple(entry.candidate.values.items())] is not entry)
        return [entry.candidate for entry in best[: self.arm.finalists]]

    def _scored(self, generation: Generation) -> Iterator[tuple[Values, float, int]]:
        for entry in generation.entries:
            values = {
                key: value for key, value in entry.candidate.values.items() if key in self.arm.searched
            }
            yield values, entry.mean(len(entry.scores)), len(entry.scores)
