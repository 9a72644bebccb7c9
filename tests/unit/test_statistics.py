"""Statistics against SciPy, against counting, and against simulation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as typed_stats

from sweep.errors import NotComparable
from sweep.statistics import (
    across_tasks,
    equivalence_margin,
    gain_so_far,
    holm,
    minimum_detectable_gain,
    paired_comparison,
    pairs_for_gain,
    pairs_needed,
    power,
    sequential_interval,
    sequential_p_value,
    smallest_p_value,
    two_way_standard_error,
)
from sweep.statistics.sign_flip import SignFlip
from sweep.statistics.simulated import gain_found

stats: Any = typed_stats  # its stubs do not know its results' fields
SCORE = st.floats(0, 1)


# families, tasks, images


def by_hand(p_values: list[float]) -> list[float]:
    """Correct by Holm: the k-th smallest times m - k + 1, and never less than a smaller one's."""
    order, adjusted, least = (
        sorted(range(len(p_values)), key=lambda i: p_values[i]),
        [0.0] * len(p_values),
        0.0,
    )
    for k, i in enumerate(order):
        least = max(least, (len(p_values) - k) * p_values[i])
        adjusted[i] = min(1.0, least)
    return adjusted


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 1.0])), max_size=12))
def test_holm_s_correction_is_the_one_by_hand(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(by_hand(p_values), abs=1e-12)


def test_holm_s_correction_rejects_two_of_the_four_in_the_textbook_example() -> None:
    """The p-values are 0.01, 0.04, 0.03 and 0.005, at 5 %.

    0.005 and 0.01 are rejected, at 0.0125 and 0.0167. 0.03 is above 0.025, which ends it.
    """
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.5])
def test_a_p_value_that_is_none_is_named_by_its_place(wrong: float) -> None:
    with pytest.raises(NotComparable, match=rf"p-value 1 \(counted from 0\) is {wrong}"):
        holm([0.5, wrong])


def test_tasks_are_compared_by_wilcoxon_s_test_of_their_gains() -> None:
    gains = {"a": 0.03, "b": -0.01, "c": 0.02, "d": 0.05, "e": 0.004, "f": 0.011}
    found = across_tasks(gains)
    assert (found.tasks, found.wins, found.ties, found.median_gain) == (6, 5, 0, pytest.approx(0.0155))
    assert found.p_value == pytest.approx(float(stats.wilcoxon(list(gains.values()), method="exact").pvalue))


def test_a_task_without_a_difference_is_a_tie_and_no_win_and_the_last_bits_are_no_difference() -> None:
    found = across_tasks({"a": 0.03, "b": 0.0, "c": 1e-17, "d": 0.05, "e": -0.02})
    assert (found.tasks, found.wins, found.ties, found.median_gain) == (5, 2, 2, 0)
    assert found.p_value == pytest.approx(float(stats.wilcoxon([0.03, 0.05, -0.02], method="exact").pvalue))


@pytest.mark.parametrize(
    ("comparisons", "alpha", "needed"), [(1, 0.05, 6), (1, 0.5, 6), (2, 0.05, 7), (5, 0.05, 8), (1, 0.01, 8)]
)
def test_fewer_tasks_than_could_reject_may_claim_nothing_and_never_fewer_than_six(
    comparisons: int, alpha: float, needed: int
) -> None:
    for tasks in (needed - 1, needed):
        gains = {str(i): 0.01 * (i + 1) for i in range(tasks)}
        found = across_tasks(gains, alpha=alpha, comparisons=comparisons)
        assert found.claimable == (tasks == needed)
        assert found.p_value == smallest_p_value(tasks)


def test_a_task_without_a_gain_is_named_and_one_task_is_no_sample() -> None:
    with pytest.raises(NotComparable, match="task 'cifar' has no gain: it is nan"):
        across_tasks({"digits": 0.1, "cifar": math.nan})
    with pytest.raises(NotComparable, match="at least 2; there are 1"):
        across_tasks({"digits": 0.1})


