"""Tests, intervals and an e-process for many studies at once, written without the library's code.

Arrays end in an axis of pairs. A claim is a p-value of at most ALPHA after Holm's correction.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import special

ALPHA = 0.05
CHUNK = 4_000_000
"""The most sums that are held at once, to bound the memory."""
MATRIX_PAIRS = 13
"""Up to this number of pairs all flips are one product of matrices; beyond, sums of halves are counted."""
STAKES = (0.4, 0.8, 1.6)
Noise = Literal["normal", "collapse"]
COLLAPSES, LOSS = 0.05, 40.0
"""The share of runs that collapse, and what such a run loses, in deviations of a seed's noise."""


@dataclass(frozen=True)
class Row:
    """The figures of one simulated case, most of them in percent."""

    case: Mapping[str, str | int | float]
    figures: Mapping[str, float]
    gates: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """The least and the largest value that a figure may have."""

    @property
    def missed(self) -> list[str]:
        """The names of the figures that are out of their bounds."""
        return [name for name, (low, high) in self.gates.items() if not low <= self.figures[name] <= high]


def generator(*case: object) -> np.random.Generator:
    """The random source of a case: always the same one, and another one for each case."""
    return np.random.default_rng(zlib.crc32(repr(case).encode()))


def percent(events: Any) -> float:
    """The share of true values of an array in percent; NaN where it is empty."""
    return 100 * float(np.mean(events)) if np.size(events) else math.nan


def own_noise(rng: np.random.Generator, shape: Sequence[int], noise: Noise) -> np.ndarray:
    """The noise of single runs, of deviation 1 unless some of them collapse."""
    own = rng.standard_normal(shape)
    return own - LOSS * (rng.random(shape) < COLLAPSES) if noise == "collapse" else own


def differences(
    rng: np.random.Generator, studies: int, comparisons: int, pairs: int, noise: Noise = "normal"
) -> np.ndarray:
    """Differences without a gain, of arms that share one baseline.

    Without collapses their deviation is 1. What luck a seed brings to both runs of a pair is left out,
    because it cancels.
    """
    runs = own_noise(rng, (studies, comparisons + 1, pairs), noise)
    return (runs[:, 1:] - runs[:, :1]) / math.sqrt(2)


def blocks(rows: np.ndarray, width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of some rows, so that `width` sums for each of them fit into memory."""
    size = max(1, CHUNK // width)
    for start in range(0, len(rows), size):
        yield slice(start, start + size), rows[start : start + size]


def signs(pairs: int) -> np.ndarray:
    """All combinations of signs, one a row; the first has no flip."""
    return 1.0 - 2 * ((np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1)


def flip_p_values(differences: np.ndarray) -> np.ndarray:
    """The exact two-sided p-values of sign-flip tests over the last axis."""
    *shape, pairs = differences.shape
    rows = differences.reshape(-1, pairs)
    totals = np.abs(rows.sum(1)) - 1e-9 * np.abs(rows).sum(1)
    if pairs <= MATRIX_PAIRS:
        result = np.empty(len(rows))
        half = signs(pairs)[: 2 ** (pairs - 1)].T  # the other half mirrors it
        for part, block in blocks(rows, half.shape[1]):
            result[part] = (np.abs(block @ half) >= totals[part, None]).mean(1)
        return result.reshape(shape)
    middle = pairs // 2
    first = rows[:, :middle] @ signs(middle).T
    second = np.sort(rows[:, middle:] @ signs(pairs - middle).T)
    below = np.array(
        [np.searchsorted(b, total - a).sum() for a, b, total in zip(first, second, totals, strict=True)]
    )
    return np.minimum(1, 2 * (1 - below / 2**pairs)).reshape(shape)


def flip_intervals(differences: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """The ends of the intervals that invert the sign-flip test: an axis of alphas, then low and high.

    The means of all subsets cut the line into parts that hold the gain with equal chances (Hartigan, 1969).
    """
    *shape, pairs = differences.shape
    rows = differences.reshape(-1, pairs)
    subsets = (signs(pairs)[1:] < 0).astype(float)
    subsets /= subsets.sum(1, keepdims=True)
    ranks = [math.floor(alpha * 2**pairs / 2 + 1e-9) for alpha in alphas]
    result = np.empty((len(alphas), 2, len(rows)))
    result[:, 0], result[:, 1] = -math.inf, math.inf
    known = [(i, rank) for i, rank in enumerate(ranks) if rank]
    kept = sorted({end for _, rank in known for end in (rank - 1, len(subsets) - rank)})
    for part, block in blocks(rows, len(subsets)):
        means = np.partition(block @ subsets.T, kept) if kept else block
        for i, rank in known:
            result[i, 0, part], result[i, 1, part] = means[:, rank - 1], means[:, -rank]
    return result.reshape(len(alphas), 2, *shape)


def t_p_values(differences: np.ndarray, overlap: float = 0.0) -> np.ndarray:
    """The two-sided p-values of t tests, corrected for overlapping test sets (Nadeau and Bengio, 2003)."""
    pairs = differences.shape[-1]
    error = differences.std(-1, ddof=1) * math.sqrt(1 / pairs + overlap)
    ratio = np.divide(np.abs(differences.mean(-1)), error, out=np.zeros_like(error), where=error > 0)
    return 2 * special.stdtr(pairs - 1, -ratio)


def wealth(differences: np.ndarray) -> np.ndarray:
    """The e-process after each pair: the mean wealth of six gamblers who bet on the sign of a difference.

    A difference counts in units of the root mean square of those before it, and the first in its own. Given
    its size, its sign is a fair coin under the null; so no gambler's wealth grows in expectation.
    """
    squares = np.cumsum(differences**2, -1) / np.arange(1, differences.shape[-1] + 1)
    scale = np.sqrt(np.concatenate([squares[..., :1], squares[..., :-1]], -1))
    units = np.divide(differences, scale, out=np.zeros_like(differences), where=scale > 0)
    total = np.zeros_like(units)
    for stake in STAKES:
        for bet in (stake, -stake):
            total += np.exp(np.cumsum(math.log(2) - np.logaddexp(0, -2 * bet * units), -1))
    return total / (2 * len(STAKES))


def e_p_values(differences: np.ndarray) -> np.ndarray:
    """The p-values of the e-process for whoever looks after every pair: one over its largest wealth."""
    return np.minimum(1, 1 / wealth(differences).max(-1))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's corrected p-values over the last axis."""
    order = np.argsort(p_values, -1)
    steps = np.take_along_axis(p_values, order, -1) * np.arange(p_values.shape[-1], 0, -1)
    result = np.empty_like(p_values)
    np.put_along_axis(result, order, np.minimum(1, np.maximum.accumulate(steps, -1)), -1)
    return result


def claimed(p_values: np.ndarray) -> np.ndarray:
    """Which comparisons of a family are claimed; the last axis is the family."""
    return holm(p_values) <= ALPHA
