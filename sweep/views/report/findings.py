"""A study's findings as plain values: every number of the report. Words and pictures are made elsewhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from sweep.format import plain_json
from sweep.gains.across import across
from sweep.gains.comparisons import earlier, keep_ratio_matters
from sweep.gains.rows import Across, Compared
from sweep.ledger.gpu_time import GpuHours, gpu_hours
from sweep.planning.values import Failure, Growth, Look
from sweep.statistics import pairs_needed, smallest_p_value
from sweep.study import Study
from sweep.views.reading import STATES, Reading, ahead
from sweep.views.report.confirmed import Confirmed, confirmed
from sweep.views.report.courses import Course, Key
from sweep.views.report.replication import Replicated, replicated
from sweep.views.report.searched import Searched, Tuning, searched_arms, tuning_of

ENVIRONMENT = ("torch", "device", "threads", "code")
"""What a run's numbers may depend on in their last digits."""
OWN_CODE = "own_code"
"""The package that has a run's network, and its hash; runs with a network of ours have none."""


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared):
    """A comparison as the report shows it."""

    finalists: int
    """The number of finalists of its arm."""
    settings: dict[str, Any] | None
    """What one search picked for the candidate; None with several searches, and where none decides."""
    reference_settings: dict[str, Any] | None
    """What one search picked for the reference, likewise."""
    pick_deviation: float | None
    """How far another search of as many candidates would move the gain, as its own candidates tell.

    It is a standard deviation of validation accuracy. None with several searches, where the gain itself
    says so, and where the candidates cannot tell."""