@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(2, 20), st.floats(0.05, 0.95))
def test_the_two_way_error_is_never_below_that_of_the_seeds(
    seed: int, seeds: int, images: int, share: float
) -> None:
    candidate, baseline = np.random.default_rng(seed).random((2, seeds, images)) < share
    by_seed = candidate.mean(1) - baseline.mean(1)
    assert two_way_standard_error(candidate, baseline) >= float(stats.sem(by_seed)) - 1e-12


def test_the_two_way_error_is_the_spread_of_the_gain_when_seeds_and_images_are_drawn_anew() -> None:
    """600 experiments have 8 seeds and 60 images, with an effect of their own on each side.

    The spread's own error is 3 %.
    """
    draw, seeds, images = np.random.default_rng(2), 8, 60
    gains, two_way, by_seeds = [], [], []
    for _ in range(600):
        ease = (
            draw.normal(0, 1, images)
            + draw.normal(0, 1.2, (2, 1, images))
            + draw.normal(0, 0.3, (2, seeds, 1))
        )
        candidate, baseline = ease + draw.normal(0, 2.5, (2, seeds, images)) > 0
        gains.append(candidate.mean() - baseline.mean())
        two_way.append(two_way_standard_error(candidate, baseline) ** 2)
        by_seeds.append(float(stats.sem(candidate.mean(1) - baseline.mean(1))) ** 2)
    spread = float(np.std(gains))
    assert math.sqrt(np.mean(two_way)) == pytest.approx(spread, rel=0.1)
    assert math.sqrt(np.mean(by_seeds)) < 0.8 * spread


def test_one_seed_or_one_image_has_no_two_way_error() -> None:
    assert math.isnan(two_way_standard_error(np.ones((1, 5), bool), np.zeros((1, 5), bool)))
    assert math.isnan(two_way_standard_error(np.ones((5, 1), bool), np.zeros((5, 1), bool)))


# power


@pytest.mark.parametrize(("pairs", "known"), [(7, 0.30), (10, 0.66)])
def test_a_gain_of_one_deviation_is_found_as_often_as_the_design_says(pairs: int, known: float) -> None:
    """The test is by sign flips under Holm's strictest step of two comparisons."""
    assert power(pairs, 1.0, 0.025) == pytest.approx(known, abs=0.015)


@pytest.mark.parametrize(
    ("pairs", "effect", "alpha"), [(3, 2.0, 0.05), (7, 1.0, 0.025), (15, 0.5, 0.05), (15, 0.0, 0.05)]
)
def test_the_power_of_the_t_test_is_the_share_of_simulated_experiments_that_reject(
    pairs: int, effect: float, alpha: float
) -> None:
    drawn = np.random.default_rng(7).normal(effect, 1, (20_000, pairs))
    assert power(pairs, effect, alpha, "paired-t") == pytest.approx(
        (stats.ttest_1samp(drawn, 0, axis=1).pvalue <= alpha).mean(), abs=0.012
    )


def test_overlap_costs_the_resampled_t_test_the_power_of_pairs_that_are_not_independent() -> None:
    """Ten pairs with an overlap of 0.3 have the noncentrality of 2.5 independent ones, at nine degrees."""
    drawn = np.random.default_rng(9).normal(0, 1, (20_000, 10))
    # Both parts are as wide as their variance is said to be.
    spread = 1.0 + (drawn - drawn.mean(1, keepdims=True)) * 2 + drawn.mean(1, keepdims=True) * 2
    assert power(10, 1.0, 0.05, "resampled-t", 0.3) == pytest.approx(
        (stats.ttest_1samp(spread, 0, axis=1).pvalue <= 0.05).mean(), abs=0.012
    )
    assert power(10, 1.0, 0.05, "resampled-t") == power(10, 1.0, 0.05, "paired-t")


def test_sign_flips_never_reject_too_few_pairs_and_a_true_null_as_often_as_they_have_p_values() -> None:
    assert power(1, 9.0, 0.5) == power(5, 9.0, 0.05) == 0
    assert power(6, 50.0, 0.05) == 1
    # 12 of 256 flips are the most that 5 % hold.
    assert power(8, 0.0, 0.05) == pytest.approx(12 / 256, abs=0.014)


