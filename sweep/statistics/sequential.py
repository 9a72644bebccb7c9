"""A test of paired differences that stays valid however often, and whenever, somebody looks.

Under the null hypothesis each difference is as likely to have the other sign, whatever the sizes of all of
them. A gambler who stakes on the sign of the next difference then has, on average, the same wealth after it
as before. By Ville's inequality the wealth ever exceeds 1 / alpha with a chance of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SLOPES = np.array([0.4, 0.8, 1.6])
"""Six gamblers stake on gains and on losses of these sizes, in units of the differences so far."""
OCTAVES, PER_OCTAVE = 40, 4
"""Shifts are tried at distances from the first difference of 2^-40 to 2^40 times the range."""
EVENLY = 512
"""The number of shifts that are tried evenly, from one range below the differences to one above."""
SECTIONS, REFINEMENTS = 32, 10
"""An end between two shifts is looked for among so many, so often: to the last bits of a float."""


def sequential_p_value(differences: Sequence[float] | np.ndarray) -> float:
    """The p-value of the null hypothesis that differences, in this order, are symmetric around 0.

    It may be computed after every difference, and the study may end at any of them. Each difference is
    divided by the root mean square of those before it, and the first one by its own size. It then changes
    the wealth of a gambler with slope s by exp(s x) / cosh(s x). A difference of 0, or one after nothing but
    zeros, changes nothing. The p-value is one over the highest mean wealth so far.
    """
    return float(_p_values(np.asarray(differences, float), np.zeros(1))[0])


def sequential_interval(differences: Sequence[float] | np.ndarray, alpha: float) -> tuple[float, float]:
    """The shortest interval of all shifts that the sequential test does not reject at alpha.

    An end is infinite where shifts are not rejected however far out. There all shifted differences have one
    sign and nearly one size, so that only their number counts: at 5 % it takes seven. Both ends are NaN
    where every shift is rejected, as when the differences first have one sign and then the other.

    The p-value is not monotone in the shift. It is smooth, but for a jump at the first difference. So it is
    computed at shifts that lie evenly among the differences, and ever closer to the first one. Each end is
    then refined between the outermost shift that is not rejected and its neighbour.
    """
    values = np.asarray(differences, float)
    width = float(np.ptp(values)) or float(np.abs(values).max()) or 1.0
    distances = width * np.exp2(np.linspace(-OCTAVES, OCTAVES, 2 * OCTAVES * PER_OCTAVE + 1))
    evenly = np.linspace(values.min() - width, values.max() + width, EVENLY)
    shifts = np.unique(np.concatenate([values, values[0] - distances, values[0] + distances, evenly]))
    kept = np.flatnonzero(_p_values(values, shifts) > alpha)
    if not len(kept):
        return math.nan, math.nan
    first, last = int(kept[0]), int(kept[-1])
    low = -math.inf if first == 0 else _end(values, alpha, shifts[first - 1], shifts[first])
    high = math.inf if last == len(shifts) - 1 else _end(values, alpha, shifts[last + 1], shifts[last])
    return low, high


def _end(values: np.ndarray, alpha: float, outside: float, inside: float) -> float:
    """The outermost shift, between one that is rejected and one that is not, which is not rejected."""
    for _ in range(REFINEMENTS):
        shifts = np.linspace(outside, inside, SECTIONS + 1)
        first = int(np.argmax(_p_values(values, shifts) > alpha))
        outside, inside = shifts[first - 1], shifts[first]
    return float(inside)


def _p_values(values: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """The p-value at each shift."""
    return p_values_of(values - shifts[:, None])


def p_values_of(x: np.ndarray) -> np.ndarray:
    """The p-value of each row of differences."""
    squares = np.cumsum(x[:, :-1] ** 2, 1)
    before = np.sqrt(squares / np.arange(1, x.shape[1]))
    scales = np.concatenate([np.abs(x[:, :1]), before], 1)
    x = np.divide(x, scales, out=np.zeros_like(x), where=scales > 0)
    # A factor is 2 or 0 long before this size, and infinity less infinity would be NaN.
    staked = SLOPES[:, None, None] * np.clip(x, -1e6, 1e6)
    size = np.abs(staked)
    log_cosh = size + np.log1p(np.exp(-2 * size)) - math.log(2)
    logs = np.cumsum(np.concatenate([staked - log_cosh, -staked - log_cosh]), 2)
    wealth = np.exp(np.minimum(logs, 700)).mean(0)  # e^709 is the last float
    return np.minimum(1, 1 / wealth.max(1))
