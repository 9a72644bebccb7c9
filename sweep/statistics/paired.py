"""Statistics of gains over a baseline: pure functions of arrays.

Functions import SciPy when they need it, so that other commands start faster. A comparison uses
`scipy.special`, which loads in a tenth of a second; `scipy.stats` takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np

from sweep.errors import NotComparable
from sweep.statistics.detection import Test
from sweep.statistics.sequential import sequential_interval, sequential_p_value
from sweep.statistics.sign_flip import EXACT_PAIRS, SignFlip

TESTS: tuple[str, ...] = get_args(Test)
Looks = Sequence[int] | Literal["any"]
"""The numbers of pairs at which a study is tested, declared before it began; or "any" time at all."""
DIGITS = 12
"""Differences that agree up to this decimal are equal: accuracies are multiples of one image."""


@dataclass(frozen=True)
class Comparison:
    """A candidate compared with a baseline over pairs.

    The declared test gives the p-value and both intervals; with looks at any time the sequential test does.
    Only the test takes looks and overlapping splits into account: the effect size, Welch's test, Wilcoxon's
    test and the correlation treat the pairs as independent, and as all that was ever looked at.
    """

    pairs: int
    """The number of pairs; with declared looks, up to the last one that is reached."""
    looks: int
    """The number of declared looks, for which the p-value and the intervals are corrected.

    It is 1 without any, and 0 where looks are free at any time."""
    gain: float
    """The mean difference, candidate less baseline."""
    standard_error: float
    """The standard error of the gain. In resampled-t it includes what the overlap adds."""
    ci_low: float
    ci_high: float
    """The interval of all gains that the test does not reject at alpha; infinite if it can reject none."""
    family_low: float
    family_high: float
    """The interval at alpha divided by the number of comparisons: all of the family hold together."""
    p_value: float
    p_error: float
    """The Monte Carlo standard error of p_value; 0 where p_value is exact."""
    effect_size: float
    """The mean of the differences over their deviation, corrected for few pairs; NaN if all are equal."""
    welch_p_value: float
    """The p-value of Welch's t test, which ignores the pairing."""
    wilcoxon_p_value: float
    """The p-value of Wilcoxon's signed-rank test."""
    correlation: float
    """The correlation of the two scores of a pair; NaN where either does not vary. It may be negative."""


