"""What a test of so many pairs can find: its least p-value, its power, and the gain that it detects."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal, cast

import numpy as np

Test = Literal["sign-flip", "paired-t", "resampled-t"]
DRAWS = 20_000
"""Quantiles that an expectation is taken over; more change the fifth digit."""
SIMULATED_PAIRS, SIMULATIONS = 12, 4_000
"""Up to how many pairs the power of the sign-flip test is simulated, and how often: its standard error is below 0.8 points."""


def smallest_p_value(pairs: int) -> float:
    """The least p that an exact two-sided sign-flip test of so many pairs can give."""
    return min(1.0, math.ldexp(2.0, -pairs))


def pairs_needed(comparisons: int, alpha: float) -> int:
    """The fewest pairs with which an exact sign-flip test can reject every one of so many comparisons under Holm's correction."""
    pairs = 1
    while smallest_p_value(pairs) > alpha / comparisons:
        pairs += 1
    return pairs


def power(pairs: int, effect: float, alpha: float, test: Test = "sign-flip", overlap: float = 0.0) -> float:
    """The chance that a two-sided test finds a gain of `effect` standard deviations of normally distributed pair differences.

    The sign-flip test's is simulated for few pairs, where it has few p-values to give; beyond, the paired t test's is close to it.
    `overlap` as in `paired_comparison`: the variance of the mean is taken for what the corrected test assumes.
    """
    if pairs < 2:
        return 0.0
    if test == "sign-flip" and pairs <= SIMULATED_PAIRS:
        differences = np.random.default_rng(pairs).standard_normal((SIMULATIONS, pairs)) + effect
        signs = 1 - 2 * (
            (np.arange(2 ** (pairs - 1))[:, None] >> np.arange(pairs)) & 1
        )  # the other half mirrors these
        sums = np.abs(differences @ signs.T)
        p_values = (sums >= np.abs(differences.sum(1))[:, None] * (1 - 1e-9)).mean(1)
        return float((p_values <= alpha).mean())
    return _t_power(pairs, effect / math.sqrt(1 / pairs + overlap), alpha)


def _t_power(pairs: int, noncentrality: float, alpha: float) -> float:
    """The noncentral t by its definition, over the estimated deviation's quantiles: SciPy's own is NaN for a handful of pairs."""
    from scipy import special

    critical = float(special.stdtrit(pairs - 1, 1 - alpha / 2))
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    thresholds = critical * np.sqrt(special.chdtri(pairs - 1, 1 - shares) / (pairs - 1))
    return float(
        (special.ndtr(noncentrality - thresholds) + special.ndtr(-thresholds - noncentrality)).mean()
    )


def minimum_detectable_gain(pairs: int, sd: float, *, alpha: float, power: float) -> float:
    """The gain that a two-sided paired t test of so many pairs finds with this power, where pair differences have this deviation."""
    return _detectable_effect(pairs, alpha, power) * sd if pairs > 1 else math.inf


@cache
def _detectable_effect(pairs: int, alpha: float, power: float) -> float:
    from scipy import optimize

    highest = 1.0
    while _t_power(pairs, highest, alpha) < power:
        highest *= 2
    return cast(
        "float", optimize.brentq(lambda at: _t_power(pairs, at, alpha) - power, 0.0, highest)
    ) / math.sqrt(pairs)
