"""How far shares and deviations that were measured may be from the true ones: limits of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweep.errors import NotComparable


@dataclass(frozen=True)
class Components:
    """The spread of gains between searches, and that between seeds of one search, with their limits.

    All are standard deviations. That of searches is what remains once the seeds' part is taken off.
    """

    search_sd: float
    search_low: float
    search_high: float
    seed_sd: float
    seed_low: float
    seed_high: float


def components(differences: np.ndarray, alpha: float = 0.05) -> Components:
    """The spread of gains that were measured with several seeds in each of several searches.

    `differences` is a table of searches by seeds. Both effects are taken as normally distributed. The limits
    of the seeds' deviation are exact. Those of the searches' are approximate (Williams, Biometrika 49,
    1962): they hold the true one with a chance of at least 1 - 2 alpha, and of very nearly 1 - alpha. A
    variance below 0 counts as 0.
    """
    from scipy import special

    if differences.ndim != 2 or min(differences.shape) < 2:
        shape = " by ".join(str(length) for length in differences.shape)
        raise NotComparable(f"the spread needs 2 searches or more by 2 seeds or more; there are {shape}.")
    if not np.isfinite(differences).all():
        raise NotComparable("a search's gain is missing: the spread needs every seed of every search.")
    searches, seeds = differences.shape
    between, within = searches - 1, searches * (seeds - 1)
    means = differences.mean(1, keepdims=True)
    between_square = seeds * float(((means - differences.mean()) ** 2).sum())
    within_square = float(((differences - means) ** 2).sum())
    within_mean = within_square / within

    def search_limit(share: float) -> float:
        """The limit that the deviation of the searches exceeds with this chance."""
        by_seeds_alone = between * within_mean * float(special.fdtri(between, within, 1 - share))
        return _root((between_square - by_seeds_alone) / seeds / float(special.chdtri(between, share)))

    return Components(
        search_sd=_root((between_square / between - within_mean) / seeds),
        search_low=search_limit(alpha / 2),
        search_high=search_limit(1 - alpha / 2),
        seed_sd=math.sqrt(within_mean),
        seed_low=math.sqrt(within_square / float(special.chdtri(within, alpha / 2))),
        seed_high=math.sqrt(within_square / float(special.chdtri(within, 1 - alpha / 2))),
    )


def upper_deviation(sd: float, units: int, level: float = 0.8) -> float:
    """The limit below which the true deviation lies with this chance, for one estimated from so many units.

    The units are taken as normally distributed. One unit has no deviation, and its limit is infinite.
    """
    from scipy import special

    if units < 2:
        return math.inf
    return sd * math.sqrt((units - 1) / float(special.chdtri(units - 1, level)))


def failure_limits(failures: int, runs: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact limits of the chance that a run fails (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy import special

    sound = runs - failures
    low = float(special.betaincinv(failures, sound + 1, alpha / 2)) if failures else 0.0
    high = float(special.betaincinv(failures + 1, sound, 1 - alpha / 2)) if sound else 1.0
    return low, high


def _root(variance: float) -> float:
    return math.sqrt(max(0.0, variance))
