"""A few studies of each part of `benchmarks/chances.py`, which simulates twenty thousand."""

from __future__ import annotations

import json
import math
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import chances, chances_pairs
from benchmarks.chances_statistics import (
    Row,
    e_p_values,
    flip_intervals,
    flip_p_values,
    holm,
    t_p_values,
    wealth,
)

STUDIES = 100


def test_the_wealth_of_three_differences_is_that_of_six_gamblers_reckoned_by_hand() -> None:
    units = (1.0, -1.0 / 2.0, 3.0 / math.sqrt((4 + 1) / 2))  # of the differences 2, -1 and 3
    bets = (0.4, -0.4, 0.8, -0.8, 1.6, -1.6)
    factors = [[math.exp(bet * unit) / math.cosh(bet * unit) for unit in units] for bet in bets]
    expected = [fmean(math.prod(each[: end + 1]) for each in factors) for end in range(3)]
    found = wealth(np.array([2.0, -1.0, 3.0]))
    assert found == pytest.approx(expected)
    assert found[0] == pytest.approx(1.0)  # whoever bets on the one sign gains what the other loses
    assert e_p_values(np.array([2.0, -1.0, 3.0])) == pytest.approx(1 / max(expected))


def test_a_difference_of_nothing_and_one_without_a_scale_leave_the_wealth_alone() -> None:
    assert wealth(np.array([0.0, 5.0, 0.0])) == pytest.approx([1.0, 1.0, 1.0])


def test_no_order_of_signs_gains_wealth_on_average() -> None:
    sizes = np.array([3.0, 0.2, 1.0, 7.0, 0.5])
    flips = np.array(list(product((1.0, -1.0), repeat=len(sizes))))
    assert wealth(flips * sizes).mean(0) == pytest.approx(np.ones(len(sizes)))


@pytest.mark.parametrize("pairs", [3, 10, 14, 15])
def test_the_p_value_counts_the_flips_that_are_as_extreme(pairs: int) -> None:
    differences = np.random.default_rng(pairs).integers(-3, 6, pairs).astype(float)  # with ties
    sums = np.array(list(product((1, -1), repeat=pairs))) @ differences
    expected = (np.abs(sums) >= abs(differences.sum())).mean()
    assert float(flip_p_values(differences)) == pytest.approx(expected)


def test_the_interval_ends_where_the_test_begins_to_reject() -> None:
    differences = np.random.default_rng(1).standard_normal((4, 9)) + 0.5
    for alpha, (low, high) in zip((0.05, 0.0125), flip_intervals(differences, (0.05, 0.0125)), strict=True):
        for end, outwards in ((low, -1e-6), (high, 1e-6)):
            assert (flip_p_values(differences - end[:, None] - outwards) <= alpha).all()
            assert (flip_p_values(differences - end[:, None] + outwards) > alpha).all()


def test_too_few_pairs_have_an_interval_without_ends() -> None:
    assert flip_intervals(np.ones(5), [0.05]).tolist() == [[-math.inf, math.inf]]


def test_holm_and_the_t_test_are_those_of_the_books() -> None:
    assert holm(np.array([[0.01, 0.04, 0.03]])).tolist() == [[0.03, 0.06, 0.06]]
    differences = np.random.default_rng(2).standard_normal((5, 8)) + 0.4
    book: Any = stats.ttest_1samp(differences, 0, axis=1)
    assert t_p_values(differences) == pytest.approx(book.pvalue)


@cache
def rows(name: str) -> list[Row]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chances_pairs, "PAIRS", (6, 14))
        return chances.PARTS[name].simulate(STUDIES)


@pytest.mark.parametrize("name", chances.PARTS)
def test_each_part_has_gates_and_a_table(name: str) -> None:
    found = rows(name)
    assert any(row.gates for row in found)
    assert all(row.figures.keys() >= row.gates.keys() for row in found)
    assert chances.table(chances.PARTS[name], found).row_count
    assert json.dumps([chances.record(row) for row in found], allow_nan=False)


def test_many_searches_are_a_sound_test_of_an_arm_and_one_search_is_not() -> None:
    most = stats.binom.ppf(1 - 1e-6, STUDIES, 0.05) / STUDIES
    gated = [row for row in rows("self") if row.gates]
    assert len(gated) == 216
    assert max(row.figures["ten searches"] for row in gated) <= 100 * most
    assert max(row.figures["one search"] for row in gated) > 60


def test_a_missed_gate_is_an_error_and_the_other_parts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missed(_: int) -> list[Row]:
        return [Row({"a": 1}, {"x": 7.0}, {"x": (0.0, 5.5)})]

    monkeypatch.setattr(chances, "KEPT", tmp_path / "chances.json")
    monkeypatch.setattr(chances, "PARTS", {"here": chances.Part("a part", missed, ("a",))})
    monkeypatch.setattr("sys.argv", ["chances", "--json", "--only", "here"])
    chances.KEPT.write_text('{"other": 1}')
    assert chances.main() == 1
    kept = json.loads(chances.KEPT.read_text())
    assert kept["other"] == 1
    assert kept["here"]["missed"] == 1
