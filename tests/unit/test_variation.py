"""Limits of shares and deviations against SciPy, a textbook's numbers, and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as typed_stats

from sweep.errors import NotComparable
from sweep.statistics import components, failure_limits, upper_deviation

stats: Any = typed_stats  # its stubs do not know its results' fields


@pytest.mark.parametrize(("failures", "runs"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (117, 1_000)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_limits_of_a_share_of_failures_are_scipy_s(failures: int, runs: int, alpha: float) -> None:
    interval = stats.binomtest(failures, runs).proportion_ci(1 - alpha, method="exact")
    assert failure_limits(failures, runs, alpha) == pytest.approx((interval.low, interval.high))


def test_without_runs_nothing_is_known_and_no_failure_in_three_hundred_is_the_rule_of_three() -> None:
    assert failure_limits(0, 0) == (0, 1)
    assert failure_limits(0, 300, alpha=0.1)[1] == pytest.approx(3 / 300, rel=0.01)


def test_the_upper_limit_of_a_deviation_is_above_the_true_one_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).normal(0, 2, (4_000, 6))
    limits = np.array([upper_deviation(float(row.std(ddof=1)), 6) for row in drawn])
    assert (limits > 2).mean() == pytest.approx(0.8, abs=0.02)
    assert upper_deviation(1.0, 6, 0.95) == pytest.approx(math.sqrt(5 / stats.chi2.ppf(0.05, 5)))
    assert upper_deviation(1.0, 1) == math.inf


def test_the_components_are_those_of_the_analysis_of_variance() -> None:
    """The mean squares are SciPy's: F is their ratio, and the pooled variance is the one within."""
    draw = np.random.default_rng(5)
    table = draw.normal(0, 1, (6, 1)) + draw.normal(0, 0.5, (6, 4))
    found = components(table)
    within = float(table.var(1, ddof=1).mean())
    between = float(stats.f_oneway(*table).statistic) * within
    assert found.seed_sd == pytest.approx(math.sqrt(within))
    assert found.search_sd == pytest.approx(math.sqrt((between - within) / 4))
    limits = [math.sqrt(18 * within / stats.chi2.ppf(share, 18)) for share in (0.975, 0.025)]
    assert [found.seed_low, found.seed_high] == pytest.approx(limits)
    assert found.search_low < found.search_sd < found.search_high


def test_the_limit_of_the_searches_leaves_0_exactly_where_the_f_test_rejects() -> None:
    draw = np.random.default_rng(6)
    for _ in range(40):
        table = draw.normal(0, 0.6, (5, 1)) + draw.normal(0, 1, (5, 6))
        rejects = float(stats.f_oneway(*table).pvalue) < 0.1 / 2
        assert (components(table, alpha=0.1).search_low > 0) == rejects


@pytest.mark.parametrize("search_sd", [0.0, 0.3, 1.0, 4.0])
def test_the_limits_of_both_deviations_hold_the_true_ones_as_often_as_they_say(search_sd: float) -> None:
    """2,000 tables of five searches by four seeds; the error of the share is 0.007.

    Where the searches do not differ, only the upper limit can miss.
    """
    draw, tables = np.random.default_rng(7), 2_000
    held = np.zeros((tables, 2), bool)
    for i in range(tables):
        found = components(draw.normal(0, search_sd, (5, 1)) + draw.normal(0, 1, (5, 4)), alpha=0.1)
        held[i] = (
            found.search_low <= search_sd <= found.search_high,
            found.seed_low <= 1 <= found.seed_high,
        )
    search, seed = held.mean(0)
    assert seed == pytest.approx(0.9, abs=0.022)
    assert search >= 0.9 - 0.022
    assert search <= (1 if search_sd < 1 else 0.93)


def test_searches_that_do_not_differ_and_seeds_that_do_not_have_a_deviation_of_0() -> None:
    seeds_alone = components(np.array([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]]))
    assert (seeds_alone.search_sd, seeds_alone.search_low, seeds_alone.search_high) == (0, 0, 0)
    searches_alone = components(np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]))
    assert (searches_alone.seed_sd, searches_alone.seed_low, searches_alone.seed_high) == (0, 0, 0)
    spread = math.sqrt(7 / 3)
    assert searches_alone.search_sd == pytest.approx(spread)
    assert searches_alone.search_high == pytest.approx(spread * math.sqrt(2 / stats.chi2.ppf(0.025, 2)))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (np.ones((1, 4)), "there are 1 by 4"),
        (np.ones((4, 1)), "there are 4 by 1"),
        (np.ones(4), "there are 4"),
        (np.array([[1.0, 2.0], [math.nan, 1.0]]), "every seed of every search"),
    ],
)
def test_a_table_without_two_of_each_has_no_components(table: np.ndarray, said: str) -> None:
    with pytest.raises(NotComparable, match=said):
        components(table)
