"""What comes next: a pure value that is told what exists, what finished and how, and is asked which run to train now.

No Ray, no disk, no clock: whoever waits says what time it is. The order in which things are told changes which run is handed out when,
and never which candidates, finalists and runs there are.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from sweep.planning.matching import network
from sweep.planning.search import Entry, Generation, Searching
from sweep.planning.work import Cohort, Failure, Phase, Proposal, Result, Run
from sweep.study.contents import Values
from sweep.study.study import Candidate, Study

NODE_STRIKES = 3
"""Different runs that end badly on a node, with none that ends well between them, before work is kept away from it."""


class Plan:
    """`results` and `proposals` are what exists already; `wanted` and `next` ask, `propose`, `finish` and `lose` tell."""

    def __init__(
        self, study: Study, results: Mapping[str, Result], proposals: Mapping[tuple[str, int], list[Values]]
    ) -> None:
        self.study, self.proposals = study, proposals
        self.results = dict(results)
        """Of every run that has finished, so that none is done again for a candidate that comes later."""
        self.failed: dict[str, Failure] = {}
        self.running: dict[str, tuple[Run, float]] = {}
        """Run and when it last made progress, by run_id."""
        self.total: Counter[tuple[Phase, str]] = Counter()
        """Runs known so far and runs finished, by phase and arm."""
        self.finished: Counter[tuple[Phase, str]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Of the runs that have finished, and their epochs, by arm."""
        self.epochs: Counter[str] = Counter()
        self._ready: list[tuple[tuple[int, ...], str]] = []
        self._open: dict[str, list[tuple[Run, Entry, Generation | None]]] = {}
        """Everyone who waits for a run that is ready or running: equal candidates share their runs."""
        self._tries: Counter[str] = Counter()
        self._strikes: dict[str, set[str]] = {}
        self._searches = {arm: Searching() for arm in study.arms if study.searched(arm)}
        self._confirmed: dict[str, list[Entry]] = {}
        self._matched: dict[str, Values] = {}
        """What each matched arm has of another one, once it is known: a network of its size, or settings of its finalist."""
        self._unmatched = [arm for arm, it in study.arms.items() if it.match]
        for arm, it in study.arms.items():
            if not it.repeat and not it.match and arm not in self._searches:
                self._confirm(arm, [Candidate(arm, arm, {})])
        self._follow()

    # asked

    def wanted(self) -> Proposal | None:
        """A generation to propose now, if one is due; the same one until it is told."""
        return next(self.due(), None)

    def due(self) -> Iterator[Proposal]:
        """Every generation that could be proposed now."""
        for arm, search in self._searches.items():
            number, left = len(search.generations), self.study.budget(arm) - search.candidates
            known = max(0, number - self.study.search.lag)
            if left > 0 and known <= search.done and arm not in self._unmatched:
                history = [
                    told for generation in search.generations[:known] for told in self._told(generation)
                ]
                yield Proposal(arm, number, min(left, self.study.search.generation), history)

    def next(self, now: float) -> Run | None:
        """The most urgent run that is ready; from now on it is running."""
        while self._ready:
            _, run_id = heapq.heappop(self._ready)
            run = self._open[run_id][0][0]
            self.running[run_id] = (run, now)
            return run
        return None

    def overdue(self, now: float) -> list[str]:
        """Running runs without progress for longer than their deadline."""
        return [
            run_id
            for run_id, (_, since) in self.running.items()
            if now - since > self.study.resources.deadline
        ]

    @property
    def avoided(self) -> set[str]:
        """Nodes on which attempts keep ending badly."""
        return {node for node, runs in self._strikes.items() if len(runs) >= NODE_STRIKES}

    @property
    def ready(self) -> int:
        """Runs that could be handed out now."""
        return len(self._ready)

    @property
    def complete(self) -> bool:
        """Whether every run of the study has finished."""
        return not self._open and not self.wanted()

    @property
    def over(self) -> bool:
        """Whether nothing is left that could be done: all is complete, or waits for runs that failed."""
        return not self._ready and not self.running and not self.wanted()

    def arms_of(self, run_id: str) -> set[str]:
        """The arms that wait for a run."""
        return {run.arm for run, _, _ in self._open.get(run_id, [])}

    def filled(self, arm: str, values: Values) -> Values:
        """A candidate's whole values: those that are searched, and what a matched arm has of another one."""
        return {**values, **self._matched.get(arm, {})}

    def finalists(self, arm: str) -> list[Candidate]:
        """The candidates of an arm that are confirmed; none while its search is under way."""
        return [entry.candidate for entry in self._confirmed.get(arm, [])]

    def confirmed(self, arm: str) -> list[dict[int, Result]]:
        """For each finalist of an arm, the confirmation runs that have finished, by place in the pool."""
        return [entry.results for entry in self._confirmed.get(arm, [])]

    def searched(self, arm: str) -> list[tuple[Candidate, list[float]]]:
        """Every candidate of an arm's search with its scores so far, NaN where a run has not finished."""
        return [
            (entry.candidate, entry.scores)
            for generation in self._searches.get(arm, Searching()).generations
            for entry in generation.entries
        ]

    def cohorts(self) -> Iterator[Cohort]:
        """Every candidate in each phase it has reached, with the runs it has there; an arm's search before its confirmation."""
        for arm in self.study.arms:
            searched = [
                entry
                for generation in self._searches.get(arm, Searching()).generations
                for entry in generation.entries
            ]
            for entry in (*searched, *self._confirmed.get(arm, [])):
                yield Cohort(entry.candidate, entry.phase, tuple(entry.runs), tuple(entry.scores))

    # told

    def propose(self, arm: str, generation: int, values: list[Values]) -> None:
        """The candidates of a generation that was wanted."""
        assert generation == len(self._searches[arm].generations)
        self._begin(arm, generation, values)
        self._follow()

    def progress(self, run_id: str, now: float) -> None:
        """A running run has come further."""
        if run_id in self.running:
            self.running[run_id] = (self.running[run_id][0], now)

    def finish(self, run_id: str, result: Result, node: str = "") -> None:
        """A run has its outcome. Told twice, the first counts."""
        if not self.running.pop(run_id, None):
            self._withdraw(run_id)  # its attempt was thought lost
        self.results.setdefault(run_id, result)
        self._tries.pop(run_id, None)
        self.failed.pop(run_id, None)
        self._strikes.pop(node, None)
        waiting = self._open.pop(run_id, [])
        for run, entry, generation in waiting:
            self._score(run, entry, result)
            if generation:
                generation.waiting -= 1
        for generation in {id(g): g for _, _, g in waiting if g}.values():
            if not generation.waiting:
                self._halve(generation)
        self._follow()

    def lose(self, run_id: str, failure: Failure, node: str = "", blame: bool = True) -> bool:
        """An attempt ended without an outcome; `node` where the machine may be at fault. Whether the run is tried again.

        Without blame the attempt does not count. A run that is tried again comes after all that is ready, so that a node on which
        everything fails meets many runs once instead of one run until it is given up.
        """
        run, _ = self.running.pop(run_id)
        if blame:
            self._tries[run_id] += 1
            if node:
                self._strikes.setdefault(node, set()).add(run_id)
        if failure.damaged or self._tries[run_id] >= self.study.resources.attempts:
            what = f"{run.candidate}, {run.phase} seed {run.spec.seed}"
            self.failed[run_id] = replace(failure, attempts=self._tries[run_id], what=what)
            return False
        heapq.heappush(self._ready, ((self._tries[run_id], *run.priority), run_id))
        return True

    def damage(self, run_id: str, reason: str) -> None:
        """A finished run whose files cannot be trusted: it is not run again, and what waits for it waits."""
        self.failed[run_id] = Failure(reason, attempts=0, damaged=True)
        self._withdraw(run_id)

    def forgive(self, node: str) -> None:
        """There is nowhere else to go: use a node as if nothing had been."""
        self._strikes.pop(node, None)

    # what follows from it

    def _follow(self) -> None:
        """Begin what waited for what was told last."""
        self._propose_what_is_recorded()
        while ready := [arm for arm in self._unmatched if self._match(arm)]:
            self._unmatched = [arm for arm in self._unmatched if arm not in ready]
            for arm in ready:
                if arm not in self._searches:
                    self._confirm(arm, [Candidate(arm, arm, self.filled(arm, {}))])
            self._propose_what_is_recorded()

    def _match(self, arm: str) -> bool:
        """Whether it is known now what a matched arm has of the other one: its finalist's settings, or its number of parameters."""
        match = self.study.arms[arm].match
        assert match
        if not (finalists := self.finalists(match.arm)):
            return False
        matched = self.study.taken(arm, finalists[0])
        if match.counted:
            if (counted := self._counted(match.arm)) is None:
                return False
            matched["task.model"] = network(self.study, arm, counted)
        self._matched[arm] = matched
        return True

    def _counted(self, arm: str) -> list[Result] | None:
        """The runs of an arm's first finalist in which its parameters are counted, once they all have finished: those of its search on
        the whole ladder, or else as many of its confirmation. Not all of these: seeds that are added later would change the network."""
        if not (finalists := self._confirmed.get(arm)):
            return None
        name, seeds = finalists[0].candidate.name, max(self.study.search.ladder)
        generations = self._searches[arm].generations if arm in self._searches else []
        entry = next(
            (
                entry
                for generation in generations
                for entry in generation.entries
                if entry.candidate.name == name
            ),
            finalists[0],
        )
        runs = entry.runs[:seeds]
        return (
            [self.results[run_id] for run_id in runs]
            if all(run_id in self.results for run_id in runs)
            else None
        )

    def _propose_what_is_recorded(self) -> None:
        while recorded := [due for due in self.due() if (due.arm, due.generation) in self.proposals]:
            for due in recorded:
                self._begin(due.arm, due.generation, self.proposals[due.arm, due.generation])

    def _begin(self, arm: str, number: int, values: list[Values]) -> None:
        entries = [
            Entry(Candidate(arm, f"{arm}-{number}.{i}", self.filled(arm, v)), "search")
            for i, v in enumerate(values)
        ]
        generation = Generation(arm, number, entries, list(range(len(entries))))
        self._searches[arm].generations.append(generation)
        self._searches[arm].candidates += len(entries)
        self._climb(generation)

    def _climb(self, generation: Generation) -> None:
        """Make the runs of the present rung ready; those that exist already are taken as they are, rung after rung."""
        ladder, arms = self.study.search.ladder, list(self.study.arms)
        seeds = self.study.search_seeds[: ladder[generation.rung]]
        for index in generation.alive:
            entry = generation.entries[index]
            for place in range(len(entry.scores), len(seeds)):
                priority = (0, generation.number, -generation.rung, arms.index(generation.arm), index, place)
                generation.waiting += self._add(entry, place, seeds[place], priority, generation)
        if not generation.waiting:
            self._halve(generation)

    def _halve(self, generation: Generation) -> None:
        ladder = self.study.search.ladder
        if generation.rung + 1 < len(ladder):
            seeds = ladder[generation.rung]
            generation.alive = sorted(
                generation.alive, key=lambda i: (-generation.entries[i].mean(seeds), i)
            )[: -(-len(generation.alive) // 2)]
            generation.rung += 1
            self._climb(generation)
            return
        generation.done = True
        search = self._searches[generation.arm]
        while search.done < len(search.generations) and search.generations[search.done].done:
            search.done += 1
        if search.done == len(search.generations) and search.candidates >= self.study.budget(generation.arm):
            self._choose(generation.arm)

    def _choose(self, arm: str) -> None:
        """The best of those that climbed the whole ladder; all of them were scored on the same seeds. Of equals, the earlier; a candidate
        that was proposed twice is confirmed twice only where there is nothing else."""
        seeds = max(self.study.search.ladder)
        whole = [g.entries[i] for g in self._searches[arm].generations for i in sorted(g.alive)]
        best = sorted(whole, key=lambda entry: -entry.mean(seeds))
        first = {tuple(entry.candidate.values.items()): entry for entry in reversed(best)}
        best.sort(key=lambda entry: first[tuple(entry.candidate.values.items())] is not entry)
        self._confirm(arm, [entry.candidate for entry in best[: self.study.finalists(arm)]])

    def _confirm(self, arm: str, finalists: list[Candidate]) -> None:
        arms = list(self.study.arms)
        for owner in [arm, *(other for other, it in self.study.arms.items() if it.repeat == arm)]:
            named = (
                finalists
                if owner == arm
                else [Candidate(owner, f"{owner}:{c.name}", c.values) for c in finalists]
            )
            entries = self._confirmed[owner] = [Entry(candidate, "confirm") for candidate in named]
            for rank, entry in enumerate(entries):
                for place, seed in enumerate(self.study.pools[owner]):
                    self._add(entry, place, seed, (1, place, arms.index(owner), rank), None)

    def _add(
        self, entry: Entry, place: int, seed: int, priority: tuple[int, ...], generation: Generation | None
    ) -> bool:
        """One run of a candidate; whether it has to be waited for."""
        spec = self.study.run(entry.candidate, entry.phase, seed)
        run = Run(spec, spec.run_id, entry.phase, entry.candidate.name, entry.candidate.arm, place, priority)
        self.total[run.phase, run.arm] += 1
        entry.scores.append(math.nan)
        entry.runs.append(run.run_id)
        if result := self.results.get(run.run_id):
            self._score(run, entry, result)
            return False
        if run.run_id not in self._open and run.run_id not in self.failed:
            heapq.heappush(self._ready, ((0, *priority), run.run_id))
        self._open.setdefault(run.run_id, []).append((run, entry, generation))
        return True

    def _withdraw(self, run_id: str) -> None:
        self._ready = [item for item in self._ready if item[1] != run_id]
        heapq.heapify(self._ready)

    def _score(self, run: Run, entry: Entry, result: Result) -> None:
        split: Literal["validation", "test"] = "validation" if run.phase == "search" else "test"
        entry.scores[run.place] = result.score(split, self.study.analysis.endpoints[0])
        if run.phase == "confirm":
            entry.results[run.place] = result
        self.finished[run.phase, run.arm] += 1
        self.seconds[run.arm] += result.seconds
        self.epochs[run.arm] += result.epochs

    def _told(self, generation: Generation) -> Iterator[tuple[Values, float, int]]:
        searched = self.study.searched(generation.arm)
        for entry in generation.entries:
            yield (
                {key: value for key, value in entry.candidate.values.items() if key in searched},
                entry.mean(len(entry.scores)),
                len(entry.scores),
            )
