"""The comparisons of a study: which candidates are compared, over which pairs, and the test's result. Pure.

Nothing is tested over fewer pairs than the study declares: a comparison without all of them is incomplete,
and lists what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.gains.rows import Compared
from sweep.gains.seeds import first_place
from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Look, Result
from sweep.statistics import (
    POWER,
    Comparison,
    gain_so_far,
    holm,
    minimum_detectable_gain,
    paired_comparison,
    two_way_standard_error,
)
from sweep.study import Candidate, ResolvedArm, Study
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import Dense, KeepRatioPolicy

RightImages = Callable[[str, float], np.ndarray | None]
"""Correctness per test image of a run's final weights at a keep ratio; None where it was not kept."""

TEST_COLUMNS = (
    "ci_low",
    "ci_high",
    "family_low",
    "family_high",
    "p_value",
    "p_error",
    "effect_size",
    "welch_p_value",
    "wilcoxon_p_value",
    "correlation",
)
"""The columns of a row that are the test's figures, by the names that they have there too."""


@dataclass(frozen=True)
class Half:
    """One side of the pairs: a finalist of an arm, with its confirmation runs."""

    arm: ResolvedArm
    candidate: Candidate | None
    """None while the arm's search is under way."""
    results: Mapping[int, Result]
    """The finished runs, by place in the pool."""
    failed: Mapping[str, Failure]
    """The failed runs of the whole plan, by run id."""

    def run_id(self, place: int) -> str:
        assert self.candidate
        return self.arm.run(self.candidate.values, "confirm", self.arm.seeds[place]).run_id

    def missing(self, places: Iterable[int]) -> list[str]:
        """The reasons why this side cannot be compared at all these places in the pool, one a line."""
        if self.candidate is None:
            return [f"{self.arm.name}: its search is under way"]
        return [self._why_missing(self.candidate, place) for place in places if place not in self.results]

    def _why_missing(self, candidate: Candidate, place: int) -> str:
        run_id = self.run_id(place)
        failure = self.failed.get(run_id)
        why = f"failed: {failure.reason}" if failure else "has not finished"
        return f"{candidate.name}, confirm seed {self.arm.seeds[place]} (run {run_id}) {why}"


def comparisons(
    plan: Plan,
    *,
    looks: Sequence[Look] = (),
    right_images: RightImages = lambda _run, _ratio: None,
    seeds: int | None = None,
) -> list[Compared]:
    """Compare, task by task, every arm with the baseline, and then every arm with the other references.

    `seeds` gives the comparisons as they were when the study had only so many seeds.
    """
    study, halves = plan.study, _halves(plan)
    seeds = seeds or study.confirm.seeds
    found: list[Compared] = []
    for reference in references(study):
        for candidate, against, places in _pairings(study, halves, reference, looks, seeds):
            for ratio in study.analysis.endpoints:
                found.append(_compared(study, candidate, against, ratio, places, right_images))
    family = [i for i, row in enumerate(found) if row.role == "family"]
    p_values = [p for i in family if (p := found[i].p_value) is not None]
    if p_values and len(p_values) == len(family) == study.comparisons:
        for i, p in zip(family, holm(p_values), strict=True):
            found[i] = replace(found[i], p_holm=p)
    return found


def references(study: Study) -> list[ResolvedArm]:
    """The arms that others are compared with: task by task the baseline, and then some others.

    The others are the arms that `analysis.against` names, and the arms with the baseline's policy: the
    published settings where the baseline is tuned, or a dense network of another arm's size.
    """
    found: list[ResolvedArm] = []
    for name in study.baselines:
        baseline = study.arms[name]
        own = [arm for arm in study.arms.values() if arm.task == baseline.task and not arm.repeats]
        found.append(baseline)
        for arm in own:
            named = any(other.is_tested_over(arm) for other in own)
            if arm is not baseline and (named or arm.written.policy == baseline.written.policy):
                found.append(arm)
    return found


def keep_ratio_matters(study: Study) -> bool:
    """Whether results depend on the keep ratio: several are measured, or a policy moves it."""
    own = [arm for arm in study.arms.values() if not arm.repeats]
    policies = {POLICIES[str(arm.written.policy["name"])] for arm in own} - {Dense}
    measured = {*study.analysis.endpoints, *study.analysis.curve}
    return len(measured) > 1 or any(issubclass(policy, KeepRatioPolicy) for policy in policies)


def earlier(plan: Plan, looks: Sequence[Look], right_images: RightImages) -> dict[int, list[Compared]]:
    """The tested comparisons at earlier looks, by the number of seeds then. Each could find a false gain."""
    sizes = sorted({look.pairs for look in looks if look.pairs < plan.study.confirm.seeds})
    rows = {size: comparisons(plan, looks=looks, right_images=right_images, seeds=size) for size in sizes}
    return {
        size: [row for row in found if row.role == "family" and row.candidate]
        for size, found in rows.items()
    }


def seen(rows: Sequence[Compared]) -> list[str]:
    """The arms with a tested comparison among these rows: whoever reads the rows has a look at them."""
    return sorted({row.arm for row in rows if row.p_value is not None})


def _halves(plan: Plan) -> dict[str, list[Half]]:
    """Every arm's finalists with their runs. They have no candidate while the arm's search is under way."""
    failed = plan.queue.failed
    found: dict[str, list[Half]] = {}
    for name, arm in plan.study.arms.items():
        finalists = zip(plan.finalists(name), plan.confirmed(name), strict=True)
        found[name] = [Half(arm, candidate, results, failed) for candidate, results in finalists]
        found[name] = found[name] or [Half(arm, None, {}, failed) for _ in range(arm.finalists)]
    return found


