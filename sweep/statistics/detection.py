"""What a test of n pairs can find: its least p-value, its power, and the gain that it detects.

`alpha` is that of one test: whoever tests several comparisons, or at several looks, divides it by their
number. A study with several looks then finds a gain at least as often as is said here of the last one.

The differences of the pairs are taken as normally distributed, and all tests are two-sided. The figures of
sign flips are simulated up to SIMULATED_PAIRS. With more pairs they are close to those of the paired t test,
which are given instead. Those of the test for looks at any time are always simulated. `overlap` is that of
`paired_comparison`, which only resampled-t takes: the mean's variance is then the one that this test has.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from typing import Literal, cast

import numpy as np

from sweep.statistics.sequential import p_values_of
from sweep.statistics.simulated import gain_found, least_size, studies

Test = Literal["sign-flip", "paired-t", "resampled-t"]
Tested = Literal[Test, "any"]
"""A declared test, or the one for looks at any time."""
POWER = 0.8
"""The chance with which a detectable gain is found."""
DRAWS = 20_000
"""The number of quantiles over which an expectation is taken. More of them change the fifth digit."""
SIMULATED_PAIRS = 20
"""The figures of the sign-flip test are simulated up to this number of pairs."""
FOUND_BY_ANY = 1e6
"""A gain of so many deviations is found by every test that can find one at all."""


def smallest_p_value(pairs: int) -> float:
    """The least p-value that an exact two-sided sign-flip test with this number of pairs can give."""
    return min(1.0, math.ldexp(2.0, -pairs))


def pairs_needed(comparisons: int, alpha: float) -> int:
    """The least number of pairs with which exact sign-flip tests can reject all comparisons of a family.

    `comparisons` is the size of the family, for which Holm's correction raises the p-values.
    """
    pairs = 1
    while smallest_p_value(pairs) > alpha / comparisons:
        pairs += 1
    return pairs


def pairs_needed_at_any_time(comparisons: int, alpha: float) -> int:
    """The least number of pairs with which the test for looks at any time can reject all of a family.

    It is that of differences which are all equal; others take more.
    """
    pairs = 2
    while not _can_reject(pairs, alpha / comparisons, "any"):
        pairs += 1
    return pairs


def power(
    pairs: int, effect: float, alpha: float, test: Tested = "sign-flip", overlap: float = 0.0
) -> float:
    """The chance that a two-sided test finds a gain of `effect` standard deviations of the differences."""
    if pairs < 2:
        return 0.0
    if test == "any":
        return _power_at_any_time(pairs, effect, alpha)
    if _is_simulated(pairs, test):
        return _flip_power(pairs, effect, alpha)
    return _t_power(pairs, effect / math.sqrt(1 / pairs + overlap), alpha)


def minimum_detectable_gain(
    pairs: int, sd: float, *, alpha: float, power: float, test: Tested = "sign-flip", overlap: float = 0.0
) -> float:
    """The gain that the test finds with this power; infinite where the test can find none.

    `sd` is the standard deviation of the differences of the pairs.
    """
    effect = _detectable_effect(pairs, alpha, power, test, overlap)
    return effect * sd if math.isfinite(effect) else math.inf


def pairs_for_gain(
    gain: float,
    sd: float,
    *,
    alpha: float,
    power: float,
    test: Tested = "sign-flip",
    overlap: float = 0.0,
    most: int = 200,
) -> int | None:
    """The least number of pairs with which the test finds a gain with this power; None if above `most`.

    `sd` is the standard deviation of the differences of the pairs.
    """
    effect = min(abs(gain) / sd, FOUND_BY_ANY) if sd else FOUND_BY_ANY * bool(gain)
    return _pairs_for_effect(effect, alpha, power, test, overlap, most)


def equivalence_margin(
    pairs: int, *, alpha: float, chance: float = 0.75, test: Tested = "sign-flip", overlap: float = 0.0
) -> float:
    """The margin around 0 that holds the whole interval with this chance when there is no gain.

    It is counted in standard deviations of the differences, and infinite where the interval is. `alpha` is
    that of the two-sided interval. A study that declares a smaller margin will more often than that fail to
    show that an arm without a gain lies within it.
    """
    return _equivalence_margin(pairs, alpha, chance, test, overlap)


def _can_reject(pairs: int, alpha: float, test: Tested) -> bool:
    if test == "any":
        return pairs > 1 and float(p_values_of(np.ones((1, pairs)))[0]) <= alpha
    return pairs > 1 and (test != "sign-flip" or smallest_p_value(pairs) <= alpha)


def _is_simulated(pairs: int, test: Tested) -> bool:
    return test == "sign-flip" and pairs <= SIMULATED_PAIRS


@cache
def _power_at_any_time(pairs: int, effect: float, alpha: float) -> float:
    """The power of the test for looks at any time after so many pairs, simulated."""
    # in parts, to bound the memory
    parts = np.array_split(studies(pairs) + effect, 1 + pairs // 10)
    return float(np.mean(np.concatenate([p_values_of(part) <= alpha for part in parts])))


@cache
def _flip_power(pairs: int, effect: float, alpha: float) -> float:
    """The power of the sign-flip test, simulated. A loss that is found counts too, as in the t test's."""
    differences = studies(pairs) + effect
    return float((gain_found(differences, alpha) | gain_found(-differences, alpha)).mean())


