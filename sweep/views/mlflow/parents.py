"""MLflow's parent runs: which there are, what stands below each, and whose averages each carries.

With one search every candidate has a parent in each phase. With several searches an arm has one parent for
all its confirmation, because the figures of one search's finalist would be averages of very few runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sweep.planning.pairing import Pairing, Side, pairings
from sweep.planning.values import Cohort
from sweep.study import Candidate, Phase, ResolvedArm
from sweep.views.reading import Reading, RunFiles


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A parent run of MLflow, as the ledger has it."""

    reading: Reading
    stands_for: Literal["candidate", "search", "arm"]
    """A candidate in a phase; a search with all its candidates; or an arm's finalists of all searches."""
    arm: ResolvedArm
    """Its arm; where it stands for an arm, as the first search has it."""
    phase: Phase
    cohorts: Sequence[Cohort]
    """Its candidates with their runs."""
    pairings: Mapping[float, Pairing] = field(default_factory=dict[float, Pairing])
    """Its comparison with the baseline at each endpoint that its candidates were picked for."""
    searches: int = 1
    """The number of searches that its figures are over."""
    averaged: Sequence[RunFiles] = ()
    """The runs whose averages it carries, in the order of the pairs; none while they are not all known."""
    paired_with: Sequence[RunFiles] = ()
    """The baseline's runs that these are paired with, in the same order; none for the baseline itself."""
    below: Sequence[RunFiles] = ()
    """The runs that stand below it. Of parents that share a run, the first one has it."""

    @property
    def candidate(self) -> Candidate | None:
        """The candidate that it stands for; None where there may be several."""
        return self.cohorts[0].candidate if self.stands_for == "candidate" else None

    @property
    def runs(self) -> list[RunFiles]:
        """All runs of its candidates, each once."""
        names = dict.fromkeys(run_id for cohort in self.cohorts for run_id in cohort.runs)
        return [self.reading.runs[name] for name in names]

    @property
    def pairing(self) -> Pairing | None:
        """The comparison at the first endpoint that its candidates were picked for."""
        return next(iter(self.pairings.values()), None)

    @property
    def rank(self) -> int:
        """The place of its finalists among those of the arm, counted from 0."""
        return self.pairing.candidate.rank if self.pairing else 0

    @property
    def runs_in_a_pair(self) -> int:
        """How many runs in a row make one half of a pair."""
        return self.arm.contents.confirm.seeds if self.pairing and self.pairing.by_search else 1

    @property
    def is_complete(self) -> bool:
        """Whether all its runs are known and have finished."""
        unknown = self.stands_for == "arm" and not self.averaged
        missing = self.stands_for == "search" and len(self.cohorts) < self.arm.budget
        return not (unknown or missing) and all(run.result for run in self.runs)


def parents(reading: Reading) -> list[Parent]:
    """All parents with a run that was begun."""
    found: list[Parent] = []
    taken = set[str]()
    for parent in (*_searches(reading), *_confirmations(reading)):
        begun = [run for run in parent.runs if run.begun]
        names = {cohort.candidate.name for cohort in parent.cohorts}
        # equal candidates share runs; a run belongs to the first of them
        own = [
            run for run in begun if run.cohort.phase == parent.phase and run.cohort.candidate.name in names
        ]
        below = [run for run in own if run.run_id not in taken]
        taken |= {run.run_id for run in below}
        if begun:
            found.append(replace(parent, below=below))
    return found


def _searches(reading: Reading) -> Iterator[Parent]:
    """A parent for each candidate of a search.

    In a study with several searches and a ladder of one seed it would be hundreds of parents with one run
    each. There is a parent for each search then, with its candidates below.
    """
    search = reading.study.search
    together = search.replicates > 1 and search.ladder == [1]
    groups: dict[str, list[Cohort]] = {}
    for cohort in reading.cohorts:
        if cohort.phase == "search":
            key = cohort.candidate.arm if together else cohort.candidate.name
            groups.setdefault(key, []).append(cohort)
    for cohorts in groups.values():
        yield Parent(
            reading=reading,
            stands_for="search" if together else "candidate",
            arm=reading.study.arms[cohorts[0].candidate.arm],
            phase="search",
            cohorts=cohorts,
            averaged=[] if together else [reading.runs[run_id] for run_id in cohorts[0].runs],
        )


def _confirmations(reading: Reading) -> Iterator[Parent]:
    """A parent for each finalist or, with several searches, for an arm's finalists of one rank."""
    study = reading.study
    several = study.search.replicates > 1
    searches = reading.plan.open_blocks if several else 1
    cohorts = {
        cohort.candidate.name: cohort
        for cohort in reading.cohorts
        if cohort.phase == "confirm" and cohort.runs
    }

    def runs_of(side: Side) -> list[RunFiles]:
        """The runs of a side in the order of the pairs; none while a search is under way."""
        finalists = [finalist for finalist in side.finalists[:searches] if finalist]
        if len(finalists) < searches:
            return []
        return [reading.runs[run_id] for finalist, _ in finalists for run_id in cohorts[finalist.name].runs]

    for method, (arm, *_) in study.methods.items():
        groups: dict[str | int, dict[float, Pairing]] = {}
        for pairing in pairings(reading.plan, method, arm.baseline):
            if several:
                groups.setdefault(pairing.candidate.rank, {})[pairing.ratio] = pairing
            elif finalist := pairing.candidate.finalists[0]:
                groups.setdefault(finalist[0].name, {})[pairing.ratio] = pairing
        for group in groups.values():
            own = {ratio: group[ratio] for ratio in study.analysis.endpoints if ratio in group}
            finalists = [
                finalist for pair in own.values() for finalist in pair.candidate.finalists if finalist
            ]
            names = [name for name in dict.fromkeys(it.name for it, _ in finalists) if name in cohorts]
            first = next(iter(own.values()))
            is_baseline = first.candidate.arm is first.against.arm and first.candidate.rank == 0
            yield Parent(
                reading=reading,
                stands_for="arm" if several else "candidate",
                arm=arm,
                phase="confirm",
                cohorts=[cohorts[name] for name in names],
                pairings=own,
                searches=searches,
                averaged=runs_of(first.candidate),
                paired_with=[] if is_baseline else runs_of(first.against),
            )
