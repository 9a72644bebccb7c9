"""The comparisons of a study: which candidates are compared, over which pairs, and the test's result. Pure.

Nothing is tested over fewer pairs than the study declares, or than a look that it declares: a comparison
without all of them is incomplete, and lists what is missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sweep.format import counted, points, probability
from sweep.gains.rows import Compared
from sweep.planning.pairing import (
    FEWEST,
    PICKED_ANEW,
    Pairing,
    Side,
    complete_blocks,
    pairings,
    places,
    verdict,
)
from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Growth, Look, Result
from sweep.statistics import (
    POWER,
    Comparison,
    Components,
    components,
    gain_so_far,
    holm,
    minimum_detectable_gain,
    two_way_standard_error,
)
from sweep.study import ResolvedArm, Study
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
class Stage:
    """How far the pairs of a study are, and by which test they are compared."""

    blocks: int
    """The number of blocks that are compared."""
    at_any_time: bool
    """Whether looks may be had at any time: declared so, or because the study grew after a look."""
    look: int
    """The number of the declared look that is shown, from 1; 0 where there is none yet."""
    share: float = 1.0
    """The share of alpha that the tests have."""


def stage(plan: Plan, grew_after_look: Growth = "") -> Stage:
    """The stage that a study has reached.

    Pairs beyond the last declared look are tested like those of a study that grew after a look.
    """
    contents, done = plan.study.contents, complete_blocks(plan)
    looks = contents.looks
    if contents.analysis.looks == "any" or grew_after_look or done > looks[-1]:
        share = PICKED_ANEW if grew_after_look == "picks" else 1.0
        return Stage(max(done, FEWEST), at_any_time=True, look=0, share=share)
    reached = [look for look in looks if look <= done]
    return Stage(reached[-1] if reached else looks[0], at_any_time=False, look=len(reached))


def comparisons(
    plan: Plan,
    *,
    grew_after_look: Growth = "",
    right_images: RightImages = lambda _run, _ratio: None,
    at: Stage | None = None,
) -> list[Compared]:
    """Compare, task by task, every arm with the baseline, and then every arm with the other references.

    `grew_after_look` says how the study was extended after its gains could be seen. `at` gives the
    comparisons as they were at an earlier stage.
    """
    study, at = plan.study, at or stage(plan, grew_after_look)
    found = [
        _compared(plan, pairing, at, right_images)
        for reference in references(study)
        for pairing in _against(plan, reference)
    ]
    family = [i for i, row in enumerate(found) if row.role == "family"]
    p_values = [p for i in family if (p := found[i].p_value) is not None]
    if p_values and len(p_values) == len(family) == study.comparisons:
        for i, p in zip(family, holm(p_values), strict=True):
            found[i] = replace(found[i], p_holm=p, verdict=_verdict(study, found[i], p))
    return found


def _verdict(study: Study, row: Compared, p_holm: float) -> str:
    """The verdict on a tested comparison."""
    low, high = row.family_low, row.family_high
    if row.margin is not None:
        return "inconclusive" if low is None or high is None else verdict(low, high, row.margin)
    if p_holm > study.analysis.alpha:
        return "inconclusive"
    return "better" if row.gain is not None and row.gain > 0 else "worse"


def references(study: Study) -> list[ResolvedArm]:
    """The arms that others are compared with: task by task the baseline, and then some others.

    The others are the arms that `analysis.against` names, and the arms with the baseline's policy: the
    published settings where the baseline is tuned, or a dense network of another arm's size.
    """
    found: list[ResolvedArm] = []
    for name in study.baselines:
        baseline = study.arms[name]
        arms = [arms[0] for arms in study.methods.values()]
        own = [arm for arm in arms if arm.task == baseline.task and not arm.is_repeat]
        found.append(baseline)
        for arm in own:
            named = any(other.is_tested_over(arm) for other in own)
            if arm is not baseline and (named or arm.written.policy == baseline.written.policy):
                found.append(arm)
    return found


def declared_pairs(study: Study, row: Compared) -> int:
    """How many pairs a comparison has in the end, if the study does not end early."""
    by_seed = study.search.replicates > 1 and row.unit == "seed"
    return study.contents.blocks * (study.confirm.seeds if by_seed else 1)


def keep_ratio_matters(study: Study) -> bool:
    """Whether results depend on the keep ratio: several are measured, or a policy moves it."""
    own = [arms[0] for arms in study.methods.values() if not arms[0].is_repeat]
    policies = {POLICIES[str(arm.written.policy["name"])] for arm in own} - {Dense}
    measured = {*study.analysis.endpoints, *study.analysis.curve}
    return len(measured) > 1 or any(issubclass(policy, KeepRatioPolicy) for policy in policies)


def earlier(plan: Plan, looks: Sequence[Look], right_images: RightImages) -> dict[int, list[Compared]]:
    """The tested comparisons at the looks before a study grew, by the number of blocks then."""
    now, declared = plan.study.contents.blocks, plan.study.contents.looks
    # a declared look that later ones have paid for is none of before the study grew
    sizes = sorted(
        {
            look.pairs
            for look in looks
            if look.pairs < now and (look.pairs not in declared or declared[-1] < now)
        }
    )
    rows = {
        size: comparisons(plan, right_images=right_images, at=Stage(size, at_any_time=False, look=1))
        for size in sizes
    }
    return {
        size: [row for row in found if row.role == "family" and row.candidates]
        for size, found in rows.items()
    }


def seen(rows: Sequence[Compared]) -> list[str]:
    """The arms with a tested comparison among these rows: whoever reads the rows has a look at them."""
    return sorted({row.arm for row in rows if row.p_value is not None})


def said(rows: Sequence[Compared]) -> list[str]:
    """What the tested comparisons of a complete family say, a line each, for the record of a look."""
    return [
        f"{row.arm} over {row.reference_arm} at r = {row.keep_ratio:g}: {row.verdict}, {points(row.gain)} "
        f"points [{points(row.family_low)}, {points(row.family_high)}], p = {probability(row.p_holm)}, "
        f"{counted(row.pairs, 'pair')}"
        for row in rows
        if row.role == "family" and row.verdict
    ]


def _against(plan: Plan, reference: ResolvedArm) -> Iterator[Pairing]:
    """Every arm of the reference's task beside the reference's first finalist."""
    for name, (arm, *_) in plan.study.methods.items():
        if arm.task != reference.task or (
            reference.role != "baseline" and (arm.is_repeat or arm is reference)
        ):
            continue
        for pairing in pairings(plan, name, reference.method):
            if not (arm is reference and pairing.candidate.rank == 0):
                yield pairing


def _compared(plan: Plan, pairing: Pairing, at: Stage, right_images: RightImages) -> Compared:
    study, arm = plan.study, pairing.candidate.arm
    by_search = pairing.pairs(at.blocks)
    pairs = list(itertools.chain.from_iterable(by_search))
    sound = [pair for pair in pairs if all(result.outcome == "completed" for result in pair)]
    scores = pairing.scores(at.blocks)
    so_far = gain_so_far(*scores, overlap=arm.overlap)
    without = gain_so_far(*_scores(sound, pairing.ratio), overlap=arm.overlap)
    # while a search is under way, what the other side lacks is not yet of interest
    needed = [_missing(plan, side, at.blocks) for side in pairing.sides]
    searching = [lines for lines, is_searching in needed if is_searching]
    missing = list(itertools.chain.from_iterable(searching or [lines for lines, _ in needed]))
    # rounded like in the test: a difference in the last bits of a mean is none
    differences = np.round(np.subtract(scores[0], scores[1]), 12)
    if at.at_any_time and arm.overlap:
        missing = missing or ["a test of overlapping test sets that allows looks at any time: there is none"]
    tested = None if missing else _test(study, pairing, at)
    spread = None if missing else _components(study, pairing, by_search)
    return Compared(
        arm=arm.method,
        task=arm.task,
        rank=pairing.candidate.rank + 1,
        candidate=_one(pairing.candidate),
        candidates=_names(pairing.candidate, at.blocks),
        reference_arm=pairing.against.arm.method,
        reference=_one(pairing.against),
        references=_names(pairing.against, at.blocks),
        keep_ratio=pairing.ratio,
        role="family" if pairing.is_tested else "repeat" if arm.is_repeat else "control",
        state="incomplete" if missing else "complete",
        missing=missing,
        unit="search" if pairing.by_search else "seed",
        pairs=so_far.pairs,
        seeds=len(pairs),
        searches=min(len(pairing.candidate.arms), at.blocks),
        look=at.look,
        looks=0 if at.at_any_time else len(study.contents.looks),
        better=int((differences > 0).sum()),
        equal=int((differences == 0).sum()),
        overlap=arm.overlap,
        accuracy=_mean(scores[0]),
        reference_accuracy=_mean(scores[1]),
        parameters=_parameters([pair[0] for pair in pairs]),
        reference_parameters=_parameters([pair[1] for pair in pairs]),
        gain=_finite(so_far.mean),
        standard_error=_finite(so_far.standard_error),
        two_way_standard_error=None if missing else _two_way(pairing, at.blocks, right_images),
        **{column: _number(tested and getattr(tested, column)) for column in TEST_COLUMNS},
        p_holm=None,
        margin=study.margin(pairing.ratio),
        verdict=None,
        detectable_gain=_detectable(study, tested, arm.overlap, at) if tested else None,
        search_deviation=spread and spread.search_sd,
        search_deviation_low=spread and spread.search_low,
        search_deviation_high=spread and spread.search_high,
        seed_deviation=spread and spread.seed_sd,
        seed_deviation_low=spread and spread.seed_low,
        seed_deviation_high=spread and spread.seed_high,
        diverged=_ended(pairs, 0, "diverged"),
        collapsed=_ended(pairs, 0, "collapsed"),
        reference_diverged=_ended(pairs, 1, "diverged"),
        reference_collapsed=_ended(pairs, 1, "collapsed"),
        pairs_without=without.pairs,
        gain_without=_finite(without.mean),
        standard_error_without=_finite(without.standard_error),
    )


def _test(study: Study, pairing: Pairing, at: Stage) -> Comparison:
    return pairing.tested(study, at.blocks, at_any_time=at.at_any_time, share=at.share)


def _one(side: Side) -> str | None:
    """The name of the only search's finalist; None with several searches, or while it is under way."""
    names = _names(side, 1)
    return names[0] if len(side.arms) == 1 and names else None


