"""Against scipy, against counting, and against simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweep.statistics import gain_so_far, minimum_detectable_gain, pairs_needed, smallest_p_value

SCORE = st.floats(0, 1)


@given(st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=30))
def test_a_gain_is_the_mean_of_the_differences_and_its_error_is_scipy_s(pairs: list[tuple[float, float]]) -> None:
    candidate, baseline = map(list, zip(*pairs, strict=True))
    gain = gain_so_far(candidate, baseline)
    differences = [a - b for a, b in pairs]
    assert gain.pairs == len(pairs)
    assert gain.mean == pytest.approx(math.fsum(differences) / len(pairs), abs=1e-12)
    assert gain.standard_error == pytest.approx(float(stats.sem(differences)), abs=1e-12)


def test_only_pairs_of_which_both_halves_are_there_count() -> None:
    nan = math.nan
    assert gain_so_far([0.5, nan, 0.75, 0.25], [0.25, 0.5, nan, 0.25]) == gain_so_far([0.5, 0.25], [0.25, 0.25])
    assert gain_so_far([0.5, nan], [0.25, 0.5]).mean == 0.25


def test_one_pair_has_no_error_and_none_has_no_mean() -> None:
    one, none = gain_so_far([0.5], [0.25]), gain_so_far([math.nan], [0.5])
    assert (one.pairs, one.mean) == (1, 0.25)
    assert math.isnan(one.standard_error)
    assert none.pairs == 0
    assert math.isnan(none.mean)
    assert math.isnan(none.standard_error)
    assert gain_so_far([], []).pairs == 0


@pytest.mark.parametrize("pairs", range(1, 11))
def test_the_smallest_p_value_is_the_one_found_by_flipping_every_sign(pairs: int) -> None:
    differences = np.arange(1, pairs + 1) / 7
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in itertools.product((1, -1), repeat=pairs)]
    assert smallest_p_value(pairs) == sum(value >= differences.sum() - 1e-9 for value in sums) / 2**pairs


def test_so_many_pairs_are_needed_as_the_design_says_and_one_fewer_cannot_reject() -> None:
    assert [pairs_needed(comparisons, 0.05) for comparisons in (1, 2, 3, 10)] == [6, 7, 7, 9]
    for comparisons, alpha in itertools.product((1, 2, 5, 40), (0.1, 0.05, 0.01)):
        pairs = pairs_needed(comparisons, alpha)
        assert smallest_p_value(pairs) <= alpha / comparisons < smallest_p_value(pairs - 1)


@pytest.mark.parametrize(("pairs", "alpha", "power"), [(5, 0.05, 0.8), (10, 0.05, 0.8), (10, 0.05 / 6, 0.8), (20, 0.01, 0.9)])
def test_the_minimum_detectable_gain_is_found_as_often_as_it_says(pairs: int, alpha: float, power: float) -> None:
    """20,000 experiments drawn with that gain; the share has a standard error below 0.003."""
    sd = 0.7
    gain = minimum_detectable_gain(pairs, sd, alpha=alpha, power=power)
    drawn = np.random.default_rng(5).normal(gain, sd, size=(20_000, pairs))
    t = drawn.mean(axis=1) / stats.sem(drawn, axis=1)
    found = 2 * stats.t.sf(np.abs(t), pairs - 1) <= alpha
    assert found.mean() == pytest.approx(power, abs=0.012)


def test_the_minimum_detectable_gain_scales_with_the_deviation_and_approaches_the_normal_s_for_many_pairs() -> None:
    one = minimum_detectable_gain(10, 1.0, alpha=0.05, power=0.8)
    assert minimum_detectable_gain(10, 2.5, alpha=0.05, power=0.8) == pytest.approx(2.5 * one)
    normal = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / math.sqrt(2000)
    assert minimum_detectable_gain(2000, 1.0, alpha=0.05, power=0.8) == pytest.approx(normal, rel=2e-3)


def test_the_minimum_detectable_gain_of_ten_pairs_is_the_textbooks() -> None:
    """Cohen's tables: 10 pairs at 5 %, two-sided, have 80 % power at an effect of about one deviation (0.996)."""
    assert minimum_detectable_gain(10, 1.0, alpha=0.05, power=0.8) == pytest.approx(0.996, abs=0.002)


def test_one_pair_detects_nothing_and_two_need_a_huge_gain() -> None:
    assert minimum_detectable_gain(1, 1.0, alpha=0.05, power=0.8) == math.inf
    two = minimum_detectable_gain(2, 1.0, alpha=0.05 / 6, power=0.8)
    three = minimum_detectable_gain(3, 1.0, alpha=0.05 / 6, power=0.8)
    assert math.isfinite(two)
    assert two > three > minimum_detectable_gain(4, 1.0, alpha=0.05 / 6, power=0.8)
