"""The comparisons of a study: which candidate is held against which, over which pairs, and what the declared test says. Pure.

Nothing here is tested over fewer pairs than were declared: a comparison that lacks one is incomplete, and says what it lacks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from sweep.errors import RejectStudy
from sweep.planning.plan import Plan
from sweep.planning.work import Result
from sweep.statistics.paired import (
    gain_so_far,
    holm,
    minimum_detectable_gain,
    paired_comparison,
    pairs_needed,
    two_way_standard_error,
)
from sweep.study.study import Candidate, Study
from trainer.policies import POLICIES
from trainer.policies.keep_ratio import Dense, KeepRatioPolicy

POWER = 0.8
Correct = Callable[[str, float], np.ndarray | None]
"""Correctness per test image of a run's final weights at a keep ratio; None where it was not kept."""


@dataclass(frozen=True)
class Look:
    """A whole comparison that was computed and could be seen: of these arms, over so many pairs."""

    at: str
    pairs: int
    arms: list[str]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One candidate held against one reference at one keep ratio. Accuracies and gains are shares, not points."""

    arm: Annotated[str, "of the study"]
    task: Annotated[str, "that both are run on; empty where the study lists no tasks"]
    candidate: Annotated[str | None, "the arm's finalist; null while its search is under way"]
    reference_arm: Annotated[str, "the arm it is held against"]
    reference: Annotated[str | None, "that arm's first finalist; null while its search is under way"]
    keep_ratio: Annotated[float, "of the final weights that are compared"]
    role: Annotated[
        str,
        "family: tested, under the correction; control: shown, not tested; repeat: the baseline's or an arm's own null",
    ]
    state: Annotated[
        str, "complete, or incomplete: then there is no test, and the gain is that of the pairs so far"
    ]
    missing: Annotated[list[str], "what an incomplete comparison lacks"]
    pairs: Annotated[int, "seeds that both have, among those compared"]
    overlap: Annotated[
        float,
        "test rows over rows trained on, where each seed draws its own test rows; 0 where all have the same",
    ]
    first_place: Annotated[
        int,
        "place in the pool of the first seed that is compared; more than 0 after a look: seeds added then are tested alone",
    ]
    accuracy: Annotated[float | None, "mean over the pairs, of the candidate"]
    reference_accuracy: Annotated[float | None, "mean over the pairs, of the reference"]
    parameters: Annotated[
        float | None,
        "of the candidate's networks at the end of their runs, mean over the pairs; null where unknown",
    ]
    reference_parameters: Annotated[float | None, "of the reference's"]
    gain: Annotated[float | None, "mean difference over the pairs"]
    standard_error: Annotated[
        float | None,
        "of the gain, over the pairs; with what overlapping splits add, where each seed draws its own",
    ]
    two_way_standard_error: Annotated[
        float | None,
        "of the gain, were other seeds and other test images drawn; null where each seed has its own test images",
    ]
    ci_low: Annotated[float | None, "lower end of the interval that inverts the declared test at alpha"]
    ci_high: Annotated[float | None, "its upper end"]
    family_low: Annotated[
        float | None,
        "lower end at alpha over the comparisons of the family: all such intervals hold together",
    ]
    family_high: Annotated[float | None, "its upper end"]
    p_value: Annotated[float | None, "of the declared test, by itself"]
    p_error: Annotated[float | None, "Monte Carlo standard error of p_value; 0 where it is exact"]
    p_holm: Annotated[
        float | None, "corrected over the family; null outside it and until all of it is complete"
    ]
    effect_size: Annotated[
        float | None, "gain over the standard deviation of the differences, corrected for few pairs"
    ]
    welch_p_value: Annotated[
        float | None, "Welch's t test, as if seeds were no pairs: beside, for sensitivity"
    ]
    wilcoxon_p_value: Annotated[float | None, "Wilcoxon's signed-rank test: beside, for sensitivity"]
    correlation: Annotated[float | None, "of the two halves of the pairs"]
    detectable_gain: Annotated[
        float | None,
        "the gain that these pairs would find with 80 % power at the strictest step of the correction",
    ]
    diverged: Annotated[int, "diverged runs of the candidate among the pairs; they score 0"]
    collapsed: Annotated[
        int, "collapsed runs of the candidate: their final training loss is that of a guess"
    ]
    reference_diverged: Annotated[int, "diverged runs of the reference"]
    reference_collapsed: Annotated[int, "collapsed runs of the reference"]
    pairs_without: Annotated[int, "pairs in which neither half diverged or collapsed"]
    gain_without: Annotated[float | None, "mean difference over those"]
    standard_error_without: Annotated[float | None, "its standard error"]


def comparisons(
    plan: Plan,
    *,
    looks: Sequence[Look] = (),
    correct: Correct = lambda _run, _ratio: None,
    seeds: int | None = None,
) -> list[Compared]:
    """Task by task, every arm over the baseline, then every arm over the other references.

    `seeds` asks for what was there when the study had so many.
    """
    study = plan.study
    upto = seeds or study.confirm.seeds
    found = [row for reference in references(study) for row in _over(plan, reference, looks, upto, correct)]
    family = [i for i, row in enumerate(found) if row.role == "family"]
    p_values = [found[i].p_value for i in family]
    if p_values and all(p is not None for p in p_values) and len(family) == study.comparisons:
        for i, p in zip(family, holm([p for p in p_values if p is not None]), strict=True):
            found[i] = replace(found[i], p_holm=p)
    return found


def references(study: Study) -> list[str]:
    """Task by task the baseline, and what else its arms are held against.

    Those are the other arms with its policy (as published where the baseline was tuned, or a dense network of another arm's size), and
    those that `analysis.against` names.
    """
    found: list[str] = []
    for baseline in study.baselines:
        own = {
            arm: it
            for arm, it in study.arms.items()
            if study.task_of(arm) == study.task_of(baseline) and not it.repeat
        }
        named = {arm for arm in own if any(study.is_tested(other, arm) for other in own)}
        found += [
            baseline,
            *(
                a
                for a, it in own.items()
                if a != baseline and (a in named or it.policy == own[baseline].policy)
            ),
        ]
    return found


def keep_ratios(study: Study) -> bool:
    """Whether it matters at which keep ratio a network is read: where several are measured, or a policy moves it."""
    moved = [
        cls
        for it in study.arms.values()
        if not it.repeat and (cls := POLICIES[str(it.policy["name"])]) is not Dense
    ]
    measured = {*study.analysis.endpoints, *study.analysis.curve}
    return len(measured) > 1 or any(issubclass(cls, KeepRatioPolicy) for cls in moved)


def earlier(plan: Plan, looks: Sequence[Look], correct: Correct) -> dict[int, list[Compared]]:
    """What the tests said at the looks before this one, by the number of seeds there were; each had its own chance of a false gain."""
    sizes = sorted({look.pairs for look in looks if look.pairs < plan.study.confirm.seeds})
    whole = {size: comparisons(plan, looks=looks, correct=correct, seeds=size) for size in sizes}
    return {
        size: [row for row in rows if row.role == "family" and row.candidate] for size, rows in whole.items()
    }


def _over(
    plan: Plan, reference: str, looks: Sequence[Look], upto: int, correct: Correct
) -> Iterator[Compared]:
    study, primary = plan.study, reference in plan.study.baselines
    against = (plan.finalists(reference) or [None])[0]
    for arm, it in study.arms.items():
        if study.task_of(arm) != study.task_of(reference) or (
            not primary and (it.repeat or arm == reference)
        ):
            continue
        ranked = plan.finalists(arm) or [None] * study.finalists(arm)
        for rank, candidate in enumerate(ranked):
            if arm == reference and rank == 0:
                continue
            role = "family" if study.is_tested(arm, reference) else "repeat" if it.repeat else "control"
            for ratio in study.analysis.endpoints:
                places = range(first_place(study, arm, looks, upto), upto)
                yield _compared(plan, arm, candidate, reference, against, ratio, role, places, correct)


def first_place(study: Study, arm: str, looks: Iterable[Look], seeds: int | None = None) -> int:
    """The place of the first seed that may still be tested: those that a look at fewer seeds has seen had their test."""
    return max(
        (look.pairs for look in looks if arm in look.arms and look.pairs < (seeds or study.confirm.seeds)),
        default=0,
    )


def _compared(
    plan: Plan,
    arm: str,
    candidate: Candidate | None,
    reference: str,
    against: Candidate | None,
    ratio: float,
    role: str,
    places: range,
    correct: Correct,
) -> Compared:
    halves = [_results(plan, side) for side in (candidate, against)]
    both = [place for place in places if all(place in half for half in halves)]
    pairs = [(halves[0][place], halves[1][place]) for place in both]
    scores = [[half.score("test", ratio) for half in side] for side in zip(*pairs, strict=True)] or [[], []]
    whole = [pair for pair in pairs if all(half.outcome == "completed" for half in pair)]
    overlap = plan.study.overlap(arm)
    so_far = gain_so_far(*scores, overlap=overlap)
    without = gain_so_far(
        *([pair[i].score("test", ratio) for pair in whole] for i in (0, 1)), overlap=overlap
    )
    missing = [
        line
        for side, half in zip((candidate, against), halves, strict=True)
        for line in _missing(plan, side, half, places)
    ]
    if candidate is None or against is None:
        missing = [
            f"{name}: its search is under way"
            for name, side in ((arm, candidate), (reference, against))
            if side is None
        ]
    tested: dict[str, Any] = {}
    if not missing:
        # the two-way error is of a table of seeds by images: there is none where each seed has its own test images
        tested = _tested(
            plan,
            scores,
            overlap,
            None if overlap else _bits(plan, [candidate, against], both, ratio, correct),
        )
    counts = [
        {outcome: sum(pair[i].outcome == outcome for pair in pairs) for outcome in ("diverged", "collapsed")}
        for i in (0, 1)
    ]
    return Compared(
        arm=arm,
        task=plan.study.task_of(arm),
        candidate=candidate and candidate.name,
        reference_arm=reference,
        reference=against and against.name,
        keep_ratio=ratio,
        role=role,
        state="incomplete" if missing else "complete",
        missing=missing,
        pairs=len(pairs),
        overlap=overlap,
        first_place=places.start,
        accuracy=_mean(scores[0]),
        reference_accuracy=_mean(scores[1]),
        parameters=_parameters([pair[0] for pair in pairs]),
        reference_parameters=_parameters([pair[1] for pair in pairs]),
        gain=_known(so_far.mean),
        standard_error=_known(so_far.standard_error),
        **{name: tested.get(name) for name in _TESTED},
        p_holm=None,
        diverged=counts[0]["diverged"],
        collapsed=counts[0]["collapsed"],
        reference_diverged=counts[1]["diverged"],
        reference_collapsed=counts[1]["collapsed"],
        pairs_without=without.pairs,
        gain_without=_known(without.mean),
        standard_error_without=_known(without.standard_error),
    )


_FROM_TEST = (
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
_TESTED = (*_FROM_TEST, "two_way_standard_error", "detectable_gain")


def _tested(
    plan: Plan, scores: list[list[float]], overlap: float, bits: list[np.ndarray] | None
) -> dict[str, float | None]:
    """What is said of a complete comparison alone."""
    analysis, count = plan.study.analysis, plan.study.comparisons
    found = paired_comparison(
        *scores, alpha=analysis.alpha, test=analysis.test, comparisons=count, overlap=overlap
    )
    deviation = found.standard_error * math.sqrt(found.pairs)
    detectable = minimum_detectable_gain(found.pairs, deviation, alpha=analysis.alpha / count, power=POWER)
    return {
        # infinite ends of an interval are said as they are: the test could not reject any gain on that side
        **{name: None if math.isnan(value := getattr(found, name)) else value for name in _FROM_TEST},
        "two_way_standard_error": _known(two_way_standard_error(*bits)) if bits else None,
        "detectable_gain": detectable,
    }


def _bits(
    plan: Plan, sides: list[Candidate | None], places: list[int], ratio: float, correct: Correct
) -> list[np.ndarray] | None:
    """Correctness by seed and image for both sides; None where a run's was not kept, as a diverged one's is not."""
    found: list[np.ndarray] = []
    for side in sides:
        assert side
        rows = [
            correct(plan.study.run(side, "confirm", plan.study.pools[side.arm][place]).run_id, ratio)
            for place in places
        ]
        if any(row is None for row in rows):
            return None
        found.append(np.stack([row for row in rows if row is not None]))
    return found


def _results(plan: Plan, candidate: Candidate | None) -> Mapping[int, Result]:
    if candidate is None:
        return {}
    return plan.confirmed(candidate.arm)[
        [it.name for it in plan.finalists(candidate.arm)].index(candidate.name)
    ]


def _missing(
    plan: Plan, candidate: Candidate | None, half: Mapping[int, Result], places: Iterable[int]
) -> Iterator[str]:
    if candidate is None:
        return
    for place in places:
        if place not in half:
            seed = plan.study.pools[candidate.arm][place]
            run_id = plan.study.run(candidate, "confirm", seed).run_id
            why = f"failed: {plan.failed[run_id].reason}" if run_id in plan.failed else "has not finished"
            yield f"{candidate.name}, confirm seed {seed} (run {run_id}) {why}"


def _mean(scores: list[float]) -> float | None:
    return math.fsum(scores) / len(scores) if scores else None


def _parameters(results: list[Result]) -> float | None:
    """At the end of the runs; the ledgers of before do not know."""
    known = [float(it.parameters_end) for it in results if it.parameters_end]
    return _mean(known) if len(known) == len(results) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def seen(rows: Sequence[Compared]) -> list[str]:
    """The arms of which something was tested, once these comparisons are shown."""
    return sorted({row.arm for row in rows if row.p_value is not None})


def refuse_what_cannot_reject(
    study: Study, looks: Sequence[Look], if_more: Sequence[Look] = (), begun: int | None = None
) -> None:
    """RejectStudy where the seeds after a look are too few to be tested alone; it names a number that is accepted.

    `if_more` are the looks there would be with more seeds; `begun` is how many seeds the ledger has now.
    """
    seeds = study.confirm.seeds
    for arm in study.arms:
        first, needed = first_place(study, arm, looks), pairs_that_reject(study, arm)
        if first and seeds - first < needed:
            enough = seeds_with(study, [*looks, *if_more], lambda arm: pairs_that_reject(study, arm))
            stay = ""
            if (
                begun
                and begun < seeds
                and all(
                    begun - first_place(study, it, looks, begun) >= pairs_that_reject(study, it)
                    for it in study.arms
                )
            ):
                stay = f", or stay at the {begun} that it has"
            raise RejectStudy(
                [
                    f"{study.name}: confirm.seeds: the first {first} seeds of {arm!r} were compared already, "
                    f"and seeds that are added after a look are tested alone: {seeds - first} of them cannot "
                    f"reject anything, {needed} can. "
                    f"Ask for {enough} seeds or more{stay}."
                ]
            )


def pairs_that_reject(study: Study, arm: str) -> int:
    """The least pairs of an arm that could show a gain; two where nothing of it is tested, or by a t test."""
    exact = arm in study.tested and study.analysis.test == "sign-flip"
    return pairs_needed(study.comparisons, study.analysis.alpha) if exact else 2


def seeds_with(study: Study, looks: Sequence[Look], pairs: Callable[[str], int]) -> int:
    """The least number of seeds, above the study's, with which every arm has so many pairs that no look has seen."""
    return next(
        seeds
        for seeds in itertools.count(study.confirm.seeds + 1)
        if all(seeds - first_place(study, arm, looks, seeds) >= pairs(arm) for arm in study.arms)
    )