def _names(side: Side, blocks: int) -> list[str]:
    """The names of the finalists of the searches in the first blocks; none while one is under way."""
    compared = side.finalists[:blocks]
    finalists = [finalist for finalist in compared if finalist]
    return [candidate.name for candidate, _ in finalists] if len(finalists) == len(compared) else []


def _missing(plan: Plan, side: Side, blocks: int) -> tuple[list[str], bool]:
    """The reasons why a side cannot be compared over so many blocks, one a line.

    Also whether one of them is that a search is under way.
    """
    lines, under_way = dict[str, None](), False
    for search, place in places(side.arm, blocks):
        arm = side.arms[search]
        if side.finalists[search] is None:
            lines[f"{arm.name}: its search is under way"], under_way = None, True
        elif side.result(search, place) is None:
            lines[_why_missing(plan.queue.failed, side, search, place)] = None
    return list(lines), under_way


def _why_missing(failed: Mapping[str, Failure], side: Side, search: int, place: int) -> str:
    finalist = side.finalists[search]
    assert finalist
    failure, run_id = failed.get(_run_id(side, search, place)), _run_id(side, search, place)
    why = f"failed: {failure.reason}" if failure else "has not finished"
    return f"{finalist[0].name}, confirm seed {side.arms[search].seeds[place]} (run {run_id}) {why}"


