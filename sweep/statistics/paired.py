"""What can be said of gains over a baseline: pure functions of arrays.

SciPy is imported where it is used. `scipy.stats` takes a second, so that a comparison goes by `scipy.special`, which takes a tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np

from sweep.errors import NotComparable
from sweep.statistics.power import Test
from sweep.statistics.sign_flip import EXACT_PAIRS, SignFlip

TESTS: tuple[str, ...] = get_args(Test)


@dataclass(frozen=True)
class Comparison:
    """A candidate beside a baseline over pairs. `test` gives p_value and the interval; Welch's t and Wilcoxon's test stand beside it.

    Only the declared test knows of overlapping splits: effect size, Welch, Wilcoxon and correlation take the pairs as independent.
    """

    pairs: int
    gain: float
    """The mean difference, candidate less baseline."""
    standard_error: float
    """Over the pairs; by resampled-t, with what its overlap adds."""
    ci_low: float
    ci_high: float
    """Every gain that the test does not reject at alpha; infinite where it can reject none."""
    family_low: float
    family_high: float
    """The same at alpha over the number of comparisons: all intervals of the family hold together."""
    p_value: float
    p_error: float
    """Monte Carlo standard error of p_value; 0 where it is exact."""
    effect_size: float
    """Mean over standard deviation of the differences, with its small-sample correction; NaN where they do not differ."""
    welch_p_value: float
    """As if the seeds were no pairs."""
    wilcoxon_p_value: float
    """Of the ranks."""
    correlation: float
    """Of the two halves of the pairs; NaN where one does not vary. A shared seed need not make it positive."""


def paired_comparison(
    candidate: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    *,
    alpha: float = 0.05,
    test: Test = "sign-flip",
    comparisons: int = 1,
    overlap: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """The gain of one over the other, where the i-th scores belong together. NotComparable where they do not pair.

    `overlap` is the number of test rows over that of training rows, where each pair's split was drawn anew from the same rows: such pairs
    are not independent, and only resampled-t takes them (Nadeau and Bengio, Machine Learning 52, 2003). Without overlap it is paired-t.
    """
    first, second = _pairs(candidate, baseline, alpha, test)
    if not 0 <= overlap < math.inf or (overlap and test != "resampled-t"):
        raise NotComparable(_wrong_overlap(overlap, test))
    from scipy import special

    differences = first - second
    n, gain = len(differences), math.fsum(differences) / len(differences)
    deviation = _deviation(differences)
    error = deviation * math.sqrt(1 / n + overlap)
    if test == "sign-flip":
        flips = SignFlip(differences, rng)
        p, p_error, low_high = flips.p_value, flips.p_error, flips.interval
    else:
        t = abs(gain) / error if error else math.inf if gain else 0.0
        p, p_error = min(1.0, 2 * float(special.stdtr(n - 1, -t))), 0.0

        def low_high(alpha: float) -> tuple[float, float]:
            margin = float(special.stdtrit(n - 1, 1 - alpha / 2)) * error
            return gain - margin, gain + margin

    varied = bool(np.ptp(first) and np.ptp(second))
    apart = bool(np.ptp(first) or np.ptp(second))
    same = 1.0 if not gain else 0.0  # a t test of what does not vary at all
    return Comparison(
        pairs=n,
        gain=gain,
        standard_error=error,
        **dict(zip(("ci_low", "ci_high"), low_high(alpha), strict=True)),
        **dict(zip(("family_low", "family_high"), low_high(alpha / comparisons), strict=True)),
        p_value=p,
        p_error=p_error,
        effect_size=gain / deviation * _small_sample(n - 1) if deviation else math.nan,
        welch_p_value=_welch(first, second) if apart else same,
        wilcoxon_p_value=signed_rank(differences),
        correlation=_correlation(first, second) if varied else math.nan,
    )


def _pairs(
    candidate: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray, alpha: float, test: str
) -> list[np.ndarray]:
    halves = [np.asarray(half, float) for half in (candidate, baseline)]
    if test not in TESTS:
        raise NotComparable(f"test must be {', '.join(TESTS[:-1])} or {TESTS[-1]}; it is {test!r}.")
    if not 0 < alpha < 1:
        raise NotComparable(f"alpha must be between 0 and 1; it is {alpha}.")
    for name, half in zip(("candidate", "baseline"), halves, strict=True):
        if half.ndim != 1:
            raise NotComparable(
                f"the {name}'s scores must be a list of numbers; they have the shape {half.shape}."
            )
    if len(halves[0]) != len(halves[1]):
        raise NotComparable(
            f"the candidate has {len(halves[0])} scores and the baseline {len(halves[1])}: they are no pairs."
        )
    for name, half in zip(("candidate", "baseline"), halves, strict=True):
        if len(wrong := np.flatnonzero(~np.isfinite(half))):
            raise NotComparable(
                f"the {name}'s score {wrong[0]} (counted from 0) is {half[wrong[0]]}: its pair is missing."
            )
    if len(halves[0]) < 2:
        raise NotComparable(f"a paired test needs at least 2 pairs; there are {len(halves[0])}.")
    return halves


def _wrong_overlap(overlap: float, test: str) -> str:
    if not 0 <= overlap < math.inf:
        return f"overlap must be test rows over training rows, 0 or more; it is {overlap}."
    return (
        f"the pairs' splits were drawn anew from the same rows (overlap {overlap:g}): their gains are not independent, and {test} would "
        "find gains that are not there. Use resampled-t."
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's, where both vary."""
    a, b = first - first.mean(), second - second.mean()
    return float(np.clip(a / np.linalg.norm(a) @ (b / np.linalg.norm(b)), -1, 1))


