"""What a test of n pairs can find: its least p-value, its power, and the gain that it detects."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal, cast

import numpy as np

Test = Literal["sign-flip", "paired-t", "resampled-t"]
POWER = 0.8
"""The chance with which a detectable gain is found."""
DRAWS = 20_000
"""The number of quantiles over which an expectation is taken. More of them change the fifth digit."""
SIMULATED_PAIRS = 12
"""The power of the sign-flip test is simulated up to this number of pairs."""
SIMULATIONS = 4_000
"""The number of simulations. The standard error of the power is then below 0.8 points."""


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


def power(pairs: int, effect: float, alpha: float, test: Test = "sign-flip", overlap: float = 0.0) -> float:
    """The chance that a two-sided test finds a gain of `effect` standard deviations.

    The differences of the pairs are taken as normally distributed. With few pairs the sign-flip test has
    few p-values, so that its power is simulated. With more pairs it is close to that of the paired t test.
    `overlap` is that of `paired_comparison`: the mean's variance is then the one that the corrected test
    assumes.
    """
    if pairs < 2:
        return 0.0
    if test == "sign-flip" and pairs <= SIMULATED_PAIRS:
        differences = np.random.default_rng(pairs).standard_normal((SIMULATIONS, pairs)) + effect
        # Half of the flips are enough: the other half mirrors them.
        flips = (np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs)) & 1
        signs = 1 - 2 * flips
        sums = np.abs(differences @ signs.T)
        p_values = (sums >= np.abs(differences.sum(1))[:, None] * (1 - 1e-9)).mean(1)
        return float((p_values <= alpha).mean())
    return _t_power(pairs, effect / math.sqrt(1 / pairs + overlap), alpha)


def _t_power(pairs: int, noncentrality: float, alpha: float) -> float:
    """The power of the paired t test, from the noncentral t distribution.

    It is integrated here, over quantiles of the estimated deviation: SciPy's own gives NaN for few pairs.
    """
    from scipy import special

    critical = float(special.stdtrit(pairs - 1, 1 - alpha / 2))
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    thresholds = critical * np.sqrt(special.chdtri(pairs - 1, 1 - shares) / (pairs - 1))
    above = special.ndtr(noncentrality - thresholds)
    below = special.ndtr(-thresholds - noncentrality)
    return float((above + below).mean())


def minimum_detectable_gain(pairs: int, sd: float, *, alpha: float, power: float, test='', overlap=0.0) -> float:
    """The gain that a two-sided paired t test finds with this power.

    `sd` is the standard deviation of the differences of the pairs.
    """
    return _detectable_effect(pairs, alpha, power) * sd if pairs > 1 else math.inf


@cache
def _detectable_effect(pairs: int, alpha: float, power: float) -> float:
    """The least gain, in standard deviations, that the paired t test finds with this power."""
    from scipy import optimize

    def lack(noncentrality: float) -> float:
        return _t_power(pairs, noncentrality, alpha) - power

    highest = 1.0
    while lack(highest) < 0:
        highest *= 2
    return cast("float", optimize.brentq(lack, 0.0, highest)) / math.sqrt(pairs)
