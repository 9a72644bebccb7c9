"""The sequential test against a loop over its definition, against counting, and against simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.statistics import sequential_interval, sequential_p_value

DIFFERENCES = st.lists(st.integers(-6, 6), min_size=1, max_size=9)


def wealth(differences: Sequence[float]) -> list[float]:
    """The mean wealth of the six gamblers after each difference, by products of plain factors."""
    products, found = dict.fromkeys((-1.6, -0.8, -0.4, 0.4, 0.8, 1.6), 1.0), []
    for t, difference in enumerate(differences):
        before = differences[:t] or [difference]
        scale = math.sqrt(sum(d * d for d in before) / len(before))
        for slope in products:
            stake = slope * difference / scale if scale else 0.0
            products[slope] *= math.exp(stake) / math.cosh(stake)
        found.append(sum(products.values()) / 6)
    return found


@given(DIFFERENCES)
def test_the_p_value_is_one_over_the_highest_mean_wealth(differences: list[int]) -> None:
    values = [d / 7 for d in differences]
    assert sequential_p_value(values) == pytest.approx(min(1, 1 / max(wealth(values))), rel=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=7))
def test_over_all_signs_of_the_same_sizes_the_wealth_stays_at_one_on_average(sizes: list[int]) -> None:
    """And so by counting no more than alpha of the signs have a p-value of alpha or less."""
    flipped = [
        [sign * d for sign, d in zip(signs, sizes, strict=True)]
        for signs in itertools.product((1, -1), repeat=len(sizes))
    ]
    assert np.mean([wealth(values) for values in flipped], axis=0) == pytest.approx(np.ones(len(sizes)))
    p_values = np.array([sequential_p_value(values) for values in flipped])
    for alpha in (0.05, 0.1, 0.2, 0.5):
        assert (p_values <= alpha).mean() <= alpha


def test_whoever_looks_after_every_pair_rejects_a_true_null_no_more_often_than_alpha() -> None:
    """The p-value is the least one over all looks. 3,000 studies have forty pairs with heavy tails."""
    studies = np.random.default_rng(4).standard_t(3, (3_000, 40))
    rejected = np.mean([sequential_p_value(study) <= 0.1 for study in studies])
    assert 0.02 < rejected <= 0.1


def test_a_later_pair_never_raises_the_p_value_and_an_order_of_its_own_matters() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, 30)
    p_values = [sequential_p_value(values[:n]) for n in range(1, 31)]
    assert p_values == sorted(p_values, reverse=True)
    assert sequential_p_value(values[::-1]) != p_values[-1]


def test_the_p_value_knows_neither_the_unit_nor_the_sign_and_zeros_change_nothing_at_the_start() -> None:
    values = np.random.default_rng(2).normal(0.8, 1, 12)
    p_value = sequential_p_value(values)
    assert sequential_p_value(values * 1e-6) == pytest.approx(p_value)
    assert sequential_p_value(-values) == pytest.approx(p_value)
    assert sequential_p_value(np.zeros(9)) == 1
    # The one after nothing but zeros has no scale, and counts for the scale of the next.
    assert sequential_p_value([0, 0, 1, 1]) == pytest.approx(
        min(1, 1 / max(wealth([0, 0, 1, 1]))), rel=1e-12
    )


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("seed", range(6))
def test_no_shift_outside_the_interval_is_kept_and_its_ends_are(seed: int, alpha: float) -> None:
    draw = np.random.default_rng(seed)
    values = draw.standard_t(2, int(draw.integers(8, 25))) + 0.5
    low, high = sequential_interval(values, alpha)
    width = high - low
    assert math.isfinite(width)
    for end, outward in ((low, -1), (high, 1)):
        assert sequential_p_value(values - end) > alpha
        beyond = end + outward * width * np.concatenate([[1e-9, 1e-6], np.linspace(1e-4, 60, 3_000)])
        assert max(sequential_p_value(values - shift) for shift in beyond) <= alpha
    assert (low <= 0 <= high) or sequential_p_value(values) <= alpha


def test_the_interval_moves_with_the_differences_and_turns_around_with_their_signs() -> None:
    values = np.random.default_rng(3).normal(0.1, 1, 15)
    low, high = sequential_interval(values, 0.05)
    assert sequential_interval(values * 0.01 + 5, 0.05) == pytest.approx((low * 0.01 + 5, high * 0.01 + 5))
    assert sequential_interval(-values, 0.05) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("pairs", "bounded"), [(1, False), (6, False), (7, True), (20, True)])
def test_at_five_percent_seven_pairs_bound_a_gain_and_six_do_not(pairs: int, bounded: bool) -> None:
    """Far out all pairs have one sign and one size: 1.922^n + 1.664^n + 1.380^n must exceed 120."""
    values = np.random.default_rng(pairs).normal(0, 1, pairs)
    low, high = sequential_interval(values, 0.05)
    assert (math.isfinite(low), math.isfinite(high)) == (bounded, bounded)


@pytest.mark.parametrize("difference", [0.0, 0.25, -3.0])
def test_equal_differences_have_an_interval_without_width_where_they_have_one(difference: float) -> None:
    assert sequential_interval([difference] * 7, 0.05) == (difference, difference)
    assert sequential_interval([difference] * 6, 0.05) == (-math.inf, math.inf)


def test_differences_that_turn_around_reject_every_shift() -> None:
    draw = np.random.default_rng(0)
    low, high = sequential_interval(np.concatenate([draw.normal(5, 1, 30), draw.normal(-5, 1, 200)]), 0.05)
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_interval_covers_the_true_gain_of_a_study_that_ends_when_it_looks_best() -> None:
    """400 studies end as soon as the gain is significant, or after 25 pairs. The true gain is 0.4."""
    draw, missed = np.random.default_rng(8), 0
    for _ in range(400):
        values = draw.normal(0.4, 1, 25)
        ends = [n for n in range(7, 26) if sequential_p_value(values[:n]) <= 0.1]
        low, high = sequential_interval(values[: ends[0] if ends else 25], 0.1)
        missed += not low <= 0.4 <= high
    assert missed / 400 <= 0.1
