"""The sign-flip test of paired differences, and the interval that inverts it.

Under the null hypothesis each difference is as likely to have the other sign. Flipping a subset S of the
differences changes their sum from T to T - 2 A, where A is the sum over S. |T - 2 A| >= |T| holds exactly
where the mean over S or the mean over its complement lies beyond 0. So the p-value at every shift, and with
it the interval, is a count of subset means.
"""

from __future__ import annotations

import math

import numpy as np

EXACT_PAIRS = 20
"""Up to this number of pairs all 2^n flips are counted. With more, DRAWS are drawn at random."""
DRAWS = 100_000
CHUNK = 2_000_000
"""The most random signs that are drawn at once, to bound the memory."""
TOLERANCE = 1e-9
"""Sums closer than this share of the sum of absolute differences are equal.

Accuracies are multiples of one image, so that sums tie, and rounding must not decide which is larger."""


class SignFlip:
    """A two-sided sign-flip test of n differences."""

    def __init__(self, differences: np.ndarray, rng: np.random.Generator | None = None) -> None:
        self.n, self.total = len(differences), math.fsum(differences)
        self.tolerance = TOLERANCE * math.fsum(np.abs(differences))
        self.exact = self.n <= EXACT_PAIRS
        if self.exact:
            sums, sizes = np.zeros(1), np.zeros(1, np.int64)
            for difference in differences:
                sums, sizes = np.concatenate([sums, sums + difference]), np.concatenate([sizes, sizes + 1])
        else:
            # The default is seeded, so that the same differences always have the same p-value.
            rng = rng or np.random.default_rng(self.n)
            rows = max(1, CHUNK // self.n)
            drawn = [rng.random((min(rows, DRAWS - start), self.n)) < 0.5 for start in range(0, DRAWS, rows)]
            sums = np.concatenate([flips @ differences for flips in drawn])
            sizes = np.concatenate([flips.sum(1) for flips in drawn])
        self.sums, self.sizes = sums, sizes

    @property
    def p_value(self) -> float:
        """The p-value of the null hypothesis that the differences are symmetric around 0.

        It is never 0, because the observed signs are one of the flips.
        """
        extreme = int((np.abs(self.total - 2 * self.sums) >= abs(self.total) - self.tolerance).sum())
        return extreme / len(self.sums) if self.exact else (extreme + 1) / (len(self.sums) + 1)

    @property
    def p_error(self) -> float:
        """The Monte Carlo standard error of the p-value; 0 where every flip was counted."""
        return 0.0 if self.exact else math.sqrt(self.p_value * (1 - self.p_value) / len(self.sums))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval of all shifts that the test does not reject at alpha; infinite if it rejects none."""
        if self.exact:
            rank = math.floor(alpha * len(self.sums) / 2 + TOLERANCE)
        else:
            rank = math.floor(alpha * (len(self.sums) + 1) - 1 + TOLERANCE)
        return self._bound(rank, 1), self._bound(rank, -1)

    def _bound(self, rank: int, sign: int) -> float:
        """The subset mean with a rank, counted from 0 at the low end, or at the high end with sign -1.

        The empty subset has no mean; it stands before all others.
        """
        if rank < 0:
            return -sign * math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(self.sizes > 0, sign * self.sums / self.sizes, -math.inf)
            # All subsets together hold their complements too; subsets drawn at random do not.
            if not self.exact:
                rest = self.n - self.sizes
                complements = np.where(rest > 0, sign * (self.total - self.sums) / rest, -math.inf)
                means = np.concatenate([means, complements])
        bound = sign * float(np.partition(means, rank)[rank])
        return 0.0 if abs(bound) <= self.tolerance else bound