def _pairings(
    study: Study, halves: Mapping[str, list[Half]], reference: ResolvedArm, looks: Sequence[Look], seeds: int
) -> Iterator[tuple[Half, Half, range]]:
    """Each candidate, the reference's first finalist, and the places in the pool that are compared."""
    against = halves[reference.name][0]
    for arm in study.arms.values():
        if arm.task != reference.task or (
            reference.role != "baseline" and (arm.repeats or arm is reference)
        ):
            continue
        places = range(first_place(study, arm.name, looks, seeds), seeds)
        for candidate in halves[arm.name]:
            if candidate is not against:
                yield candidate, against, places


def _compared(
    study: Study, candidate: Half, against: Half, ratio: float, places: range, right_images: RightImages
) -> Compared:
    arm, halves = candidate.arm, (candidate, against)
    both = [place for place in places if all(place in half.results for half in halves)]
    pairs = [(candidate.results[place], against.results[place]) for place in both]
    sound = [pair for pair in pairs if all(result.outcome == "completed" for result in pair)]
    scores = _scores(pairs, ratio)
    so_far = gain_so_far(*scores, overlap=arm.overlap)
    without = gain_so_far(*_scores(sound, ratio), overlap=arm.overlap)
    # while a search is under way, what the other side lacks is not yet of interest
    searching = [half for half in halves if half.candidate is None]
    missing = [line for half in searching or halves for line in half.missing(places)]
    tested = None if missing else _tested(study, scores, arm.overlap)
    # the two-way error needs a table of seeds by images: every seed has to have the same test images
    correctness = None if missing or arm.overlap else _correctness(halves, both, ratio, right_images)
    return Compared(
        arm=arm.name,
        task=arm.task,
        candidate=candidate.candidate and candidate.candidate.name,
        reference_arm=against.arm.name,
        reference=against.candidate and against.candidate.name,
        keep_ratio=ratio,
        role="family" if arm.is_tested_over(against.arm) else "repeat" if arm.repeats else "control",
        state="incomplete" if missing else "complete",
        missing=missing,
        pairs=len(pairs),
        overlap=arm.overlap,
        first_place=places.start,
        accuracy=_mean(scores[0]),
        reference_accuracy=_mean(scores[1]),
        parameters=_parameters([pair[0] for pair in pairs]),
        reference_parameters=_parameters([pair[1] for pair in pairs]),
        gain=_finite(so_far.mean),
        standard_error=_finite(so_far.standard_error),
        two_way_standard_error=_finite(two_way_standard_error(*correctness)) if correctness else None,
        **{column: _number(tested and getattr(tested, column)) for column in TEST_COLUMNS},
        p_holm=None,
        detectable_gain=_detectable(study, tested) if tested else None,
        diverged=_ended(pairs, 0, "diverged"),
        collapsed=_ended(pairs, 0, "collapsed"),
        reference_diverged=_ended(pairs, 1, "diverged"),
        reference_collapsed=_ended(pairs, 1, "collapsed"),
        pairs_without=without.pairs,
        gain_without=_finite(without.mean),
        standard_error_without=_finite(without.standard_error),
    )


def _scores(pairs: Sequence[tuple[Result, Result]], ratio: float) -> list[list[float]]:
    """The test accuracies of the candidate and of the reference, pair by pair."""
    return [[pair[side].score("test", ratio) for pair in pairs] for side in (0, 1)]


def _ended(pairs: Sequence[tuple[Result, Result]], side: int, outcome: str) -> int:
    return sum(pair[side].outcome == outcome for pair in pairs)


def _tested(study: Study, scores: list[list[float]], overlap: float) -> Comparison:
    """The result of the declared test of a complete comparison."""
    analysis = study.analysis
    return paired_comparison(
        *scores, alpha=analysis.alpha, test=analysis.test, comparisons=study.comparisons, overlap=overlap
    )


def _detectable(study: Study, found: Comparison) -> float:
    deviation = found.standard_error * math.sqrt(found.pairs)
    alpha = study.analysis.alpha / study.comparisons
    return minimum_detectable_gain(found.pairs, deviation, alpha=alpha, power=POWER)


def _correctness(
    halves: Iterable[Half], places: list[int], ratio: float, right_images: RightImages
) -> list[np.ndarray] | None:
    """Correctness by seed and image, for both sides; None where a run kept none, such as a diverged one."""
    found: list[np.ndarray] = []
    for half in halves:
        rows = [row for place in places if (row := right_images(half.run_id(place), ratio)) is not None]
        if len(rows) < len(places):
            return None
        found.append(np.stack(rows))
    return found


def _mean(scores: list[float]) -> float | None:
    return math.fsum(scores) / len(scores) if scores else None


def _parameters(results: list[Result]) -> float | None:
    """The mean size of the networks at the end of the runs; None where an older ledger lacks a size."""
    sizes = [float(result.parameters_end) for result in results if result.parameters_end]
    return _mean(sizes) if len(sizes) == len(results) else None


def _number(value: float | None) -> float | None:
    """The value; None for NaN. An infinite end of an interval stays: the test rejects no gain there."""
    return None if value is None or math.isnan(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
