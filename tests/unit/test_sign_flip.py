"""Sign flips against counting in whole numbers, and against SciPy where no sums tie.

Whole numbers are not rounded.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from sweep.statistics.sign_flip import DRAWS, EXACT_PAIRS, SignFlip

IMAGES = 199
"""A prime, so that no accuracy but 0 and 1 is a float.

Sums of images tie where sums of accuracies differ in their last bits.
"""
COUNTS = st.lists(st.tuples(st.integers(0, IMAGES), st.integers(0, IMAGES)), min_size=2, max_size=9)
CLOSE = st.lists(st.tuples(st.integers(150, 155), st.integers(150, 155)), min_size=2, max_size=9)
"""Close counts have many ties and zeros."""
ALPHAS = st.sampled_from([0.5, 0.25, 0.125, 0.1, 0.05, 0.05 / 6, 0.03125, 0.0078125])
"""Some alphas are p-values that a few pairs can have: at equality the test rejects."""


def differences(counts: list[tuple[int, int]]) -> np.ndarray:
    """Return differences of accuracies as runs give them."""
    candidate, baseline = np.array(counts).T / IMAGES
    return candidate - baseline


def counted(images: list[int]) -> Fraction:
    """Return the share of all sign patterns whose sum is at least as far from 0 as the one observed."""
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, images, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(images))
    ]
    return Fraction(sum(value >= abs(sum(images)) for value in sums), len(sums))


def counted_by_halves(images: np.ndarray) -> float:
    """Count for many pairs, which takes less time: every sum of one half with every sum of the other."""
    halves = [np.array([0])] * 2
    for i, image in enumerate(images):
        halves[i % 2] = np.concatenate([halves[i % 2] + image, halves[i % 2] - image])
    observed = abs(int(images.sum()))
    low = np.sort(halves[1])
    beyond = (len(low) - np.searchsorted(low, observed - halves[0], "left")) + np.searchsorted(
        low, -observed - halves[0], "right"
    )
    return min(1.0, int(beyond.sum()) / 2 ** len(images))


@given(st.one_of(COUNTS, CLOSE))
@example([(199, 198), (30, 27), (30, 29), (5, 3), (5, 3), (1, 3)])
def test_the_p_value_is_the_share_of_sign_patterns_counted_in_images(counts: list[tuple[int, int]]) -> None:
    assert SignFlip(differences(counts)).p_value == counted([a - b for a, b in counts])


@pytest.mark.parametrize("pairs", [2, 3, 6, 9, 12])
def test_without_ties_the_p_value_is_scipy_s(pairs: int) -> None:
    candidate, baseline = np.random.default_rng(pairs).normal([[0.4], [0.0]], 1, (2, pairs))
    scipys = stats.permutation_test(
        (candidate, baseline),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=10**6,
        vectorized=True,
    )
    flips = SignFlip(candidate - baseline)
    assert flips.p_value == pytest.approx(float(scipys.pvalue), abs=1e-12)
    assert flips.p_error == 0


@given(st.one_of(COUNTS, CLOSE), ALPHAS, st.fractions(-30, 30, max_denominator=12))
def test_a_shift_is_in_the_interval_exactly_where_it_is_not_rejected(
    counts: list[tuple[int, int]], alpha: float, shift_in_images: Fraction
) -> None:
    low, high = SignFlip(differences(counts)).interval(alpha)
    shifted = [(a - b) * shift_in_images.denominator - shift_in_images.numerator for a, b in counts]
    rejected = counted(shifted) <= alpha
    shift = float(shift_in_images / IMAGES)
    assert (
        low - 1e-12 <= shift <= high + 1e-12
    ) is not rejected  # other fractions of an image are farther than this


@given(st.one_of(COUNTS, CLOSE), ALPHAS)
@example([(n, 0) for n in (1, 2, 4, 8, 16)], 0.0625)
def test_zero_is_in_the_interval_exactly_where_the_p_value_is_above_alpha(
    counts: list[tuple[int, int]], alpha: float
) -> None:
    flips = SignFlip(differences(counts))
    low, high = flips.interval(alpha)
    assert (low <= 0 <= high) is (flips.p_value > alpha)


@given(COUNTS, ALPHAS)
def test_the_interval_ends_at_means_of_some_differences_and_holds_the_gain(
    counts: list[tuple[int, int]], alpha: float
) -> None:
    low, high = SignFlip(differences(counts)).interval(alpha)
    images = [a - b for a, b in counts]
    means = {
        sum(some) / len(some) / IMAGES
        for n in range(1, len(images) + 1)
        for some in itertools.combinations(images, n)
    }
    for end in (low, high):
        assert math.isinf(end) or min(abs(end - mean) for mean in means) < 1e-12
    assert low - 1e-12 <= sum(images) / len(images) / IMAGES <= high + 1e-12


@given(COUNTS, ALPHAS)
def test_to_swap_candidate_and_baseline_turns_the_interval_around(
    counts: list[tuple[int, int]], alpha: float
) -> None:
    one, other = SignFlip(differences(counts)), SignFlip(-differences(counts))
    assert one.p_value == other.p_value
    assert other.interval(alpha) == pytest.approx(
        tuple(-end for end in reversed(one.interval(alpha))), abs=1e-12
    )


def test_five_pairs_bound_nothing_at_five_percent() -> None:
    assert SignFlip(np.array([0.1, 0.2, 0.3, 0.4, 0.5])).interval(0.05) == (-math.inf, math.inf)


def test_the_interval_of_six_pairs_at_five_percent_goes_from_the_least_difference_to_the_largest() -> None:
    """Two of 64 flips may be beyond: only those with all differences on one side of a shift."""
    assert SignFlip(np.array([0.3, -0.1, 0.2, 0.6, 0.4, 0.5])).interval(0.05) == (-0.1, 0.6)


@pytest.mark.parametrize(("pairs", "p_value"), [(5, 1 / 16), (10, 1 / 512), (20, 1 / 2**19)])
def test_equal_differences_have_the_least_p_value_and_an_interval_that_is_a_point(
    pairs: int, p_value: float
) -> None:
    flips = SignFlip(np.full(pairs, 0.3) - np.full(pairs, 0.1))
    assert flips.p_value == p_value
    assert flips.interval(0.25) == pytest.approx((0.2, 0.2), abs=1e-15)


@pytest.mark.parametrize("pairs", [2, 10, 25])
def test_no_difference_at_all_is_never_rejected(pairs: int) -> None:
    flips = SignFlip(np.zeros(pairs))
    assert flips.p_value == 1
    low, high = flips.interval(0.05)
    assert low <= 0 <= high
    if pairs > 5:
        assert (low, high) == (0, 0)


# beyond the pairs that are counted


def drawn(pairs: int, gain: float, seed: int = 3) -> np.ndarray:
    """Draw differences in images."""
    return np.rint(np.random.default_rng(seed).normal(gain, 1, pairs) * 6).astype(int)


def test_up_to_twenty_pairs_every_flip_is_counted() -> None:
    images = drawn(EXACT_PAIRS, 0.4)
    flips = SignFlip(images / IMAGES)
    assert (flips.exact, flips.p_error, flips.p_value) == (True, 0, counted_by_halves(images))
    assert not SignFlip(drawn(EXACT_PAIRS + 1, 0.4) / IMAGES).exact


@pytest.mark.parametrize("gain", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("pairs", [22, 24])
def test_drawn_flips_agree_with_counted_ones_within_their_stated_error(pairs: int, gain: float) -> None:
    images = drawn(pairs, gain)
    flips, exact = SignFlip(images / IMAGES), counted_by_halves(images)
    assert abs(flips.p_value - exact) <= 4 * flips.p_error
    assert flips.p_error == pytest.approx(math.sqrt(exact * (1 - exact) / DRAWS), rel=0.2)


def test_drawn_flips_spread_from_generator_to_generator_as_their_stated_error() -> None:
    values = drawn(30, 0.25) / IMAGES
    found = [SignFlip(values, np.random.default_rng(seed)) for seed in range(40)]
    ratio = np.std([flips.p_value for flips in found], ddof=1) / found[0].p_error
    assert 0.7 < ratio < 1.35  # its own standard error is 0.11


def test_drawn_flips_are_the_same_every_time_without_a_generator_and_others_with_another_one() -> None:
    values = drawn(30, 0.25) / IMAGES
    assert SignFlip(values).p_value == SignFlip(values).p_value
    assert SignFlip(values).interval(0.05) == SignFlip(values).interval(0.05)
    one, again, other = (SignFlip(values, np.random.default_rng(seed)).p_value for seed in (1, 1, 2))
    assert one == again
    assert len({one, other, SignFlip(values).p_value}) == 3
    rng = np.random.default_rng(1)
    assert SignFlip(values, rng).p_value != SignFlip(values, rng).p_value  # it goes on where it was


def test_a_generator_has_no_say_where_every_flip_is_counted() -> None:
    values = drawn(12, 0.25) / IMAGES
    rng = np.random.default_rng(1)
    assert SignFlip(values, rng).p_value == SignFlip(values).p_value
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_the_interval_inverts_the_test_of_the_same_drawn_flips_too(alpha: float) -> None:
    images = drawn(25, 0.4)
    values = images / IMAGES
    low, high = SignFlip(values, np.random.default_rng(5)).interval(alpha)
    width = high - low
    for end, outward in ((low, -1), (high, 1)):
        for step in (1e-6, 0.02, 0.5):
            outside, inside = (
                SignFlip(values - (end + sign * outward * step * width), np.random.default_rng(5))
                for sign in (1, -1)
            )
            assert outside.p_value <= alpha < inside.p_value


def test_drawn_flips_never_give_zero() -> None:
    flips = SignFlip(np.linspace(1, 2, 40))
    assert flips.p_value == 1 / (DRAWS + 1)
    assert 1 < flips.interval(0.05)[0] < 1.5 < flips.interval(0.05)[1] < 2
    assert flips.interval(1e-6) == (-math.inf, math.inf)