# looking on, and planning


@given(st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=30))
def test_a_gain_is_the_mean_of_the_differences_and_its_error_is_scipy_s(
    pairs: list[tuple[float, float]],
) -> None:
    candidate, baseline = map(list, zip(*pairs, strict=True))
    gain = gain_so_far(candidate, baseline)
    differences = [a - b for a, b in pairs]
    assert gain.pairs == len(pairs)
    assert gain.mean == pytest.approx(math.fsum(differences) / len(pairs), abs=1e-12)
    assert gain.standard_error == pytest.approx(float(stats.sem(differences)), abs=1e-12)


def test_only_pairs_of_which_both_halves_are_there_count() -> None:
    nan = math.nan
    assert gain_so_far([0.5, nan, 0.75, 0.25], [0.25, 0.5, nan, 0.25]) == gain_so_far(
        [0.5, 0.25], [0.25, 0.25]
    )
    assert gain_so_far([0.5, nan], [0.25, 0.5]).mean == 0.25


def test_overlapping_splits_make_the_error_of_a_gain_the_corrected_one() -> None:
    candidate, baseline = [0.5, 0.7, 0.4, 0.9], [0.4, 0.65, 0.5, 0.7]
    found = paired_comparison(candidate, baseline, test="resampled-t", overlap=0.25)
    assert gain_so_far(candidate, baseline, overlap=0.25).standard_error == pytest.approx(
        found.standard_error
    )
    assert gain_so_far(candidate, baseline).standard_error == pytest.approx(
        found.standard_error / math.sqrt(2)
    )


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
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=pairs)
    ]
    assert smallest_p_value(pairs) == sum(value >= differences.sum() - 1e-9 for value in sums) / 2**pairs


def test_so_many_pairs_are_needed_as_the_design_says_and_one_fewer_cannot_reject() -> None:
    assert [pairs_needed(comparisons, 0.05) for comparisons in (1, 2, 3, 10)] == [6, 7, 7, 9]
    for comparisons, alpha in itertools.product((1, 2, 5, 40), (0.1, 0.05, 0.01)):
        pairs = pairs_needed(comparisons, alpha)
        assert smallest_p_value(pairs) <= alpha / comparisons < smallest_p_value(pairs - 1)


@pytest.mark.parametrize(
    ("pairs", "alpha", "power"), [(5, 0.05, 0.8), (10, 0.05, 0.8), (10, 0.05 / 6, 0.8), (20, 0.01, 0.9)]
)
def test_the_minimum_detectable_gain_of_a_t_test_is_found_as_often_as_it_says(
    pairs: int, alpha: float, power: float
) -> None:
    """20,000 experiments are drawn with that gain; the share's standard error is below 0.003."""
    sd = 0.7
    gain = minimum_detectable_gain(pairs, sd, alpha=alpha, power=power, test="paired-t")
    drawn = np.random.default_rng(5).normal(gain, sd, size=(20_000, pairs))
    t = drawn.mean(axis=1) / stats.sem(drawn, axis=1)
    found = 2 * stats.t.sf(np.abs(t), pairs - 1) <= alpha
    assert found.mean() == pytest.approx(power, abs=0.012)


