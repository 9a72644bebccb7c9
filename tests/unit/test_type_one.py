"""A few studies of the whole procedure under the null; `benchmarks/type_one.py` plays two thousand."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest

from benchmarks.type_one import Found, band, expected, found
from benchmarks.type_one_self import HARD, SEARCHES, claims

STUDIES = 60


@pytest.fixture(scope="module")
def each() -> list[Found]:
    return [found(seed) for seed in range(1, STUDIES + 1)]


def test_where_there_is_no_gain_the_procedure_finds_one_no_more_often_than_alpha_allows(
    each: list[Found],
) -> None:
    assert fmean(it.family for it in each) <= band(0.05, STUDIES)[1]
    assert sum(it.any_arm for it in each) > sum(it.family for it in each)


def test_the_luck_of_the_search_is_in_its_own_scores_and_not_in_the_confirmation(each: list[Found]) -> None:
    def errors_from_zero(gains: list[float]) -> float:
        return fmean(gains) / (stdev(gains) / math.sqrt(STUDIES))

    assert errors_from_zero([it.searched_gain for it in each]) > 5
    assert abs(errors_from_zero([it.confirmed_gain for it in each])) < 3


def test_one_comparison_of_independent_noise_rejects_as_often_as_its_p_values_allow() -> None:
    """50 of 1,024 flips of ten pairs are the most that 5 % hold.

    One arm at two endpoints halves alpha, which holds 24.
    """
    assert expected(10, 1, 0.05) == pytest.approx(1 - (1 - 24 / 1024) ** 2, abs=0.003)


def test_an_arm_that_is_held_against_itself_differs_in_single_picks_and_not_over_several_searches() -> None:
    studies = range(1, 31)
    assert sum(claims(HARD[0], SEARCHES, seed) for seed in studies) <= 5
    assert sum(claims(HARD[0], 1, seed) for seed in studies) >= 10
