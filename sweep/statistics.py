"""What can be said of gains over a baseline: pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

DRAWS = 20_000
"""Quantiles that an expectation is taken over; more change the fifth digit."""


@dataclass(frozen=True)
class Gain:
    """A mean difference over pairs, with its standard error (NaN for fewer than two)."""

    pairs: int
    mean: float
    standard_error: float


def gain_so_far(candidate: Sequence[float], baseline: Sequence[float]) -> Gain:
    """Over the pairs of which both halves are there; NaN stands for one that is not."""
    both = np.asarray(candidate, float) - np.asarray(baseline, float)
    differences = both[np.isfinite(both)]
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Gain(n, float(differences.mean()) if n else math.nan, error)


def smallest_p_value(pairs: int) -> float:
    """The least p that an exact two-sided sign-flip test of so many pairs can give."""
    return min(1.0, math.ldexp(2.0, -pairs))


def pairs_needed(comparisons: int, alpha: float) -> int:
    """The fewest pairs with which an exact sign-flip test can reject every one of so many comparisons under Holm's correction."""
    pairs = 1
    while smallest_p_value(pairs) > alpha / comparisons:
        pairs += 1
    return pairs


def minimum_detectable_gain(pairs: int, sd: float, *, alpha: float, power: float) -> float:
    """The gain that a two-sided paired t test of so many pairs finds with this power, where pair differences have this deviation."""
    from scipy import optimize, stats  # takes a second; `sweep run` needs none of it

    if pairs < 2:
        return math.inf
    critical = float(stats.t.ppf(1 - alpha / 2, pairs - 1))
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    thresholds = critical * np.sqrt(stats.chi2.ppf(shares, pairs - 1) / (pairs - 1))

    def lacking(noncentrality: float) -> float:
        # the noncentral t by its definition, over the estimated deviation's quantiles: scipy's own is NaN for a handful of pairs
        found = stats.norm.sf(thresholds - noncentrality) + stats.norm.cdf(-thresholds - noncentrality)
        return float(found.mean()) - power

    highest = 1.0
    while lacking(highest) < 0:
        highest *= 2
    return cast("float", optimize.brentq(lacking, 0.0, highest)) * sd / math.sqrt(pairs)