def paired_comparison(
    candidate: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    *,
    alpha: float = 0.05,
    test: Test = "sign-flip",
    comparisons: int = 1,
    overlap: float = 0.0,
    looks: Looks | None = None,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """The gain of the candidate over the baseline, where the i-th scores of both form a pair.

    Scores that do not form pairs raise NotComparable.

    `looks` is a list of numbers of pairs, such as [8, 10, 14]. The test is made at each that is reached, and
    pairs after the last of these do not count. The p-value is the least one, times the number of declared
    looks (Bonferroni). The intervals are those at the last look that is reached, at alpha over that number;
    0 may lie inside them when an earlier look found the gain. With looks at "any" time the p-value and the
    intervals are those of `sequential_p_value` and `sequential_interval`, in place of the declared test.

    A t test of equal differences cannot be had, as it has no error to measure the gain by: such differences
    are tested by sign flips, which give n of them a p-value of 2 / 2^n and, where that is at most alpha, an
    interval without width. With overlap that test is not valid either, and nothing is rejected.

    `overlap` is test rows over all other rows, where each pair drew its split anew from the same rows. Such
    pairs are not independent, and only resampled-t accepts them (Nadeau and Bengio, Machine Learning 52,
    2003). Without overlap, resampled-t equals paired-t.
    """
    first, second = _pairs(candidate, baseline, alpha, test)
    if not 0 <= overlap < math.inf or (overlap and test != "resampled-t"):
        raise NotComparable(_wrong_overlap(overlap, test))
    reached, declared = _looks(looks, len(first), overlap)
    n = reached[-1]
    first, second = first[:n], second[:n]
    differences = first - second
    rounded = np.round(differences, DIGITS)
    gain, deviation = math.fsum(differences) / n, _deviation(differences)
    if looks == "any":
        p, p_error, interval = sequential_p_value(rounded), 0.0, partial(sequential_interval, rounded)
    else:
        tests = [_test(differences[:look], test, overlap, rng) for look in reached]
        p, p_error = min(((p, p_error) for p, p_error, _ in tests), key=lambda found: found[0])
        p, p_error, interval = min(1.0, declared * p), declared * p_error, tests[-1][2]
    ci_low, ci_high = interval(alpha / max(1, declared))
    family_low, family_high = interval(alpha / comparisons / max(1, declared))
    both_vary = bool(np.ptp(first) and np.ptp(second))
    return Comparison(
        pairs=n,
        looks=declared,
        gain=gain,
        standard_error=deviation * math.sqrt(1 / n + overlap),
        ci_low=ci_low,
        ci_high=ci_high,
        family_low=family_low,
        family_high=family_high,
        p_value=p,
        p_error=p_error,
        effect_size=gain / deviation * _small_sample(n - 1) if deviation else math.nan,
        welch_p_value=_welch(first, second),
        wilcoxon_p_value=signed_rank(differences),
        correlation=_correlation(first, second) if both_vary else math.nan,
    )


def _pairs(
    candidate: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray, alpha: float, test: str
) -> list[np.ndarray]:
    """Both lists of scores as arrays; NotComparable where they do not form pairs."""
    halves = [np.asarray(half, float) for half in (candidate, baseline)]
    if test not in TESTS:
        raise NotComparable(f"test must be {', '.join(TESTS[:-1])} or {TESTS[-1]}; it is {test!r}.")
    if not 0 < alpha < 1:
        raise NotComparable(f"alpha must be between 0 and 1; it is {alpha}.")
    for name, half in zip(("candidate", "baseline"), halves, strict=True):
        if half.ndim != 1:
            shape = f"they have the shape {half.shape}."
            raise NotComparable(f"the {name}'s scores must be a list of numbers; {shape}")
    if len(halves[0]) != len(halves[1]):
        counts = f"the candidate has {len(halves[0])} scores and the baseline {len(halves[1])}"
        raise NotComparable(f"{counts}: they are no pairs.")
    for name, half in zip(("candidate", "baseline"), halves, strict=True):
        if len(wrong := np.flatnonzero(~np.isfinite(half))):
            score = f"the {name}'s score {wrong[0]} (counted from 0) is {half[wrong[0]]}"
            raise NotComparable(f"{score}: its pair is missing.")
    if len(halves[0]) < 2:
        raise NotComparable(f"a paired test needs at least 2 pairs; there are {len(halves[0])}.")
    return halves


def _wrong_overlap(overlap: float, test: str) -> str:
    """The message for an overlap that is no number of this kind, or that the test does not take."""
    if not 0 <= overlap < math.inf:
        return f"overlap must be test rows over all other rows, 0 or more; it is {overlap}."
    return (
        f"the pairs' splits were drawn anew from the same rows (overlap {overlap:g}): their gains are not "
        f"independent, and {test} would find gains that are not there. Use resampled-t."
    )


def _looks(looks: Looks | None, pairs: int, overlap: float) -> tuple[Sequence[int], int]:
    """The looks that are reached with this number of pairs, and the number of those declared; 0 for any."""
    if looks is None:
        return [pairs], 1
    if looks == "any":
        if overlap:
            raise NotComparable(
                f"the pairs' splits were drawn anew from the same rows (overlap {overlap:g}): their gains "
                "are not independent, as looks at any time need them to be. Declare the looks."
            )
        return [pairs], 0
    if isinstance(looks, str) or not looks or looks[0] < 2 or list(looks) != sorted(set(looks)):
        raise NotComparable(
            f'looks must be "any" or rising numbers of pairs, from 2 on; they are {looks!r}.'
        )
    reached = [look for look in looks if look <= pairs]
    if not reached:
        raise NotComparable(f"the first declared look is at {looks[0]} pairs; there are {pairs}.")
    return reached, len(looks)


def _test(
    differences: np.ndarray, test: Test, overlap: float, rng: np.random.Generator | None
) -> tuple[float, float, Callable[[float], tuple[float, float]]]:
    """The declared test's p-value, its Monte Carlo error, and the interval as a function of alpha."""
    n, deviation = len(differences), _deviation(differences)
    if test == "sign-flip" or not (deviation or overlap):
        flips = SignFlip(differences, rng)
        return flips.p_value, flips.p_error, flips.interval
    if not deviation:
        return 1.0, 0.0, lambda _: (-math.inf, math.inf)
    gain, error = math.fsum(differences) / n, deviation * math.sqrt(1 / n + overlap)
    return _t_p_value(gain, error, n - 1), 0.0, _t_interval(gain, error, n - 1)


def _t_p_value(gain: float, error: float, freedom: int) -> float:
    """The two-sided p-value of a t test of a gain, by its standard error."""
    from scipy import special

    return min(1.0, 2 * float(special.stdtr(freedom, -abs(gain) / error)))


def _t_interval(gain: float, error: float, freedom: int) -> Callable[[float], tuple[float, float]]:
    """The interval of a t test of a gain, as a function of alpha."""
    from scipy import special

    def interval(alpha: float) -> tuple[float, float]:
        margin = float(special.stdtrit(freedom, 1 - alpha / 2)) * error
        return gain - margin, gain + margin

    return interval


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two samples that both vary."""
    a, b = first - first.mean(), second - second.mean()
    return float(np.clip(a / np.linalg.norm(a) @ (b / np.linalg.norm(b)), -1, 1))


def _deviation(values: np.ndarray) -> float:
    """The standard deviation of a sample; 0 where its values differ in their last bits alone.

    Accuracies are multiples of one image, so that such differences are rounding.
    """
    deviation = float(values.std(ddof=1))
    return deviation if deviation > 1e-12 * float(np.abs(values).max()) else 0.0


def _small_sample(freedom: int) -> float:
    """The factor that removes the bias of a mean divided by its standard deviation."""
    if freedom <= 1:
        return math.nan
    return math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)


def _welch(first: np.ndarray, second: np.ndarray) -> float:
    """Welch's p-value. Where neither sample varies, it is 1 for equal means and 0 for others.

    A sample does not vary where, for example, all its runs collapsed.
    """
    from scipy import special

    if not np.ptp(first) and not np.ptp(second):
        return 1.0 if first[0] == second[0] else 0.0
    a, b = (half.var(ddof=1) / len(half) for half in (first, second))
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    return 2 * float(special.stdtr(freedom, -abs(first.mean() - second.mean()) / math.sqrt(a + b)))


def signed_rank(differences: np.ndarray) -> float:
    """The p-value of Wilcoxon's test: a sign-flip test of the signed ranks.

    Differences that agree but for their last bits are ties. Zeros are left out.
    """
    rounded = np.round(differences, DIGITS)
    rounded = rounded[rounded != 0]
    if not len(rounded):
        return 1.0
    if len(rounded) > EXACT_PAIRS:
        from scipy import stats

        return float(cast("Any", stats.wilcoxon(rounded)).pvalue)
    _, group, ties = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    # Ties share the mean of their ranks.
    ranks = np.cumsum(ties) - (ties - 1) / 2
    return SignFlip(np.sign(rounded) * ranks[group]).p_value


def two_way_standard_error(candidate: np.ndarray, baseline: np.ndarray) -> float:
    """The standard error of a gain when both the seeds and the test images are taken as drawn at random.

    Both arrays hold correctness by (seed, image), paired in both. The figure comes from the mean squares of
    a two-way table without repetition. It is never less than the seeds alone give.
    """
    differences = candidate.astype(np.int8) - baseline.astype(np.int8)
    seeds, images = differences.shape
    if seeds < 2 or images < 2:
        return math.nan
    by_seed, by_image, mean = differences.mean(1), differences.mean(0), differences.mean()
    between_seeds = images * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    between_images = seeds * float(((by_image - mean) ** 2).sum()) / (images - 1)
    squares = float((differences.astype(np.int64) ** 2).sum()) - seeds * images * float(mean) ** 2
    rest = squares - (seeds - 1) * between_seeds - (images - 1) * between_images
    rest /= (seeds - 1) * (images - 1)
    return math.sqrt(max(between_seeds, between_seeds + between_images - rest) / (seeds * images))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family by Holm's correction: the chance of any false gain stays below alpha."""
    if wrong := [(i, p) for i, p in enumerate(p_values) if not 0 <= p <= 1]:
        raise NotComparable(f"p-value {wrong[0][0]} (counted from 0) is {wrong[0][1]}.")
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    steps = np.asarray(p_values, float)[order] * np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted.tolist()


@dataclass(frozen=True)
class Gain:
    """A mean difference over pairs, with its standard error (NaN for fewer than two pairs)."""

    pairs: int
    mean: float
    standard_error: float


def gain_so_far(candidate: Sequence[float], baseline: Sequence[float], overlap: float = 0.0) -> Gain:
    """The gain over the pairs that are complete; NaN stands for a score that is missing.

    It shows how far a study is, and must never be tested. `overlap` is that of `paired_comparison`: the
    standard error then includes what overlapping splits add.
    """
    both = np.asarray(candidate, float) - np.asarray(baseline, float)
    differences = both[np.isfinite(both)]
    n = len(differences)
    error = float(differences.std(ddof=1)) * math.sqrt(1 / n + overlap) if n > 1 else math.nan
    return Gain(n, float(differences.mean()) if n else math.nan, error)