def test_the_minimum_detectable_gain_scales_with_the_deviation_and_nears_the_normal_s() -> None:
    one = minimum_detectable_gain(10, 1.0, alpha=0.05, power=0.8)
    assert minimum_detectable_gain(10, 2.5, alpha=0.05, power=0.8) == pytest.approx(2.5 * one)
    normal = float(stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / math.sqrt(2000)
    assert minimum_detectable_gain(2000, 1.0, alpha=0.05, power=0.8) == pytest.approx(normal, rel=2e-3)


def test_the_minimum_detectable_gain_of_ten_pairs_is_the_textbooks() -> None:
    """Cohen's tables give 10 pairs at 5 %, two-sided, 80 % power at an effect of 0.996 deviations."""
    assert minimum_detectable_gain(10, 1.0, alpha=0.05, power=0.8, test="paired-t") == pytest.approx(
        0.996, abs=0.002
    )


def test_one_pair_detects_nothing_and_two_need_a_huge_gain_for_a_t_test() -> None:
    assert minimum_detectable_gain(1, 1.0, alpha=0.05, power=0.8, test="paired-t") == math.inf
    two, three, four = (
        minimum_detectable_gain(n, 1.0, alpha=0.05 / 6, power=0.8, test="paired-t") for n in (2, 3, 4)
    )
    assert math.isfinite(two)
    assert two > three > four


def flips_reject(differences: np.ndarray, alpha: float) -> np.ndarray:
    """Whether sign flips reject in each study, by the sums of all sign patterns."""
    signs = np.array(list(itertools.product((1, -1), repeat=differences.shape[1])))
    sums = np.abs(differences @ signs.T)
    return (sums >= np.abs(differences.sum(1))[:, None] * (1 - 1e-12)).mean(1) <= alpha


@pytest.mark.parametrize(("pairs", "alpha"), [(6, 0.05), (7, 0.05 / 3), (9, 0.025), (11, 0.05)])
def test_sign_flips_find_the_minimum_detectable_gain_as_often_as_it_says(pairs: int, alpha: float) -> None:
    """10,000 other studies are drawn with that gain; the two shares' errors are 0.004 and 0.003."""
    gain = minimum_detectable_gain(pairs, 0.7, alpha=alpha, power=0.8)
    drawn = np.random.default_rng(12).normal(gain, 0.7, (10_000, pairs))
    found = flips_reject(drawn, alpha).mean()
    assert found == pytest.approx(0.8, abs=0.015)
    assert power(pairs, gain / 0.7, alpha) == pytest.approx(0.8, abs=2e-3)


def test_six_pairs_find_a_gain_only_where_all_differences_are_positive() -> None:
    """The detectable gain is then known: all six are positive with 80 % at the quantile of 0.8^(1/6)."""
    known = float(stats.norm.ppf(0.8 ** (1 / 6)))
    assert minimum_detectable_gain(6, 1.0, alpha=0.05, power=0.8) == pytest.approx(known, rel=0.02)
    for effect in (0.0, 0.5, 1.5):
        exact = float(stats.norm.cdf(effect) ** 6 + stats.norm.cdf(-effect) ** 6)
        assert power(6, effect, 0.05) == pytest.approx(
            exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000)
        )


def test_too_few_pairs_detect_nothing_however_large_the_gain() -> None:
    assert minimum_detectable_gain(5, 1.0, alpha=0.05, power=0.8) == math.inf
    assert minimum_detectable_gain(6, 1.0, alpha=0.05 / 2, power=0.8) == math.inf
    assert minimum_detectable_gain(5, 0.0, alpha=0.05, power=0.8) == math.inf
    assert minimum_detectable_gain(6, 0.0, alpha=0.05, power=0.8) == 0


def test_the_subsets_counted_by_halves_are_those_of_the_test_up_to_twenty_pairs() -> None:
    draw = np.random.default_rng(3)
    for pairs in (2, 5, 13, 20):
        differences = draw.normal(0.5, 1, (8, pairs))
        by_test = [SignFlip(row) for row in differences]
        for alpha in (0.01, 0.05, 0.3):
            expected = [flips.p_value <= alpha and flips.total > 0 for flips in by_test]
            assert gain_found(differences, alpha).tolist() == expected


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_the_minimum_detectable_gain_of_overlapping_splits_has_that_power(overlap: float) -> None:
    gain = minimum_detectable_gain(10, 1.0, alpha=0.05, power=0.8, test="resampled-t", overlap=overlap)
    assert power(10, gain, 0.05, "resampled-t", overlap) == pytest.approx(0.8)


# the margin


