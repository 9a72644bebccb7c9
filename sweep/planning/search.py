"""The search of one arm: generations of candidates, of which half go on at each rung of the ladder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from sweep.planning.values import Proposal, Result
from sweep.study import Candidate, Phase, ResolvedArm, Values


@dataclass
class Entry:
    """A candidate in a phase, with its runs and scores so far."""

    candidate: Candidate
    phase: Phase
    scores: list[float] = field(default_factory=list)
    """Scores at the primary endpoint, in the order of the pool; NaN where the run has not finished."""
    results: dict[int, Result] = field(default_factory=dict)
    """Results of confirmation runs, by place in the pool. A search needs the score of a run alone."""
    runs: list[str] = field(default_factory=list)
    """Runs by run_id, in the order of the pool."""

    def mean(self, seeds: int) -> float:
        """The mean score over the first seeds of the pool."""
        return math.fsum(self.scores[:seeds]) / seeds


@dataclass
class Generation:
    """Candidates that were proposed together."""

    arm: str
    number: int
    entries: list[Entry]
    alive: list[int]
    """The indexes of the entries that are still in the race."""
    rung: int = 0
    """The rung of the ladder, counted from 0."""
    waiting: int = 0
    """The number of runs of this rung that have not finished."""
    done: bool = False


class Search:
    """The search of one arm, as far as it has come."""

    def __init__(self, arm: ResolvedArm) -> None:
        self.arm, self.settings = arm, arm.contents.search
        self.generations: list[Generation] = []
        self.candidate_count = 0
        """The number of candidates so far.

        They are counted, because recorded generations keep their sizes when the study grows."""
        self.generations_done = 0
        """The number of generations that are done before the first one that is not."""

    def due(self) -> Proposal | None:
        """The next generation, once there are all scores from which it is proposed."""
        number, left = len(self.generations), self.arm.budget - self.candidate_count
        used = max(0, number - self.settings.lag)
        if left <= 0 or used > self.generations_done:
            return None
        history = [scored for generation in self.generations[:used] for scored in self._scored(generation)]
        return Proposal(self.arm.name, number, min(left, self.settings.generation), history)

    def begin(self, values: list[Values]) -> Generation:
        """Start the next generation with these candidates."""
        name, number = self.arm.name, len(self.generations)
        entries = [Entry(Candidate(name, f"{name}-{number}.{i}", v), "search") for i, v in enumerate(values)]
        generation = Generation(name, number, entries, list(range(len(entries))))
        self.generations.append(generation)
        self.candidate_count += len(entries)
        return generation

    def missing_runs(self, generation: Generation) -> Iterator[tuple[int, int]]:
        """The index of the entry and the place in the pool of each run that the present rung lacks."""
        for index in generation.alive:
            have = len(generation.entries[index].scores)
            yield from ((index, place) for place in range(have, self.settings.ladder[generation.rung]))

    def climb(self, generation: Generation) -> bool:
        """End a rung: the better half of the candidates goes on to the next one. False at the last rung.

        Of two equals the earlier one goes on, and of an odd number the larger half.
        """
        ladder = self.settings.ladder
        if generation.rung + 1 == len(ladder):
            generation.done = True
            while (
                self.generations_done < len(self.generations)
                and self.generations[self.generations_done].done
            ):
                self.generations_done += 1
            return False
        seeds = ladder[generation.rung]
        ranked = sorted(generation.alive, key=lambda i: (-generation.entries[i].mean(seeds), i))
        generation.alive = ranked[: math.ceil(len(ranked) / 2)]
        generation.rung += 1
        return True

    @property
    def complete(self) -> bool:
        """Whether every generation is done."""
        return self.generations_done == len(self.generations) and self.candidate_count >= self.arm.budget

    @property
    def entries(self) -> list[Entry]:
        """All candidates, in the order in which they were proposed."""
        return [entry for generation in self.generations for entry in generation.entries]

    def best(self) -> list[Candidate]:
        """The finalists: the best candidates on the last rung, all scored on the same seeds.

        Of two equal scores the earlier one is better. Values that were proposed twice are confirmed twice
        only where there are too few others.
        """
        seeds = max(self.settings.ladder)
        at_last_rung = [g.entries[i] for g in self.generations for i in sorted(g.alive)]
        ranked = sorted(at_last_rung, key=lambda entry: -entry.mean(seeds))
        # Where candidates have the same values, all but the first one go to the end.
        first = {tuple(entry.candidate.values.items()): entry for entry in reversed(ranked)}
        ranked.sort(key=lambda entry: first[tuple(entry.candidate.values.items())] is not entry)
        return [entry.candidate for entry in ranked[: self.arm.finalists]]

    def _scored(self, generation: Generation) -> Iterator[tuple[Values, float, int]]:
        """The searched values, the mean score and the number of seeds of each candidate."""
        searched = self.arm.searched
        for entry in generation.entries:
            values = {key: value for key, value in entry.candidate.values.items() if key in searched}
            yield values, entry.mean(len(entry.scores)), len(entry.scores)