def _t_power(pairs: int, noncentrality: float, alpha: float) -> float:
    """The power of the paired t test, from the noncentral t distribution."""
    from scipy import special

    thresholds = _thresholds(pairs, alpha)
    above = special.ndtr(noncentrality - thresholds)
    below = special.ndtr(-thresholds - noncentrality)
    return float((above + below).mean())


@cache
def _thresholds(pairs: int, alpha: float) -> np.ndarray:
    """The mean that a t test asks for, in true standard errors, at even quantiles of the estimated error.

    The noncentral t distribution is integrated over them: SciPy's own gives NaN for few pairs.
    """
    from scipy import special

    critical = float(special.stdtrit(pairs - 1, 1 - alpha / 2))
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    return critical * np.sqrt(special.chdtri(pairs - 1, 1 - shares) / (pairs - 1))


@cache
def _detectable_effect(pairs: int, alpha: float, power: float, test: Tested, overlap: float) -> float:
    """The least gain, in standard deviations of the differences, that the test finds with this power."""
    if not _can_reject(pairs, alpha, test):
        return math.inf
    if test == "any":
        return least_size(lambda rows, size: p_values_of(rows + size) <= alpha, pairs, power, 1.0)
    noncentrality = _root(lambda size: _t_power(pairs, size, alpha) - power)
    effect = noncentrality * math.sqrt(1 / pairs + overlap)
    if not _is_simulated(pairs, test):
        return effect
    return least_size(lambda rows, size: gain_found(rows + size, alpha), pairs, power, effect)


@cache
def _pairs_for_effect(
    effect: float, alpha: float, chance: float, test: Tested, overlap: float, most: int
) -> int | None:
    by_t: Test = "resampled-t" if test == "resampled-t" else "paired-t"
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(middle, effect, alpha, by_t, overlap) >= chance
        low, high = (low, middle) if enough else (middle, high)
    if test == "any":
        # more pairs always find more, so that most of them need not be tried
        tried = range(high, most + 1)
        place = bisect_left(tried, True, key=lambda n: power(n, effect, alpha, test) >= chance)
        return tried[place] if place < len(tried) else None
    # No unbiased test of normal differences has more power than the t test: sign flips need no fewer pairs.
    return next((n for n in range(high, most + 1) if power(n, effect, alpha, test, overlap) >= chance), None)


@cache
def _equivalence_margin(pairs: int, alpha: float, chance: float, test: Tested, overlap: float) -> float:
    from scipy import special

    if not _can_reject(pairs, alpha, test):
        return math.inf
    if test == "any":
        return least_size(_within_at_any_time(alpha), pairs, chance, 1.0)
    thresholds = _thresholds(pairs, alpha)
    margin = _root(lambda size: np.maximum(0, 2 * special.ndtr(size - thresholds) - 1).mean() - chance)
    margin *= math.sqrt(1 / pairs + overlap)
    return least_size(_within(alpha), pairs, chance, margin) if _is_simulated(pairs, test) else margin


def _within(alpha: float) -> Callable[[np.ndarray, float], np.ndarray]:
    """Whether a margin holds a study's interval: the test rejects a gain, and a loss, of this size."""

    def within(rows: np.ndarray, margin: float) -> np.ndarray:
        found = gain_found(rows + margin, alpha)
        found[found] = gain_found(margin - rows[found], alpha)
        return found

    return within


def _within_at_any_time(alpha: float) -> Callable[[np.ndarray, float], np.ndarray]:
    """Whether the test for looks at any time rejects a gain, and a loss, of a margin's size in a study."""

    def within(rows: np.ndarray, margin: float) -> np.ndarray:
        return (p_values_of(rows + margin) <= alpha) & (p_values_of(margin - rows) <= alpha)

    return within


def _root(lack: Callable[[float], float]) -> float:
    """The size, 0 or more, at which what is lacking, which falls as the size grows, turns to nothing."""
    from scipy import optimize

    highest = 1.0
    while lack(highest) < 0:
        highest *= 2
    return cast("float", optimize.brentq(lack, 0.0, highest))