@pytest.mark.parametrize(("test", "overlap"), [("sign-flip", 0.0), ("paired-t", 0.0), ("resampled-t", 0.25)])
def test_the_margin_holds_the_interval_of_three_in_four_studies_without_a_gain(
    test: Any, overlap: float
) -> None:
    """2,000 studies of eight pairs; the error of the share is 0.01."""
    drawn = np.random.default_rng(14).normal(0, 1, (2_000, 8))
    # The mean varies as much as the corrected test assumes.
    drawn += drawn.mean(1, keepdims=True) * (math.sqrt(1 + 8 * overlap) - 1)
    margin = equivalence_margin(8, alpha=0.1, test=test, overlap=overlap)
    within = 0
    for row in drawn:
        found = paired_comparison(row, np.zeros(8), alpha=0.1, test=test, overlap=overlap)
        within += -margin <= found.ci_low and found.ci_high <= margin
    assert within / 2_000 == pytest.approx(0.75, abs=0.035)


def test_more_pairs_and_a_smaller_chance_allow_a_narrower_margin_and_too_few_allow_none() -> None:
    assert equivalence_margin(5, alpha=0.05) == equivalence_margin(1, alpha=0.5, test="paired-t") == math.inf
    eight, twelve, forty = (equivalence_margin(n, alpha=0.05) for n in (8, 12, 40))
    assert eight > twelve > forty > equivalence_margin(40, alpha=0.05, chance=0.5)
    assert forty == equivalence_margin(40, alpha=0.05, test="paired-t")


# pairs for a gain


@pytest.mark.parametrize(
    ("gain", "sd", "test"), [(1.0, 1.0, "sign-flip"), (0.9, 0.5, "sign-flip"), (0.6, 1.0, "paired-t")]
)
def test_so_many_pairs_find_a_gain_and_one_fewer_does_not(gain: float, sd: float, test: Any) -> None:
    pairs = pairs_for_gain(gain, sd, alpha=0.05, power=0.8, test=test)
    assert pairs is not None
    assert power(pairs, gain / sd, 0.05, test) >= 0.8
    assert all(power(fewer, gain / sd, 0.05, test) < 0.8 for fewer in range(2, pairs))


def test_a_gain_that_the_most_pairs_do_not_find_has_no_number_of_them() -> None:
    assert pairs_for_gain(0.1, 1.0, alpha=0.05, power=0.8, test="paired-t") is None
    needed = pairs_for_gain(0.1, 1.0, alpha=0.05, power=0.8, most=2_000)
    assert needed == 787  # Cohen's (1.960 + 0.842)^2 / 0.1^2, and two for the t distribution
    assert pairs_for_gain(0.0, 1.0, alpha=0.05, power=0.8) is None
    assert pairs_for_gain(1.0, 1.0, alpha=0.05, power=0.8, most=5) is None


def test_without_a_deviation_as_many_pairs_are_needed_as_can_reject() -> None:
    assert pairs_for_gain(0.01, 0.0, alpha=0.05, power=0.8) == pairs_needed(1, 0.05)
    assert pairs_for_gain(0.0, 0.0, alpha=0.05, power=0.8) is None


def test_the_power_of_looks_at_any_time_is_that_of_the_test_on_simulated_studies() -> None:
    rng = np.random.default_rng(11)
    found = [sequential_p_value(rng.standard_normal(12) + 1.0) <= 0.05 for _ in range(800)]
    assert power(12, 1.0, 0.05, "any") == pytest.approx(np.mean(found), abs=0.05)
    gain = minimum_detectable_gain(12, 2.0, alpha=0.05, power=0.8, test="any")
    assert power(12, gain / 2.0, 0.05, "any") == pytest.approx(0.8, abs=0.005)
    assert minimum_detectable_gain(5, 1.0, alpha=0.01, power=0.8, test="any") == math.inf


def test_the_margin_of_looks_at_any_time_is_that_of_their_wider_interval() -> None:
    margin = equivalence_margin(16, alpha=0.05, test="any")
    assert margin > 1.2 * equivalence_margin(16, alpha=0.05)
    rng = np.random.default_rng(3)
    intervals = [sequential_interval(rng.standard_normal(16), 0.05) for _ in range(300)]
    inside = [-margin < low and high < margin for low, high in intervals]
    assert np.mean(inside) == pytest.approx(0.75, abs=0.08)
