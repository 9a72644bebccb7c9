"""Tuning curves against the enumeration of every draw."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.errors import NotComparable
from sweep.statistics import tuning_curve

CANDIDATES = st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9)), min_size=1, max_size=5)


@settings(max_examples=50)
@given(CANDIDATES, st.integers(1, 4))
def test_the_curve_is_that_of_every_draw_with_replacement(
    candidates: list[tuple[int, int]], budget: int
) -> None:
    order, values = zip(*candidates, strict=True)
    picks = [
        values[min(drawn, key=lambda i: (-order[i], i))]
        for drawn in itertools.product(range(len(order)), repeat=budget)
    ]
    [(mean, deviation)] = tuning_curve(order, values, [budget])
    assert mean == pytest.approx(float(np.mean(picks)))
    assert deviation == pytest.approx(float(np.std(picks)), abs=1e-9)


def test_one_candidate_is_worth_the_mean_and_very_many_the_best_and_a_diverged_one_is_picked_last() -> None:
    order, values = [0.2, 0.9, -math.inf, 0.5], [0.3, 0.8, 0.1, 0.6]
    one, many = tuning_curve(order, values, [1, 1_000])
    assert one == pytest.approx((np.mean(values), np.std(values)))
    assert many == pytest.approx((0.8, 0.0))


@pytest.mark.parametrize(
    ("order", "values", "said"),
    [
        ([1.0], [1.0, 2.0], r"shapes \(1,\) and \(2,\)"),
        ([], [], r"shapes \(0,\)"),
        ([1.0, math.nan], [1.0, 2.0], "is missing"),
        ([1.0, 2.0], [1.0, math.nan], "is missing"),
    ],
)
def test_candidates_without_a_score_or_a_worth_have_no_curve(
    order: list[float], values: list[float], said: str
) -> None:
    with pytest.raises(NotComparable, match=said):
        tuning_curve(order, values, [1])
