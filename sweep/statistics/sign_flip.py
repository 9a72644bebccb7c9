"""The sign-flip test of paired differences, and the interval that inverts it.

Under the null each difference is as likely to have the other sign. Flipping a set S of them changes the sum from T to T - 2 A, where A is
the sum over S, and |T - 2 A| >= |T| exactly where the mean over S or the mean over its complement lies beyond 0. So the p-value at every
shift, and with it the interval, is a count of subset means.
"""

from __future__ import annotations

import math

import numpy as np

EXACT_PAIRS = 20
"""Up to here every one of the 2^n flips is counted; beyond, DRAWS of them are drawn."""
DRAWS = 100_000
CHUNK = 2_000_000
TOLERANCE = 1e-9
"""Of the sum of sizes. Accuracies are multiples of one image, so sums tie, and their last bits must not decide."""


class SignFlip:
    """A test of n differences, two-sided."""

    def __init__(self, differences: np.ndarray, rng: np.random.Generator | None = None) -> None:
        self.n, self.total = len(differences), math.fsum(differences)
        self.tolerance = TOLERANCE * math.fsum(np.abs(differences))
        self.exact = self.n <= EXACT_PAIRS
        if self.exact:
            sums, sizes = np.zeros(1), np.zeros(1, np.int64)
            for difference in differences:
                sums, sizes = np.concatenate([sums, sums + difference]), np.concatenate([sizes, sizes + 1])
        else:
            # the default is seeded: the same differences have the same p-value wherever they are looked at
            rng = rng or np.random.default_rng(self.n)
            rows = max(1, CHUNK // self.n)
            drawn = [rng.random((min(rows, DRAWS - start), self.n)) < 0.5 for start in range(0, DRAWS, rows)]
            sums, sizes = (
                np.concatenate([flips @ differences for flips in drawn]),
                np.concatenate([flips.sum(1) for flips in drawn]),
            )
        self.sums, self.sizes = sums, sizes

    @property
    def p_value(self) -> float:
        """Of the null that the differences are symmetric around 0. Never 0: what was observed is one of the flips."""
        extreme = int((np.abs(self.total - 2 * self.sums) >= abs(self.total) - self.tolerance).sum())
        return extreme / len(self.sums) if self.exact else (extreme + 1) / (len(self.sums) + 1)

    @property
    def p_error(self) -> float:
        """The Monte Carlo standard error of the p-value; 0 where every flip was counted."""
        return 0.0 if self.exact else math.sqrt(self.p_value * (1 - self.p_value) / len(self.sums))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Every shift that the test does not reject at alpha; unbounded where it could reject none."""
        if self.exact:
            place = math.floor(alpha * len(self.sums) / 2 + TOLERANCE)
        else:
            place = math.floor(alpha * (len(self.sums) + 1) - 1 + TOLERANCE)
        return self._bound(place, 1), self._bound(place, -1)

    def _bound(self, place: int, sign: int) -> float:
        """The subset mean at a place counted from the low end (from the high one with sign -1); the empty subset is beyond them all."""
        if place < 0:
            return -sign * math.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(self.sizes > 0, sign * self.sums / self.sizes, -math.inf)
            if not self.exact:  # all subsets hold their complements; drawn ones do not
                rest = self.n - self.sizes
                means = np.concatenate(
                    [means, np.where(rest > 0, sign * (self.total - self.sums) / rest, -math.inf)]
                )
        bound = sign * float(np.partition(means, place)[place])
        return 0.0 if abs(bound) <= self.tolerance else bound
