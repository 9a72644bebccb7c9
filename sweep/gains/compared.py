"""One row of a comparison: its pairs, what is missing, its figures and its test. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweep.gains.rows import Compared
from sweep.planning.pairing import Pairing, Side, places
from sweep.planning.plan import Plan
from sweep.planning.values import Failure, Result
from sweep.statistics import (
    POWER,
    Comparison,
    Components,
    components,
    gain_so_far,
    minimum_detectable_gain,
    two_way_standard_error,
)
from sweep.study import Study

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


def compared(plan: Plan, pairing: Pairing, at: Stage, right_images: RightImages) -> Compared:
    """The row of a comparison at a stage; its p-value is not corrected yet."""
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
