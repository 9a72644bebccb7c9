"""What comes next: a pure value that is told what exists and what finished, and is asked which run to train now.

No Ray, no disk, no clock: whoever waits says what time it is. The order in which things are told changes which run is
handed out when, and never which candidates, finalists and runs there are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from sweep.planning.queue import Queue
from sweep.planning.search import Entry, Generation, Search
from sweep.planning.work import Cohort, Proposal, Result, Run
from sweep.study import matching
from sweep.study.arms import Candidate, Phase
from sweep.study.contents import Values
from sweep.study.study import Study


class Plan:
    """A study and how far it is.

    `wanted` asks for a generation to propose, and `queue` hands out runs; `propose`, `finish` and `queue.lose` tell
    what came of them.
    """

    def __init__(
        self, study: Study, results: Mapping[str, Result], proposals: Mapping[tuple[str, int], list[Values]]
    ) -> None:
        """`results` and `proposals` are what exists already."""
        self.study, self.proposals = study, proposals
        self.results = dict(results)
        """Results of every run that has finished, so that none is done again for a candidate that comes later."""
        self.queue = Queue(study.resources.attempts, study.resources.deadline)
        self.total: Counter[tuple[Phase, str]] = Counter()
        """How many runs are known so far, by phase and arm."""
        self.finished: Counter[tuple[Phase, str]] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """What the finished runs took, by arm."""
        self.epochs: Counter[str] = Counter()
        self._order = {arm: i for i, arm in enumerate(study.arms)}
        self._waiting: dict[str, list[tuple[Run, Entry, Generation | None]]] = {}
        """Everyone who waits for a run that has not finished: equal candidates share their runs."""
        self._searches = {name: Search(arm) for name, arm in study.arms.items() if arm.searched}
        self._confirmed: dict[str, list[Entry]] = {}
        self._matched: dict[str, Values] = {}
        """What each matched arm takes from another one, once it is known: a network of its size, or settings."""
        self._unmatched = [name for name, arm in study.arms.items() if arm.match]
        for name, arm in study.arms.items():
            if not arm.repeats and not arm.match and not arm.searched:
                self._confirm(name, [Candidate(name, name, {})])
        self._follow()

    # asked

    def wanted(self) -> Proposal | None:
        """A generation to propose now, if one is due; the same one until it is told."""
        return next(self.due(), None)

    def due(self) -> Iterator[Proposal]:
        """Every generation that could be proposed now."""
        for arm, search in self._searches.items():
            if arm not in self._unmatched and (due := search.due()):
                yield due

    @property
    def complete(self) -> bool:
        """Whether every run of the study has finished."""
        return not self._waiting and not self.wanted()

    @property
    def over(self) -> bool:
        """Whether nothing can be done any more: all is complete, or waits for runs that failed."""
        return not self.queue and not self.queue.running and not self.wanted()

    def arms_of(self, run_id: str) -> set[str]:
        """The arms that wait for a run."""
        return {run.arm for run, _, _ in self._waiting.get(run_id, [])}

    def filled(self, arm: str, values: Values) -> Values:
        """A candidate's whole values: those that are searched, and what a matched arm takes from another one."""
        return {**values, **self._matched.get(arm, {})}

    def finalists(self, arm: str) -> list[Candidate]:
        """The candidates of an arm that are confirmed; none while its search is under way."""
        return [entry.candidate for entry in self._confirmed.get(arm, [])]

    def confirmed(self, arm: str) -> list[dict[int, Result]]:
        """For each finalist of an arm, the confirmation runs that have finished, by place in the pool."""
        return [entry.results for entry in self._confirmed.get(arm, [])]

    def searched(self, arm: str) -> list[tuple[Candidate, list[float]]]:
        """Every candidate of an arm's search with its scores so far, NaN where a run has not finished."""
        return [(entry.candidate, entry.scores) for entry in self._entries(arm)]

    def cohorts(self) -> Iterator[Cohort]:
        """Every candidate in each phase it has reached, with the runs it has there; an arm's search comes first."""
        for arm in self.study.arms:
            for entry in (*self._entries(arm), *self._confirmed.get(arm, [])):
                yield Cohort(entry.candidate, entry.phase, tuple(entry.runs), tuple(entry.scores))

    # told

    def propose(self, arm: str, generation: int, values: list[Values]) -> None:
        """Take the candidates of a generation that was wanted."""
        assert generation == len(self._searches[arm].generations)
        self._begin(arm, values)
        self._follow()

    def finish(self, run_id: str, result: Result, node: str = "") -> None:
        """Take the outcome of a run. Told twice, the first counts."""
        self.queue.settle(run_id, node)
        self.results.setdefault(run_id, result)
        waiting = self._waiting.pop(run_id, [])
        for run, entry, generation in waiting:
            self._score(run, entry, result)
            if generation:
                generation.waiting -= 1
        for generation in {id(g): g for _, _, g in waiting if g}.values():
            if not generation.waiting:
                self._climb(generation)
        self._follow()

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

    def _match(self, name: str) -> bool:
        """Whether it is known now what a matched arm takes from the other one."""
        arm = self.study.arms[name]
        assert arm.follows
        assert arm.match
        if not (finalists := self._confirmed.get(arm.follows.name)):
            return False
        runs = self._counted(finalists[0]) if arm.match.at else []
        if any(run_id not in self.results for run_id in runs):
            return False
        counts = [self.results[run_id].parameters(arm.match.at) for run_id in runs if arm.match.at]
        self._matched[name] = matching.taken(arm, finalists[0].candidate, counts, self.study.name)
        return True

    def _counted(self, finalist: Entry) -> list[str]:
        """The runs of a finalist in which its parameters are counted.

        They are those of its search on the whole ladder, or else as many of its confirmation. Not all of these: seeds
        that are added later would change the network.
        """
        searched = self._entries(finalist.candidate.arm)
        same = (entry for entry in searched if entry.candidate.name == finalist.candidate.name)
        return next(same, finalist).runs[: max(self.study.search.ladder)]

    def _entries(self, arm: str) -> list[Entry]:
        return self._searches[arm].entries if arm in self._searches else []

    def _propose_what_is_recorded(self) -> None:
        while recorded := [due for due in self.due() if (due.arm, due.generation) in self.proposals]:
            for due in recorded:
                self._begin(due.arm, self.proposals[due.arm, due.generation])

    def _begin(self, arm: str, values: list[Values]) -> None:
        generation = self._searches[arm].begin([self.filled(arm, candidate) for candidate in values])
        self._hand_out(generation)

    def _hand_out(self, generation: Generation) -> None:
        """Make the runs of the present rung ready; those that exist already are taken as they are."""
        search, seeds = self._searches[generation.arm], self.study.search_seeds
        for index, place in search.wanted(generation):
            rank = (generation.number, -generation.rung, self._order[generation.arm], index, place)
            generation.waiting += self._add(
                generation.entries[index], place, seeds[place], (0, *rank), generation
            )
        if not generation.waiting:
            self._climb(generation)

    def _climb(self, generation: Generation) -> None:
        search = self._searches[generation.arm]
        if search.climb(generation):
            self._hand_out(generation)
        elif search.complete:
            self._confirm(generation.arm, search.best())

    def _confirm(self, name: str, finalists: list[Candidate]) -> None:
        """Make the confirmation runs of an arm ready, and those of the arms that repeat it."""
        arm = self.study.arms[name]
        repeats = [other for other in self.study.arms.values() if other.repeats is arm]
        for owner in (arm, *repeats):
            candidates = finalists
            if owner is not arm:
                candidates = [Candidate(owner.name, f"{owner.name}:{c.name}", c.values) for c in finalists]
            entries = self._confirmed[owner.name] = [Entry(candidate, "confirm") for candidate in candidates]
            for rank, entry in enumerate(entries):
                for place, seed in enumerate(owner.seeds):
                    self._add(entry, place, seed, (1, place, self._order[owner.name], rank), None)

    def _add(
        self, entry: Entry, place: int, seed: int, priority: tuple[int, ...], generation: Generation | None
    ) -> bool:
        """Add one run of a candidate; the answer is whether it has to be waited for."""
        candidate = entry.candidate
        spec = self.study.run(candidate, entry.phase, seed)
        run = Run(spec, spec.run_id, entry.phase, candidate.name, candidate.arm, place, priority)
        self.total[run.phase, run.arm] += 1
        entry.scores.append(math.nan)
        entry.runs.append(run.run_id)
        if result := self.results.get(run.run_id):
            self._score(run, entry, result)
            return False
        if run.run_id not in self._waiting:
            self.queue.add(run)
        self._waiting.setdefault(run.run_id, []).append((run, entry, generation))
        return True

    def _score(self, run: Run, entry: Entry, result: Result) -> None:
        split = "validation" if run.phase == "search" else "test"
        entry.scores[run.place] = result.score(split, self.study.analysis.endpoints[0])
        if run.phase == "confirm":
            entry.results[run.place] = result
        self.finished[run.phase, run.arm] += 1
        self.seconds[run.arm] += result.seconds
        self.epochs[run.arm] += result.epochs
