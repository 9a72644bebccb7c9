"""The plan: a pure value that takes what exists and what finished, and says which run to train next.

No Ray, no disk, no clock: the caller waits and gives the time. The order in which runs finish decides when a
run is handed out. It never decides which candidates, finalists and runs there are.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from sweep.errors import DamagedLedger
from sweep.planning.pairing import all_decided, complete_blocks
from sweep.planning.queue import Queue
from sweep.planning.search import Entry, Generation, Search
from sweep.planning.values import Cohort, Proposal, Result, Run
from sweep.study import Candidate, Phase, ResolvedArm, Study, Values, matching
from trainer.settings import SpecError


class Plan:
    """A study, and how far it has come.

    `wanted` gives a generation to propose, and `queue` hands out runs. `propose`, `finish` and `queue.lose`
    take what came of them.
    """

    def __init__(
        self, study: Study, results: Mapping[str, Result], proposals: Mapping[tuple[str, int], list[Values]]
    ) -> None:
        """`results` (by run_id) and `proposals` (by arm and generation) are what the ledger holds."""
        self.study, self.proposals = study, proposals
        self.results = dict(results)
        """The result of every finished run. A later candidate with the same run takes it from here."""
        self.queue = Queue(study.resources.attempts, study.resources.deadline)
        self.total: Counter[tuple[Phase, str]] = Counter()
        """The number of runs that are decided so far, by phase and arm."""
        self.finished: Counter[tuple[Phase, str]] = Counter()
        """The number of them that have finished."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """The seconds that the finished runs took, by arm."""
        self.epochs: Counter[str] = Counter()
        """The epochs of the finished runs, by arm."""
        self._order = {arm: i for i, arm in enumerate(study.arms)}
        self._waiting: dict[str, list[tuple[Run, Entry, Generation | None]]] = {}
        """Who waits for each run that has not finished; several may, because equal candidates share runs."""
        self._searches = {name: Search(arm) for name, arm in study.arms.items() if arm.searched}
        self._confirmed: dict[str, list[Entry]] = {}
        self._picked: dict[str, dict[float, list[Entry]]] = {}
        """The finalists of each arm for each endpoint, as they are in `_confirmed`."""
        self._matched: dict[str, Values] = {}
        """The values that a matched arm takes from another one, once that one has its finalist."""
        self._unmatched = {name: arm.follows.name for name, arm in study.arms.items() if arm.follows}
        """The matched arms whose values are still to come, in the study's order, and whom they follow."""
        self._ripe = set[str]()
        """The arms with a generation that is due. A study may have a thousand searches, and the driver asks
        many times a second; so this is kept up to date where something changes."""
        self._stops = study.confirm.stop == "decided"
        self._open = study.contents.looks[0] if self._stops else study.contents.blocks
        """The number of blocks whose runs may start. A study that may end early opens them look by look."""
        self._closed: list[tuple[Entry, int, int, tuple[int, ...]]] = []
        """The confirmation runs of the other blocks: candidate, place, seed and priority."""
        self.decided = False
        """Whether the study has ended early, because every tested comparison was decided at a look."""
        for name, arm in study.arms.items():
            if not arm.repeats and not arm.match and not arm.searched:
                self._confirm(name, self._only(Candidate(name, name, {})))
        for name in self._searches:
            self._ripen(name)
        self._follow()

    # What the plan gives.

    def wanted(self) -> Proposal | None:
        """A generation to propose now, if one is due. It stays the same until `propose` takes it."""
        return next(self.due(), None)

    def due(self) -> Iterator[Proposal]:
        """Every generation that can be proposed now."""
        for arm in sorted(self._ripe, key=self._order.__getitem__):
            due = self._searches[arm].due()
            assert due
            yield due

    @property
    def complete(self) -> bool:
        """Whether every run of the study has finished."""
        return not self._waiting and not self.wanted() and (self.decided or not self._closed)

    @property
    def over(self) -> bool:
        """Whether there is no work left: the study is complete, or the rest waits for runs that failed."""
        return not self.queue and not self.queue.running and not self.wanted()

    @property
    def open_blocks(self) -> int:
        """The number of blocks whose runs may start: all of them, unless the study may end early."""
        return self._open

    def arms_of(self, run_id: str) -> set[str]:
        """The arms that wait for a run."""
        return {run.arm for run, _, _ in self._waiting.get(run_id, [])}

    def filled(self, arm: str, values: Values) -> Values:
        """All values of a candidate: the searched ones, and those that a matched arm takes over."""
        return {**values, **self._matched.get(arm, {})}

    def finalists(self, arm: str) -> list[Candidate]:
        """The candidates of an arm that are confirmed; none until its search is done."""
        return [entry.candidate for entry in self._confirmed.get(arm, [])]

    def picked(self, arm: str, ratio: float) -> list[tuple[Candidate, dict[int, Result]]]:
        """The finalists of an arm for an endpoint, with the results of their confirmation, by place."""
        picked = self._picked.get(arm, {}).get(ratio, [])
        return [(entry.candidate, entry.results) for entry in picked]

    def confirmed(self, arm: str) -> list[dict[int, Result]]:
        """The results of each finalist's confirmation runs so far, by place in the pool."""
        return [entry.results for entry in self._confirmed.get(arm, [])]

    def searched(self, arm: str) -> list[tuple[Candidate, list[float]]]:
        """Every candidate of an arm's search with its scores; NaN where a run has not finished."""
        return [(entry.candidate, entry.scores) for entry in self._entries(arm)]

    def cohorts(self) -> Iterator[Cohort]:
        """Every candidate in each phase that it has reached, with its runs there. Searches come first."""
        for arm in self.study.arms:
            for entry in (*self._entries(arm), *self._confirmed.get(arm, [])):
                yield Cohort(entry.candidate, entry.phase, tuple(entry.runs), tuple(entry.scores))

    # What the plan takes.

    def propose(self, arm: str, generation: int, values: list[Values]) -> None:
        """Take the candidates of a generation that is due."""
        assert generation == len(self._searches[arm].generations)
        self._begin(arm, values)
        self._follow()

    def finish(self, run_id: str, result: Result, node: str = "") -> None:
        """Take the result of a run. Only the first result of a run counts."""
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

    # What follows from it.

    def _follow(self) -> None:
        """Begin everything that waited for the last result or generation."""
        going_on = True
        while going_on:
            self._propose_what_is_recorded()
            decided = [arm for arm, followed in self._unmatched.items() if followed in self._confirmed]
            ready = [arm for arm in decided if self._match(arm)]
            for arm in ready:
                del self._unmatched[arm]
                if arm in self._searches:
                    self._ripen(arm)
                else:
                    self._confirm(arm, self._only(Candidate(arm, arm, self.filled(arm, {}))))
            going_on = bool(ready) or self._look()

    def _ripen(self, name: str) -> None:
        """Note whether an arm has a generation that is due now."""
        search = self._searches[name]
        if self._is_open(search.arm) and name not in self._unmatched and search.due():
            self._ripe.add(name)
        else:
            self._ripe.discard(name)

    def _match(self, name: str) -> bool:
        """Fill in what a matched arm takes from the other one's finalist. False while runs are missing."""
        arm = self.study.arms[name]
        assert arm.match
        finalists = self._confirmed[self._unmatched[name]]
        runs = self._counted(finalists[0]) if arm.match.at else []
        if any(run_id not in self.results for run_id in runs):
            return False
        counts = [self.results[run_id].parameters(arm.match.at) for run_id in runs if arm.match.at]
        self._matched[name] = matching.taken(arm, finalists[0].candidate, counts, self.study.name)
        return True

    def _counted(self, finalist: Entry) -> list[str]:
        """The runs in which the parameters of a finalist are counted.

        They are its runs in the search, or else as many runs of its confirmation as the ladder has seeds.
        All of the confirmation would not do: seeds that are added later would change the network.
        """
        searched = self._entries(finalist.candidate.arm)
        same = (entry for entry in searched if entry.candidate.name == finalist.candidate.name)
        return next(same, finalist).runs[: max(self.study.search.ladder)]

    def _entries(self, arm: str) -> list[Entry]:
        """The candidates in the search of an arm."""
        return self._searches[arm].entries if arm in self._searches else []

    def _propose_what_is_recorded(self) -> None:
        """Begin the generations that are due and whose candidates the ledger holds."""
        while recorded := [due for due in self.due() if (due.arm, due.generation) in self.proposals]:
            for due in recorded:
                values = self.proposals[due.arm, due.generation]
                if strange := [
                    own for own in values if own.keys() != self.study.arms[due.arm].searched.keys()
                ]:
                    raise DamagedLedger(
                        _strange(due.arm, due.generation, f"it sets {', '.join(strange[0])}")
                    )
                self._begin(due.arm, values)

    def _begin(self, arm: str, values: list[Values]) -> None:
        """Start the next generation of an arm with these candidates."""
        generation = self._searches[arm].begin([self.filled(arm, candidate) for candidate in values])
        self._ripen(arm)
        self._hand_out(generation)

    def _hand_out(self, generation: Generation) -> None:
        """Make the runs of the present rung ready. Runs that have a result already count at once."""
        search = self._searches[generation.arm]
        seeds, replicate, order = search.arm.search_seeds, search.arm.replicate, self._order[generation.arm]
        for index, place in search.missing_runs(generation):
            entry = generation.entries[index]
            priority = (replicate, 0, generation.number, -generation.rung, order, index, place)
            generation.waiting += self._add(entry, place, seeds[place], priority, generation)
        if not generation.waiting:
            self._climb(generation)

    def _climb(self, generation: Generation) -> None:
        """Go on to the next rung, or confirm the arm's finalists if this was the last one of its search."""
        search = self._searches[generation.arm]
        if search.climb(generation):
            self._hand_out(generation)
            return
        self._ripen(generation.arm)
        if search.complete:
            self._confirm(generation.arm, search.best())

    def _only(self, candidate: Candidate) -> dict[float, list[Candidate]]:
        """The finalists of an arm without a search."""
        return {ratio: [candidate] for ratio in self.study.analysis.endpoints}

    def _confirm(self, name: str, picked: dict[float, list[Candidate]]) -> None:
        """Make the confirmation runs of an arm's finalists ready, and those of the arms that repeat it."""
        arm = self.study.arms[name]
        repeats = [other for other in self.study.arms.values() if other.repeats is arm]
        for owner in (arm, *repeats):
            entries: dict[str, Entry] = {}
            for candidate in itertools.chain.from_iterable(picked.values()):
                own = candidate
                if owner is not arm:
                    own = Candidate(owner.name, f"{owner.name}:{candidate.name}", candidate.values)
                entries.setdefault(candidate.name, Entry(own, "confirm"))
            self._confirmed[owner.name] = list(entries.values())
            self._picked[owner.name] = {
                ratio: [entries[candidate.name] for candidate in candidates]
                for ratio, candidates in picked.items()
            }
            for rank, entry in enumerate(entries.values()):
                for place, seed in enumerate(owner.seeds):
                    priority = (owner.replicate, 1, place, self._order[owner.name], rank)
                    if self._is_open(owner, place):
                        self._add(entry, place, seed, priority, None)
                    else:
                        self._closed.append((entry, place, seed, priority))

    def _is_open(self, arm: ResolvedArm, place: int = 0) -> bool:
        """Whether the runs of an arm's search, or a place of its confirmation, may start."""
        return (arm.replicate if self.study.search.replicates > 1 else place + 1) <= self._open

    def _look(self) -> bool:
        """End the study, or let more runs start, at a complete look. Returns whether more may start."""
        looks, blocks = self.study.contents.looks, self.study.contents.blocks
        if not self._stops or self.decided or complete_blocks(self) < self._open:
            return False
        if self._open in looks and all_decided(self, self._open):
            self.decided = True
        elif self._open < blocks:
            self._let_in(next((look for look in looks if look > self._open), blocks))
        else:
            self._stops = False
        return self._stops and not self.decided

    def _let_in(self, blocks: int) -> None:
        """Let the runs of so many blocks start."""
        self._open, closed, self._closed = blocks, self._closed, []
        for name in self._searches:
            self._ripen(name)
        for entry, place, seed, priority in closed:
            if self._is_open(self.study.arms[entry.candidate.arm], place):
                self._add(entry, place, seed, priority, None)
            else:
                self._closed.append((entry, place, seed, priority))

    def open_all(self) -> None:
        """Let all runs start, whatever the looks will say: for a forecast of the most that there may be."""
        if self._stops and not self.decided:
            self._stops = False
            self._let_in(self.study.contents.blocks)
            self._follow()

    def _add(
        self, entry: Entry, place: int, seed: int, priority: tuple[int, ...], generation: Generation | None
    ) -> bool:
        """Add one run of a candidate. Returns whether its result is still to come."""
        candidate = entry.candidate
        try:
            spec = self.study.run(candidate, entry.phase, seed)
        except SpecError as error:
            number = candidate.name.rpartition("-")[2].partition(".")[0]
            raise DamagedLedger(_strange(candidate.arm, number, str(error.problems[0]))) from None
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
        """Enter the result of a run with its candidate and in the counts."""
        split = "validation" if run.phase == "search" else "test"
        entry.scores[run.place] = result.score(split, self.study.analysis.endpoints[0])
        entry.results[run.place] = result
        self.finished[run.phase, run.arm] += 1
        self.seconds[run.arm] += result.seconds
        self.epochs[run.arm] += result.epochs


def _strange(arm: str, generation: int | str, why: str) -> str:
    """The message for a recorded candidate that the study cannot have."""
    return (
        f"generations/{arm}-{generation}.json holds a candidate that {arm} cannot have: {why}. "
        "Nothing was deleted. Restore it from a backup."
    )
