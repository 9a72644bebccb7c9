"""The sign-flip test in simulated studies, whose differences are normally distributed with deviation 1.

The test finds a gain where few enough subsets of the differences have a sum of at most 0. Of 20 differences
there are a million subsets. They are counted by halves: each sum of ten meets the sums of the other ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sweep.statistics.sign_flip import TOLERANCE

STUDIES = 20_000
"""The number of simulated studies. The standard error of a power is at most 0.35 points."""
CHUNK = 500
"""The number of studies whose subsets are summed at once, to bound the memory."""
PRECISION = 1e-4
"""Quantiles are found to this share of themselves, which the number of studies cannot tell from 0."""
STEP = 1.05
"""From a size that is too small, or too great, the next is so many times as great, or as small."""

Found = Callable[[np.ndarray, float], np.ndarray]
"""Whether something is found in each study, at a size; what is, is found at greater sizes too."""


def studies(pairs: int) -> np.ndarray:
    """The differences of every simulated study, without a gain; always the same."""
    return np.random.default_rng(pairs).standard_normal((STUDIES, pairs))


def gain_found(differences: np.ndarray, alpha: float) -> np.ndarray:
    """Whether the two-sided test at alpha finds a gain, rather than a loss or nothing, in each study."""
    most = math.floor(alpha * 2 ** (differences.shape[1] - 1) + TOLERANCE)
    found = np.zeros(len(differences), bool)
    rows = np.flatnonzero(differences.sum(1) > 0)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        found[chunk] = _subsets_below(differences[chunk]) <= most
    return found


def _subsets_below(differences: np.ndarray) -> np.ndarray:
    """The number of subsets of each study's differences whose sum is at most 0; the empty one is such."""
    half = differences.shape[1] // 2
    ours = np.sort(-_subset_sums(differences[:, :half]), 1)
    theirs = np.sort(_subset_sums(differences[:, half:]), 1)
    return np.array([b.searchsorted(a, "right").sum() for a, b in zip(ours, theirs, strict=True)])


def _subset_sums(differences: np.ndarray) -> np.ndarray:
    """The sums of all subsets of each row."""
    sums = np.zeros((len(differences), 2 ** differences.shape[1]))
    for i, difference in enumerate(differences.T):
        np.add(sums[:, : 2**i], difference[:, None], out=sums[:, 2**i : 2 ** (i + 1)])
    return sums


def least_size(found: Found, pairs: int, chance: float, start: float) -> float:
    """The least size at which something is found in this share of the simulated studies.

    `start` is a guess. From size to size only those studies are looked at whose answer is still open.
    """
    rows, needed = studies(pairs), math.ceil(chance * STUDIES)
    size, low, high = start, 0.0, math.inf
    while high > low * (1 + PRECISION):
        hits = found(rows, size)
        if (count := int(hits.sum())) >= needed:
            high, rows = size, rows[hits]
        else:
            low, rows, needed = size, rows[~hits], needed - count
        size = size * STEP if math.isinf(high) else size / STEP if not low else (low + high) / 2
    return high