@dataclass(frozen=True)
class Earlier:
    """The comparisons as they were at an earlier look, over its number of pairs."""

    pairs: int
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Findings:
    """The numbers of a study."""

    study: Study
    hash: str
    store: str
    complete: bool
    decided: bool
    """Whether the study ended early, because all comparisons were decided at a look."""
    runs: dict[str, int]
    """The number of runs, by state."""
    gpu_hours: GpuHours | None
    """None where no GPU time was recorded."""
    taken: dict[str, dict[str, int]]
    """The number of runs that other studies have trained, by study and phase."""
    looks: list[Look]
    grew_after_look: Growth
    """How the study was extended after its gains could be seen."""
    extensions: list[dict[str, Any]]
    arms: list[Confirmed]
    comparisons: list[Comparison]
    across: list[Across]
    earlier: list[Earlier]
    search: list[Searched]
    tuning: list[Tuning]
    replication: list[Replicated]
    """What a paper reports, beside what was found here."""
    failures: dict[str, Failure]
    """Failed runs, by run id."""
    versions: list[dict[str, Any]]
    """What the runs ran on: a row for each combination, with its number of runs."""
    mixed: list[str]
    """The keys of ENVIRONMENT in which runs of the confirmation differ.

    OWN_CODE is among them where a package has two hashes."""

    @property
    def keep_ratio_matters(self) -> bool:
        """Whether keep ratios matter in this study."""
        return keep_ratio_matters(self.study)

    @property
    def resampled(self) -> bool:
        """Whether each seed draws its own test set."""
        return any(row.overlap for row in self.comparisons)

    @property
    def declared(self) -> dict[str, Any]:
        """The declared analysis, and what follows from it: the number of tests and of pairs needed."""
        study = self.study
        # a t test has no smallest p-value, so no number of pairs is too small for it
        exact, looks = study.analysis.test == "sign-flip", len(study.contents.looks)
        return {
            **asdict(study.analysis),
            "family": study.family,
            "comparisons": study.comparisons,
            "pairs": study.contents.blocks,
            "searches": study.search.replicates,
            "objective": study.search.objective,
            "smallest_p": smallest_p_value(study.contents.blocks) if exact else None,
            "pairs_needed": pairs_needed(study.comparisons * looks, study.analysis.alpha) if exact else None,
        }

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON values: what `report --json` prints, and report.json in an export."""
        study = self.study
        return plain_json(
            {
                "study": study.name,
                "description": study.contents.description,
                "tasks": list(study.contents.tasks),
                "baselines": study.baselines,
                "keep_ratios": self.keep_ratio_matters,
                "resampled": self.resampled,
                "hash": self.hash,
                "store": self.store,
                "complete": self.complete,
                "decided": self.decided,
                "runs": self.runs,
                "gpu_hours": self.gpu_hours and self.gpu_hours.values,
                "taken": self.taken,
                "analysis": self.declared,
                "looks": [asdict(look) for look in self.looks],
                "grew_after_look": self.grew_after_look,
                "extensions": self.extensions,
                "arms": [asdict(arm) for arm in self.arms],
                "comparisons": [asdict(row) for row in self.comparisons],
                "across": [asdict(row) for row in self.across],
                "earlier": [asdict(look) for look in self.earlier],
                "search": [asdict(search) for search in self.search],
                "tuning": [asdict(tuning) for tuning in self.tuning],
                "published": study.contents.published and asdict(study.contents.published),
                "replication": [asdict(row) for row in self.replication],
                "failures": [
                    {"run_id": run_id, **asdict(failure)} for run_id, failure in self.failures.items()
                ],
                "versions": self.versions,
                "mixed": self.mixed,
            }
        )


def findings_of(
    reading: Reading, courses: dict[Key, Course], compared: Sequence[Compared] | None = None
) -> Findings:
    """The findings of a study so far. A look is recorded, unless the caller gives the comparisons."""
    study, plan = reading.study, reading.plan
    rows = reading.compare() if compared is None else compared
    states = Counter(run.state for run in reading.runs.values())
    looks_before = earlier(plan, reading.looks, reading.right_images).items()
    versions, mixed = _environments(reading)
    tuning = tuning_of(reading)
    arms = [
        confirmed(reading, finalist, courses.get((finalist.arm.method, finalist.rank + 1)))
        for finalist in reading.finalists
    ]
    settings = {
        cohort.candidate.name: cohort.candidate.values
        for cohort in reading.cohorts
        if cohort.phase == "confirm" and study.arms[cohort.candidate.arm].is_drawn
    }
    return Findings(
        study=study,
        hash=reading.declared["hash"],
        store=reading.ledger.store.where(),
        complete=plan.complete,
        decided=plan.decided,
        runs={state: states[state] for state in STATES},
        gpu_hours=gpu_hours(reading.ledger),
        taken=_taken(reading),
        looks=reading.looks,
        grew_after_look=reading.grew_after_look,
        extensions=reading.declared["extensions"],
        arms=arms,
        comparisons=shown(study, rows, settings, tuning),
        across=across(study, rows),
        earlier=[Earlier(pairs, shown(study, rows, settings, [])) for pairs, rows in looks_before],
        search=searched_arms(reading),
        tuning=tuning,
        replication=replicated(study.contents.published, arms, courses),
        failures=plan.queue.failed,
        versions=versions,
        mixed=mixed,
    )


def _taken(reading: Reading) -> dict[str, dict[str, int]]:
    """The number of runs that other studies have trained, by study and phase."""
    taken: dict[str, dict[str, int]] = {}
    for run_id, run in reading.runs.items():
        if name := reading.taken.get(run_id):
            phases = taken.setdefault(name, {"search": 0, "confirm": 0})
            phases[run.cohort.phase] += 1
    return taken


def shown(
    study: Study,
    rows: Sequence[Compared],
    settings: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    tuning: Sequence[Tuning] = (),
) -> list[Comparison]:
    """The comparisons as the report shows them.

    `settings` is what searches picked, by candidate.
    """
    by_arm = {found.arm: found for found in tuning}
    return [
        Comparison(
            **vars(row),
            finalists=study.arms[row.arm].finalists,
            settings=settings.get(row.candidate or ""),
            reference_settings=settings.get(row.reference or ""),
            pick_deviation=_pick_deviation(study, row, by_arm),
        )
        for row in rows
    ]


def _pick_deviation(study: Study, row: Compared, tuning: Mapping[str, Tuning]) -> float | None:
    """How far another search of as many candidates would move a gain, if both sides' candidates can tell."""
    drawn = [name for name in (row.arm, row.reference_arm) if study.arms[name].is_drawn]
    if row.searches > 1 or row.rank > 1 or not drawn:
        return None
    found = [own.deviation(row.keep_ratio) for name in drawn if (own := tuning.get(name))]
    deviations = [deviation for deviation in found if deviation is not None]
    return math.hypot(*deviations) if len(deviations) == len(drawn) else None


def _environments(reading: Reading) -> tuple[list[dict[str, Any]], list[str]]:
    """What the runs ran on, and the keys in which runs of the confirmation differ."""
    counts: Counter[tuple[tuple[str, Any], ...]] = Counter()
    confirming: set[tuple[Any, ...]] = set()
    own_code: set[str] = set()
    for run, attempts in ahead(reading.runs.values(), lambda run: run.attempts):
        if attempts:
            last = attempts[-1]
            named = (*ENVIRONMENT, "device_name", "commit")
            version = [(key, last.get(key, "unknown")) for key in named]
            version += [(OWN_CODE, last[OWN_CODE])] if OWN_CODE in last else []
            counts[tuple(version)] += 1
            if run.cohort.phase == "confirm":
                confirming |= {tuple(attempt.get(key) for key in ENVIRONMENT) for attempt in attempts}
                own_code |= {attempt[OWN_CODE] for attempt in attempts if OWN_CODE in attempt}
    columns = zip(ENVIRONMENT, zip(*confirming, strict=True), strict=False)
    mixed = [name for name, values in columns if len(set(values)) > 1]
    if len(own_code) > len({code.split()[0] for code in own_code}):  # two hashes of one package
        mixed.append(OWN_CODE)
    return [{**dict(key), "runs": count} for key, count in counts.most_common()], mixed