def _run_id(side: Side, search: int, place: int) -> str:
    arm, finalist = side.arms[search], side.finalists[search]
    assert finalist
    return arm.run(finalist[0].values, "confirm", arm.seeds[place]).run_id


def _components(
    study: Study, pairing: Pairing, by_search: Sequence[Sequence[tuple[Result, Result]]]
) -> Components | None:
    """How much the gain varies from search to search and from seed to seed; None where that is unknown."""
    by_search = [pairs for pairs in by_search if pairs]
    if not pairing.by_search or len(by_search) < 2 or len(by_search[0]) < 2:
        return None
    gains = [
        [own.score("test", pairing.ratio) - other.score("test", pairing.ratio) for own, other in pairs]
        for pairs in by_search
    ]
    return components(np.array(gains), alpha=study.analysis.alpha)


def _scores(pairs: Sequence[tuple[Result, Result]], ratio: float) -> list[list[float]]:
    """The test accuracies of the candidate and of the reference, pair by pair."""
    return [[pair[side].score("test", ratio) for pair in pairs] for side in (0, 1)]


def _ended(pairs: Sequence[tuple[Result, Result]], side: int, outcome: str) -> int:
    return sum(pair[side].outcome == outcome for pair in pairs)


def _detectable(study: Study, found: Comparison, overlap: float, at: Stage) -> float:
    deviation = found.standard_error / math.sqrt(1 / found.pairs + overlap)
    alpha, test = at.share * study.analysis.alpha / study.comparisons, study.analysis.test
    if at.at_any_time:
        return minimum_detectable_gain(found.pairs, deviation, alpha=alpha, power=POWER, test="any")
    alpha /= len(study.contents.looks)
    return minimum_detectable_gain(
        found.pairs, deviation, alpha=alpha, power=POWER, test=test, overlap=overlap
    )


def _two_way(pairing: Pairing, blocks: int, right_images: RightImages) -> float | None:
    """The standard error of a gain, were other seeds and other test images drawn.

    It takes a table of seeds by images, so that every seed has to have the same test images, and a pair has
    to be a seed. None also where a run kept no images, such as a diverged one.
    """
    several = pairing.by_search and pairing.candidate.arm.contents.confirm.seeds > 1
    if pairing.candidate.arm.overlap or several:
        return None
    found: list[np.ndarray] = []
    for side in pairing.sides:
        rows: list[np.ndarray] = []
        for search, place in places(side.arm, blocks):
            row = right_images(_run_id(side, search, place), pairing.ratio)
            if row is None:
                return None
            rows.append(row)
        found.append(np.stack(rows))
    return _finite(two_way_standard_error(*found))


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