def _deviation(values: np.ndarray) -> float:
    """Of a sample; 0 where only the last bits differ, since accuracies are multiples of one image."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > 1e-12 * float(np.abs(values).max()) else 0.0


def _small_sample(freedom: int) -> float:
    """What takes the bias out of a mean over its standard deviation."""
    return (
        math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
        if freedom > 1
        else math.nan
    )


def _welch(first: np.ndarray, second: np.ndarray) -> float:
    """Welch's p-value, where at least one of the two varies: all runs of the other may have collapsed."""
    from scipy import special

    a, b = (half.var(ddof=1) / len(half) for half in (first, second))
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return 2 * float(special.stdtr(freedom, -abs(first.mean() - second.mean()) / math.sqrt(a + b)))


def signed_rank(differences: np.ndarray) -> float:
    """Wilcoxon's p-value: flips of signed ranks. Differences that agree to the last bits are ties, and zeros are left out."""
    rounded = np.round(differences, 12)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return 1.0
    if len(rounded) > EXACT_PAIRS:
        from scipy import stats

        return float(cast("Any", stats.wilcoxon(rounded)).pvalue)
    _, place, ties = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    ranks = np.cumsum(ties) - (ties - 1) / 2  # those that are tied share the mean of their ranks
    return SignFlip(np.sign(rounded) * ranks[place]).p_value


def two_way_standard_error(candidate: np.ndarray, baseline: np.ndarray) -> float:
    """Of a gain, when both the seeds and the test images were drawn: from correctness by (seed, image), paired in both.

    The mean squares of a two-way table without repetition; never less than what the seeds alone give.
    """
    differences = candidate.astype(np.int8) - baseline.astype(np.int8)
    seeds, images = differences.shape
    if seeds < 2 or images < 2:
        return math.nan
    by_seed, by_image, mean = differences.mean(1), differences.mean(0), differences.mean()
    between_seeds = images * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    between_images = seeds * float(((by_image - mean) ** 2).sum()) / (images - 1)
    squares = float((differences.astype(np.int64) ** 2).sum()) - seeds * images * float(mean) ** 2
    rest = (squares - (seeds - 1) * between_seeds - (images - 1) * between_images) / (
        (seeds - 1) * (images - 1)
    )
    return math.sqrt(max(between_seeds, between_seeds + between_images - rest) / (seeds * images))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a whole family, adjusted so that the chance of any false rejection stays under alpha."""
    if wrong := [(i, p) for i, p in enumerate(p_values) if not 0 <= p <= 1]:
        raise NotComparable(f"p-value {wrong[0][0]} (counted from 0) is {wrong[0][1]}.")
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    steps = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted.tolist()


@dataclass(frozen=True)
class Gain:
    """A mean difference over pairs, with its standard error (NaN for fewer than two)."""

    pairs: int
    mean: float
    standard_error: float


def gain_so_far(candidate: Sequence[float], baseline: Sequence[float], overlap: float = 0.0) -> Gain:
    """Over the pairs of which both halves are there; NaN stands for one that is not. For looking on, never for a test.

    `overlap` as in `paired_comparison`: the standard error then has what overlapping splits add.
    """
    both = np.asarray(candidate, float) - np.asarray(baseline, float)
    differences = both[np.isfinite(both)]
    n = len(differences)
    error = float(differences.std(ddof=1)) * math.sqrt(1 / n + overlap) if n > 1 else math.nan
    return Gain(n, float(differences.mean()) if n else math.nan, error)
