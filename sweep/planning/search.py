"""The search of one arm: generations of candidates, of which half go on at each rung of the ladder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from sweep.planning.values import History, Proposal, Result
from sweep.study import Candidate, Phase, ResolvedArm, Values


@dataclass
class Entry:
    """A candidate in a phase, with its runs and scores so far."""

    candidate: Candidate
    phase: Phase
    scores: list[float] = field(default_factory=list)
    """Scores at the primary endpoint, in the order of the pool; NaN where the run has not finished."""
    results: dict[int, Result] = field(default_factory=dict)
    """Results of its finished runs, by place in the pool."""
    runs: list[str] = field(default_factory=list)
    """Runs by run_id, in the order of the pool."""

    def mean(self, seeds: int, ratio: float) -> float:
        """The mean validation accuracy at a keep ratio over the first seeds of the pool."""
        return math.fsum(self.results[i].score("validation", ratio) for i in range(seeds)) / seeds

    @property
    def key(self) -> tuple[object, ...]:
        """The values, as something that can be compared and hashed."""
        return tuple((setting, repr(value)) for setting, value in self.candidate.values.items())


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
        self.endpoints = arm.contents.analysis.endpoints
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
        return Proposal(
            self.arm.name, number, min(left, self.settings.generation), History(partial(self._scored, used))
        )

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
        alive = [generation.entries[i] for i in generation.alive]
        going_on = self._ranked(alive, seeds)[: math.ceil(len(alive) / 2)]
        generation.alive = [generation.alive[i] for i in going_on]
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

    def best(self) -> dict[float, list[Candidate]]:
        """The finalists for each endpoint: the best candidates on the last rung, all on the same seeds.

        Only with the objective `each` they may differ from endpoint to endpoint. Values that were proposed
        twice are confirmed twice only where there are too few others.
        """
        seeds = max(self.settings.ladder)
        at_last_rung = [g.entries[i] for g in self.generations for i in sorted(g.alive)]
        picked: dict[float, list[Candidate]] = {}
        for ratio in self.endpoints:
            if self.settings.objective == "each":
                order = _by_score(at_last_rung, seeds, ratio)
            else:
                order = self._ranked(at_last_rung, seeds)
            ranked = _repeated_last([at_last_rung[i] for i in order])
            picked[ratio] = [entry.candidate for entry in ranked[: self.arm.finalists]]
        return picked

    def _ranked(self, entries: Sequence[Entry], seeds: int) -> list[int]:
        """The indexes of some candidates, the best one first. Of two equals the earlier one is better."""
        if self.settings.objective == "rank":
            ranks, first = self._mean_ranks(entries, seeds), self.endpoints[0]
            return sorted(range(len(entries)), key=lambda i: (ranks[i], -entries[i].mean(seeds, first), i))
        if self.settings.objective == "each":
            return _in_turns([_by_score(entries, seeds, ratio) for ratio in self.endpoints])
        return _by_score(entries, seeds, self.endpoints[0])

    def _mean_ranks(self, entries: Sequence[Entry], seeds: int | None) -> list[float]:
        """The mean over the endpoints of each candidate's rank among these. The best has rank 1.

        Without `seeds`, a candidate's score is taken over all seeds that it was given.
        """
        means = [
            [entry.mean(seeds or len(entry.scores), ratio) for entry in entries] for ratio in self.endpoints
        ]
        ranks = [_ranks(scores) for scores in means]
        return [math.fsum(own) / len(own) for own in zip(*ranks, strict=True)]

    def _scored(self, used: int) -> list[tuple[Values, float, int]]:
        """The searched values, the score and the number of seeds of each candidate that may be told.

        With several endpoints in the objective the score is the mean rank, turned so that more is better.
        """
        entries = [entry for generation in self.generations[:used] for entry in generation.entries]
        if self.settings.objective == "first":
            scores = [entry.mean(len(entry.scores), self.endpoints[0]) for entry in entries]
        else:
            scores = [-rank for rank in self._mean_ranks(entries, None)]
        searched = self.arm.searched
        return [
            ({k: v for k, v in entry.candidate.values.items() if k in searched}, score, len(entry.scores))
            for entry, score in zip(entries, scores, strict=True)
        ]


def _by_score(entries: Sequence[Entry], seeds: int, ratio: float) -> list[int]:
    """The indexes of some candidates by their score at a keep ratio, the best one first."""
    return sorted(range(len(entries)), key=lambda i: (-entries[i].mean(seeds, ratio), i))


def _ranks(scores: Sequence[float]) -> list[float]:
    """The rank of each score, 1 for the greatest. Equal scores share the mean of their ranks."""
    return [
        sum(other > score for other in scores) + (sum(other == score for other in scores) + 1) / 2
        for score in scores
    ]


def _repeated_last(entries: Sequence[Entry]) -> list[Entry]:
    """The candidates in their order, but with those whose values another one before has at the end."""
    first: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        first.setdefault(entry.key, entry)
    return sorted(entries, key=lambda entry: first[entry.key] is not entry)


def _in_turns(orders: Sequence[Sequence[int]]) -> list[int]:
    """One order from several: the first of each, then the second of each, and so on."""
    found: dict[int, None] = {}
    for position in range(len(orders[0])):
        for order in orders:
            found.setdefault(order[position])
    return list(found)
